"""Commands that talk to a running gateway, with a real llama-server behind it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main, parser_for
from tests.harness import COMMAND, Served, project, tied
from tests.screen import at_terminal
from tests.tiny_model import write_tiny_model

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("box")
    write_tiny_model(root / "tiny.gguf")
    entry = {"params": {"model": str(root / "tiny.gguf"), "ctxSize": 2048, "seed": 1}}
    project(
        root / "project",
        {"tiny": {**entry, "personalities": {"pirate": "Arr."}}, "other": entry},
    )
    served = Served(root / "project")
    try:
        assert served.url
        yield served
    finally:
        served.stop()


@pytest.fixture
def run(served: Served, capsys: pytest.CaptureFixture[str]) -> Run:
    """``run(COMMAND, ...)`` on this machine's gateway -> exit status, stdout, stderr."""

    def run(command: str, *arguments: str) -> tuple[int, str, str]:
        config = str(served.root / "conf/gateway.yaml")
        status = main([command, "--config", config, *arguments])
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def far(served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The same by its address and a key, as from another machine."""
    monkeypatch.setenv("LLM_GATEWAY_URL", f"{served.url}/v1")
    monkeypatch.setenv("LLM_GATEWAY_API_KEY", served.key)

    def run(command: str, *arguments: str) -> tuple[int, str, str]:
        return (main([command, *arguments]), *capsys.readouterr())

    return run


@pytest.mark.parametrize("where", ["run", "far"])
def test_load_and_unload_say_what_was_done(request: pytest.FixtureRequest, where: str) -> None:
    run: Run = request.getfixturevalue(where)
    status, out, err = run("load", "tiny:pirate")
    assert (status, out) == (0, "Model tiny loaded with personality pirate.\n")
    assert all(re.fullmatch(r"tiny:pirate: [a-z ]+( \d+%)? \(\d+ s\)", e) for e in err.splitlines())
    assert re.search(r"^tiny +ready", run("models")[1], re.MULTILINE) or where == "far"
    assert run("unload", "tiny")[:2] == (0, "Model tiny unloaded.\n")
    assert run("unload", "tiny")[:2] == (0, "Model tiny was not loaded.\n")
    assert run("unload")[:2] == (0, "No model is loaded.\n")
    assert run("load", "other")[0] == 0
    assert run("unload")[:2] == (0, "Model other unloaded.\n")
    assert run("load", "tiny")[0] == 0
    assert run("unload", "tiny:pirate")[:2] == (0, "Model tiny unloaded.\n")
    status, _, err = run("load", "tyni")
    assert status == 1
    assert "tyni" in err
    assert "tiny" in err


def test_logs_shows_the_last_lines_of_a_model(run: Run) -> None:
    assert run("load", "tiny")[0] == 0
    assert run("load", "other")[0] == 0
    whole = run("logs", "tiny", "-n", "100000")[1].splitlines()
    assert len(whole) > 5
    assert run("logs", "tiny", "-n", "3")[1].splitlines() == whole[-3:]
    as_json = json.loads(run("logs", "tiny", "-n", "3", "--json")[1])
    assert [one["line"] for one in as_json] == whole[-3:]
    assert {one["model"] for one in as_json} == {"tiny"}
    assert run("logs", "-n", "0")[1] == ""
    each = run("logs", "-n", "1")[1].splitlines()
    assert each[0] == f"tiny  | {whole[-1]}"
    assert each[1].startswith("other | ")
    assert run("unload", "other")[0] == 0


def test_logs_of_all_models_are_followed(served: Served, run: Run) -> None:
    """A model that is loaded meanwhile, too."""
    assert run("load", "tiny")[0] == 0
    config = served.root / "conf/gateway.yaml"
    with at_terminal("logs", "--config", config, "-f", "-n", "1", columns=200) as terminal:
        terminal.until(r"^tiny +\| ")
        assert run("unload", "other")[0] == 0
        assert run("load", "other")[0] == 0
        terminal.until(r"^other +\| .*start \d+ of other")
        assert "36" in terminal.screen.styles
        terminal.interrupt()
        assert terminal.ended() == 0


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_logs_of_one_model_are_followed(served: Served, run: Run, as_json: list[str]) -> None:
    assert run("load", "tiny")[0] == 0
    known = run("logs", "tiny", "-n", "100000")[1].splitlines()
    config = served.root / "conf/gateway.yaml"
    process = subprocess.Popen(
        tied(COMMAND, "logs", "--config", config, "-f", "-n", "1", *as_json, "tiny"),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as lines:
        first = lines.readline().rstrip("\n")
        assert (json.loads(first)["line"] if as_json else first) == known[-1]
        assert run("unload", "tiny")[0] == 0
        assert run("load", "tiny")[0] == 0
        assert lines.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


@pytest.mark.parametrize("where", ["run", "far"])
def test_question_is_answered(request: pytest.FixtureRequest, where: str) -> None:
    run: Run = request.getfixturevalue(where)
    status, out, err = run("chat", "--max-tokens", "8", "tiny", "Hello?")
    assert (status, err) == (0, "")
    assert out.strip()
    status, _, err = run("chat", "nobody", "Hello?")
    assert status == 1
    assert "nobody" in err


def test_question_may_come_through_a_pipe(served: Served) -> None:
    config = served.root / "conf/gateway.yaml"
    command: list[Any] = [COMMAND, "chat", "--config", config, "--max-tokens", "8", "tiny"]
    for text, status in (("Hello?", 0), ("\n", 1)):
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == status
        assert bool(done.stdout.strip()) == (status == 0)
    assert "standard input is empty" in done.stderr


def test_conversation_goes_on_until_ctrl_d(served: Served, tmp_path: Path) -> None:
    """In a terminal: Ctrl-C stops one answer, wrong words are told, and Ctrl-D ends."""
    screen, terminal = pty.openpty()
    config = served.root / "conf/gateway.yaml"
    process = subprocess.Popen(
        tied(COMMAND, "chat", "--config", config, "tiny"),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "dumb"},
        start_new_session=True,
    )
    os.close(terminal)
    saved = tmp_path / "saved.json"
    seen = b""

    def until(words: bytes) -> None:
        nonlocal seen
        while words not in seen:
            seen += os.read(screen, 1000)
        seen = seen.partition(words)[2]

    try:
        for typed, words in (
            ("/nothing", b"there is no /nothing; there are: /model"),
            ("/model", b"there are: other, tiny, tiny:pirate"),
            ("/system Be \\", b". "),
            ("short.", b"with this system prompt"),
            ("Hello?", b"tokens/s"),
            (f"/save {saved}", b"written to"),
            ("/model nobody", b"error: there is no model 'nobody'"),
            ("/model", b"now: tiny; there are"),
            ("/personality nobody", b"from now on"),
            ("Hello?", b"error: "),
            ("/new", b"forgotten"),
        ):
            until(b"> ") if words != b"with this system prompt" else None
            os.write(screen, f"{typed}\n".encode())
            until(words)
        until(b"> ")
        os.write(screen, b"\x04")
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(screen)
    conversation = json.loads(saved.read_text())
    assert [message["role"] for message in conversation["messages"]] == ["user", "assistant"]
    assert conversation["system"] == "Be \nshort."


def test_usage_is_told_as_a_table_and_as_json(run: Run) -> None:
    assert run("chat", "--max-tokens", "4", "tiny", "Hello?")[0] == 0
    rows = json.loads(run("usage", "--by", "model", "--json")[1])
    (tiny,) = (row for row in rows if row["model"] == "tiny")
    assert tiny["requests"] >= 1
    assert tiny["prompt_tokens"] > 0
    table = run("usage")[1]
    assert table.splitlines()[0].split() == "KEY MODEL REQUESTS PROMPT CACHED ANSWER".split()
    status, _, err = run("usage", "--days", "0")
    assert status == 1
    assert "days" in err


def test_commands_say_that_no_gateway_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], served: Served, subtests: pytest.Subtests
) -> None:
    config = project(tmp_path / "empty", {})
    assert main(["load", "--config", str(config), "x"]) == 1
    assert "no gateway is running on" in capsys.readouterr().err
    for url, key, reason in (
        ("http://127.0.0.1:9", "k", "cannot be reached: Connection refused"),
        ("ftp://x", "k", "must be like https://"),
        ("http://127.0.0.1:x", "k", "--url"),
        (served.url, "llmgw_wrong", "API key"),
        (served.url.replace("http:", "https:"), "k", "it doesn't speak https there"),
    ):
        with subtests.test(f"{url!r:.80}"):
            assert main(["load", "--url", url, "--key", key, "x"]) == 1
            assert reason in capsys.readouterr().err
    assert main(["load", "--key", "k", "x"]) == 1
    assert "--url names it" in capsys.readouterr().err


def test_broken_answer_is_told_to_be_broken(capsys: pytest.CaptureFixture[str]) -> None:
    """What ends without saying so is told to be no whole answer: its gateway was killed, say."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    data = b'data: {"choices": [{"delta": {"content": "Half of"}}]}\n\n'
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(data), data)
    for rest in (chunked, b"\r\n" + data):
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def answer(listening: socket.socket = listening, rest: bytes = rest) -> None:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(head + rest)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1 << 16):  # what is unread would make it a reset
                        pass

            answering = threading.Thread(target=answer)
            answering.start()
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            assert main(["chat", "--url", url, "--key", "k", "any", "Hello?"]) == 1
            answering.join()
        out, err = capsys.readouterr()
        assert out == "Half of\n"
        assert err == f"error: {url} broke off in the middle of the answer\n"


