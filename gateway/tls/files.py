"""Writes keys and certificates atomically, with permissions for their owner only."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_whole(path: Path, data: bytes, *, secret: bool = False) -> None:
    """Write all of the file or nothing. A secret file is never readable by others."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    mode = 0o600 if secret else 0o644
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
