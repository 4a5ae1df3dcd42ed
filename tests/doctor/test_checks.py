"""Checks are run all at once, in bounded time, and told in their order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from gateway.config.settings import Settings
from gateway.doctor.checks import Check, Finding, Level, Subject, examine
from gateway.models.catalog import EMPTY


@pytest.fixture
def subject() -> Subject:
    return Subject(Settings(), EMPTY, {})


def test_one_that_hangs_delays_nobody(subject: Subject) -> None:
    forever = threading.Event()

    def hangs(_: Subject) -> Iterator[Finding]:
        yield Finding("slow", Level.OK, "begun")
        forever.wait()

    checks = [Check(name, hangs) for name in ("slow", "slower")]
    checks.append(Check("quick", lambda _: [Finding("quick", Level.OK, "done")]))
    began = time.monotonic()
    found = [finding for findings in examine(checks, subject, limit=0.2) for finding in findings]
    assert time.monotonic() - began < 5
    forever.set()
    assert [finding.name for finding in found] == ["slow", "slower", "quick"]
    assert [finding.level for finding in found] == [Level.WARNING, Level.WARNING, Level.OK]
    assert "no answer within 0.2 s" in found[0].what


def test_they_run_at_the_same_time(subject: Subject) -> None:
    meeting = threading.Barrier(3, timeout=10)

    def meets(_: Subject) -> list[Finding]:
        meeting.wait()
        return []

    list(examine([Check("a", meets)] * 3, subject))
    assert not meeting.broken


def test_one_that_fails_is_told_without_its_words(subject: Subject) -> None:
    def fails(_: Subject) -> list[Finding]:
        raise RuntimeError("the passphrase is sesame")

    ((finding,),) = examine([Check("odd", fails)], subject)
    assert finding == Finding("odd", Level.WARNING, "could not be looked at (RuntimeError)")
