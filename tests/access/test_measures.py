"""Requests are counted in plain numbers, with a bounded number of labels."""

from __future__ import annotations

import timeit
from typing import Any

import pytest

from gateway.access import measures
from gateway.access.measures import OTHER, RequestMeasures
from gateway.access.request_log import Record
from gateway.proxy.sse import Usage

CHAT = "/v1/chat/completions"


def record(key_id: str = "k_1", model: str = "m", **fields: Any) -> Record:
    usage = fields.pop("usage", Usage(10, 101, 4))
    return Record(
        **{
            "at": 1.0,
            "key_id": key_id,
            "model": model,
            "personality": None,
            "status": 200,
            "usage": usage,
            "seconds": 2.2,
            "route": CHAT,
            "streamed": True,
            "sent": True,
            "began": 0.2,
            **fields,
        }
    )


def counted(*records: Record) -> RequestMeasures:
    made = RequestMeasures()
    for one in records:
        made.add(one)
    return made


def test_requests_and_tokens_add_up_by_key_model_route_and_status() -> None:
    made = counted(record(), record(), record("k_2", status=499), record(model="n"))
    found = {tuple(one[:4]): tuple(one[4:]) for one in made.requests()}
    assert found == {
        ("m", "k_1", CHAT, 200): (2, 20, 8, 202),
        ("m", "k_2", CHAT, 499): (1, 10, 4, 101),
        ("n", "k_1", CHAT, 200): (1, 10, 4, 101),
    }


@pytest.mark.parametrize("route", ["/upstream/m/anything", "/made/up?by=a client", "/slots/7"])
def test_routes_that_clients_make_up_are_one(route: str) -> None:
    (one,) = counted(record(route=route)).requests()
    assert one.route == OTHER


def test_a_query_is_no_part_of_a_route() -> None:
    (one,) = counted(record(route=f"{CHAT}?a=b")).requests()
    assert one.route == CHAT


def test_each_time_is_in_its_bucket() -> None:
    # It waited for 0.7 s, 0.3 of which the model was loading.
    made = counted(record(waited=0.7, loading=0.3, began=0.9, seconds=2.9))
    ((model, times),) = made.times()
    assert model == "m"
    for taken, bound, total in (
        (times.queue, 0.5, 0.4),
        (times.load, 0.5, 0.3),
        (times.first_token, 1.0, 0.9),
        (times.total, 5.0, 2.9),
        (times.gap, 0.025, 0.02),
    ):
        place = taken.bounds.index(bound)
        assert taken.counts[place - 1] == 0
        assert taken.counts[place] == taken.counts[-1] == 1
        assert taken.total == pytest.approx(total)


def test_a_request_that_did_not_wait_has_waited_for_nothing() -> None:
    ((_, times),) = counted(record(), record()).times()
    for waits in (times.queue, times.load):
        assert waits.counts == (2,) * (len(waits.bounds) + 1)
        assert waits.total == 0


def test_a_request_that_was_never_sent_has_waited_all_its_time() -> None:
    ((_, times),) = counted(record(sent=False, status=503, seconds=20.0, began=None)).times()
    assert times.queue.total == 20.0
    assert times.total.counts[-1] == times.first_token.counts[-1] == 0


def test_a_failed_request_is_no_fast_one() -> None:
    ((_, times),) = counted(record(status=502, seconds=0.001)).times()
    assert times.total.counts[-1] == times.gap.counts[-1] == times.first_token.counts[-1] == 0


def test_a_whole_answer_tells_its_speed_and_no_first_token() -> None:
    made = counted(record(streamed=False, began=2.2, usage=Usage(10, 100, 0, 40.0)))
    ((_, times),) = made.times()
    assert times.gap.total == pytest.approx(0.025)
    assert times.first_token.counts[-1] == 0


def test_tokens_that_are_found_later_are_told_beside() -> None:
    made = counted(record())
    made.more("k_1", "m", 7)
    made.more("k_1", "m", 5)
    assert made.late_tokens == {("k_1", "m"): 12}


def test_there_are_never_more_labels_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "_MOST", 20)
    made = RequestMeasures()
    for number in range(500):
        made.add(record(f"k_{number}", f"m{number}"))
    found = list(made.requests())
    assert len(found) == 21
    assert sum(one.requests for one in found) == 500
    assert found[-1][:2] == (OTHER, OTHER)
    assert len(list(made.times())) == 21


def test_what_is_gone_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "_MOST", 20)
    now = [0.0]
    made = RequestMeasures(monotonic=lambda: now[0])
    made.gone = lambda model, key_id: model == "old" or key_id.startswith("k_revoked")
    for number in range(19):
        made.add(record(f"k_revoked{number}"))
    made.add(record("k_1", "old"))
    made.more("k_1", "old", 3)
    list(made.requests())
    now[0] = 1000.0
    made.add(record("k_new", "new"))
    assert [(one.key_id, one.model) for one in made.requests()] == [("k_new", "new")]
    assert not made.late_tokens
    assert [model for model, _ in made.times()] == ["new"]


def test_batches_lose_nothing() -> None:
    made = RequestMeasures()
    for number in range(1000):
        made.add(record(waited=0.1 if number % 2 else None))
    (one,) = made.requests()
    ((_, times),) = made.times()
    assert one.requests == times.queue.counts[-1] == times.total.counts[-1] == 1000


def test_counting_a_request_takes_about_a_microsecond() -> None:
    """The budget is 1 us on a quiet machine. Here others run at the same time, on slow ones too."""
    made, records = RequestMeasures(), [tuple(record(f"k_{n % 5}")) for n in range(1024)]

    def count() -> None:
        for one in records:
            made.add(one)

    assert min(timeit.repeat(count, number=1, repeat=100)) / len(records) < 5e-6
