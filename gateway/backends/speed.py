"""The measured speed of a llama-server, and how long its current work may take.

Measured by its own ``timings``, which it writes into its log for each answer, whatever API it was
asked in: a client that gets none tells us neither less. What counts is the fastest it has been
since it was loaded, so nobody makes it look slower than it is by asking for something slow.
"""

from __future__ import annotations

import re

from gateway.backends.logring import LogRing

#: The output of llama.cpp's ``server_slot::print_timings``. With few tokens it measures something
#: else: how long the first token of the answer took to choose, for example.
_TIMINGS = re.compile(r"\b(prompt )?eval time = +([\d.]+) ms / +(\d+) tokens")
_ENOUGH = {"prompt ": 64, None: 8}
#: Log lines that only the computing thread writes: they show that it goes on.
_GOES_ON = re.compile(r"\bslot +\w+|\b(image|audio)( slice| batch)?\b.*\b(encod|decod)")
#: The speed before anything is measured: bytes of the model's file for which one second is enough
#: to read a token of a prompt, and to write one. The slowest boards that run a model at all do
#: better.
_PROMPT_BYTES, _ANSWER_BYTES = 2.0e9, 0.5e9
#: The least size of a file, in bytes, that is assumed: the smallest models take their time for
#: other things.
_SMALLEST = 32e6
#: How many times slower than ever before it may become: other programs use the machine, and
#: contexts are long. With a grammar, each token of an answer may take many times as long as
#: without.
_PROMPT_FACTOR, _ANSWER_FACTOR = 8.0, 40.0
#: The number of preceding tokens that doubles the time of a prompt's token: attention grows with
#: them, and the fastest measurement had few.
_DEPTH = 8192


class Speed:
    """The speed of one load, by what is written to ``log``. ``size``: bytes of the model's file."""

    def __init__(self, log: LogRing, size: int) -> None:
        self._log = log
        self._prompt: float | None = None  # tokens a second
        self._answer: float | None = None
        self._size = max(size, _SMALLEST)
        self.steps = 0  # lines that say that it goes on

    def hear(self) -> None:
        """Read a new line of the log."""
        line = self._log.last
        if _GOES_ON.search(line) is None:
            return
        self.steps += 1
        if (found := _TIMINGS.search(line)) is None:
            return
        tokens, seconds = int(found[3]), float(found[2]) / 1000
        if tokens < _ENOUGH[found[1]] or not seconds:
            return
        if found[1]:
            self._prompt = max(self._prompt or 0.0, tokens / seconds)
        else:
            self._answer = max(self._answer or 0.0, tokens / seconds)

    def seconds(self, prompt: float, answer: float = 0, depth: float = 0) -> float:
        """Return how long so many tokens of prompts and of answers may take at most.

        ``depth``: tokens that stand before those of the prompts.
        """
        prompt *= 1 + depth / _DEPTH
        if self._prompt is not None:
            reading = _PROMPT_FACTOR * prompt / self._prompt
        else:
            reading = prompt * self._size / _PROMPT_BYTES
        if self._answer is not None:
            return reading + _ANSWER_FACTOR * answer / self._answer
        return reading + answer * self._size / _ANSWER_BYTES
