"""The HTTP/1.1 client towards llama-server: pooled, callback-driven, over Unix sockets and TCP.

It stands below both of its users: a backend asks its child for /health, the proxy relays.
"""

from gateway.upstream.answer import (
    ChunkForwarder,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    EventTooLong,
    HeadTimeout,
    ProtocolError,
    ResponseHead,
    ResponseSink,
    SinkFailed,
    UploadFailed,
    UpstreamError,
)
from gateway.upstream.exchange import Exchange
from gateway.upstream.pool import Fetched, TcpAddress, UnixAddress, Upstream, UpstreamPool

__all__ = [
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
]
