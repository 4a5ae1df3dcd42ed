"""``python -m tests.bench --conversations``: what is computed again, and what saving it costs.

Real llama-servers with the demo model: a conversation after a swap and after a restart, two agents
on two models with room for one, ten people on two slots. The gateway with its cache, without it,
and llama-swap. Then the gateway's own CPU time for a request, with its cache and without.
"""

from __future__ import annotations

import http.client
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench import cache_cost, instructions, report
from tests.bench.people import Conversation, Turn
from tests.bench.proxies import Missing
from tests.bench.real_servers import (
    SERVERS,
    SavingGateway,
    Server,
    Setup,
    TooLong,
    bytes_written,
)

#: Measure -> value: seconds, tokens, bytes.
Measures = dict[str, float]

_FIRST = "first token, s"
_COMPUTED = "tokens computed"
_NEW = "tokens that were new"
_COLD = "first token when it was asked first, s"
_OTHER = "first token of the other model's, s"
_RESTART = "first token after a restart, s"
_RESTART_COMPUTED = "tokens computed after it"
_WRITTEN = "written, MB"
_TOTAL = "all of it, s"

#: Seconds for all of it: what has not been done then is left out, which is said.
LIMIT = 460.0
#: The part of that which is kept for the cost of a request.
_COST_PART = 0.15


class Plan(NamedTuple):
    """How much of everything."""

    swaps: Sequence[int]
    agents: int
    people: int
    turns: int
    cost: cache_cost.Plan


_FULL = Plan((2000, 6000), 1000, 10, 3, cache_cost.Plan(8, 1.0))
_QUICK = Plan((2000,), 500, 10, 2, cache_cost.Plan(3, 0.6))


class Goal(NamedTuple):
    """At most ``limit``: a measure of the saving gateway, divided by another one."""

    words: str
    limit: float
    measure: str = ""
    divisor: str = ""

    def of(self, measures: Mapping[str, float] | None) -> float | None:
        """Return the ratio, if it was measured."""
        return measures[self.measure] / measures[self.divisor] if measures else None


class Scenario(NamedTuple):
    """What is played at each server that is not left out."""

    title: str
    setup: Setup
    play: Callable[[Server, float], Measures]
    goal: Goal | None = None
    without: Sequence[type[Server]] = ()


def scenarios(plan: Plan) -> list[Scenario]:
    """Return them all, those with a goal first."""
    pair = Setup(("a", "b"), 0)
    found = [
        Scenario(
            f"{tokens:,} tokens, a swap to another model and back",
            pair._replace(context=tokens + 1024),
            lambda server, until, tokens=tokens: _swap_back(  # type: ignore[misc]
                server, until, tokens, restart=tokens == plan.swaps[0]
            ),
            Goal(f"first token of {tokens:,} tokens after a swap, to cold", 1 / 20, _FIRST, _COLD)
            if tokens == 6000
            else None,
        )
        for tokens in plan.swaps
    ]
    one = Setup(("a",), 2048, 2)
    people = f"{plan.people} people on one model with 2 slots"
    computed = 1.3, _COMPUTED, _NEW
    return [
        *found,
        Scenario(
            f"{people}, --cache-ram 0",
            one._replace(arguments=("--cache-ram", "0")),
            lambda server, until: _people(server, until, plan),
            Goal(f"tokens computed for {people}, --cache-ram 0, to new ones", *computed),
            without=SERVERS[2:],
        ),
        Scenario(
            people,
            one,
            lambda server, until: _people(server, until, plan),
            Goal(f"tokens computed for {people}, to new ones", *computed),
        ),
        Scenario(
            f"2 agents of {plan.agents:,} tokens in turns on 2 models, room for one",
            pair._replace(context=plan.agents + 1024),
            lambda server, until: _agents(server, until, plan),
        ),
    ]


def _swap_back(server: Server, until: float, tokens: int, *, restart: bool) -> Measures:
    server.ask("a", [{"role": "user", "content": "Hi"}], 1, until)  # its load isn't counted
    conversation = Conversation(tokens, tokens)
    if not restart and not isinstance(server, SavingGateway):
        # What computes it all again takes as long the first time: to be spared the other one.
        server.ask("b", [{"role": "user", "content": "Hi"}], 1, until)
        back = conversation.go_on(server, "a", until)
        return {_FIRST: back.first, _COMPUTED: back.computed}
    cold = conversation.go_on(server, "a", until)
    other = server.ask("b", [{"role": "user", "content": "Hi"}], 1, until)
    back = conversation.go_on(server, "a", until)
    measures = {
        _COLD: cold.first,
        _OTHER: other.first,
        _FIRST: back.first,
        _COMPUTED: back.computed,
        _NEW: back.new,
    }
    if restart:
        server.end()
        server.start()
        again = conversation.go_on(server, "a", until)
        measures |= {_RESTART: again.first, _RESTART_COMPUTED: again.computed}
    return measures


def _agents(server: Server, until: float, plan: Plan) -> Measures:
    agents = {model: Conversation(number, plan.agents) for number, model in enumerate("ab")}
    began = time.monotonic()
    turns = [
        (number, agent.go_on(server, model, until, words=60))
        for number in range(plan.turns + 1)
        for model, agent in agents.items()
    ]
    return _of_all(turns, time.monotonic() - began)


def _people(server: Server, until: float, plan: Plan) -> Measures:
    server.ask("a", [{"role": "user", "content": "Hi"}], 1, until)

    def person(number: int) -> list[tuple[int, Turn]]:
        thinks = random.Random(number)
        conversation = Conversation(number, 400)
        turns = []
        for turn in range(plan.turns):
            time.sleep(thinks.random())  # as somebody who reads the answer
            turns.append((turn, conversation.go_on(server, "a", until)))
        return turns

    began = time.monotonic()
    with ThreadPoolExecutor(plan.people) as pool:
        everyone = [*pool.map(person, range(plan.people))]
    return _of_all([turn for turns in everyone for turn in turns], time.monotonic() - began)


