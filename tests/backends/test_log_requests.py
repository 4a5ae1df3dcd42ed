"""Which request a line of llama-server's log is about: told for sure, or not at all."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.flights import Flights
from gateway.backends.log_requests import LogRequests, no_tasks
from tests.harness import MakeGateway


def launched(slot: int, task: int, *, child: int = 0) -> str:
    return f"I slot launch_slot_: id  {slot} | task {task} | processing task, is_child = {child}"


def timing(slot: int, task: int) -> str:
    return f"I slot print_timing: id  {slot} | task {task} | total time = 2.48 ms / 21 tokens"


def marks(flights: Flights, *lines: str) -> list[str]:
    """The id that is told with each of the lines; ``-``: none."""
    mark = LogRequests("m", flights, no_tasks()).mark
    return [(mark(line).removeprefix(line) or "-").removeprefix(" | request ") for line in lines]


def test_request_that_names_its_slot_is_told_with_all_lines_of_its_task() -> None:
    flights = Flights()
    flights.begin("/completion", b"", 1, "req_b")
    flights.begin("/completion", b"", 0, "req_a")
    lines = [launched(0, 7), launched(1, 8), timing(1, 8), timing(0, 7)]
    assert marks(flights, *lines) == ["req_a", "req_b", "req_b", "req_a"]


def test_line_that_comes_after_the_next_request_is_about_the_one_before() -> None:
    flights = Flights()
    mark = LogRequests("m", flights, no_tasks()).mark
    first = flights.begin("/completion", b"", 0, "req_a")
    mark(launched(0, 7))
    flights.end(first, complete=True)
    flights.begin("/completion", b"", 0, "req_b")
    assert mark(timing(0, 7)).endswith(" | request req_a")
    assert mark(launched(0, 30)).endswith(" | request req_b")


@pytest.mark.parametrize(
    ("requests", "own", "line", "told"),
    [
        ([(None, "req_a")], (), launched(0, 7), "req_a"),
        ([(None, "req_a"), (None, "req_b")], (), launched(0, 7), "-"),
        ([(None, "req_a"), (0, "req_b")], (), launched(0, 7), "req_b"),
        ([(None, "req_a"), (0, "req_b")], (), launched(1, 7), "req_a"),
        ([(None, "req_a")], (1,), launched(1, 7), "-"),
        ([(None, None)], (), launched(0, 7), "-"),
        ([(None, ""), (None, "req_a")], (), launched(0, 7), "-"),
        ([(0, "req_a")], (), launched(1, 7, child=1), "-"),
        ([(0, "req_a")], (), timing(0, 7), "-"),
        ([(0, "req_a")], (), "I slot get_availabl: id  0 | task -1 | selected slot by id", "-"),
        ([(0, "req_a")], (), "srv update_slots: all slots are idle", "-"),
    ],
    ids=[
        "the only one", "one of two", "one is named", "the other one", "the gateway's own",
        "it takes no slot", "one of nobody's", "another answer", "its beginning is not known",
        "no task yet", "no slot",
    ],
)  # fmt: skip
def test_what_is_not_sure_is_not_told(
    requests: Sequence[tuple[int | None, str | None]], own: Sequence[int], line: str, told: str
) -> None:
    flights = Flights()
    flights.own.update(own)
    for slot, request in requests:
        flights.begin("/completion", b"", slot, request)
    assert marks(flights, line) == [told]


def test_client_that_has_left_keeps_its_task_and_does_not_get_anothers() -> None:
    flights = Flights()
    mark = LogRequests("m", flights, no_tasks()).mark
    left = flights.begin("/v1/messages", b"", None, "req_a")
    flights.end(left, complete=False)
    flights.begin("/v1/messages", b"", None, "req_b")
    assert mark(launched(0, 7)) == launched(0, 7)  # it may be either's


def test_task_number_of_an_earlier_run_says_nothing() -> None:
    flights = Flights()
    flights.begin("/completion", b"", 0, "req_a")
    assert marks(flights, launched(0, 7)) == ["req_a"]
    assert marks(flights, timing(0, 7)) == ["-"]


async def test_lines_of_two_slots_at_work_at_once_each_tell_their_request(
    make_gateway: MakeGateway, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    says = {"grammar": "root ::= [a-z ] root", "temperature": 0, "stream": True, "model": "m"}
    params = {"model": str(tiny_model), "ctxSize": 65536, "threads": 1}
    caplog.set_level(logging.DEBUG, "gateway.backends.log_requests")
    async with make_gateway(
        {"m": {"params": params, "parallel": 2}}, llama_server="auto"
    ) as running:

        def ask(tokens: int) -> Any:
            body = {**says, "prompt": f"the story of {tokens}", "max_tokens": tokens}
            return running.request("POST", "/v1/completions", json=body)

        async with ask(30_000) as endless:
            await endless.content.readline()
            requests = {30_000: endless.headers["X-Request-Id"]}
            for tokens in (23, 29):
                async with ask(tokens) as answer:
                    await answer.read()
                    requests[tokens] = answer.headers["X-Request-Id"]
            _, told = await running.json("GET", "/admin/models/m/log?follow=false")
            _, shown = await running.json("GET", "/admin/requests")

    lines = [line.rpartition(" | request ") for line in told["lines"] if "| task " in line]
    assert [told for line, _, told in lines if "launch_slot_" in line] == [*requests.values()]
    for tokens in (23, 29):  # which only llama-server's own count says
        counted = [
            told for line, _, told in lines if "   eval time" in line and f"/ {tokens:5} t" in line
        ]
        assert counted == [requests[tokens]]
    tasks = {
        record.request_id: (record.fields["slot"], record.fields["task"])  # type: ignore[attr-defined]
        for record in caplog.records
        if record.name == "gateway.backends.log_requests"
    }
    assert {*tasks} == {*requests.values()}
    slots = {request: slot for request, (slot, _) in tasks.items()}
    assert slots[requests[23]] == slots[requests[29]] != slots[requests[30_000]]
    listed = [*shown["under_way"], *shown["ended"]]
    assert {one["id"]: (one["slot"], one["task"]) for one in listed} == tasks
