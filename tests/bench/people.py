"""Those who talk with models: conversations that grow, and what each turn of them cost."""

from __future__ import annotations

import random
from typing import NamedTuple

from tests.bench.real_servers import Server

_WORDS = "the cat sat on a mat while old dogs ran over green hills and said nothing of note".split()
_ANSWER = 16


class Turn(NamedTuple):
    """Seconds until the first token; tokens of the prompt that were computed, and those of it that
    had not been in the conversation before.
    """

    first: float
    computed: int
    new: int


class Conversation:
    """One that begins with about ``tokens`` tokens that no other has."""

    def __init__(self, seed: int, tokens: int) -> None:
        self._random = random.Random(seed)
        self._known = 0
        self._messages: list[dict[str, str]] = []
        self._next = f"{seed}: " + self._words(tokens)

    def _words(self, count: int) -> str:
        return " ".join(self._random.choices(_WORDS, k=count))

    def go_on(self, server: Server, model: str, until: float, words: int = 20) -> Turn:
        """Ask, and note the answer; the question after that has so many words."""
        self._messages.append({"role": "user", "content": self._next})
        answer = server.ask(model, self._messages, _ANSWER, until)
        self._messages.append({"role": "assistant", "content": answer.text})
        self._next = self._words(words)
        known, self._known = self._known, answer.prompt + answer.completion
        return Turn(answer.first, answer.prompt - answer.cached, answer.prompt - known)
