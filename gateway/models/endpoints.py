"""The address and the key of a remote server, as models.json writes them.

Pure, but for reading a key where it lies.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gateway.names import parse_name

#: The allowed forms of ``url`` and ``key``, for error messages.
URLS = "http://HOST[:PORT][/PATH] or https://..., or a list of those"
KEYS = "the key itself, env:NAME of a variable, or file:PATH (absolute, or from ~)"

_PORTS = {"http": 80, "https": 443}
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a server. ``authority`` is what ``Host`` names."""

    url: str
    tls: bool
    host: str
    port: int
    authority: str
    #: The prefix of ``/chat/completions``, and that of llama-server's routes without /v1.
    api: str
    root: str

    def target(self, path: str) -> str:
        """Return the target there of ``path`` as llama-server has it, with or without /v1."""
        if path.startswith("/v1/"):
            return self.api + path[3:]
        return self.root + path

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this very machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse_endpoint(url: str) -> Endpoint:
    """Return the endpoint of ``url``. Raises ValueError, which doesn't repeat a password in it.

    A url with a path is what OpenAI's clients call the base URL: ``/chat/completions`` is put
    behind it. One without means a server that has its API under /v1, as llama-server does.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("is not a url, or its port is no number from 1 to 65535") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("must begin with http:// or https:// and a host")
    if "@" in parts.netloc:
        raise ValueError("must hold no user and password: a key goes into `key`")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ValueError("must end with the path: no ?query and no #fragment")
    if port == 0:
        raise ValueError("must have a port from 1 to 65535")
    try:
        name = parse_name(parts.hostname)
    except ValueError:
        # Underscores are in no certificate, but in the names of containers.
        if not re.fullmatch(r"[a-z0-9_-]+", parts.hostname):
            raise ValueError("names a host that cannot be one") from None
        name = parts.hostname
    if str(name).startswith("*"):
        raise ValueError("names a host that cannot be one")
    path = parts.path.rstrip("/")
    if not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise ValueError("has a path with characters, or dots, that cannot stand there")
    host = str(name)
    written = f"[{host}]" if ":" in host else host
    authority = written if port in (None, _PORTS[parts.scheme]) else f"{written}:{port}"
    return Endpoint(
        url=f"{parts.scheme}://{authority}{path}",
        tls=parts.scheme == "https",
        host=host,
        port=port or _PORTS[parts.scheme],
        authority=authority,
        api=path or "/v1",
        root=path.removesuffix("/v1"),
    )


def check_key(reference: str) -> str:
    """Return ``reference`` unchanged. Raises ValueError, which doesn't repeat it."""
    kind, colon, rest = reference.partition(":")
    if colon and kind == "env":
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", rest):
            raise ValueError("env: needs the name of an environment variable behind it")
    elif colon and kind == "file":
        if not rest.startswith(("/", "~")) or "\0" in rest:
            raise ValueError("file: needs an absolute path behind it, or one from ~")
    else:
        _check_value(reference)
    return reference


def key_variable(reference: str) -> str | None:
    """Return the environment variable that ``reference`` names, if it names one."""
    kind, colon, rest = reference.partition(":")
    return rest if colon and kind == "env" else None


def read_key(reference: str, environ: Mapping[str, str]) -> str:
    """Return the key that ``reference`` means. Blocks. Raises ValueError, which does
    not repeat it.
    """
    kind, colon, rest = reference.partition(":")
    if colon and kind == "env":
        if not (value := environ.get(rest, "").strip()):
            raise ValueError(f"the environment variable {rest} is not set")
    elif colon and kind == "file":
        try:
            value = Path(rest).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ValueError(f"the file {rest} cannot be read: {reason}") from None
        except UnicodeDecodeError:
            raise ValueError(f"the file {rest} holds no text") from None
        if not value:
            raise ValueError(f"the file {rest} is empty")
    else:
        value = reference
    _check_value(value)
    return value


def _check_value(key: str) -> None:
    # Anything else could end the header that it goes into.
    if not key or not all("!" <= character <= "~" for character in key):
        raise ValueError("a key is printable ASCII without spaces")
