"""Records what the tests here have tried, for the table of clients in docs/clients.md.

A test says with :func:`tried` which client it runs and what of it. A run with ``--record`` writes
docs/clients.json: of each client whose tests all passed, what they tried, its version and the day.
What of others stands there stays. A new client is a line of :data:`CLIENTS`.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from gateway.clients.tried import THINGS, Tried, read, written

HERE: Final = Path(__file__).parent
RECORD: Final = HERE.parent.parent / "docs" / "clients.json"


class Client(NamedTuple):
    """A client: its title in the table, the API that it speaks, and what tells its version."""

    title: str
    api: str
    version: Callable[[], str]


def _python(package: str) -> Callable[[], str]:
    return partial(importlib.metadata.version, package)


def _node(package: str, folder: Path = HERE) -> Callable[[], str]:
    file = folder / "node_modules" / package / "package.json"
    return lambda: str(json.loads(file.read_text())["version"])


def _go(module: str) -> Callable[[], str]:
    def version() -> str:
        found = re.search(rf"{re.escape(module)} v(\S+)", (HERE / "go" / "go.mod").read_text())
        assert found is not None, module
        return found[1]

    return version


#: The clients, by the names that tests call them.
CLIENTS: Final[Mapping[str, Client]] = {
    "openai-python": Client("openai for Python", "OpenAI", _python("openai")),
    "openai-node": Client("openai for Node.js", "OpenAI", _node("openai")),
    "openai-go": Client("openai for Go", "OpenAI", _go("github.com/openai/openai-go/v3")),
    "anthropic-python": Client("anthropic for Python", "Anthropic", _python("anthropic")),
    "anthropic-node": Client("anthropic for Node.js", "Anthropic", _node("@anthropic-ai/sdk")),
    "codex": Client("Codex CLI", "OpenAI", _node("@openai/codex", HERE / "codex")),
    "langchain-openai": Client("langchain-openai", "OpenAI", _python("langchain-openai")),
    "litellm": Client("LiteLLM (`openai/`)", "OpenAI", _python("litellm")),
    "llm": Client("llm", "OpenAI", _python("llm")),
    "pydantic-ai": Client("pydantic-ai", "OpenAI", _python("pydantic-ai-slim")),
    "openai-agents": Client("Agents SDK for Python", "OpenAI", _python("openai-agents")),
    "ollama-python": Client("ollama for Python", "Ollama", _python("ollama")),
    "ollama-node": Client("ollama for Node.js", "Ollama", _node("ollama")),
    "langchain-ollama": Client("langchain-ollama", "Ollama", _python("langchain-ollama")),
    "litellm-ollama": Client("LiteLLM (`ollama_chat/`)", "Ollama", _python("litellm")),
    "llm-ollama": Client("llm-ollama", "Ollama", _python("llm-ollama")),
    "ai-sdk-ollama": Client(
        "AI SDK (ollama-ai-provider-v2)", "Ollama", _node("ollama-ai-provider-v2")
    ),
}


def tried(client: str, *things: str) -> pytest.MarkDecorator:
    """Return the mark of a test that tries ``things`` (of :data:`THINGS`) with ``client``."""
    assert client in CLIENTS, client
    assert set(things) <= set(THINGS), things
    return pytest.mark.tried(client, things)


class Recorder:
    """A plugin of pytest that keeps what passed, and writes it in the end."""

    def __init__(self) -> None:
        self._passed: defaultdict[str, set[str]] = defaultdict(set)
        self._failed: set[str] = set()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterable[None]:
        """Note what became of a test."""
        made = yield
        report = made.get_result()  # type: ignore[attr-defined]  # the outcome, pluggy's
        for mark in item.iter_markers("tried"):
            client, things = mark.args
            if report.failed:
                self._failed.add(client)
            elif report.when == "call" and report.passed:
                self._passed[client].update(things)

    def pytest_sessionfinish(self) -> None:
        """Write the record."""
        today = datetime.now(UTC).date().isoformat()
        record = {one.title: one for one in read(RECORD)} if RECORD.exists() else {}
        for name, things in self._passed.items():
            client = CLIENTS[name]
            if name in self._failed:
                continue
            inorder = tuple(thing for thing in THINGS if thing in things)
            version = client.version()
            record[client.title] = Tried(client.title, client.api, version, today, inorder)
        RECORD.write_text(written(record.values()), encoding="utf-8")
