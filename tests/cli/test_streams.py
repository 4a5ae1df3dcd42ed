"""Standard streams that are full, closed or no terminal: a line of explanation, no traceback."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.harness import COMMAND, project

COMMANDS = (("check",), ("keys", "list"), ("connect",), ("login", "--list"))


def in_shell(line: str, home: Path) -> tuple[int, str, str]:
    """``line`` with ``$C`` for the command -> exit status, stdout, stderr."""
    done = subprocess.run(
        ["/bin/sh", "-c", line.replace("$C", shlex.quote(COMMAND))],
        env={"PATH": "/usr/bin:/bin", "HOME": str(home)},
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_full_and_closed_stdout_end_without_traceback(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    words = " ".join(command)
    status, _, err = in_shell(f"$C {words} > /dev/full", tmp_path)
    told = [line for line in err.splitlines() if line.startswith("error: ")]
    assert told == ["error: the output cannot be written: No space left on device"]
    assert "Traceback" not in err
    assert status == 1
    status, _, err = in_shell(f"$C {words} >&-", tmp_path)
    assert status == 0
    assert "Traceback" not in err


def test_closed_stdin_asks_nothing(tmp_path: Path) -> None:
    """That of a job of cron, say."""
    config = project(tmp_path / "project", {})
    for command in ("chat", "init"):
        option = f"--config {config}" if command == "chat" else "new"
        status, _, err = in_shell(f"$C {command} {option} <&- >&-", tmp_path)
        assert "Traceback" not in err
        assert status == (1 if command == "chat" else 0)


def test_reader_that_has_gone_is_no_error_of_a_file(tmp_path: Path) -> None:
    """``init`` says of no file what is said of the pipe."""
    # The reader ends first, and only then does the command begin.
    line = "{ read -r _ < gone; $C init new; } | { exec <&-; echo > gone; }"
    status, _, err = in_shell(f"mkfifo gone && {line}", tmp_path)
    assert err == ""
    assert status == 0  # the reader's
