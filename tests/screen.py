"""A pseudo-terminal, and what somebody who sits at it sees.

The escape sequences that the command line writes are understood (ECMA-48; xterm's for the cursor
and its second screen), and any other is an error.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import pytest

from tests.harness import COMMAND, tied

_SEQUENCE = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])")


class Screen:
    """The cells of a terminal. :attr:`raw`: all that was written to it."""

    def __init__(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        self.raw = ""
        self.scrolled: list[str] = []  # lines that have left it at the top
        self.cursor = True  # whether it is seen
        self.styles: set[str] = set()  # parameters of SGR so far
        self._cells = self._empty()
        self._first: list[list[str]] | None = None  # below the second screen
        self._row = self._column = 0
        self._rest = ""

    def _empty(self) -> list[list[str]]:
        return [[" "] * self.columns for _ in range(self.lines)]

    @property
    def text(self) -> str:
        """What is seen, without spaces at the ends."""
        return "\n".join(self.rows).rstrip()

    @property
    def rows(self) -> list[str]:
        return ["".join(row).rstrip() for row in self._cells]

    @property
    def second(self) -> bool:
        """Whether it is the second screen, behind which the first is kept."""
        return self._first is not None

    def resize(self, columns: int, lines: int) -> None:
        """As terminals do that don't wrap lines anew."""
        cells = [row[:columns] + [" "] * (columns - len(row)) for row in self._cells]
        self.scrolled += ["".join(row).rstrip() for row in cells[: max(len(cells) - lines, 0)]]
        cells = cells[-lines:]
        self.columns, self.lines = columns, lines
        self._cells = cells + self._empty()[len(cells) :]
        self._row = min(self._row, lines - 1)
        self._column = min(self._column, columns)

    def feed(self, text: str) -> None:
        self.raw += text
        text, self._rest = self._rest + text, ""
        while text:
            if text[0] == "\x1b":
                found = _SEQUENCE.match(text)
                if found is None:
                    assert len(text) < 20, f"unknown: {text[:20]!r}"
                    self._rest = text
                    return
                self._act(*found.groups())
                text = text[found.end() :]
            else:
                self._put(text[0])
                text = text[1:]

    def _put(self, character: str) -> None:
        if character == "\n":
            self._down()
        elif character == "\r":
            self._column = 0
        elif character == "\x07":
            pass
        else:
            assert character.isprintable(), repr(character)
            if self._column >= self.columns:
                self._column = 0
                self._down()
            self._cells[self._row][self._column] = character
            self._column += 1

    def _down(self) -> None:
        if self._row + 1 < self.lines:
            self._row += 1
            return
        self.scrolled.append("".join(self._cells.pop(0)).rstrip())
        self._cells.append([" "] * self.columns)

    def _act(self, private: str, numbers: str, kind: str) -> None:
        number = int(numbers.partition(";")[0] or 0)
        if private:
            self._mode(number, on=kind == "h")
        elif kind == "m":
            self.styles |= set(numbers.split(";"))
        elif kind == "A":
            self._row = max(self._row - max(number, 1), 0)
        elif kind == "H":
            row, _, column = numbers.partition(";")
            self._row, self._column = int(row or 1) - 1, int(column or 1) - 1
        elif kind == "K":
            start = 0 if number == 2 else self._column
            self._cells[self._row][start:] = [" "] * (self.columns - start)
        elif kind == "J":
            assert number in (0, 2), numbers
            if number == 2:
                self._cells = self._empty()
            else:
                self._act("", "0", "K")
                for below in range(self._row + 1, self.lines):
                    self._cells[below] = [" "] * self.columns
        else:
            pytest.fail(f"unknown: CSI {numbers}{kind}")

    def _mode(self, number: int, *, on: bool) -> None:
        if number == 25:
            self.cursor = on
        elif number == 1049 and on:
            self._first, self._cells = self._cells, self._empty()
        elif number == 1049:
            assert self._first is not None
            self._cells, self._first = self._first, None
        else:
            assert number == 2026, number  # what is shown at once


def set_size(terminal: int, columns: int, lines: int) -> None:
    """Make a terminal so large; the process at it is told (SIGWINCH)."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


class Terminal:
    """A command of ``llm-gateway`` at a terminal of its own."""

    def __init__(
        self,
        *arguments: str | Path,
        columns: int = 80,
        lines: int = 24,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.screen = Screen(columns, lines)
        # A character may come in two pieces.
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._end, terminal = pty.openpty()
        set_size(terminal, columns, lines)
        named = {"TERM": "xterm-256color", **(env or {})}
        clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
        self.before = termios.tcgetattr(terminal)
        self._terminal = terminal
        self.process = subprocess.Popen(
            tied(COMMAND, *arguments),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**clean, **named},
            cwd=cwd,
            start_new_session=True,
        )

    def until(self, words: str, seconds: float = 20) -> str:
        """Wait until ``words``, a regular expression, are on the screen; what is there then."""
        deadline = time.monotonic() + seconds
        while not re.search(words, self.screen.text, re.MULTILINE):
            left = deadline - time.monotonic()
            if left < 0 or not self._read(left):
                pytest.fail(f"not within {seconds} s: {words!r}, but:\n{self.screen.text}")
        return self.screen.text

    def _read(self, seconds: float) -> bool:
        """Whether something came."""
        if not select.select([self._end], [], [], max(seconds, 0))[0]:
            return False
        try:
            data = os.read(self._end, 65536)
        except OSError:  # nobody has it open any more
            return False
        self.screen.feed(self._decoder.decode(data))
        return bool(data)

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(columns, lines)
        set_size(self._terminal, columns, lines)
        self.process.send_signal(signal.SIGWINCH)  # it has no controlling terminal, which would

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def leave_prompt(self) -> int:
        """Ctrl-C at a prompt of ``input()``, and wait for its end; the exit status.

        CPython loses one that comes between the prompt and the wait for a key: a person presses it
        once more, and so does this.
        """
        for _ in range(10):
            self.interrupt()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
                break
        return self.ended()

    def ended(self, seconds: float = 20) -> int:
        """Wait for its end; the exit status. The terminal is as it was."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            self._read(0.05)
            if time.monotonic() > deadline:
                pytest.fail(f"still there after {seconds} s:\n{self.screen.text}")
        while self._read(0):
            pass
        assert self.screen.cursor, "the cursor is hidden"
        assert not self.screen.second, "the first screen is still hidden"
        assert termios.tcgetattr(self._terminal) == self.before
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._end)
        os.close(self._terminal)


@contextlib.contextmanager
def at_terminal(*arguments: str | Path, **options: object) -> Iterator[Terminal]:
    """A command at a terminal, that ends with the block."""
    terminal = Terminal(*arguments, **options)  # type: ignore[arg-type]
    try:
        yield terminal
    finally:
        terminal.close()


@contextlib.contextmanager
def terminal_for_this_process(columns: int, lines: int = 24) -> Iterator[tuple[IO[str], Screen]]:
    """A stream to write to in this process, and what is seen once the block has ended."""
    end, terminal = pty.openpty()
    set_size(terminal, columns, lines)
    screen = Screen(columns, lines)
    with os.fdopen(terminal, "w", encoding="utf-8") as stream, contextlib.ExitStack() as stack:
        stack.callback(os.close, end)
        yield stream, screen
        stream.flush()
        while select.select([end], [], [], 0)[0]:
            screen.feed(os.read(end, 65536).decode())
