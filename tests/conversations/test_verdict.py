"""Whether reading back is worth it for a model, by what it took and what it spared."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.conversations.verdict import Reading, still_fits
from tests.conversations.test_files import named
from tests.conversations.test_place import chain
from tests.conversations.test_shelf import shelf_in

#: Seconds of a reading, and of 6,000 promised tokens how many were used, at 500 a second; whether a
#: model is switched off for that.
CASES = [
    (1.0, 0, True),
    (0.0, 0, True),
    (1.0, 24, True),  # what every prompt of its template begins with
    (0.01, 24, True),  # which is there without it
    (1.0, 400, True),  # 0.8 s
    (0.5, 400, False),  # as of a template that leaves out thoughts
    (9.0, 2900, True),
    (9.0, 3500, False),  # a slow disk only
    (20.0, 6000, False),
]


def reading(seconds: float) -> Reading:
    saved = named("one")
    saved.chain = chain("abc")
    return Reading(saved, seconds)


@pytest.mark.parametrize(("seconds", "cached", "off"), CASES)
async def test_model_is_judged_by_what_reading_back_spares(
    tmp_path: Path, seconds: float, cached: int, off: bool
) -> None:
    read, asked = reading(seconds), chain("abcd")
    async with shelf_in(tmp_path / "cache", min_tokens=256, upkeep_every=60.0) as shelf:
        for _ in range(3):
            assert still_fits(shelf, read, asked, 6000, cached)
        assert (shelf.off(read.saved.fingerprint) is not None) is off


async def test_one_that_was_worth_it_counts_for_those_before(tmp_path: Path) -> None:
    read, asked = reading(1.0), chain("abcd")
    async with shelf_in(tmp_path / "cache", min_tokens=256, upkeep_every=60.0) as shelf:
        for cached in (24, 24, 3000, 24, 24):
            still_fits(shelf, read, asked, 6000, cached)
        assert shelf.off(read.saved.fingerprint) is None
        still_fits(shelf, read, asked, 6000, 24)
        assert "of 6000 tokens" in (shelf.off(read.saved.fingerprint) or "")


async def test_prompts_that_are_no_conversations_switch_only_such_prompts_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read, asked = reading(1.0), chain("abcd")
    fingerprint = read.saved.fingerprint
    async with shelf_in(tmp_path / "cache", min_tokens=256, upkeep_every=60.0) as shelf:
        for raw in (True, False, True, False):
            still_fits(shelf, read, asked, 6000, 24, raw=raw)
        assert not shelf.in_vain.leaves_alone(fingerprint)
        still_fits(shelf, read, asked, 6000, 24, raw=True)
        assert shelf.in_vain.leaves_alone(fingerprint)
        assert shelf.off(fingerprint) is None
        assert "raw completions and gaps are not saved any more" in caplog.text
