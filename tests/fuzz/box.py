"""The gateways under test: processes of their own, with real llama-servers and real models.

One speaks HTTP, one TLS. Each has ``chat`` (the demo model) and ``embed`` (MiniLM); ``far`` is, at
the one with TLS, the other one's ``chat``.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gateway.tls import self_signed
from tests.fuzz.bodies import CHAT, EMBED, FAR
from tests.fuzz.sending import Target
from tests.harness import DEMO_GGUF, Served, project
from tests.minilm_model import wheel, write_minilm_model

#: Of what models.json allows: little memory, and no cache of prompts that grows for good.
_ENTRY = {"parallel": 2, "extraArgs": ["--cache-ram", "32"]}
_KEYS: dict[str, dict[str, Any]] = {
    "chat": {},
    "limited": {"models": [CHAT], "limits": {"concurrency": 2, "rpm": 120}},
    "admin": {"admin": True},
}


class Box(NamedTuple):
    """Two gateways, and how they are reached."""

    plain: Served
    tls: Served
    target: Target

    @property
    def served(self) -> dict[str, Served]:
        return {"plain": self.plain, "tls": self.tls}


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Box]:
    """Both, with their models loaded; ended with the block."""
    made = self_signed(["127.0.0.1"], folder / "ssl")
    embedding = folder / "minilm.gguf"
    write_minilm_model(embedding, wheel())
    models = {
        CHAT: {
            "params": {"model": DEMO_GGUF, "ctxSize": 4096, "threads": 1},
            "personalities": {"poet": "You rhyme."},
            **_ENTRY,
        },
        EMBED: {
            "params": {"model": str(embedding), "threads": 1},
            "embeddings": True,
            **_ENTRY,
        },
    }
    with contextlib.ExitStack() as stack:
        served = {}
        keys: dict[str, str] = {}
        far: dict[str, Any] = {}
        for name in ("plain", "tls"):
            tls = {
                "enabled": name == "tls",
                "private_key": str(made.private_key),
                "certificate": str(made.certificate),
            }
            config = project(folder / name, {**models, **far}, llama_server="auto", tls=tls)
            if keys:  # the same keys: the store is a file
                for file in (folder / "plain/data").glob("gateway.db*"):
                    (folder / name / "data" / file.name).write_bytes(file.read_bytes())
            environ = {"FUZZ_KEY": keys.get("chat", "")}
            gateway = Served(folder / name, "--config", str(config), env=environ)
            stack.callback(gateway.stop, seconds=90)  # requests in flight may end first
            served[name] = gateway
            if not keys:
                keys = _made(gateway)
                far = {FAR: {"url": gateway.url, "key": "env:FUZZ_KEY", "modelName": CHAT}}
        ports = {name: int(each.url.rpartition(":")[2]) for name, each in served.items()}
        target = Target(ports["plain"], ports["tls"], str(made.chain), keys)
        for door in served:  # loads the models, and what the first request of a process takes
            for model, path, body in ASKED:
                status, text = ask(target, door, path, {"model": model, **body})
                assert status == 200, text
        yield Box(served["plain"], served["tls"], target)


def _made(gateway: Served) -> dict[str, str]:
    keys = {}
    for role, fields in _KEYS.items():
        request = urllib.request.Request(
            f"{gateway.url}/admin/keys",
            json.dumps({"name": role, **fields}).encode(),
            {"Authorization": f"Bearer {gateway.key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            keys[role] = json.load(answer)["key"]
    return keys


#: What anybody may ask, and gets.
ASKED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (CHAT, "/v1/completions", {"prompt": "a", "max_tokens": 1}),
    (EMBED, "/v1/embeddings", {"input": "a"}),
)
#: Seconds until that must be answered.
ANSWERED = 90.0


def ask(target: Target, door: str, path: str, body: dict[str, Any]) -> tuple[int, str]:
    """Status and text of an ordinary request."""
    connection: http.client.HTTPConnection
    if door == "tls":
        context = ssl.create_default_context(cafile=target.authority)
        connection = http.client.HTTPSConnection(
            "127.0.0.1", target.tls, timeout=ANSWERED, context=context
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", target.plain, timeout=ANSWERED)
    headers = {"Authorization": f"Bearer {target.keys['chat']}", "Content-Type": "application/json"}
    try:
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


def children(pid: int) -> dict[int, str]:
    """The processes that descend from ``pid``: pid -> what it is."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                stat = (entry / "stat").read_text()
                parents[int(entry.name)] = int(stat[stat.rindex(")") + 2 :].split()[1])
    found: dict[int, str] = {}
    pending = [pid]
    while pending:
        parent = pending.pop()
        for child in [c for c, p in parents.items() if p == parent]:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                found[child] = "llama-server" if b"--cache-ram" in words else "child"
            pending.append(child)
    return found


def resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0
