"""What a saved state of a slot depends on: it fits only a llama-server that was started alike."""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Final

from gateway.backends.command import Command

#: Flags with a value that change no state: sampling, threads, names.
_WITHOUT_EFFECT: Final = frozenset(
    """--host --alias --slot-save-path --temp --repeat-penalty --top-k --top-p --seed --n-predict
    --grammar --grammar-file --logit-bias --reverse-prompt --threads --threads-batch""".split()
)
#: Bytes of a file's beginning and end that are read.
_READ: Final = 64 * 1024
_VARIABLES: Final = ("LLAMA_", "GGML_")


def fingerprint(command: Command, files: Iterable[Path]) -> str:
    """Return one for the process that ``command`` starts from ``files``. Blocks.

    Raises ``OSError`` for a file that cannot be read.
    """
    found = blake2b(digest_size=16)
    arguments = iter(command.argv)
    for argument in arguments:
        if argument in _WITHOUT_EFFECT:
            next(arguments, None)
        else:
            found.update(b"\0" + os.fsencode(argument))
    for name in sorted(command.env):
        if name.startswith(_VARIABLES):
            found.update(f"\1{name}={command.env[name]}".encode("utf-8", "surrogateescape"))
    programs = [Path(argument) for argument in command.argv if argument.startswith("/")]
    for file in sorted({*files, *programs}):
        if file.is_file():
            found.update(_identity(file))
    return found.hexdigest()


def _identity(file: Path) -> bytes:
    with file.open("rb") as stream:
        status = os.fstat(stream.fileno())
        start = stream.read(_READ)
        stream.seek(max(0, status.st_size - _READ))
        end = stream.read(_READ)
    numbers = f"\2{file}\0{status.st_size}\0{status.st_mtime_ns}\0"
    return numbers.encode("utf-8", "surrogateescape") + start + end
