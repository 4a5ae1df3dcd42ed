"""The HTTP/1.1 client towards llama-server: pooled, callback-driven, over Unix sockets and TCP.

It stands below both of its users: a backend asks its child for /health, the proxy relays. What
HTTP says is apart from sockets: ``request`` writes, ``reader`` reads (with ``chunks`` and
``head_cache``, which spare it the parser), both pure. ``connection`` owns a transport, ``exchange``
is one request and its answer, ``pool`` owns the connections and decides which is used again.
"""

from gateway.upstream.address import TcpAddress, UnixAddress
from gateway.upstream.answer import ResponseHead, ResponseSink
from gateway.upstream.chunks import ChunkForwarder
from gateway.upstream.errors import (
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    EventTooLong,
    HeadTimeout,
    ProtocolError,
    SinkFailed,
    UploadFailed,
    UpstreamError,
)
from gateway.upstream.exchange import Exchange
from gateway.upstream.fetched import MAX_BODY, Fetched
from gateway.upstream.pool import Upstream, UpstreamPool
from gateway.upstream.request import UpstreamRequest
from gateway.upstream.retry import may_retry

__all__ = [
    "MAX_BODY",
    "ChunkForwarder",
    "ConnectFailed",
    "ConnectTimeout",
    "ConnectionLost",
    "EventTooLong",
    "Exchange",
    "Fetched",
    "HeadTimeout",
    "ProtocolError",
    "ResponseHead",
    "ResponseSink",
    "SinkFailed",
    "TcpAddress",
    "UnixAddress",
    "UploadFailed",
    "Upstream",
    "UpstreamError",
    "UpstreamPool",
    "UpstreamRequest",
    "may_retry",
]
