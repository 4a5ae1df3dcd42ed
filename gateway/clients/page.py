"""The table as a page of the documentation.

``python -m gateway.clients.page docs/clients.md`` writes it, with the record of what was tried in
docs/clients.json.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from gateway.clients import CLIENTS, KEY, ClientTarget, Setup
from gateway.clients.ollama_apps import apps
from gateway.clients.tried import Tried, read, table

#: The placeholders for a gateway, a model and a private authority.
EXAMPLE: Final = ClientTarget("https://box.example.com:8443", "Qwen3-8B", context=32_768)
_MADE: Final = "python -m gateway.clients.page docs/clients.md"
_HEAD: Final = f"""\
<!-- Made from the table in gateway/clients: `{_MADE}` writes it anew. -->

# Clients

`llm-gateway connect CLIENT` prints these lines for your gateway: with its address, the model (the
only one, the active one, or `--model NAME[:PERSONALITY]`) and its context. On a terminal it says
where they go and what to know; on a pipe stdout is the lines alone:

```sh
llm-gateway connect                                      # the clients there are
llm-gateway connect codex > ~/.codex/llm-gateway.config.toml
eval "$(llm-gateway connect openai-python --create-key)"
```

`--create-key [NAME]` makes a key for the client, good for the models in its lines and nothing else
(`--models a,b`: for these), and writes it into them; it is shown only this once, and
`llm-gateway keys revoke ID` ends it. Without it, lines refer to the variable
`{KEY}`, and no key is printed. `--url` and a key do the same for a gateway elsewhere
(an administrator's key, to make others); `--json` is everything as JSON.

The address is a name that the gateway is known to have (`tls.acme.domains`, `allowed_hosts`, its
certificate's), else that of this machine in its network, or `127.0.0.1` where the gateway listens
there only. With a certificate of your own authority (`llm-gateway tls self-signed`) the lines also
make the client trust that; on another machine it needs a copy of the file.

What follows are the clients that were tried, then apps that speak Ollama's API, and then each
client that `connect` knows, with the gateway `{EXAMPLE.url}` and the model
`{EXAMPLE.model}`.
"""
_TRIED: Final = """\
## What was tried

These clients have done these things with the gateway and a real llama-server, in these versions.
The table is made from what the tests in `tests/clients` recorded; nothing in it was written by
hand.
"""
_OLLAMA: Final = """\
## Apps that speak Ollama's API

They are given the address without `/v1` (`https://box.example.com:8443`), and a key, which they
send as `Authorization: Bearer KEY`: see [Ollama's API](http-api.md#ollamas-api). Names of models
may have `:latest` behind them. No test runs these apps, and their settings move from release to
release: those of Home Assistant and Enchanted were read in their source in November 2026, the
others are as they were described. What was tried with Ollama's API is in the table above.
"""


def page(record: Sequence[Tried]) -> str:
    """Return the page, in Markdown. ``record``: what was tried."""
    sections = (line for word in CLIENTS for line in _section(word))
    lines = (_HEAD, _TRIED, *table(record), "", _OLLAMA, *apps(), "", *sections)
    return "\n".join(lines)


def _section(word: str) -> Iterator[str]:
    setup = CLIENTS[word]
    yield f"## {setup.title}\n"
    yield f"{setup.about[0].upper()}{setup.about[1:]}. `llm-gateway connect {word}`\n"
    for part in setup.parts_for(EXAMPLE):
        is_path = part.where.startswith(("~", '"'))
        yield (part._replace(where=f"`{part.where}`") if is_path else part).place + ":\n"
        yield f"```{part.language}\n{part.text}```\n"
    yield from (f"- {note}" for note in _notes(setup))
    yield f"\nChecked against {setup.checked}: <{setup.documentation}>\n"


def _notes(setup: Setup) -> Iterator[str]:
    least = setup.least_context
    context = f", {least:,} tokens of context or more" if least is not None else ""
    yield f"It needs: {', '.join(setup.needs)}{context}."
    yield from setup.notes
    if setup.ca_variable is not None:
        yield f"An authority of your own: `export {setup.ca_variable}=FILE`."
    elif setup.ca_note is not None:
        yield f"An authority of your own: {setup.ca_note}."
    else:
        yield "An authority of your own: its file stands in the lines."


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(page(read(file.with_suffix(".json"))), encoding="utf-8")
