"""The soak itself, for as long as the suite can wait; CONTRIBUTING.md says how to run an hour."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.soak.allowed import ALLOWED, RIGHT, Ledger, allowed
from tests.soak.asking import MODELS, chat
from tests.soak.client import Answer
from tests.soak.door import KINDS
from tests.soak.faults import child_frozen
from tests.soak.soak import DRIVERS, Soak
from tests.soak.tally import Tally


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_short_soak_finds_nothing(tmp_path: Path) -> None:
    drivers = [driver for driver in DRIVERS if driver is not child_frozen.REPLACED]
    soak = Soak(12, rate=60, pace=8, seed=0, kinds=KINDS[:2], drivers=drivers)

    await soak.run(tmp_path)

    assert not soak.tally.breaches, "\n".join(soak.lines)
    assert set(soak.ledger.count) == set(ALLOWED)  # each fault was in force
    assert soak.tally.requests > 300


def _answered(text: bytes, status: int = 200) -> Answer:
    return Answer(1.0, status, [text], len(text), complete=True, ended=2.0)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (_answered(b'{"choices": [{"text": "a|-|another"}]}'), "wrong: 'a|-|another' and not"),
        (_answered(b'{"error": {"code": "queue_full"}}', 503), "503 queue_full"),
        (Answer(1.0, 200, [b'{"choi'], 100, ended=2.0), "cut off"),
        (Answer(1.0, ended=2.0), "no answer"),
    ],
)
def test_answer_that_nothing_accounts_for_is_a_breach(answer: Answer, outcome: str) -> None:
    tally = Tally(Ledger())

    found = tally.note("here", chat(random.Random(0), "key", MODELS[0], "whole"), answer)

    assert found.startswith(outcome)
    assert list(tally.breaches) == [f"here: {found}"]


def test_fault_excuses_only_what_it_may_do_and_only_at_its_door() -> None:
    ledger = Ledger()
    with ledger.in_force("here", "child killed"):
        pass

    faults = ledger.faults("here", 0.0, float("inf"))

    assert allowed("cut off: backend_died", faults)
    assert allowed(RIGHT, set())
    assert not allowed("cut off", faults)
    assert not allowed("cut off: backend_died", ledger.faults("there", 0.0, float("inf")))
    assert not allowed("cut off: backend_died", ledger.faults("here", 0.0, 1.0))
