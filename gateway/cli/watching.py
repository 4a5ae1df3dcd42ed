"""Progress of something slow: one redrawn line on a terminal, otherwise a few lines.

It goes to stderr: stdout is for the command's result.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.cli.client import Client, Stream
from gateway.cli.terminal import clean, console, moves
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from rich.table import Table

#: How often per second the line is drawn.
_DRAWN: Final = 8
#: Percent from one line to the next, without a terminal.
_STEP: Final = 25
_BAR: Final = 30  # columns
#: State of a model -> its name for somebody who waits for it.
_WORDS: Final = {
    "starting": "loading",
    "ready": "waiting for a free slot",
    "draining": "ending as it was",
    "stopping": "ending as it was",
    "stopped": "waiting for its turn",
    "backoff": "waiting to try again",
}


class Stage(NamedTuple):
    """The stage of a load or unload."""

    words: str
    percent: int | None = None


#: Reads the stage from an event of a stream; ``None`` if the event doesn't tell.
Reading = Callable[[dict[str, Any]], Stage | None]


class Watch:
    """Follows a stream of the gateway in a thread, and knows how far it is."""

    def __init__(
        self, client: Client, path: str, read: Reading, changed: Callable[[Watch], None]
    ) -> None:
        self.stage: Stage | None = None
        self.began = time.monotonic()
        self._client, self._path, self._read = client, path, read
        self._changed = changed
        self._stream: Stream | None = None
        self._over = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def seconds(self) -> float:
        """The seconds since it began."""
        return time.monotonic() - self.began

    def close(self) -> None:
        """Stop following."""
        with self._lock:
            self._over = True
            if self._stream is not None:
                self._stream.close()
        self._thread.join(1)

    def _run(self) -> None:
        # A key without the right, a gateway that goes away: the command itself reports that.
        with contextlib.suppress(GatewayError), self._client.stream("GET", self._path) as stream:
            with self._lock:
                if self._over:
                    return
                self._stream = stream
            for event in stream:
                with contextlib.suppress(ValueError, LookupError, TypeError):
                    self.stage = self._read(json.loads(event)) or self.stage
                if self._over:
                    return
                self._changed(self)


@contextlib.contextmanager
def watched(client: Client, wanted: str, *, lines: bool = False) -> Iterator[None]:
    """Show the progress of the model ``wanted`` until the block ends.

    ``lines``: also if it is no terminal.
    """
    with shown(client, wanted, "/status", lambda event: stage_of(event, wanted), lines=lines):
        yield


@contextlib.contextmanager
def shown(
    client: Client, name: str, path: str, read: Reading, *, lines: bool = False
) -> Iterator[None]:
    """Show the progress of ``name`` by the stream at ``path``: see :func:`watched`."""
    if moves(sys.stderr):
        with _line(client, clean(name), path, read):
            yield
    elif lines:
        told = _PlainStages(clean(name))
        watch = Watch(client, path, read, told.tell)
        try:
            yield
        finally:
            watch.close()
    else:
        yield


@contextlib.contextmanager
def _line(client: Client, name: str, path: str, read: Reading) -> Iterator[None]:
    from rich.live import Live

    out = console(sys.stderr)
    watch = Watch(client, path, read, lambda _: None)
    live = Live(
        console=out,
        refresh_per_second=_DRAWN,
        transient=True,
        get_renderable=lambda: _drawn(name, watch),
        redirect_stdout=False,
        redirect_stderr=False,
    )
    try:
        with live:
            yield
    finally:
        watch.close()


def _drawn(name: str, watch: Watch) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    stage = watch.stage or Stage("asking")
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    parts: list[Any] = [Text(name, "bold"), Text(stage.words)]
    table.add_column(no_wrap=True)
    if stage.percent is not None:
        parts += [ProgressBar(total=100, completed=stage.percent, width=_bar(name, stage))]
        parts += [Text(f"{stage.percent:3}%")]
        table.add_column()
        table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_row(*parts, Text(f"{watch.seconds:.0f} s", "dim"))
    return table


def _bar(name: str, stage: Stage) -> int:
    room = console(sys.stderr).width - len(name) - len(stage.words) - 22
    return max(min(room, _BAR), 5)


class _PlainStages:
    """Stages as a few plain lines, for when there is no terminal."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._told: Stage | None = None

    def tell(self, watch: Watch) -> None:
        stage = watch.stage
        if stage is None:
            return
        step = None if stage.percent is None else stage.percent // _STEP * _STEP
        stage = Stage(stage.words, step or None)
        if stage != self._told:
            self._told = stage
            percent = "" if stage.percent is None else f" {stage.percent}%"
            said = f"{self._name}: {stage.words}{percent} ({watch.seconds:.0f} s)"
            print(said, file=sys.stderr, flush=True)


# --- what GET /status says ------------------------------------------------------------------


def waited_for(event: dict[str, Any], wanted: str) -> dict[str, Any] | None:
    """Return the model that ``wanted`` names, if it is loading or waited for."""
    waiting = {one["model"]: one for one in event["waiting"]}
    found = waiting.get(wanted) or waiting.get(wanted.rpartition(":")[0])
    if found is None and wanted not in event["models"]:
        # By an alias: the one that loads is meant.
        found = next((one for one in waiting.values() if one["stage"] == "starting"), None)
    return found


def stage_of(event: dict[str, Any], wanted: str) -> Stage | None:
    """Return how far the model ``wanted`` is, for somebody who waits for it or for its answer."""
    found = waited_for(event, wanted)
    if found is not None:
        state = found["stage"]
        return Stage(_WORDS.get(state, state), found.get("percent"))
    if {wanted, wanted.rpartition(":")[0]} & set(event["models"]):
        return Stage("reading the prompt")
    return None
