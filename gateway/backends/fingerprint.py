"""The fingerprint of a llama-server: a saved slot fits only one that was started in the same
way.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import takewhile
from pathlib import Path
from typing import Final

from gateway.backends.command import METRICS, Command
from gateway.models.paths import package_folders

#: Flags with a value that don't affect the state of slots: sampling, threads, names.
_WITHOUT_EFFECT: Final = frozenset(
    """--host --alias --slot-save-path --temp --repeat-penalty --top-k --top-p --seed --n-predict
    --grammar --grammar-file --logit-bias --reverse-prompt --threads --threads-batch""".split()
)
#: Bytes that are read at the beginning and at the end of a file.
_READ: Final = 64 * 1024
_VARIABLES: Final = ("LLAMA_", "GGML_")
#: Those of them that don't affect it either, as where its layers are that other machines have.
_OTHER_VARIABLES: Final = frozenset(
    (METRICS, "LLAMA_ARG_CACHE_RAM", "LLAMA_ARG_RPC", "LLAMA_ARG_TENSOR_SPLIT")
)


def fingerprint(command: Command, files: Iterable[Path]) -> str:
    """Return one for the process that ``command`` starts from ``files``. Blocks.

    The program and its libraries count as files do: an upgrade may leave either as it was. Raises
    ``OSError`` for a file that cannot be read.
    """
    found = blake2b(digest_size=16)
    arguments = iter(command.argv)
    for argument in arguments:
        if argument in _WITHOUT_EFFECT:
            next(arguments, None)
        else:
            found.update(b"\0" + os.fsencode(argument))
    for name in sorted(command.env):
        if name.startswith(_VARIABLES) and name not in _OTHER_VARIABLES:
            found.update(f"\1{name}={command.env[name]}".encode("utf-8", "surrogateescape"))
    ours = [value for name, value in command.env.items() if name.startswith(_VARIABLES)]
    named = _named([*command.argv, *ours])
    for file in sorted({*files, *named, *_libraries(command)}):
        if file.is_file():
            found.update(_identity(file))
    return found.hexdigest()


def with_build(fingerprint: str, build: str) -> str:
    """Return one for the same process, which says that its llama-server is ``build``."""
    return blake2b(f"{fingerprint}\0{build}".encode(), digest_size=16).hexdigest()


def _named(texts: Iterable[str]) -> Iterator[Path]:
    """Yield the files that ``texts`` name: the program, adapters (``FILE:SCALE``, or several with
    commas between them), templates. Relative paths start where the gateway, and so its child, runs.
    """
    for text in texts:
        for part in text.split(","):
            for name in (part, part.rpartition(":")[0], part.partition("=")[2]):
                with contextlib.suppress(OSError):  # a text that is longer than any name
                    if name and (file := Path.cwd() / name).is_file():
                        yield file


def _libraries(command: Command) -> list[Path]:
    """Return what lies beside the program, and the package that the bundled one runs."""
    program = takewhile(lambda argument: not argument.startswith("--"), command.argv)
    folders = {Path(part).resolve().parent for part in program if part.startswith("/")}
    folders.update(package_folders("xllamacpp"))
    return [library for folder in folders for library in folder.glob("*.so*")]


def _identity(file: Path) -> bytes:
    with file.open("rb") as stream:
        status = os.fstat(stream.fileno())
        start = stream.read(_READ)
        stream.seek(max(0, status.st_size - _READ))
        end = stream.read(_READ)
    numbers = f"\2{file}\0{status.st_size}\0{status.st_mtime_ns}\0"
    return numbers.encode("utf-8", "surrogateescape") + start + end
