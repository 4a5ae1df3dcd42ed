"""The program by which llama.cpp lends the devices of a machine to a llama-server on another one.

llama.cpp calls it ``rpc-server``; packages that come with other programs, ``ggml-rpc-server``. It
is looked for beside the llama-server, by whose name it may be called (``llama-server-cuda`` and
``ggml-rpc-server-cuda``): both must be of one build, as what they say to each other changes between
builds. Blocks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.backends.command import bundled_program
from gateway.backends.flags_known import flags_known
from gateway.backends.program_version import program_version

_LLAMA_SERVER: Final = "llama-server"
_NAMES: Final = ("ggml-rpc-server", "rpc-server")


@dataclass(frozen=True, slots=True)
class Rpc:
    """What the llama.cpp of a machine can do for a model that spans machines.

    ``build``: that of llama-server, which is compared; ``leads``: it can use the devices of others;
    ``lends``: it can lend its own. ``problem``: why it can't do one of both.
    """

    build: str | None = None
    leads: bool = False
    lends: bool = False
    problem: str | None = None


#: What is known before anybody has looked.
NO_RPC: Final = Rpc()


def rpc_of(program: Sequence[str], environ: Mapping[str, str]) -> Rpc:
    """Return what the llama-server ``program``, and what is installed beside it, can do."""
    if not program:
        return Rpc(problem="there is no llama-server")
    if tuple(program) == bundled_program():
        return Rpc(problem="the bundled llama-server has no RPC: llama.cpp's own is needed")
    version = program_version(program, environ)
    if version.text is None:
        return Rpc(problem=f"the build of its llama-server is not known: it {version.problem}")
    leads = "--rpc" in flags_known(program, environ)
    lends = find_rpc_server(program) is not None
    problem = None
    if not leads:
        problem = "its llama-server has no --rpc (llama.cpp is built without GGML_RPC)"
    elif not lends:
        problem = f"there is no {' or '.join(_NAMES)} beside its llama-server"
    return Rpc(version.text, leads, lends, problem)


def why_no_help(leads: Rpc, lends: Rpc) -> str | None:
    """Return why one machine can't lend devices to the other; None: it can."""
    if not leads.leads:
        return leads.problem or "the one that would lead is not known to have --rpc"
    if not lends.lends:
        return lends.problem or "the one that would lend is not known to have an rpc-server"
    if leads.build != lends.build:
        return f"their llama.cpp are of different builds ({leads.build} and {lends.build})"
    return None


def find_rpc_server(program: Sequence[str]) -> Path | None:
    """Return the rpc-server that belongs to the llama-server ``program``, if there is one."""
    for path in _candidates(Path(program[0])):
        if path.is_file() and os.access(path, os.X_OK):
            return path
    return None


def _candidates(program: Path) -> Iterator[Path]:
    places = dict.fromkeys((program, program.resolve()))  # a link may lead to where it is built
    for place in places:
        if _LLAMA_SERVER in place.name:
            for name in _NAMES:
                yield place.with_name(place.name.replace(_LLAMA_SERVER, name))
    for place in places:
        for name in _NAMES:
            yield place.with_name(name)
