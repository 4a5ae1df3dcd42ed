"""Who is to blame for a llama-server that computes without end, and how long it may take."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.backends.flights import Flight, Flights, judge
from gateway.backends.logring import LogRing
from gateway.backends.overtime import Overtime
from gateway.backends.slots import Slots, slots_in
from gateway.backends.speed import Speed

CHAT = "/v1/chat/completions"
SCHEMA = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}
GIB = 2**30


def flight(
    began: float = 0.0, *, answered: bool = False, left: bool = False, **body: Any
) -> Flight:
    one = Flight(CHAT, json.dumps({"messages": [], **body}).encode())
    one.began, one.exchange = began, SimpleNamespace(answered=answered)
    one.left = 1.0 if left else None
    return one


def test_what_holds_an_answer_to_something_comes_first() -> None:
    plain, tools = flight(), flight(tools=[{"name": "x" * 9000}])
    schema, grammar = flight(response_format=SCHEMA), flight(grammar="root ::= x", answered=True)
    verdict = judge((plain, tools, schema, grammar), 1.0)
    assert (verdict.blamed, verdict.cleared) == (grammar, {plain})
    assert verdict.trait is not None
    assert verdict.trait.field == "grammar"
    assert judge((plain, tools, schema), 1.0).blamed is schema
    assert judge((plain, flight(response_format={"type": "text"})), 1.0).blamed is None


def test_who_came_when_it_hung_already_has_not_done_it() -> None:
    late, first = flight(2.0, grammar="root ::= x"), flight(0.0)
    assert judge((late, first), 1.0)[:3:2] == (first, {late})


def test_who_has_left_may_have_done_it() -> None:
    gone, waiting = flight(left=True, grammar="root ::= x"), flight()
    assert judge((gone, waiting), 1.0)[:3:2] == (gone, {waiting})


def test_of_several_alike_nobody_is_blamed_and_whose_answer_was_coming_is_cleared() -> None:
    one, other, streaming = flight(), flight(), flight(answered=True)
    assert judge((one, other, streaming), 1.0) == (None, None, {streaming})


def test_a_grammar_is_no_prompt() -> None:
    one = flight(grammar="x" * 30_000)
    assert one.tokens > 10_000
    one.count()
    assert one.tokens < 50


def test_those_who_left_are_remembered_until_they_are_let_go() -> None:
    flights = Flights()
    flights.end(flights.begin(CHAT, b"{}"), complete=True)
    assert not flights.unsettled
    left = flights.begin(CHAT, b"x" * 100_000)
    flights.end(left, complete=False)
    assert (len(flights), flights.all(), left.body) == (0, (left,), None)
    flights.settle(0.0)
    assert flights.unsettled
    flights.settle(float("inf"))
    assert not flights.unsettled


PROMPT = "slot print_timing: id 1 | task 0 | prompt eval time = {} ms / {} tokens ( 7 ms per token)"
ANSWER = "slot print_timing: id 1 | task 0 |        eval time = {} ms / {} tokens ( 7 ms per token)"


@pytest.fixture
def log() -> LogRing:
    return LogRing()


def test_the_fastest_counts_and_nobody_makes_it_look_slow(log: LogRing) -> None:
    speed = Speed(log, 4 * GIB)
    log.listen(speed.hear)
    assert speed.seconds(1000) > 1000  # nothing is measured yet
    log.append(PROMPT.format("1000.00", 100))
    log.append(ANSWER.format("1000.00", 10))
    assert speed.seconds(1000, 10) == 8 * 10 + 40
    log.append(PROMPT.format("90000.00", 1))  # the grammar took as long
    log.append(PROMPT.format("90000.00", 200))
    log.append(ANSWER.format("90000.00", 9))
    assert speed.seconds(1000, 10) == 8 * 10 + 40
    # Behind a long text each token has more to look back at: a batch takes ten times as long.
    assert speed.seconds(1000, 10, 8192) == 2 * 8 * 10 + 40
    assert speed.seconds(2048, 1, 100_000) > 10 * 2048 / 100
    log.append("srv  stop: cancel task, id_task = 17")
    assert speed.steps == 5


def slots(task: int, read: int, written: int) -> Slots | None:
    told = {"n_prompt_tokens": 2048, "n_prompt_tokens_processed": read}
    told["next_token"] = [{"n_decoded": written}]  # type: ignore[assignment]
    return slots_in(
        json.dumps([{"id": 0, "id_task": task, "is_processing": True, **told}]).encode()
    )


def test_tokens_still_to_be_read_are_added_up() -> None:
    found = slots(1, 500, 0)
    assert found is not None
    assert (found.pending, found.depth) == (1548, 2048)
    found = slots(1, 2048, 3)
    assert found is not None
    assert (found.pending, found.depth) == (0, 0)
    flights = Flights()
    for size in (300, 900):
        flights.begin(CHAT, b"x" * size)
    assert (flights.tokens, flights.longest) == (400, 300)


def test_work_is_made_good_by_what_comes_of_it(log: LogRing) -> None:
    speed = Speed(log, 0)
    log.listen(speed.hear)
    log.append(PROMPT.format("1000.00", 100))
    log.append(ANSWER.format("1000.00", 10))
    overtime = Overtime(speed)
    overtime.note(5, slots(1, 0, 0), speed.steps, wanted=True)
    assert overtime.seconds == 0  # a new request
    for _ in range(3):
        overtime.note(5, None, speed.steps, wanted=True)
    assert overtime.seconds == 15
    overtime.note(5, slots(1, 100, 0), speed.steps, wanted=True)
    assert overtime.seconds == 15 + 5 - 8
    overtime.note(5, slots(1, 100, 1), speed.steps, wanted=False)
    assert overtime.seconds == 17  # for nobody
    overtime.note(5, slots(2, 0, 0), speed.steps, wanted=True)
    assert overtime.seconds == 0


@pytest.mark.parametrize("answer", [b"", b"{}", b"[1]", b'{"error": {}}'])
def test_answer_that_is_no_list_of_slots_tells_nothing(answer: bytes) -> None:
    assert slots_in(answer) is None
