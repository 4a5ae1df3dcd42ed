"""``python -m tests.bench``: what the gateway costs, beside other proxies, in one run.

Each proxy is a process of its own before the same scripted llama-server; only the proxy's own
CPU time is counted, so the figures hold on a machine that does other things too. Wall-clock
figures (requests a second, latencies) are shared with the load generator and the upstream.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench import bodies, conversations, profiling, report
from tests.bench.front import FrontProxy
from tests.bench.load import Job
from tests.bench.measuring import Failed, measured
from tests.bench.nodes import GatewayNode, GatewayUrl
from tests.bench.procstat import memory
from tests.bench.proxies import PROXIES, Direct, GatewayProxy, Missing, Proxy, Upstream


@dataclass(frozen=True)
class Plan:
    """How long everything takes, in seconds, and how often it is done."""

    rounds: int
    requests: float
    paced: float
    streams: float
    stream_clients: tuple[int, ...]
    open_streams: float
    starts: int
    everything: bool  # also TLS, and the other proxies with 1,000 open streams


_FULL = Plan(3, 5.0, 4.0, 6.0, (64, 200), 8.0, 5, True)
_QUICK = Plan(1, 1.5, 1.0, 3.0, (200,), 3.0, 1, False)
_CLIENTS = 16
_PACED_RATE = 400.0  # requests a second in all: nobody is busy, so latency is the proxy's own
_EVENT_RATE = 50.0  # events a second of a stream
_OPEN = 1000
_OPEN_RATE = 2.0
_KINDS: tuple[type[Proxy], ...] = (*PROXIES, GatewayUrl, GatewayNode, FrontProxy)
_NAMES = [kind.name.removeprefix("gateway ") for kind in _KINDS]


class Bench:
    """One run of everything."""

    def __init__(self, proxies: list[Proxy], plan: Plan) -> None:
        self.proxies = proxies
        self.plan = plan
        self.figures: report.Figures = {proxy.name: {} for proxy in proxies}
        self.streams = 0  # of the gateway
        self.events = 0
        self.broken: dict[str, int] = {}  # by other proxies
        self.bodies: list[bodies.Row] = []

    def add(self, proxy: Proxy, **values: float) -> None:
        for name, value in values.items():
            self.figures[proxy.name].setdefault(name, []).append(value)

    def job(self, proxy: Proxy, kind: str, **rest: Any) -> Job:
        ours = isinstance(proxy, GatewayProxy)
        fields = {
            "models": proxy.models,
            "key": proxy.key,
            "tls": proxy.tls,
            "entrance": proxy.entrance,
            **rest,
            "strict": ours,
        }
        return Job(kind=kind, port=proxy.port, **fields)

    def run(self) -> None:
        for proxy in self.proxies:
            self.starts(proxy)
        for proxy in self.proxies:
            ours = isinstance(proxy, GatewayProxy)
            if (self.plan.everything or ours) and proxy.opens_many:
                self.open_streams(proxy)
        for number in range(self.plan.rounds):
            for proxy in self.proxies:
                _say(f"round {number + 1} of {self.plan.rounds}: {proxy.name}")
                self.requests(proxy)
                for clients in self.plan.stream_clients:
                    self.chunks(proxy, clients)
        for proxy in self.proxies:
            if not isinstance(proxy, Direct):
                self.add(proxy, peak_mb=memory(proxy.pid)[1])
        for proxy in self.proxies:  # last: a large body leaves its memory behind
            if type(proxy) is GatewayProxy:
                _say(f"bodies by size: {proxy.name}")
                self.bodies = bodies.measure(proxy)

    def starts(self, proxy: Proxy) -> None:
        for number in range(self.plan.starts):
            if number:
                proxy.end()
            took = proxy.start()
            if not isinstance(proxy, Direct):
                self.add(proxy, start_ms=took * 1000)

    def requests(self, proxy: Proxy) -> None:
        job = self.job(proxy, "requests", clients=_CLIENTS, seconds=self.plan.requests, rate=None)
        result = measured(proxy, job)
        self.add(proxy, requests_per_second=result["answers"] / result["seconds"])
        if not isinstance(proxy, Direct):
            self.add(proxy, cpu_request=result["cpu"] / result["answers"] * 1e6)
        job = self.job(
            proxy, "requests", clients=_CLIENTS, seconds=self.plan.paced, rate=_PACED_RATE
        )
        result = measured(proxy, job)
        self.add(proxy, added_p50=result["second"]["p50"], added_p99=result["second"]["p99"])

    def chunks(self, proxy: Proxy, clients: int) -> None:
        job = self.job(
            proxy, "streams", clients=clients, seconds=self.plan.streams, rate=_EVENT_RATE
        )
        result = measured(proxy, job)
        self.count(proxy, result)
        if clients == self.plan.stream_clients[0]:
            first, second = result["first"], result["second"]
            self.add(proxy, ttfb_p50=first["p50"], ttfb_p99=first["p99"])
            self.add(proxy, chunk_p50=second["p50"], chunk_p99=second["p99"])
        if not isinstance(proxy, Direct):
            self.add(proxy, **{f"cpu_chunk_{clients}": result["cpu"] / result["events"] * 1e6})

    def count(self, proxy: Proxy, result: dict[str, Any]) -> None:
        if isinstance(proxy, GatewayProxy):
            self.streams += result["answers"]
            self.events += result["events"]
        elif result["failed"]:
            self.broken[proxy.name] = self.broken.get(proxy.name, 0) + result["failed"]

    def open_streams(self, proxy: Proxy) -> None:
        if isinstance(proxy, Direct):
            return
        _say(f"{_OPEN} open streams: {proxy.name}")
        common = {"models": proxy.all_models}
        # One request to each model first: idle means that it's loaded and nobody asks.
        warm = self.job(
            proxy, "requests", clients=len(proxy.all_models), seconds=0.2, rate=50.0, **common
        )
        measured(proxy, warm)
        idle = memory(proxy.pid)[0]
        job = self.job(
            proxy,
            "streams",
            clients=_OPEN,
            seconds=self.plan.open_streams,
            rate=_OPEN_RATE,
            **common,
        )
        sampled: list[float] = []
        result = measured(proxy, job, sampled)
        self.count(proxy, result)
        self.add(proxy, idle_mb=idle, streams_mb=max(sampled) - idle)


def _say(text: str) -> None:
    print(f"[{time.monotonic() - _STARTED:5.1f} s] {text}", file=sys.stderr, flush=True)


_STARTED = time.monotonic()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about a minute, less precise")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures there too")
    parser.add_argument("--rounds", type=int, help="how often each proxy is measured")
    parser.add_argument("--seconds", type=float, help="length of the streams (60 for a soak)")
    parser.add_argument(
        "--only", nargs="+", choices=_NAMES, help="measure these (latencies need direct)"
    )
    parser.add_argument(
        "--tcp",
        action="store_true",
        help="the other proxies reach the upstream by TCP, not by its Unix socket as the gateway",
    )
    parser.add_argument(
        "--profile", action="store_true", help="only profile the gateway: its top functions"
    )
    parser.add_argument(
        "--conversations",
        action="store_true",
        help="instead, what the cache of conversations spares, and costs: with real llama-servers",
    )
    parser.add_argument(
        "--limit",
        type=float,
        metavar="SECONDS",
        default=conversations.LIMIT,
        help="of --conversations: what takes longer is left out (by default %(default).0f)",
    )
    parser.add_argument(
        "--instructions",
        action="store_true",
        help="of --conversations only its cost, in instructions, as valgrind counts them",
    )
    return parser.parse_args()


def main() -> int:
    """Run it: 0 if every budget that could be measured holds."""
    args = _arguments()
    if not sys.platform.startswith("linux"):
        print("this reads /proc: Linux only", file=sys.stderr)
        return 2
    if args.conversations:
        return _conversations(args)
    plan = _QUICK if args.quick else _FULL
    changes = {
        name: value
        for name, value in (("rounds", args.rounds), ("streams", args.seconds))
        if value is not None
    }
    plan = Plan(**{**asdict(plan), **changes})
    with (
        # Short: the path of a Unix socket has 107 bytes at most.
        tempfile.TemporaryDirectory(prefix="bench-") as name,
        contextlib.ExitStack() as stack,
    ):
        folder = Path(name)
        upstream = Upstream(folder)
        stack.callback(upstream.end)
        if args.profile:
            gateway = GatewayProxy(folder, upstream, tcp=args.tcp)
            gateway.prepare()
            print(profiling.profile(gateway, measured, folder))
            return 0
        kinds = [
            kind
            for kind in _KINDS
            if kind.name.removeprefix("gateway ") in (args.only or _NAMES)
            and (plan.everything or args.only or not kind.tls)
        ]
        proxies, missing = _prepared(kinds, args.tcp, folder, upstream, stack)
        bench = Bench(proxies, plan)
        bench.run()
    rows = report.summary(bench.figures)
    lines = report.budgets(rows)
    upstream_by = "TCP" if args.tcp else "its Unix socket"
    print(f"\nupstream by {upstream_by}; medians of {plan.rounds} round(s); latencies are what")
    print("is added to `direct`'s. CPU is the proxy's own, user and system.\n")
    print(report.table(rows))
    print("\nratios:")
    ratios = report.ratios(rows)
    for ratio, value in ratios.items():
        print(f"  {ratio}: {value:.2f}")
    if bench.bodies:
        print("\nlooking through bodies:")
        print(bodies.table(bench.bodies))
    print("\nbudgets:")
    print(report.budget_lines(lines))
    print(
        f"\nthe gateway: {bench.streams} streams, {bench.events} events, none broken or reordered"
    )
    for broken, count in bench.broken.items():
        print(f"{broken}: {count} streams broken")
    for text in missing:
        print(f"missing: {text}")
    if args.json is not None:
        data = {
            "machine": {"python": platform.python_version(), "kernel": platform.release()},
            "plan": asdict(plan),
            "upstream": upstream_by,
            "medians": rows,
            "rounds": bench.figures,
            "ratios": ratios,
            "budgets": lines,
            "bodies": [row._asdict() for row in bench.bodies],
            "missing": missing,
            "streams": bench.streams,
            "broken_by_others": bench.broken,
            "events": bench.events,
        }
        args.json.write_text(json.dumps(data, indent=1) + "\n")
    return 0 if all(line["holds"] is not False for line in lines) else 1


def _conversations(args: argparse.Namespace) -> int:
    """Return 0 if every goal that could be measured is held."""
    try:
        if args.instructions:
            result = conversations.count(_say)
        else:
            result = conversations.run(quick=args.quick, limit=args.limit, say=_say)
    except Missing as error:
        print(f"missing: {error}", file=sys.stderr)
        return 2
    print(f"\n{conversations.text_of(result)}")
    if args.json is not None:
        args.json.write_text(json.dumps(conversations.as_json(result), indent=1) + "\n")
    return (
        0
        if all(value is None or value <= goal.limit for goal, value in conversations.goals(result))
        else 1
    )


def _prepared(
    kinds: list[type[Proxy]],
    tcp: bool,
    folder: Path,
    upstream: Upstream,
    stack: contextlib.ExitStack,
) -> tuple[list[Proxy], list[str]]:
    proxies: list[Proxy] = []
    missing: list[str] = []
    for kind in kinds:
        proxy = kind(folder, upstream, tcp=tcp)
        _say(f"preparing {proxy.name}")
        try:
            proxy.prepare()
        except Missing as error:
            missing.append(str(error))
            continue
        stack.callback(proxy.end)
        proxies.append(proxy)
    return proxies, missing


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        sys.exit(f"FAILED: {failure}")