def _of_all(turns: Sequence[tuple[int, Turn]], seconds: float) -> Measures:
    """Return the median time of what went on with a conversation, and the sums of all."""
    return {
        _COLD: statistics.median(turn.first for number, turn in turns if number == 0),
        _FIRST: statistics.median(turn.first for number, turn in turns if number),
        _COMPUTED: sum(turn.computed for _, turn in turns),
        _NEW: sum(turn.new for _, turn in turns),
        _TOTAL: seconds,
    }


# --- the run -----------------------------------------------------------------------------------


@dataclass
class Result:
    """Title of a scenario -> name of a server -> what was measured; and what was not."""

    figures: dict[str, dict[str, Measures]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    cost: list[cache_cost.Cost] = field(default_factory=list)
    calls: float | None = None
    instructions: list[instructions.Instructions] = field(default_factory=list)


def count(say: Callable[[str], None]) -> Result:
    """Count instructions, and do nothing else. Raises :class:`Missing` without valgrind."""
    return Result(instructions=instructions.count(say))


def run(*, quick: bool, limit: float, say: Callable[[str], None]) -> Result:
    """Play everything, for ``limit`` seconds. Raises :class:`Missing` without a llama-server."""
    plan = _QUICK if quick else _FULL
    began = time.monotonic()
    until = began + limit * (1 - _COST_PART)
    Server.find()
    result = Result()
    played = scenarios(plan)
    for scenario in played:
        result.figures[scenario.title] = {}
    # Where time runs out, the goals have been measured: they are the saving gateway's.
    for kind in [kind for kind in SERVERS if _is_there(kind, result)]:
        for scenario in played:
            if kind not in scenario.without:
                say(f"{kind.name}: {scenario.title}")
                _play(scenario, kind, until, result)
    result.cost, result.calls = cache_cost.measure(plan.cost, began + limit, say)
    return result


def _is_there(kind: type[Server], result: Result) -> bool:
    try:
        kind.find()
    except Missing as error:
        result.missing.append(str(error))
        return False
    return True


def _play(
    scenario: Scenario,
    kind: type[Server],
    until: float,
    result: Result,
) -> None:
    before = bytes_written()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        server = kind(Path(name), scenario.setup)
        server.prepare()
        try:
            server.start()
            measures = scenario.play(server, until)
        except TooLong:
            result.missing.append(f"{kind.name}, {scenario.title}: there was no time left for it")
            return
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            raise RuntimeError(f"{kind.name}: {error}\n{server.last_words()}") from error
        finally:
            server.end()
    result.figures[scenario.title][kind.name] = {
        **measures,
        _WRITTEN: (bytes_written() - before) / 1e6,
    }


# --- what is shown -----------------------------------------------------------------------------


def goals(result: Result) -> list[tuple[Goal, float | None]]:
    """Return what was to be reached, and what was: None where that was not measured."""
    found: list[tuple[Goal, float | None]] = []
    for scenario in scenarios(_FULL):
        if scenario.goal is not None:
            measures = result.figures.get(scenario.title, {}).get(SavingGateway.name)
            found.append((scenario.goal, scenario.goal.of(measures)))
    for cost in result.cost:
        words = f"CPU of a request of {cost.messages} messages, on to off"
        found.append((Goal(words, 1.05), cost.ratio))
    words = "functions of conversations/ that a request calls, off"
    found.append((Goal(words, 0.0), result.calls))
    return found


def text_of(result: Result) -> str:
    """Return the tables, the goals, and what is missing."""
    names = [kind.name for kind in SERVERS]
    lines = [["", *names]]
    for title, played in result.figures.items():
        lines.append([title, *("" for _ in names)])
        measures = dict.fromkeys(name for each in played.values() for name in each)
        for measure in measures:
            cells = [_cell(measure, played.get(name, {}).get(measure)) for name in names]
            lines.append([f"  {measure}", *cells])
    if result.instructions:
        counted = [f"  {each.line()}" for each in result.instructions]
        return "\n".join(["thousands of instructions of the gateway, for a request:", *counted])
    cost = [["", "off", "on", "more"], *(each.cells() for each in result.cost)]
    shown = [
        report.aligned(lines),
        "",
        "CPU of the gateway, us:",
        report.aligned(cost),
        "",
        "goals:",
    ]
    for goal, value in goals(result):
        word = "not measured" if value is None else "held" if value <= goal.limit else "missed"
        found = "" if value is None else f" {value:.3f}"
        shown.append(f"  {word:12}  {goal.words}:{found} (at most {goal.limit:g})")
    shown += [f"missing: {text}" for text in result.missing]
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return "\n".join([*shown, f"\nload of the machine at the end: {load}, {os.cpu_count()} CPUs"])


def _cell(measure: str, value: float | None) -> str:
    if value is None:
        return "-"
    if measure.startswith("tokens"):
        return f"{value:,.0f}"
    return f"{value:.0f}" if measure == _WRITTEN else f"{value:.2f}"


def as_json(result: Result) -> dict[str, Any]:
    """Return all figures."""
    return {
        "figures": result.figures,
        "cost": [cost._asdict() for cost in result.cost],
        "goals": [
            {"goal": goal.words, "limit": goal.limit, "value": value}
            for goal, value in goals(result)
        ],
        "instructions": [counted._asdict() for counted in result.instructions],
        "missing": result.missing,
    }
