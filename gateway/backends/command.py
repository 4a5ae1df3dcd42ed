"""A :class:`LocalModel` -> the argument list and environment of its llama-server. Starts nothing.

Flags are spelled the way every llama.cpp build of the last years understands. What new builds
took away (``--mlock``, ``--no-mmap``) or old ones lack (``--no-jinja``) goes through
``LLAMA_ARG_*`` variables instead: a build ignores the ones that it doesn't know, where an
unknown flag would end it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from gateway.errors import LoadFailed
from gateway.models.local_model import LocalModel, Params
from gateway.models.paths import package_folders, resolve_model_path

#: Variables that no child inherits: flags of llama-server that someone set for another purpose, the
#: gateway's own variables (one may be a TLS passphrase), and what systemd means for the gateway's
#: process only (sd_notify(3), sd_listen_fds(3)).
_SCRUBBED = re.compile(
    r"(LLAMA_|AIP_|LLM_GATEWAY_|WATCHDOG_|LISTEN_).*|NOTIFY_SOCKET", re.IGNORECASE
)
#: Field of :class:`Params` -> the flag that takes its value as it is.
_PLAIN_FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "ctx_size": "--ctx-size",
        "batch_size": "--batch-size",
        "threads": "--threads",
        "threads_batch": "--threads-batch",
        "gpu_layers": "--n-gpu-layers",
        "temperature": "--temp",
        "repeat_penalty": "--repeat-penalty",
        "top_k": "--top-k",
        "top_p": "--top-p",
        "seed": "--seed",
        "grammar": "--grammar",
    }
)
#: Key in models.json -> the flag that takes the file.
_FILE_FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "params.grammarFile": "--grammar-file",
        "mmproj": "--mmproj",
        "draftModel": "--model-draft",
    }
)
#: Defaults for a child's environment, below the gateway's own environment and ``env`` of the model.
#: glibc gives every thread a heap of its own, and each of llama-server's HTTP threads keeps in its
#: heap what one large body took (29 MB for 480 KB at ``/tokenize``). Two heaps are enough for
#: threads that wait for one queue (mallopt(3), M_ARENA_MAX; other C libraries ignore it).
_DEFAULTS: Mapping[str, str] = MappingProxyType({"MALLOC_ARENA_MAX": "2"})


#: The variable by which a llama-server keeps metrics: its ``--metrics``.
METRICS = "LLAMA_ARG_ENDPOINT_METRICS"


@dataclass(frozen=True, slots=True)
class Command:
    """The command line of a child, with ``env``, which is its whole environment.

    ``env`` may hold secrets of the user's (``HF_TOKEN``), so it stays out of the repr.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)


def build_command(
    spec: LocalModel,
    *,
    program: Sequence[str],
    socket: str,
    llm_storage: Path,
    environ: Mapping[str, str],
    devices: Sequence[str] = (),
    variables: Mapping[str, str] = MappingProxyType({}),
    slot_saves: Path | None = None,
    metrics: bool = False,
) -> Command:
    """Return the command that serves ``spec`` on the Unix socket ``socket`` (must end in
    ``.sock``).

    ``devices``: the GPUs to use, by llama-server's names; without, as it likes. ``variables``: to
    be set beside those of ``spec``, which win. ``slot_saves``: the folder that slots are saved in;
    ``metrics``: it keeps metrics of its own.
    ``program`` comes from :func:`find_program`. Raises :class:`LoadFailed` where a file of the
    model cannot be named.
    """
    files = model_files(spec, llm_storage)
    argv = [*program, "--model", str(files["params.model"]), "--host", socket]
    argv += ["--alias", spec.name, "--parallel", str(spec.parallel)]
    for name, flag in _PLAIN_FLAGS.items():
        value = getattr(spec.params, name)
        if value is not None and value != "":
            argv += [flag, _text(value)]
    argv += _special_flags(spec.params)
    for key, flag in _FILE_FLAGS.items():
        if key in files:
            argv += [flag, str(files[key])]
    if spec.template:
        argv += ["--chat-template", spec.template]
    argv += ["--embeddings"] if spec.embeddings else []
    argv += ["--reranking"] if spec.reranking else []
    env = {**_DEFAULTS, **inherited(environ), **_variables(spec)}
    if devices:
        argv += ["--device", ",".join(devices)]
        argv += ["--device-draft", ",".join(devices)] if "draftModel" in files else []
        env["MTMD_BACKEND_DEVICE"] = devices[0]  # the projector would take the first there is
    if slot_saves is not None:
        argv += ["--slot-save-path", str(slot_saves)]
        # What is in a slot would move to memory, where no save reaches it, and which any key's
        # prompt is answered from that begins alike.
        env |= {"LLAMA_ARG_CACHE_RAM": "0", "LLAMA_ARG_CACHE_IDLE_SLOTS": "0"}
    if metrics:
        env[METRICS] = "1"
    argv += spec.extra_args
    env |= {**variables, **spec.env}
    if any("\0" in text for text in (*argv, *env.values())):
        raise LoadFailed(f"{spec.name}: a text in models.json has a NUL character in it")
    return Command(tuple(argv), MappingProxyType(env))


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the part of the gateway's environment that a llama-server may see."""
    return {name: value for name, value in environ.items() if not _SCRUBBED.fullmatch(name)}


