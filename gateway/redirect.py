"""Plain HTTP on ``tls.redirect_port``: ACME's proofs, and redirects to https.

Nothing else is answered here, and no key is looked at: a key that was sent this way was readable by
everybody on the way. Clients are redirected only to names that are ours, or an attacker could make
them ask for any name and send them there. Ours are the names in the certificate, those it is going
to be for (``tls.acme.domains``), ``allowed_hosts``, and the very address that was asked.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote

from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.api.probes import AcmeChallenges
from gateway.config.settings import Settings
from gateway.errors import BadRequest, GatewayError
from gateway.http.answer_headers import EVERY_ANSWER
from gateway.http.hosts import Hosts, address_in
from gateway.http.tls_state import TlsState
from gateway.names import parse_name
from gateway.pipeline.reading import leave_expect
from gateway.proxy.routes import without_key
from gateway.proxy.targets import check_path

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(?::\d{1,5})?")
#: A target of RFC 3986's characters only: others have no place in a header.
TARGET = re.compile(r"/[!#-;=?-\[\]_a-z~%]*")


def build_redirect(settings: Settings, tls: TlsState, https_port: int) -> web.Application:
    """Return the application of that one port. ``https_port``: where clients are sent."""
    app = web.Application(client_max_size=1024, middlewares=[_plain_paths])
    proofs = AcmeChallenges(tls, settings.public_dir)
    hosts = Hosts(settings)
    ordered = settings.tls.acme.domains if settings.tls.acme is not None else ()
    suffix = "" if https_port == 443 else f":{https_port}"

    async def challenge(request: web.Request) -> web.StreamResponse:
        try:
            return await proofs.acme_challenge(request)
        except GatewayError as error:
            return _text(error.status, "there is no such challenge")

    async def redirect(request: web.Request) -> web.Response:
        host = host_of(request.headers.getall("Host", []))
        if host is None or not TARGET.fullmatch(request.raw_path):
            return _text(400, "this is not a request that can be led to https")
        plain = host.strip("[]")
        ours = plain in ordered or tls.named(plain) or hosts.lists(plain) or _asked(request, plain)
        if not ours:
            return _text(421, "this server is not called that: ask for it by a name that it has")
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


@web.middleware
async def _plain_paths(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        check_path(request.rel_url.raw_path)
    except BadRequest as error:
        return _text(400, error.message)
    return await handler(request)


def host_of(given: list[str]) -> str | None:
    """Return the host to send a client to: the one it asked for, if that is a valid host."""
    match = _HOST.fullmatch(given[0]) if len(given) == 1 else None
    if match is None:
        return None
    try:
        if match[1].startswith("["):
            return f"[{ipaddress.IPv6Address(match[1][1:-1])}]"
        return str(parse_name(match[1]))
    except ValueError:
        return None


def _asked(request: web.Request, host: str) -> bool:
    """Return whether ``host`` is the address that the request came to."""
    transport, address = request.transport, address_in(host)
    if transport is None or address is None:
        return False
    own = transport.get_extra_info("sockname")
    return isinstance(own, tuple) and address == address_in(str(own[0]))


def _without_key(target: str) -> str:
    """Return a target whose query has no ``authKey``: a Location ends up in histories and logs."""
    path, mark, query = target.partition("?")
    if not mark or "authkey" not in unquote(query).lower():
        return target
    kept = without_key(query)
    return f"{path}?{kept}" if kept else path


def _text(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=f"{text}\n", headers=headers)
