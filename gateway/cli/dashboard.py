"""One state of a gateway as ``llm-gateway status`` shows it: as text, or drawn on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.cli.table import in_columns, print_table
from gateway.cli.terminal import clean, console, is_terminal, say
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

#: How many requests are shown when the status is printed only once.
_PRINTED: Final = 10
#: The least lines for requests, if there are as many.
_REQUESTS: Final = 4
_NUMBERS: Final = frozenset(
    "SLOTS QUEUE TOKENS/S CACHED SPARED MEMORY UPTIME SECONDS PROMPT ANSWER".split()
)
#: The number of looks over which a speed is averaged.
_SMOOTH: Final = 3


class Column(NamedTuple):
    """A column of a table. The column with the greatest ``rank`` is left out first."""

    title: str
    rank: int
    cells: list[str]


def print_status(status: dict[str, Any]) -> None:
    """Print the state once: whole tables, but on a terminal only the columns that fit."""
    print(_head(status))
    if broken := status["models_file_error"]:
        say(clean(_broken(broken)), sys.stdout)
    for device in _devices(status):
        print(f"{device.name}: {device.words}")
    for note in _machine_notes(status):
        say(clean(note), sys.stdout)
    print()
    for columns in (_models(status, {}), _requests(status, _PRINTED)):
        if not columns[0].cells:
            continue
        if is_terminal(sys.stdout):
            out = console(sys.stdout)
            for part in _table(columns, out.width, len(columns[0].cells), None, wrap=True):
                out.print(part)
        else:
            rows = [*zip(*(c.cells for c in columns), strict=True)]
            print_table([c.title for c in columns], rows)
        print()
    for note in _notes(status["models"]):
        say(clean(note), sys.stdout)


class Dashboard:
    """Draws the newest state, and tells when there is none."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._status: dict[str, Any] = {}
        self._seen = 0.0  # monotonic
        self._away: GatewayError | None = None
        self._written: dict[str, tuple[str, int]] = {}  # by request: its model, and tokens
        self._speeds: list[dict[str, float]] = []  # by model, of the last looks

    def take(self, news: dict[str, Any] | GatewayError) -> None:
        """Take a new state, or the reason why there is none."""
        if isinstance(news, GatewayError):
            self._away = news
            self._written.clear()
            self._speeds.clear()
            return
        now = time.monotonic()
        self._measure(news, now - self._seen)
        self._status, self._seen, self._away = news, now, None

    def _measure(self, status: dict[str, Any], seconds: float) -> None:
        """Measure the speed of running answers by the tokens since the last state."""
        speeds: dict[str, float] = {}
        written: dict[str, tuple[str, int]] = {}
        for one in status["requests"]["under_way"]:
            if not (tokens := one["completion_tokens"]):
                continue
            written[one["id"]] = one["model"], tokens
            if one["id"] in self._written and seconds > 0:
                more = max(tokens - self._written[one["id"]][1], 0)
                speeds[one["model"]] = speeds.get(one["model"], 0.0) + more / seconds
        self._written = written
        self._speeds = [*self._speeds, speeds][-_SMOOTH:]

    def _speed(self) -> dict[str, float]:
        """Return tokens per second, by model, of the answers that are being written."""
        busy = {model for model, _ in self._written.values()}
        means = {}
        for model in busy:
            known = [speeds[model] for speeds in self._speeds if model in speeds]
            if known:
                means[model] = sum(known) / len(known)
        return means

    def drawn(self, width: int, height: int) -> RenderableType:
        """Return the screen for a terminal of that many columns and lines."""
        from rich.console import Group
        from rich.text import Text

        status = self._status
        head: list[RenderableType] = [self._title(width)]
        if broken := status["models_file_error"]:
            head.append(Text(clean(_broken(broken)), "red"))
        head += [_bar(device, width) for device in _devices(status)]
        head += [Text(clean(note), "yellow") for note in _machine_notes(status)]
        notes = [Text(clean(note), "red") for note in _notes(status["models"])]
        taken = sum(_height(text, width) for text in (*head, *notes))
        # Titles, and an empty line before each part.
        room = max(height - taken - 4 - bool(notes), 2)
        models, requests = _models(status, self._speed()), _requests(status, None)
        for_requests = min(len(requests[0].cells), max(room - len(models[0].cells), _REQUESTS))
        for_models = max(room - for_requests, 1)
        parts: list[RenderableType] = [*head, Text(), *_table(models, width, for_models, "models")]
        if notes:
            parts += [Text(), *notes]
        if requests[0].cells:
            parts += [Text(), *_table(requests, width, for_requests, None)]
        return Group(*parts)

    def _title(self, width: int) -> Text:
        from rich.text import Text

        if self._away is not None:
            away = time.monotonic() - self._seen
            words = f"away for {away:.0f} s, looked for again: {clean(self._away.message)}"
            return Text(words, "bold red")
        title = Text(_head(self._status), "bold")
        where = f"{clean(self._name)}  {datetime.now().astimezone():%H:%M:%S}"
        if len(title) + len(where) + 2 <= width:
            title.append(" " * (width - len(title) - len(where)) + where, "not bold dim")
        return title


