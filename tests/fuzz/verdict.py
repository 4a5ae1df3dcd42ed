"""Which answers are wrong."""

from __future__ import annotations

import re
from typing import Final

from tests.fuzz.sending import Answer, Request

#: Answers of 500 and more that are right, by status and code, and why.
RIGHT: Final = {
    (501, "not_supported_error"): "what a llama-server must be started with, to administrators",
    (503, "queue_full"): "more wait than limits.queue_size",
    (503, "queue_timeout"): "no slot within limits.queue_timeout",
    (503, "too_many_connections"): "limits.connections_per_address: all of this comes from one",
    (503, "bodies_too_many"): "more large bodies wait to be looked through than may",
}
#: How a stream says that it broke.
_BROKEN: Final = re.compile(rb'"code"\s*:\s*"(backend_(?:died|error|timeout)|internal_error)"')


def wrong(request: Request, answer: Answer) -> str:
    """What is wrong with an answer, in words that are the same for all of one kind; "": nothing."""
    route = request.head.split(b" ", 2)[1:2]
    where = re.split(rb"[?%]", route[0])[0][:60].decode("latin-1") if route else ""
    if answer.status >= 500:
        if (answer.status, answer.code) in RIGHT or (where == "/ready" and answer.status == 503):
            return ""
        return f"{answer.status} {answer.code} from {where}"
    if answer.status == -1 and request.door != "tls-raw":
        return f"no HTTP from {where}"
    if answer.status == 200 and (found := _BROKEN.search(answer.body)):
        return f"a stream that broke ({found[1].decode()}) from {where}"
    return ""