def test_options_may_stand_between_model_and_question(run: Run, subtests: pytest.Subtests) -> None:
    status, out, err = run("chat", "tiny", "--max-tokens", "4", "Hello?")
    assert (status, err) == (0, "")
    assert out.strip()
    for words in (["n", "--admin", "why"], ["--admin", "n", "why"], ["--admin", "--", "n", "why"]):
        with subtests.test(f"{words!r:.80}"):
            args = parser_for("keys").parse_args(["keys", "create", *words])
            assert (args.name, args.description, args.admin) == ("n", "why", True)
    args = parser_for("chat").parse_args(["chat", "--", "tiny", "-5?"])
    assert (args.model, args.question) == ("tiny", "-5?")


def test_terminals_get_no_commands_from_models() -> None:
    from gateway.cli.chat import Chat
    from gateway.cli.client import Client

    chat = Chat(Client("http://127.0.0.1", None, None), None)
    event = {"choices": [{"delta": {"content": "a\x1b]0;title\x07\tb\n\x9b31mc"}}]}
    assert chat.text_of(event) == "a]0;title\tb\n31mc"


def test_chat_asks_which_of_several_models_is_meant(served: Served, run: Run) -> None:
    """It asks at once which one is meant, not after the first question; Ctrl-C leaves."""
    config = served.root / "conf/gateway.yaml"
    for name in ("tiny", "other"):
        assert run("unload", name)[0] == 0
    with at_terminal("chat", "--config", config, "--max-tokens", "8") as terminal:
        asked = terminal.until(r"Which model\? \[1\] *$")
        assert re.search(r" 1  other\n 2  tiny\nWhich", asked)  # and no personality
        terminal.type("3\n")
        terminal.until("'3' is neither a number from 1 to 2 nor a name")
        terminal.type("2\n")
        terminal.until(r"^tiny, at .*\n(?:.*\n)*> *$")
        terminal.type("Hello?\n")
        # Ctrl-D before readline has the terminal again would be a line's end, not the input's.
        terminal.until(r"tokens/s.*\n(?:.*\n)*> *$")
        terminal.type("\x04")
        assert terminal.ended() == 0
    assert run("load", "other")[0] == 0
    with at_terminal("chat", "--config", config) as terminal:
        terminal.until(r"^other, at .*\n(?:.*\n)*> *$")  # the active one is taken, and said
        terminal.type("\x04")
        assert terminal.ended() == 0
    assert run("unload", "other")[0] == 0
    assert run("unload", "tiny")[0] == 0
    with at_terminal("chat", "--config", config) as terminal:
        terminal.until(r"Which model\?")
        assert terminal.leave_prompt() == 0
    command: list[Any] = [COMMAND, "chat", "--config", config]
    done = subprocess.run(command, input="Hello?", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Here: `llm-gateway chat MODEL QUESTION`" in done.stderr


def test_question_in_place_of_the_model_is_explained(served: Served) -> None:
    command: list[Any] = [
        COMMAND,
        "chat",
        "--config",
        served.root / "conf/gateway.yaml",
        "Why is it blue?",
    ]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "'Why is it blue?' was taken for the model: `llm-gateway chat MODEL" in done.stderr
