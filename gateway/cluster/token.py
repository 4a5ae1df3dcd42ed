"""The token of a cluster, by which Ray lets its own machines in. Blocks."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Final

from gateway.errors import BadRequest
from gateway.private_files import make_folder, write_private

_NAME: Final = "token"
#: What Ray takes: it goes out in a header.
_FORM: Final = re.compile(r"[!-~]{16,512}")


def token_file(data_dir: Path) -> Path:
    """Return where the token is, if there is one."""
    return data_dir / "cluster" / _NAME


def make_token(data_dir: Path) -> Path:
    """Return the file with the token, made if there is none yet."""
    file = token_file(data_dir)
    if not file.exists():
        save_token(data_dir, secrets.token_urlsafe(32))
    return file


def save_token(data_dir: Path, text: str) -> Path:
    """Keep the token of a head elsewhere, and return its file. Raises ``BadRequest`` for what is
    none.
    """
    token = text.strip()
    if not _FORM.fullmatch(token):
        raise BadRequest(
            "that is no token of a cluster: `llm-gateway node head` shows it, and on its machine "
            "it is in cluster/token below data_dir"
        )
    file = token_file(data_dir)
    make_folder(file.parent)
    write_private(file, token)
    return file


def known_token(folder: Path) -> Path | None:
    """Return the file with the token, if there is one that can be read. ``folder``: ``cluster`` in
    the data folder.
    """
    file = folder / _NAME
    return file if os.access(file, os.R_OK) else None
