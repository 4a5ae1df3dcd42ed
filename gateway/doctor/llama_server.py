"""Checks the llama-server in use: its version, and whether it knows the flags that it will get."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from gateway.backends.ask_program import ask_program
from gateway.backends.command import build_command, bundled_program
from gateway.backends.flags_known import flags_known
from gateway.backends.program_version import PATIENCE, program_version
from gateway.doctor.checks import Finding, Level, Subject
from gateway.errors import LoadFailed
from gateway.models.local_model import LocalModel, Params

#: Flags we pass that take no value.
_SWITCHES: Final = frozenset({"--embeddings", "--reranking", "--ignore-eos"})
_FLAG: Final = re.compile(r"--?[A-Za-z][\w-]*")
#: An entry for which every flag that we know is passed.
_EVERYTHING: Final = LocalModel(
    name="m",
    params=Params(
        model="m.gguf",
        ctx_size=1,
        batch_size=1,
        threads=1,
        threads_batch=1,
        gpu_layers=1,
        temperature=1,
        repeat_penalty=1,
        top_k=1,
        top_p=1,
        seed=1,
        grammar="g",
        grammar_file="g",
        keep_prompt=True,
        n_predict=1,
        ignore_eos=True,
        numa=True,
        reverse_prompt=("r",),
        logit_bias={"1": 1},
    ),
    mmproj="p.gguf",
    draft_model="d.gguf",
    template="chatml",
    embeddings=True,
    reranking=True,
)


def check_program(subject: Subject) -> Iterator[Finding]:
    """Check which llama-server it is, whether it starts, and its version."""
    name = "llama-server"
    own = subject.catalog.ours
    if subject.no_program is not None:
        if own or not subject.catalog.models:
            yield Finding(name, Level.ERROR, subject.no_program)
        else:
            yield Finding(name, Level.OK, "there is none, and all models are elsewhere")
        return
    version = program_version(subject.program, subject.environ, timeout=PATIENCE)
    if subject.program == bundled_program():
        yield _of_bundled(f"the bundled one, {version.text}", subject.environ)
        return
    program = subject.program[0]
    if version.problem is not None:
        level = Level.WARNING if version.starts else Level.ERROR
        do = "llama_server must lead to a llama-server of llama.cpp, made for this machine"
        yield Finding(name, level, f"{program} {version.problem}", do)
        return
    yield Finding(name, Level.OK, f"version {version.text}, {program}")


def _of_bundled(which: str, environ: Mapping[str, str]) -> Finding:
    """Return whether it starts: a library of the system may be missing that it is linked to."""
    load = (sys.executable, "-P", "-c")
    code, output = ask_program(load, "import xllamacpp", environ, timeout=PATIENCE, errors=True)
    if code == 0:
        return Finding("llama-server", Level.OK, f"{which}, which knows no GPU")
    last = output.decode("utf-8", "replace").strip().rpartition("\n")[2]
    do = "install that library (libgomp.so.1 is in Debian's libgomp1)"
    return Finding("llama-server", Level.ERROR, f"{which}, doesn't start: {last}", do)


def check_flags(subject: Subject) -> Iterator[Finding]:
    """Check whether it knows the flags of the gateway, and those of the entries of models.json."""
    if not subject.program:
        return
    ours = set(own_flags(_argv(_EVERYTHING, subject)))
    known = flags_known(subject.program, subject.environ)
    if not known:
        what = "which flags it knows can't be told: it lists none at --help"
        yield Finding("flags", Level.WARNING, what)
        return
    missing = ours - known
    needed = set[str]()
    for spec in subject.catalog.ours:
        try:
            wanted = {*own_flags(_argv(spec, subject)), *extra_flags(spec)}
        except LoadFailed:
            continue  # said of the model
        if unknown := sorted(wanted - known):
            needed |= set(unknown)
            what = (
                f"this llama-server doesn't know {', '.join(unknown)}, and will not start with it"
            )
            do = "update llama.cpp, or take it out of the entry"
            yield Finding("flags", Level.ERROR, what, do, spec.name)
    if not missing:
        yield Finding("flags", Level.OK, f"all {len(ours)} that the gateway uses are known")
    elif not missing & needed:
        few = ", ".join(sorted(missing))
        what = f"{len(ours - missing)} of {len(ours)} are known; no model needs {few}"
        yield Finding("flags", Level.OK, what)


def own_flags(argv: Sequence[str]) -> Iterator[str]:
    """Return the gateway's own flags on the command line; each except switches has a value."""
    rest = iter(argv)
    for argument in rest:
        if argument.startswith("-"):
            yield argument
            if argument not in _SWITCHES:
                next(rest, None)


def extra_flags(spec: LocalModel) -> Iterator[str]:
    """Yield what looks like a flag in ``extraArgs``; llama.cpp takes ``--a_b`` for ``--a-b``."""
    for argument in spec.extra_args:
        flag = argument.partition("=")[0]
        if _FLAG.fullmatch(flag):
            yield flag.replace("_", "-") if flag.startswith("--") else flag


def _argv(spec: LocalModel, subject: Subject) -> Sequence[str]:
    """Return the arguments that the gateway adds for ``spec``, without ``extraArgs``."""
    command = build_command(
        spec,
        program=(),
        socket="s.sock",
        llm_storage=Path("/"),
        environ={},
        devices=("CPU",) if spec is _EVERYTHING else (),
    )
    return command.argv[: len(command.argv) - len(spec.extra_args)]
