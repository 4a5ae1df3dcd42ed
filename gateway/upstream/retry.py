"""Whether a request may be sent again after its exchange broke: the one place that says so.

A request that arrives twice may cost twice. So a streamed body is never sent again, nor is what a
server may be at work on, unless nobody is charged for that and it ends with its connection, as at
a llama-server of our own. Asked by an exchange (its reused connection turns out to be closed), by
the servers of a remote model (is the next one to get it?) and by the proxy.
"""

from __future__ import annotations

from gateway.upstream.errors import UpstreamError


def may_retry(error: UpstreamError, *, body_at_hand: bool, repeatable: bool = False) -> bool:
    """Return whether the request that ended with ``error`` may be sent once more.

    ``body_at_hand``: all of its body can still be sent. ``repeatable``: what a server had begun of
    it has cost nobody anything, and is over.
    """
    return body_at_hand and not error.exhausted and (error.unprocessed or repeatable)
