"""Apps that speak Ollama's API, and where each is told of the gateway. For the page of clients.

None of them is run by a test, as they need a desktop, a phone or an account.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple


class OllamaApp(NamedTuple):
    """An app: where its address is set, and its key (empty: it takes none)."""

    title: str
    address: str
    key: str
    note: str = ""


APPS: Final = (
    OllamaApp(
        "Home Assistant",
        "Settings > Devices & services > Add integration > Ollama: URL",
        "API key, in the same form (older releases have none)",
        "It uses Ollama's client for Python, which is tried above. Choose a model that is listed: "
        "any other it would pull.",
    ),
    OllamaApp(
        "Obsidian, plugin Copilot",
        "Settings > Copilot: a model with the provider Ollama, Base URL",
        "API key of that model",
        "Without a key, `cors.origins` must name `app://obsidian.md`.",
    ),
    OllamaApp(
        "Raycast",
        "Settings > AI > Ollama Host, as `HOST:PORT`",
        "",
        "It speaks plain http, so the gateway must do so as well.",
    ),
    OllamaApp(
        "JetBrains AI Assistant",
        "Settings > Tools > AI Assistant > Providers & API keys: Ollama, Host URL",
        "",
        "With a key: the provider OpenAI-compatible there, and the address with `/v1`.",
    ),
    OllamaApp(
        "VS Code, Copilot Chat",
        'settings.json: `"github.copilot.chat.byok.ollamaEndpoint"`; newer releases ask for it '
        "at Manage Models > Ollama",
        "",
        "With a key: a custom endpoint there, and the address with `/v1/chat/completions`.",
    ),
    OllamaApp(
        "Zed",
        'settings.json: `"language_models": {"ollama": {"api_url": "..."}}`',
        "Agent settings > Ollama, or the variable `OLLAMA_API_KEY`",
        "As a server with OpenAI's API it is described below.",
    ),
    OllamaApp(
        "Enchanted",
        "Settings: Ollama server URI",
        "Bearer Token, below it",
    ),
)


def apps() -> Iterator[str]:
    """Yield the lines of their table, in Markdown."""
    yield "| app | address | key | |"
    yield "|---|---|---|---|"
    for app in APPS:
        key = app.key or "none can be set: [`auth.ollama_open_to`](http-api.md#without-a-key)"
        yield f"| {app.title} | {app.address} | {key} | {app.note} |"
