"""The ring of samples: what of it is told for which time."""

from __future__ import annotations

from gateway.samples import COARSE, FINE, WEEK, Sample, Samples, merged

START = 1_700_000_000.0 - 1_700_000_000.0 % COARSE


def filled(seconds: int) -> tuple[Samples, float]:
    samples, at = Samples(), START
    for at in (START + offset for offset in range(0, seconds, FINE)):
        samples.add(Sample(at, (("RAM", int(at - START)),), completion=at % COARSE / FINE))
    return samples, at


def test_samples_keep_an_hour_in_fine_steps_and_a_week_in_coarse() -> None:
    samples, now = filled(WEEK + 2 * COARSE)
    every, fine = samples.since(now - 600, now)
    assert (every, len(fine)) == (FINE, 61)
    assert fine[-1].at - fine[0].at == 600
    every, coarse = samples.since(now - WEEK, now)
    assert (every, len(coarse)) == (COARSE, WEEK // COARSE + 1)
    assert [one.at for one in coarse] == sorted({one.at for one in coarse})
    assert coarse[-1].at == now
    assert coarse[-1].at - coarse[0].at <= WEEK
    # Within five minutes, the most memory and the average speed.
    assert dict(coarse[0].used)["RAM"] == coarse[0].at - START
    assert coarse[0].completion == sum(range(COARSE // FINE)) / (COARSE // FINE)


def test_nothing_is_told_of_nothing() -> None:
    assert Samples().since(0, WEEK) == (COARSE, [])
    assert Samples().last is None


def test_gaps_of_a_device_do_not_count_in_its_average() -> None:
    one = merged(
        [
            Sample(1, (("RAM", 5), ("CUDA0", 7)), gateway=3, models=None, running=2),
            Sample(2, (("RAM", 6),), gateway=None, models=None, waiting=4),
        ]
    )
    assert dict(one.used) == {"RAM": 6, "CUDA0": 7}
    assert (one.gateway, one.models, one.running, one.waiting) == (3, None, 2, 4)


def test_clock_set_back_drops_samples_of_the_future() -> None:
    samples, now = filled(2 * COARSE)
    samples.add(Sample(now - COARSE - 35, running=9))
    _, kept = samples.since(START, now)
    times = [one.at for one in kept]
    assert times == sorted(set(times))
    assert (kept[-1].running, times[-1]) == (9, now - COARSE - 35)
    _, kept = samples.since(now - WEEK, now)
    assert [one.at for one in kept] == [now - COARSE - 35]