def model_files(spec: LocalModel, llm_storage: Path) -> dict[str, Path]:
    """Return every file that ``spec`` names: key in models.json -> path, whether it is there or
    not.

    Raises :class:`LoadFailed` as :func:`resolve_model_path` does.
    """
    references = {
        "params.model": spec.params.model,
        "params.grammarFile": spec.params.grammar_file,
        "mmproj": spec.mmproj,
        "draftModel": spec.draft_model,
    }
    if not spec.params.model:
        raise LoadFailed(f"{spec.name}: params.model is missing")
    return {
        key: resolve_model_path(reference, llm_storage)
        for key, reference in references.items()
        if reference
    }


def _special_flags(params: Params) -> Iterator[str]:
    keep = -1 if params.keep_prompt is True else params.keep_prompt
    if keep is not None and keep is not False:
        yield from ("--keep", str(keep))
    if params.n_predict is not None:
        # -2, "until the context is full", is what a server without a limit does; given as -2,
        # llama-server takes it for a budget that is spent.
        yield from ("--n-predict", str(max(params.n_predict, -1)))
    if params.ignore_eos:
        yield "--ignore-eos"
    if params.numa:
        yield from ("--numa", "distribute" if params.numa is True else params.numa)
    for text in params.reverse_prompt or ():
        yield from ("--reverse-prompt", text)
    for bias in params.logit_biases():
        yield from ("--logit-bias", bias)


def _text(value: object) -> str:
    # llama.cpp keeps these as 32-bit floats: nine digits are all of it, and 0.7 stays "0.7".
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _variables(spec: LocalModel) -> dict[str, str]:
    """Return settings as variables, where no spelling of a flag works with old and new builds
    alike.
    """
    # Streams are kept alive by the gateway, in the way that their clients count on. llama-server's
    # own pings are comments with a blank line behind them, which ends openai-go before 3.50.
    variables = {"LLAMA_ARG_SSE_PING_INTERVAL": "-1"}
    mlock, no_mmap = spec.params.mlock, spec.params.no_mmap
    if mlock or no_mmap:
        mode = "mlock" if mlock and no_mmap else "mmap+mlock" if mlock else "none"
        variables["LLAMA_ARG_LOAD_MODE"] = mode
    if mlock:
        variables["LLAMA_ARG_MLOCK"] = "1"
    if no_mmap:
        variables |= {"LLAMA_ARG_NO_MMAP": "1", "LLAMA_ARG_MMAP": "0"}
    if spec.template:
        # With jinja on, the default of new builds, the template's name would be taken for the
        # template itself, and every prompt would be the word "zephyr".
        variables["LLAMA_ARG_JINJA"] = "0"
    return variables


def find_program(setting: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the llama-server that ``llama_server`` of the configuration means, as start of an
    argv.

    ``auto`` is the one on PATH, else the bundled one of the extra ``demo``; anything with a
    separator in it is a path, and any other word is looked up on PATH. Raises
    :class:`LoadFailed` with what to do about it.
    """
    path = environ.get("PATH", os.defpath)
    if setting == "auto":
        if found := shutil.which("llama-server", path=path):
            return (str(Path(found).absolute()),)
        if package_folders("xllamacpp"):
            return bundled_program()
        raise LoadFailed(
            "no llama-server found: install llama.cpp so that llama-server is on PATH, or set "
            "llama_server in the configuration to its path, or get the bundled one with: "
            "pip install xllamacpp"
        )
    if "/" not in setting and os.sep not in setting and not setting.startswith("~"):
        if found := shutil.which(setting, path=path):
            return (str(Path(found).absolute()),)
        raise _no_program(f"there is no program {setting!r} on PATH")
    try:
        program = Path(setting).expanduser().absolute()
    except RuntimeError as error:
        raise _no_program(f"{setting!r}: {error}") from None
    if not program.is_file():
        raise _no_program(f"there is no file {str(program)!r}")
    if not os.access(program, os.X_OK):
        raise _no_program(f"{str(program)!r} is not executable")
    return (str(program),)


def _no_program(reason: str) -> LoadFailed:
    return LoadFailed("No llama-server can be started.", detail=f"llama_server: {reason}")


def bundled_program() -> tuple[str, ...]:
    """Return the start of an argv for ``bundled.py``.

    It is run by its path and not with ``-m``, so that the child needs no package path to find it.
    ``-P`` keeps the working directory and this folder from shadowing modules that it imports.
    """
    return (sys.executable, "-P", str(Path(__file__).with_name("bundled.py")))
