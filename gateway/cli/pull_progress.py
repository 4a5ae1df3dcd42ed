"""The progress of a pull: a bar on a terminal, otherwise a line now and then."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import IO, Final

from gateway.cli.terminal import clean, console, moves, size_of
from gateway.models.fetching import PullProgress, Told
from gateway.models.transfer_speed import TransferSpeed, seconds_left

#: Seconds between two lines, if there is no terminal.
_LINES: Final = 15.0
_MINUTE, _HOUR = 60, 3600


@contextlib.contextmanager
def shown(stream: IO[str]) -> Iterator[Told]:
    """Show the progress as it is reported, until the block ends."""
    if moves(stream):
        with _bar(stream) as told:
            yield told
    else:
        yield PlainProgress(stream).told


@contextlib.contextmanager
def _bar(stream: IO[str]) -> Iterator[Told]:
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    out = console(stream)
    narrow = size_of(stream)[0] < 70
    with Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None if not narrow else 10),
        TextColumn("{task.fields[numbers]}", justify="right"),
        console=out,
        transient=True,
        expand=not narrow,
    ) as bars:
        task = bars.add_task("asking", total=None, numbers="")
        speed, reason = TransferSpeed(), ""

        def told(progress: PullProgress) -> None:
            nonlocal reason
            rate = speed.saw(progress.fetched)
            if (progress.note or reason) != reason:  # above the bar, once
                reason = progress.note or ""
                out.print(clean(reason))
            numbers = progress_in_numbers(progress, rate)
            bars.update(
                task,
                description=progress.stage,
                total=progress.total,
                completed=progress.done,
                numbers=f"again in {progress.wait:.0f} s" if progress.note else numbers,
            )

        yield told


class PlainProgress:
    """Lines about a pull where there is no terminal: one from time to time."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._speed = TransferSpeed()
        self._told_at = time.monotonic()
        self._note: str | None = None

    def told(self, progress: PullProgress) -> None:
        rate = self._speed.saw(progress.fetched)
        if progress.note is not None:
            if progress.note != self._note:  # once, and not every second
                self._note = progress.note
                again = f"again in {progress.wait:.0f} s"
                print(f"{clean(progress.note)}; {again}", file=self._stream, flush=True)
        elif time.monotonic() - self._told_at >= _LINES:
            self._told_at, self._note = time.monotonic(), None
            print(
                f"{progress.stage} {progress_in_numbers(progress, rate)}",
                file=self._stream,
                flush=True,
            )


def progress_in_numbers(progress: PullProgress, rate: float | None) -> str:
    """Return numbers like ``1.2/4.4 GiB  27% 25.3 MiB/s 2:10``."""
    unit, name = (2**30, "GiB") if progress.total >= 2**30 else (2**20, "MiB")
    percent = 100 * progress.done // progress.total if progress.total else 100
    text = f"{progress.done / unit:.1f}/{progress.total / unit:.1f} {name} {percent:3}%"
    if progress.stage != "downloading" or rate is None:
        return text
    left = seconds_left(progress.total - progress.done, rate)
    return f"{text} {rate / 2**20:5.1f} MiB/s {_time(left)}"


def _time(seconds: float | None) -> str:
    if seconds is None or seconds >= 100 * _HOUR:
        return "-:--"
    whole = int(seconds)
    hours, minutes = whole // _HOUR, whole % _HOUR // _MINUTE
    if hours:
        return f"{hours}:{minutes:02}:{whole % _MINUTE:02}"
    return f"{minutes}:{whole % _MINUTE:02}"
