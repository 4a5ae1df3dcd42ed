"""What plain HTTP gets on ``tls.redirect_port``: ACME's proofs, and the way to https.

Nothing else is answered here, and no key is looked at: one that comes this way was readable
to everybody between here and its owner.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote

from aiohttp import web

from gateway.api.context import SETTINGS
from gateway.api.probes import acme_challenge
from gateway.api.reading import leave_expect
from gateway.api.refusals import EVERY_ANSWER
from gateway.api.tls_state import TLS, TlsState
from gateway.config import Settings
from gateway.errors import GatewayError
from gateway.names import parse_name
from gateway.proxy.routes import without_key

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(?::\d{1,5})?")
#: RFC 3986's characters; what else a request line may hold does not belong into a header.
_TARGET = re.compile(r"/[!#-;=?-\[\]_a-z~%]*")


def build_redirect(settings: Settings, tls: TlsState, https_port: int) -> web.Application:
    """The application of that one port. ``https_port``: where clients are sent."""
    app = web.Application(client_max_size=1024)
    app[SETTINGS] = settings
    app[TLS] = tls
    suffix = "" if https_port == 443 else f":{https_port}"

    async def challenge(request: web.Request) -> web.StreamResponse:
        try:
            return await acme_challenge(request)
        except GatewayError as error:
            return _text(error.status, "there is no such challenge")

    async def redirect(request: web.Request) -> web.Response:
        host = _host(request.headers.getall("Host", []))
        if host is None or not _TARGET.fullmatch(request.raw_path):
            return _text(400, "this is not a request that can be led to https")
        target = _without_key(request.raw_path)
        return _text(308, "https only", {"Location": f"https://{host}{suffix}{target}"})

    async def on_prepare(_request: web.BaseRequest, response: web.StreamResponse) -> None:
        response.headers.update(EVERY_ANSWER)
        response.force_close()  # there is nothing to come back for

    app.on_response_prepare.append(on_prepare)
    proof = "/.well-known/acme-challenge/{token}"
    app.router.add_get(proof, challenge, allow_head=False, expect_handler=leave_expect)
    app.router.add_route("*", "/{path:.*}", redirect, expect_handler=leave_expect)
    return app


def _host(given: list[str]) -> str | None:
    """The host to send a client to: the one it asked for, if that can be a host at all."""
    match = _HOST.fullmatch(given[0]) if len(given) == 1 else None
    if match is None:
        return None
    try:
        if match[1].startswith("["):
            return f"[{ipaddress.IPv6Address(match[1][1:-1])}]"
        return str(parse_name(match[1]))
    except ValueError:
        return None


def _without_key(target: str) -> str:
    """A target whose query holds no ``authKey``: a Location ends up in histories and logs."""
    path, mark, query = target.partition("?")
    if not mark or "authkey" not in unquote(query).lower():
        return target
    kept = without_key(query)
    return f"{path}?{kept}" if kept else path


def _text(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=f"{text}\n", headers=headers)
