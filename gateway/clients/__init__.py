"""How to set up common clients for a gateway: one table, with lines from each client's
documentation.

A client reads a file, or variables of its environment, or is set up in a window: :class:`Part` is
one such piece of its configuration, ready to be pasted. Keys are referred to by the variable
:data:`KEY`, which most clients can read; only a key that was just made is written down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from gateway.clients.lines import (
    aider_parts,
    claude_code_parts,
    codex_parts,
    continue_parts,
    home_assistant_parts,
    llm_parts,
    obsidian_parts,
    open_webui_parts,
    openai_node_parts,
    openai_python_parts,
    zed_parts,
)
from gateway.clients.shape import CA_AT_HOME, KEY, NAME, SOME_CONTEXT, ClientTarget, Part, Setup

__all__ = [
    "CA_AT_HOME",
    "CLIENTS",
    "KEY",
    "NAME",
    "SOME_CONTEXT",
    "ClientTarget",
    "Part",
    "Setup",
    "models_named",
]

_BASE_URL_NOTE = "The base URL ends in /v1."
#: The clients by their names for `connect`.
CLIENTS: Final[Mapping[str, Setup]] = MappingProxyType(
    {
        "codex": Setup(
            "Codex",
            "OpenAI's coding agent, in terminals and editors",
            ("Responses API", "tools"),
            "https://developers.openai.com/codex/config-reference",
            "Codex CLI 0.169.0",
            codex_parts,
            (
                "In a config.toml that has tables already, the lines above the table go to its "
                f"top. Or leave that file alone: all lines into ~/.codex/{NAME}.config.toml, and "
                f"`codex --profile {NAME}`.",
                "It speaks the Responses API only: wire_api can be nothing else.",
            ),
            least_context=16_384,
            ca_variable="CODEX_CA_CERTIFICATE",
        ),
        "claude-code": Setup(
            "Claude Code",
            "Anthropic's coding agent, in terminals and editors",
            ("Messages API", "tools"),
            "https://code.claude.com/docs/en/llm-gateway",
            "Claude Code 2.1.197",
            claude_code_parts,
            (
                "Its base URL is without /v1.",
                "CLAUDE_CODE_ATTRIBUTION_HEADER=0 leaves out a line of the system prompt that "
                "differs from session to session, so that llama-server need not read the prompt "
                "anew.",
                "The same variables may stand under `env` in ~/.claude/settings.json, with the "
                "key's text; never in a project's settings, which are shared.",
            ),
            least_context=32_768,
            ca_variable="NODE_EXTRA_CA_CERTS",
        ),
        "openai-python": Setup(
            "openai for Python",
            "OpenAI's library, and programs that use it",
            ("Chat Completions or Responses API",),
            "https://github.com/openai/openai-python#readme",
            "openai 3.54.0",
            openai_python_parts,
            (_BASE_URL_NOTE,),
            ca_variable="SSL_CERT_FILE",
        ),
        "openai-node": Setup(
            "openai for Node.js",
            "OpenAI's library, and programs that use it",
            ("Chat Completions or Responses API",),
            "https://github.com/openai/openai-node#readme",
            "openai 6.30.1",
            openai_node_parts,
            (_BASE_URL_NOTE,),
            ca_variable="NODE_EXTRA_CA_CERTS",
        ),
        "continue": Setup(
            "Continue",
            "coding assistant in VS Code and JetBrains",
            ("Chat Completions API", "tools (Agent mode)", "embeddings, if there are"),
            "https://docs.continue.dev/reference",
            "its documentation in November 2026",
            continue_parts,
            (
                "provider stays openai: that is how Continue calls every server with OpenAI's API.",
                "Without apiBase it would send the key to OpenAI.",
            ),
            reads_variable=False,
            embeds=True,
        ),
        "zed": Setup(
            "Zed",
            "editor with an agent",
            ("Chat Completions API", "tools"),
            "https://zed.dev/docs/ai/use-api-access",
            "its documentation in November 2026",
            zed_parts,
            (
                "Zed reads the key from a variable named after the provider, or its settings page "
                "asks for it; it never stands in settings.json.",
                "A Zed that wasn't started from that shell doesn't see the variable.",
            ),
            must_know_context=True,
            ca_note="Zed trusts what the system trusts: add the authority there",
        ),
        "open-webui": Setup(
            "Open WebUI",
            "chat page for a household or an office",
            ("Chat Completions API",),
            "https://docs.openwebui.com/reference/env-configuration",
            "its documentation in August 2026",
            open_webui_parts,
            (
                "These variables count at its first start; later they are changed on its page, "
                "Admin Settings > Connections (Provider: llama.cpp).",
                "In a container 127.0.0.1 is the container: the gateway must listen on the network "
                "(host: 0.0.0.0, with TLS) or the container use --network host.",
                "It shows its users every model that the key may use.",
            ),
            ca_variable="AIOHTTP_CLIENT_SSL_CERT_FILE",
        ),
        "home-assistant": Setup(
            "Home Assistant",
            "Assist, the voice assistant of the house",
            ("Chat Completions API", "tools"),
            "https://github.com/skye-harris/hass_local_openai_llm#readme",
            "its README in November 2026",
            home_assistant_parts,
            (
                "Home Assistant's own OpenAI integration knows no other server than OpenAI's. This "
                "is for the custom integration Local OpenAI LLM, by skye-harris, from HACS.",
                "The gateway speaks Ollama's API, too: Home Assistant's own integration for Ollama "
                "takes the address without /v1, and the key.",
                "Model is asked for afterwards, by Add conversation agent.",
            ),
            reads_variable=False,
            least_context=10_000,
            ca_note="Home Assistant OS can't be told of an authority: use a certificate that "
            "everybody trusts (tls.acme)",
        ),
        "obsidian": Setup(
            "Obsidian",
            "notes, with the plugin Copilot",
            ("Chat Completions API",),
            "https://github.com/logancyang/obsidian-copilot/blob/master/docs/llm-providers.md",
            "Copilot 4.0.2",
            obsidian_parts,
            (
                "Enable CORS stays off, so that answers are streamed: the gateway allows every "
                "origin unless cors.origins says otherwise (then add app://obsidian.md).",
            ),
            reads_variable=False,
            ca_note="Obsidian trusts what the system trusts: add the authority there",
        ),
        "aider": Setup(
            "aider",
            "pair programming in the terminal",
            ("Chat Completions API",),
            "https://aider.chat/docs/llms/openai-compat.html",
            "its documentation in November 2026",
            aider_parts,
            (
                "openai/ before the model's name says that it is a server with OpenAI's API.",
                "Its warning that it doesn't know the model's context and costs means nothing.",
            ),
            ca_variable="SSL_CERT_FILE",
        ),
        "llm": Setup(
            "llm",
            "Simon Willison's command line for language models",
            ("Chat Completions API",),
            "https://llm.datasette.io/en/stable/other-models.html#openai-compatible-models",
            "llm 0.36",
            llm_parts,
            ("A file that is there already is a list: the lines go to its end.",),
            ca_variable="SSL_CERT_FILE",
        ),
    }
)


def models_named(setup: Setup, target: ClientTarget) -> Iterator[str]:
    """Yield the models that a key for it has to be good for, without personalities."""
    yield target.model
    if setup.embeds and target.embeddings is not None:
        yield target.embeddings
