"""Have llama-server save, restore or empty a slot, or answer something short."""

from __future__ import annotations

from typing import Any, Final, Literal

import orjson

from gateway.errors import GatewayError
from gateway.upstream import Upstream, UpstreamRequest

_JSON: Final = b"Content-Type: application/json\r\n"
#: Seconds for a file to be written or read, and so many more for each byte: of a slow disk.
_PATIENCE: Final = 60.0
_PER_BYTE: Final = 1 / 50e6


async def act(
    pool: Upstream,
    slot: int,
    action: Literal["save", "restore", "erase"],
    file: str | None = None,
    size: int = 0,
) -> dict[str, Any]:
    """Return what llama-server says to it; ``problem`` and ``status`` where it couldn't.

    ``size``: bytes of ``file``, as far as they are known.
    """
    try:
        target = f"/slots/{slot}?action={action}"
        body = {} if file is None else {"filename": file}
        request = UpstreamRequest("POST", target, _JSON, orjson.dumps(body))
        fetched = await pool.fetch(request, timeout=_PATIENCE + _PER_BYTE * size)
    except GatewayError as error:
        return {"problem": str(error)[:200]}
    try:
        said = orjson.loads(fetched.body)
    except ValueError:  # an error page, or half an answer
        said = None
    if fetched.status == 200:
        return said if isinstance(said, dict) else {"problem": "no answer that makes sense"}
    return {"problem": _message_of(said) or f"status {fetched.status}", "status": fetched.status}


async def ask(pool: Upstream, path: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Return llama-server's answer; raises ``GatewayError``, or ``ValueError`` for any other."""
    request = UpstreamRequest("POST", path, _JSON, orjson.dumps(body))
    fetched = await pool.fetch(request, timeout=timeout)
    said = orjson.loads(fetched.body)
    if fetched.status != 200 or not isinstance(said, dict):
        raise ValueError(f"status {fetched.status}")
    return said


def _message_of(said: Any) -> str:
    error = said.get("error") if isinstance(said, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return str(said or "" if message is None else message)[:200]


def number(said: dict[str, Any], name: str) -> int:
    """Return what it said of ``name``, or 0."""
    value = said.get(name)
    return value if isinstance(value, int) else 0
