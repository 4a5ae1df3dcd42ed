"""What it costs to look through a body, by its size, and how long others wait meanwhile."""

from __future__ import annotations

import statistics
import time
from typing import NamedTuple

from tests.bench.proxies import GatewayProxy
from tests.heavy_bodies import KINDS, post, probed

_SIZES = {
    "1 KB": 2**10,
    "64 KB": 60 * 2**10,
    "256 KB": 2**18,
    "1 MB": 2**20,
    "16 MB": 2**24,
}
#: What is in a body: a text as it is, one of escapes, and many small values.
_KINDS = ("one text", "escapes", "lists")
_TIMES = 5
_PATH = "/v1/chat/completions"


class Row(NamedTuple):
    """One kind and size: how it was answered, and milliseconds."""

    kind: str
    size: str
    status: int
    took_ms: float  # the median, answer and upstream included
    longest_wait_ms: float  # of /health, asked all the time: the median of the longest


def measure(gateway: GatewayProxy) -> list[Row]:
    """Send each a few times, with the gateway's other work done by nobody."""
    url, key, model = f"http://127.0.0.1:{gateway.port}", gateway.key, gateway.models[0]
    rows = []
    for kind in _KINDS:
        for name, size in _SIZES.items():
            body = KINDS[kind](size).replace(b'"model": "m"', b'"model": "%b"' % model.encode(), 1)
            took, waits, status = [], [], 0
            for _ in range(_TIMES):
                with probed(url) as prober:
                    started = time.perf_counter()
                    status, _answer = post(url, key, _PATH, body)
                    took.append(time.perf_counter() - started)
                waits.append(prober.longest)
            spent, waited = statistics.median(took), statistics.median(waits)
            rows.append(Row(kind, name, status, spent * 1e3, waited * 1e3))
    return rows


def table(rows: list[Row]) -> str:
    """One line each."""
    lines = [f"  {'body':10} {'size':>7} {'status':>6} {'ms':>9} {'others wait, ms':>16}"]
    lines += [
        f"  {row.kind:10} {row.size:>7} {row.status:>6} {row.took_ms:9.1f} "
        f"{row.longest_wait_ms:16.1f}"
        for row in rows
    ]
    return "\n".join(lines)