def _table(
    columns: Sequence[Column], width: int, lines: int, what: str | None, *, wrap: bool = False
) -> Iterator[RenderableType]:
    """Return as many rows as ``lines`` allows, and as many columns as fit side by side."""
    from rich.text import Text

    more = len(columns[0].cells) - lines
    if more > 0 and what is not None:
        lines, more = lines - 1, more + 1  # for the words about them
    columns = [c._replace(cells=[clean(cell) for cell in c.cells[:lines]]) for c in columns]
    while columns:
        rows = list(zip(*(c.cells for c in columns), strict=True))
        titles = [c.title for c in columns]
        table = in_columns(titles, rows, width, wrap=wrap, numbers=_NUMBERS)
        if table is not None or len(columns) == 1:
            if table is not None:
                yield table
            break
        last = max(columns, key=lambda c: c.rank)
        columns = [c for c in columns if c is not last]
    if more > 0 and what is not None:
        yield Text(f"and {more} more {what}", "dim")


def _height(text: RenderableType, width: int) -> int:
    from rich.text import Text

    return -(-max(text.cell_len, 1) // width) if isinstance(text, Text) else 1


# --- the parts -------------------------------------------------------------------------------


def _head(status: dict[str, Any]) -> str:
    active = status["active"]
    chosen = ""
    if active:
        personality = f" ({active['personality']})" if active["personality"] else ""
        chosen = f"   active: {clean(active['model'] + personality)}"
    state = "ready" if status["ready"] else "not ready"
    return (
        f"llm-gateway {status['version']}   {state}   up {_long(status['uptime'])}   "
        f"in flight: {status['in_flight']}{chosen}"
    )


def _broken(error: str) -> str:
    return f"models.json is broken, the last good one stays in use: {error}"


class DeviceUse(NamedTuple):
    """The memory of a device in bytes; ``used`` is None if it isn't known."""

    name: str
    total: int
    used: int | None
    description: str

    @property
    def words(self) -> str:
        """Return in words how much of the memory is used."""
        if self.used is None or not self.total:
            return f"{_gib(self.total)} in all"
        part = 100 * self.used // self.total
        return f"{self.used / 2**30:.1f} of {_gib(self.total)} used ({part}%)"


def _devices(status: dict[str, Any]) -> list[DeviceUse]:
    """Return the devices of this machine, and of each other one that is up."""
    machines = [("", status["machine"]["devices"])] if status["machine"] is not None else []
    nodes = status.get("nodes", ())  # an older gateway has none
    machines += [(f"{one['name']}/", one["devices"]) for one in nodes if one["up"]]
    return [
        DeviceUse(
            clean(prefix + device["name"]),
            device["total"] or 0,
            None if device["free"] is None else (device["total"] or 0) - device["free"],
            clean(device["description"] or ""),
        )
        for prefix, devices in machines
        for device in devices
    ]


def _machine_notes(status: dict[str, Any]) -> Iterator[str]:
    machine = status["machine"]
    if machine is not None and machine["problem"]:
        yield f"warning: {machine['problem']}"
    for node in status.get("nodes", ()):
        if not node["up"]:
            yield f"warning: the node {node['name']} is away: {node['problem']}"


def _bar(device: DeviceUse, width: int) -> RenderableType:
    """Return the device's name, a bar, and the same in words."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    used, total = device.used or 0, device.total or 1
    part = used / total
    colour = "red" if part > 0.95 else "yellow" if part > 0.8 else "green"
    table = Table.grid(padding=(0, 2, 0, 0))
    room = width - len(device.words) - max(len(device.name), 5) - 4
    cells: list[RenderableType] = [Text(device.name.ljust(5), "bold")]
    if room >= 8 and device.used is not None:
        bar = min(room, 40)
        cells.append(
            ProgressBar(total, used, width=bar, complete_style=colour, finished_style=colour)
        )
        room -= bar + 2
    cells.append(Text(device.words))
    if device.description and len(device.description) <= room:
        cells.append(Text(device.description, "dim"))
    table.add_row(*cells)
    return table


def _models(status: dict[str, Any], speeds: dict[str, float]) -> list[Column]:
    # What does something stands before what sleeps; else the order is that of models.json.
    models = sorted(status["models"], key=lambda m: m["state"] == "stopped" and not m["queued"])
    saved = Column("SPARED", 10, [_spared(m.get("prompt_cache")) for m in models])
    return [
        Column("MODEL", 0, [m["name"] for m in models]),
        Column("STATE", 1, [_state(m) for m in models]),
        Column("ON", 6, [_device_of(m) for m in models]),
        Column("SLOTS", 2, [f"{m['in_flight']}/{m['slots']}" for m in models]),
        Column("QUEUE", 3, [str(m["queued"]) for m in models]),
        Column("TOKENS/S", 4, [_rate(m, speeds.get(m["name"])) for m in models]),
        Column("CACHED", 5, [_cached(m["usage"]) for m in models]),
        *([saved] if any(cell != "-" for cell in saved.cells) else ()),
        Column("MEMORY", 7, [_memory(m) for m in models]),
        Column("UPTIME", 8, [_long(m["uptime"]) for m in models]),
        Column("STARTS/DEATHS", 9, [f"{m['starts']}/{m['deaths']}" for m in models]),
    ]


def _state(model: dict[str, Any]) -> str:
    if model["state"] == "starting":
        percent = model.get("progress")
        how_far = f" {int(100 * percent)}%" if percent is not None else ""
        # What is cut off where there is no room comes last: "copying 42% 3 s, x.gguf from attic".
        stage, _, what = (model.get("stage") or "loading").partition(" ")
        more = f", {what}" if what else ""
        return f"{stage}{how_far} {model['state_seconds']:.0f} s{more}"
    if (model["retry_in"] or 0) >= 1:
        return f"{model['state']} {model['retry_in']:.0f} s"
    return str(model["state"])


def _device_of(model: dict[str, Any]) -> str:
    """Return where a model is; in capitals if it should not be there."""
    if model["servers"]:
        up = sum(server["up"] for server in model["servers"])
        return f"{up} of {len(model['servers'])} up"
    return "CPU!" if model["degraded"] else ",".join(model["devices"]) or "-"


def _rate(model: dict[str, Any], speed: float | None) -> str:
    """Return the speed of a model's running answers together, or of its last one."""
    value = speed if speed is not None else model["usage"]["tokens_per_second"]
    return "-" if value is None else f"{value:.1f}"


def _cached(used: dict[str, Any]) -> str:
    """Return the share of a model's prompts that came from a cache."""
    prompt, cached = used["prompt_tokens"], used["cached_tokens"]
    return f"{cached:,} {100 * cached // prompt}%" if prompt else "-"


def _spared(saved: dict[str, Any] | None) -> str:
    """Return how long it would have taken to compute what conversations had in slots and files."""
    if saved is None or not saved["hits"] + saved["slot_hits"]:
        return "-"
    seconds = saved["seconds"] + saved["slot_seconds"]
    return f"{seconds:.1f} s" if seconds < 60 else _long(seconds)


def _memory(model: dict[str, Any]) -> str:
    size = model["memory_held"] or model["memory"]
    return "-" if not size or model["servers"] else _gib(size)


def _requests(status: dict[str, Any], most: int | None) -> list[Column]:
    """Return the running requests, the newest first, then the ended ones, likewise."""
    told = status["requests"]
    rows = [*reversed(told["under_way"]), *reversed(told["recent"])][:most]
    return [
        Column("TIME", 4, [_clock(one.get("time")) for one in rows]),
        Column("KEY", 2, [one["name"] or one["key"] for one in rows]),
        Column("MODEL", 0, [_with_personality(one) for one in rows]),
        Column("ROUTE", 8, [one["route"] for one in rows]),
        Column("STATUS", 1, [str(one.get("status") or one["stage"]) for one in rows]),
        Column("SECONDS", 3, [f"{one['seconds']:.1f}" for one in rows]),
        Column("PROMPT", 6, [_tokens(one.get("prompt_tokens")) for one in rows]),
        Column("CACHED", 7, [_cached_tokens(one) for one in rows]),
        Column("ANSWER", 5, [_tokens(one["completion_tokens"]) for one in rows]),
        Column("TOKENS/S", 9, [_speed_of(one) for one in rows]),
    ]


def _with_personality(one: dict[str, Any]) -> str:
    model = one["model"] or "-"
    return f"{model}:{one['personality']}" if one["personality"] else str(model)


def _clock(text: str | None) -> str:
    """Return when a request ended, by this machine's clock."""
    if text is None:
        return "now"
    ended = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return f"{ended.astimezone():%H:%M:%S}"


def _tokens(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _cached_tokens(one: dict[str, Any]) -> str:
    """Return how many tokens of a prompt were cached, and where: ``1,980 disk``."""
    tokens, place = _tokens(one.get("cached_tokens")), one.get("cached_from")
    return f"{tokens} {place}" if place is not None else tokens


def _speed_of(one: dict[str, Any]) -> str:
    speed = one.get("tokens_per_second")
    return "-" if speed is None else f"{speed:.1f}"


def _notes(models: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield what does not fit into a column."""
    for model in models:
        if model["degraded"]:
            yield f"{model['name']} runs on the CPU: {model['degraded']}"
        if model["last_error"]:
            yield f"{model['name']}, last error: {model['last_error']}"


def _gib(size: int | None) -> str:
    return "?" if size is None else f"{size / 2**30:.1f} GiB"


def _long(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours}:{minutes:02}" if days else f"{hours}:{minutes:02}:{rest:02}"
