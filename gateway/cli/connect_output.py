"""The output of ``llm-gateway connect``: the lines of a configuration, and notes about them."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.cli.reached_at import is_only_here
from gateway.cli.terminal import is_terminal, size_of
from gateway.clients import CLIENTS, KEY, SOME_CONTEXT, ClientTarget, Part, Setup
from gateway.config.settings import Settings

_WIDEST: Final = 100  # columns of a text that is read


def notes_on(
    setup: Setup, target: ClientTarget, settings: Settings | None, made: Mapping[str, Any] | None
) -> list[str]:
    """Return the notes, the most important first."""
    notes = []
    if settings is not None and not settings.auth.enabled:
        notes.append("Keys are off (auth.enabled): any text does as a key.")
    elif made is None:
        whence = f"The key is what {KEY} holds" if setup.reads_variable else "It needs a key"
        notes.append(
            f"{whence}: `llm-gateway keys create` makes one. With --create-key this command makes "
            "one that is good for that model only, and puts it into the lines."
        )
    if is_only_here(target.url):
        notes.append(
            f"{target.url} is for clients on this machine. For others, the gateway has to listen "
            "on the network (`host` in gateway.yaml)."
        )
    elif settings is not None and settings.trusted_proxies:
        notes.append("For clients that come through the proxy in front: --url with its address.")
    if target.ca is not None:
        notes.append(
            f"The certificate is signed by an authority of your own, {target.ca}: clients on other "
            "machines need a copy of that file"
            + (f". {setup.ca_note}." if setup.ca_note else ", and its path there.")
        )
    if setup.must_know_context and target.context is None:
        notes.append(
            f"The model's context is not known yet, so {SOME_CONTEXT} stands for it: load it once."
        )
    least, has = setup.least_context, target.context
    if least is not None and has is not None and has < least:
        notes.append(
            f"{target.model} has a context of {has:,} tokens, and {setup.title} needs {least:,} "
            "or more: raise ctxSize in models.json, or choose another model."
        )
    return notes


@dataclass(frozen=True, slots=True)
class ClientSetup:
    """How a client is set up, as it is shown."""

    word: str
    target: ClientTarget
    made: Mapping[str, Any] | None
    notes: Sequence[str]

    @property
    def setup(self) -> Setup:
        return CLIENTS[self.word]

    def as_json(self) -> None:
        target, setup = self.target, self.setup
        shown = {
            "client": self.word,
            "title": setup.title,
            "url": target.url,
            "base_url": target.base_url,
            "model": target.model,
            "context_size": target.context,
            "ca": target.ca,
            "key_variable": KEY,
            "key": self.made,
            "parts": [part._asdict() for part in setup.parts_for(target)],
            "notes": [*self.notes, *setup.notes],
            "needs": setup.needs,
            "documentation": setup.documentation,
            "checked": setup.checked,
        }
        print(json.dumps(shown, indent=2, ensure_ascii=False))

    def as_lines(self) -> None:
        """Print everything in order on a terminal; otherwise only the first part goes to stdout."""
        first, *others = self.setup.parts_for(self.target)
        alone = not is_terminal(sys.stdout)
        if alone:
            print(first.text, end="", flush=True)
            self._tell(f"For {first.where}.")
        else:
            self._tell(f"{self.setup.title} with {self.target.model} at {self.target.url}")
            self._part(first)
        for part in others:
            if not (alone and part.example):
                self._part(part)
        if self.made is not None:
            models = ", ".join(self.made["models"])
            self._tell(
                before="" if alone else "\n",
                text=f"The key is {self.made['id']} ({self.made['name']}), good for {models}; it "
                "is shown only this once, and `llm-gateway keys revoke "
                f"{self.made['id']}` ends it.",
            )
        if alone:
            for note in self.notes:
                self._tell(note)
            return
        self._tell("To know:", before="\n")
        for note in (*self.notes, f"It needs: {', '.join(self.setup.needs)}.", *self.setup.notes):
            self._tell(note, bullet="- ")
        self._tell(f"Checked against {self.setup.checked}: {self.setup.documentation}", before="\n")

    def _part(self, part: Part) -> None:
        stream = sys.stdout if is_terminal(sys.stdout) else sys.stderr
        self._tell(f"{part.place}:", before="\n")
        print(f"\n{part.text}", end="", file=stream, flush=True)

    def _tell(self, text: str, *, bullet: str = "", before: str = "") -> None:
        width = min(size_of(sys.stderr)[0], _WIDEST)
        lines = textwrap.wrap(
            text,
            width,
            initial_indent=bullet,
            subsequent_indent=" " * len(bullet),
            break_long_words=False,
            break_on_hyphens=False,
        )
        print(before + "\n".join(lines), file=sys.stderr, flush=True)
