"""The plain way to write this proxy: aiohttp server, aiohttp client. Nothing else is done.

Arguments: the port to listen on, and the upstream: a socket's path, or a TCP port.
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp
from aiohttp import web

_PASSED = ("Content-Type", "Accept")


async def main(port: int, upstream: str) -> None:
    connector: aiohttp.BaseConnector
    if upstream.isdecimal():
        connector = aiohttp.TCPConnector(limit=0)
        base = f"http://127.0.0.1:{upstream}"
    else:
        connector = aiohttp.UnixConnector(upstream, limit=0)
        base = "http://llama"
    session = aiohttp.ClientSession(
        connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
    )

    async def handler(request: web.Request) -> web.StreamResponse:
        headers = {name: request.headers[name] for name in _PASSED if name in request.headers}
        body = await request.read()
        async with session.request(
            request.method, base + request.path, headers=headers, data=body
        ) as answer:
            content_type = {"Content-Type": answer.headers["Content-Type"]}
            if answer.content_length is not None:
                return web.Response(
                    status=answer.status, headers=content_type, body=await answer.read()
                )
            response = web.StreamResponse(status=answer.status, headers=content_type)
            await response.prepare(request)
            async for data in answer.content.iter_any():
                await response.write(data)
            await response.write_eof()
            return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    arguments = int(sys.argv[1]), sys.argv[2]
    try:
        import uvloop
    except ImportError:
        asyncio.run(main(*arguments))
    else:
        uvloop.run(main(*arguments))
