"""Instructions that a request costs the gateway, with the cache and without: counted by valgrind.

They depend little on what else the machine does, where CPU time differs by a third from run to run:
what the gateway does in as much time without requests is subtracted. The kernel's own are not among
them.
"""

from __future__ import annotations

import http.client
import itertools
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.bench.cache_cost import MESSAGES, PlainGateway, SavingGateway
from tests.bench.load import conversation
from tests.bench.proxies import GatewayProxy, Missing, Process, Upstream

#: Before it is counted: caches fill, and what is done once is done.
_WARM = 80
_COUNTED = 200
#: Conversations in turns, each in a slot.
_PEOPLE = 4
_START_SECONDS = 180.0


class Instructions(NamedTuple):
    """Of a request with so many messages, in thousands."""

    messages: int
    off: float
    on: float

    def line(self) -> str:
        """Return it as a line of text."""
        more = self.on - self.off
        return (
            f"{self.messages} messages: {self.off:.0f} off, {self.on:.0f} on: "
            f"{more:+.0f} ({more / self.off:+.1%})"
        )


def count(say: Callable[[str], None]) -> list[Instructions]:
    """Count them. Raises :class:`Missing` without valgrind."""
    if shutil.which("valgrind") is None:
        raise Missing("valgrind is not installed: instructions are not counted")
    found: list[dict[int, float]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        upstream = Upstream(folder)
        try:
            for kind in (PlainGateway, SavingGateway):
                say(f"counting instructions: {kind.name}")
                found.append(_of(kind(folder, upstream, tcp=False)))
        finally:
            upstream.end()
    off, on = found
    return [Instructions(messages, off[messages], on[messages]) for messages in MESSAGES]


def _of(gateway: GatewayProxy) -> dict[int, float]:
    gateway.prepare()
    out = gateway.root / "callgrind"
    argv = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
    gateway.process = Process([*argv, *gateway.argv()], gateway.folder, "counted")
    try:
        gateway.process.until_healthy(gateway.port, seconds=_START_SECONDS)
        return {messages: _counted(gateway, messages, out) for messages in MESSAGES}
    finally:
        gateway.end()


def _counted(gateway: GatewayProxy, messages: int, out: Path) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    try:
        _ask(connection, gateway, messages, _WARM)
        _control(gateway, "--instr=on")
        _control(gateway, "--zero")
        began = time.monotonic()
        _ask(connection, gateway, messages, _COUNTED)
        _control(gateway, f"--dump={messages} messages")
        _control(gateway, "--zero")
        time.sleep(time.monotonic() - began)
        _control(gateway, f"--dump={messages} idle")
        _control(gateway, "--instr=off")
    finally:
        connection.close()
    asked, idle = (_total(out, f"Trigger: dump {messages} {what}") for what in ("messages", "idle"))
    return (asked - idle) / _COUNTED / 1000


def _total(out: Path, about: str) -> int:
    """Return the sum of the dump that says so: it may still be on its way."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for file in out.parent.glob(f"{out.name}*"):
            text = file.read_text()
            total = re.search(r"^summary: (\d+)", text, re.MULTILINE)
            if about in text and total is not None:
                return int(total[1])
        time.sleep(0.05)
    raise RuntimeError(f"callgrind wrote nothing for {about!r}")


def _control(gateway: GatewayProxy, *arguments: str) -> None:
    argv = ["callgrind_control", *arguments, str(gateway.pid)]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)


def _ask(
    connection: http.client.HTTPConnection, gateway: GatewayProxy, messages: int, times: int
) -> None:
    headers = {"Authorization": f"Bearer {gateway.key}", "Content-Type": "application/json"}
    everyone = [itertools.cycle(conversation(number, messages)) for number in range(_PEOPLE)]
    for person in itertools.islice(itertools.cycle(everyone), times):
        asked = {"model": gateway.models[0], "messages": next(person), "temperature": 0.7}
        connection.request("POST", "/v1/chat/completions", json.dumps(asked), headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
