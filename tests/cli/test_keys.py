"""``llm-gateway keys``, as it is typed, and what it tells a running gateway."""

import asyncio
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.access.keys import looks_like_ours
from gateway.cli import main
from gateway.cli.control import ControlError, control_request, notify_running_gateway
from gateway.config.settings import Settings
from tests.harness import MakeGateway

Keys = Callable[..., tuple[int, str, str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "conf" / "gateway.yaml"
    file.parent.mkdir()
    file.write_text("port: 0\n")
    return file


@pytest.fixture
def keys(config: Path, capsys: pytest.CaptureFixture[str]) -> Keys:
    """``keys(ACTION, ...)`` -> exit status, stdout, stderr."""

    def run(action: str, *arguments: str) -> tuple[int, str, str]:
        status = main(["keys", action, "--config", str(config), *arguments])
        return (status, *capsys.readouterr())

    return run


def rows(table: str) -> list[list[str]]:
    """The cells of a printed table, without its header."""
    return [re.split(r" {2,}", line) for line in table.splitlines()[1:]]


def test_create_prints_the_key_last_and_once(keys: Keys, tmp_path: Path) -> None:
    status, out, err = keys("create", "phone", "Bob's phone", "--admin")
    key = out.splitlines()[-1]
    assert status == 0
    assert out == f"{key}\n"  # nothing else is on stdout
    assert looks_like_ours(key)
    assert key not in err
    assert "admin key k_" in err
    assert "takes effect when one starts" in err
    assert (tmp_path / "data" / "gateway.db").stat().st_mode & 0o777 == 0o600

    status, out, err = keys("list")
    assert status == 0
    assert key not in out + err
    (row,) = rows(out)
    assert row[0].startswith("k_")
    assert row[1:4] == ["phone", "yes", "ok"]
    assert row[-5:] == ["-", "-", "-", "all", "all"]


def test_create_with_expiry_and_models(keys: Keys) -> None:
    status, _, err = keys("create", "kid", "--expires", "30d", "--models", "a, b,")
    assert status == 0
    assert "expires 2" in err
    (row,) = rows(keys("list")[1])
    assert row[2] == "no"
    assert row[-2:] == ["a, b", "all"]
    assert row[5].endswith("Z")


def test_create_with_limits_and_personalities(keys: Keys, config: Path) -> None:
    limits = ("--rpm", "60", "--tpm", "20000", "--tpd", "100000", "--concurrency", "2")
    limits += ("--max-tokens", "500", "--max-seconds", "90")
    people = ("--personalities", "teacher,pirate", "--default-personality", "pirate")
    assert keys("create", "kid", *limits, *people)[0] == 0
    assert keys("create", "aunt", "--personalities", "")[0] == 0
    kid, aunt = rows(keys("list")[1])
    assert kid[-3:] == [
        "rpm 60, tpm 20000, tpd 100000, concurrency 2, max_tokens 500, max_seconds 90",
        "all",
        "teacher, pirate",
    ]
    assert aunt[-3:] == ["-", "all", "none"]


def test_help_tells_of_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["keys", "create", "--help"])
    text = capsys.readouterr().out
    for option in ("models", "personalities", "default-personality", "expires", "admin"):
        assert f"--{option} " in text
    for option in ("rpm", "tpm", "tpd", "concurrency", "max-tokens", "max-seconds"):
        assert re.search(rf"--{option} N\s+\w+", text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("bob", "--rpm", "0"), "rpm must be a whole number of 1 or more"),
        (("bob", "--tpd", "-5"), "tpd must be"),
        (("bob", "--max-tokens", "0"), "max_tokens must be"),
        (
            ("bob", "--personalities", "a", "--default-personality", "b"),
            "'b' is not among those that the key may use: 'a'",
        ),
        (("bob", "--expires", "soon"), "--expires must be a duration"),
        (("bob", "--expires", "0s"), "expires is too short"),
        (("bob", "--expires", "99999999w"), "too long"),
        (("bob", "--models", " , "), "at least one name"),
        (("",), "needs a name"),
        (("a\x1b[2J",), "visible characters"),
    ],
)
def test_create_refuses(keys: Keys, arguments: tuple[str, ...], said: str) -> None:
    status, out, err = keys("create", *arguments)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert said in err
    assert rows(keys("list")[1]) == []


def test_revoke(keys: Keys) -> None:
    for name in ("one", "two"):
        keys("create", name, "--admin")
    one, two = [row[0] for row in rows(keys("list")[1])]
    status, out, _ = keys("revoke", one)
    assert (status, out) == (0, f"revoked {one} (one)\n")
    status, out, err = keys("revoke", two)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {two} is the last admin key")
    assert keys("revoke", two, "--force")[0] == 0
    assert [row[3] for row in rows(keys("list")[1])] == ["revoked", "revoked"]
    status, _, err = keys("revoke", "k_12345678")
    assert status == 1
    assert "no key with an id k_12345678" in err


def test_import(keys: Keys, tmp_path: Path) -> None:
    old = tmp_path / "authKeys.json"
    old.write_text('{"3f9a8b7c6d5e4f3a": {"name": "web"}, "hunter2": {"name": "tv"}}')
    status, out, err = keys("import", str(old))
    assert status == 0
    assert [row[1:] for row in rows(out)[:2]] == [["web", "yes"], ["tv", "yes"]]
    assert out.endswith("imported 2 keys, 2 of them admin keys\n")
    assert "warning: entry 2 (tv): the key has only 7 characters" in err
    assert "plain text: delete it" in err
    assert "3f9a8b7c6d5e4f3a" not in out + err
    assert "hunter2" not in out + err

    status, out, err = keys("import", str(old))
    assert (status, out) == (0, "imported 0 keys, 0 of them admin keys\n")
    assert err.count("is here already") == 2


def test_import_without_admins(keys: Keys, tmp_path: Path) -> None:
    old = tmp_path / "authKeys.json"
    old.write_text('{"3f9a8b7c6d5e4f3a": {}}')
    _, out, err = keys("import", str(old), "--no-admin")
    assert rows(out)[0][2] == "no"
    assert "load and unload" not in err


def test_import_of_a_bad_file_lists_everything_and_changes_nothing(
    keys: Keys, tmp_path: Path
) -> None:
    old = tmp_path / "authKeys.json"
    old.write_text('{"3f9a8b7c6d5e4f3a": {}, "b1946ac92492d234": 5, "tv": {"key": "x"}}')
    status, out, err = keys("import", str(old))
    assert (status, out) == (1, "")
    second, third = err.splitlines()
    assert second.startswith(f"error: {old}: entry 2: what stands behind a key must be an object")
    assert third.startswith(f"error: {old}: entry 3: holds something else than name, description")
    assert rows(keys("list")[1]) == []


def test_who_only_looks_makes_no_database(keys: Keys, tmp_path: Path) -> None:
    """With one, what `login` has written would not be meant any more."""
    status, out, err = keys("list")
    assert (status, rows(out)) == (0, [])
    assert json.loads(keys("list", "--json")[1]) == []
    assert err.startswith("no keys in ")
    status, _, err = keys("revoke", "k_12345678")
    assert status == 1
    assert "there is no key yet (looked for in " in err
    assert not (tmp_path / "data").exists()


def test_a_database_that_cannot_be_opened_is_an_error(keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder")
    status, _, err = keys("list")
    assert status == 1
    assert err.startswith("error: the database ")


def test_a_wrong_configuration_lists_each_problem(keys: Keys, config: Path) -> None:
    config.write_text("prot: 1\nhost: 7\n")
    status, _, err = keys("list")
    assert status == 1
    assert {line.split(": ")[2] for line in err.splitlines()} == {"prot", "host"}


@pytest.mark.parametrize("arguments", [["--nonsense"], ["nonsense"], ["keys"], ["keys", "create"]])
def test_what_is_not_understood_is_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: llm-gateway" in capsys.readouterr().err


def test_help_lists_every_command_and_loads_none() -> None:
    code = (
        "import sys; from gateway.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'pydantic', 'aiohttp', 'sqlalchemy', 'asyncio', 'yaml'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for command in ("serve", "check", "keys", "tls", "init", "models", "status"):
        assert f"\n  {command} " in result.stdout


def test_a_reader_that_leaves_is_no_traceback(config: Path) -> None:
    code = "import sys; from gateway.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", code, "keys", "list", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == ""
    assert child.returncode == 1


# --- a running gateway ---------------------------------------------------------------------


async def test_a_running_gateway_knows_at_once(
    make_gateway: MakeGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with make_gateway({}) as running:
        config = ["--config", str(tmp_path / "project" / "conf" / "gateway.yaml")]

        async def command(*arguments: str) -> str:
            assert await asyncio.to_thread(main, ["keys", *arguments, *config]) == 0
            out, err = capsys.readouterr()
            assert "the running gateway knows" in err
            return out

        key = (await command("create", "phone")).splitlines()[-1]
        assert (await running.json("GET", "/models", key=key))[0] == 200
        assert running.gateway.ring is not None
        (key_id,) = [r.id for r in running.gateway.ring.records if r.name == "phone"]
        await command("revoke", key_id)
        assert (await running.json("GET", "/models", key=key))[0] == 401


def _received(connection: socket.socket) -> bytes:
    """One request: its head and its body come in two pieces."""
    request = b""
    while piece := connection.recv(65536):
        request += piece
        head, end, body = request.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        if end and len(body) >= (int(length[1]) if length else 0):
            break
    return request


class Pretender:
    """Something that listens where the control socket should be, and answers fixed bytes."""

    def __init__(self, answer: bytes | None) -> None:
        # Not tmp_path: a Unix socket's path may have 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="llmgw-"))
        self.path = self.folder / "control.sock"
        self.answer = answer
        self.requests: list[bytes] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            self.requests.append(_received(connection))
            if self.answer is None:
                connection.recv(1)  # until the client gives up
            else:
                connection.sendall(self.answer)

    def close(self) -> None:
        if self._thread.is_alive():
            with socket.socket(socket.AF_UNIX) as last:
                last.connect(str(self.path))
        self._thread.join()
        self._socket.close()
        shutil.rmtree(self.folder)


@pytest.fixture
def pretend(tmp_path: Path) -> Iterator[Callable[[bytes | None], Pretender]]:
    started: list[Pretender] = []

    def start(answer: bytes | None) -> Pretender:
        pretender = Pretender(answer)
        started.append(pretender)
        (tmp_path / "data").mkdir(exist_ok=True)
        note = {"pid": 1, "control": str(pretender.path)}
        (tmp_path / "data" / "gateway.json").write_text(json.dumps(note))
        return pretender

    yield start
    for pretender in started:
        pretender.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


def http(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def test_control_request(settings: Settings, pretend: Callable[[bytes], Pretender]) -> None:
    gateway = pretend(http("404 Not Found", '{"error": {"message": "no"}}'))
    answer = control_request(settings, "PATCH", "/admin/x?y=1", {"a": "é"})
    assert answer == (404, {"error": {"message": "no"}})
    (request,) = gateway.requests
    assert request.startswith(b"PATCH /admin/x?y=1 HTTP/1.1\r\nHost: localhost\r\n")
    assert b"\r\nContent-Type: application/json\r\n" in request
    assert json.loads(request.partition(b"\r\n\r\n")[2]) == {"a": "é"}


def test_no_gateway_runs(settings: Settings, tmp_path: Path) -> None:
    assert control_request(settings, "GET", "/") is None
    assert notify_running_gateway(settings) is False
    # One that was killed: its note is there, its socket gone, or there but dead.
    (tmp_path / "data").mkdir()
    with tempfile.TemporaryDirectory(prefix="llmgw-") as folder:
        path = Path(folder) / "control.sock"
        (tmp_path / "data" / "gateway.json").write_text(json.dumps({"control": str(path)}))
        assert control_request(settings, "GET", "/") is None
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        assert control_request(settings, "GET", "/") is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (http("503 Service Unavailable", '{"error": {"message": "later"}}'), "503: later"),
        (http("500 Internal Server Error", "[]"), "500: no reason given"),
        (http("200 OK", "not json"), "cannot be talked to"),
        (b"SSH-2.0\r\n", "cannot be talked to"),
        (b"", "cannot be talked to"),
    ],
)
def test_a_gateway_that_answers_wrongly(
    settings: Settings, pretend: Callable[[bytes], Pretender], answer: bytes, said: str
) -> None:
    pretend(answer)
    with pytest.raises(ControlError, match=said):
        notify_running_gateway(settings)


def test_a_gateway_that_does_not_answer(
    settings: Settings, pretend: Callable[[bytes | None], Pretender]
) -> None:
    pretend(None)
    with pytest.raises(ControlError, match=r"did not answer within 0\.1 s"):
        control_request(settings, "GET", "/", timeout=0.1)


@pytest.mark.parametrize("note", ["", "[]", "{}", "null"])
def test_a_note_that_is_not_understood(settings: Settings, tmp_path: Path, note: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "gateway.json").write_text(note)
    with pytest.raises(ControlError, match=r"gateway\.json cannot be read"):
        control_request(settings, "GET", "/")


def test_revoke_fails_if_the_gateway_goes_on_accepting_the_key(
    keys: Keys, pretend: Callable[[bytes], Pretender]
) -> None:
    keys("create", "phone")
    ((key_id, *_),) = rows(keys("list")[1])
    pretend(http("500 Internal Server Error", "{}"))
    status, out, err = keys("revoke", key_id)
    assert (status, out) == (1, f"revoked {key_id} (phone)\n")
    assert err.startswith("warning: saved, but the running gateway answered 500")


# --- what is said of where a key is, and of what is odd about it ---------------------------


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Runtime folders in a place of their own, with a short path: no other gateways in sight."""
    with tempfile.TemporaryDirectory(prefix="gw", dir="/tmp") as folder:
        monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setattr("gateway.runtime._homes", lambda: iter([Path(folder)]))
        yield Path(folder)


def test_every_action_says_which_store_it_used(keys: Keys, tmp_path: Path, alone: Path) -> None:
    store = str(tmp_path / "data" / "gateway.db")
    _, out, err = keys("create", "phone", "Bob's phone")
    assert store in err
    assert f"no gateway is running on {tmp_path / 'data'}" in err
    assert "warning" not in err
    assert looks_like_ours(out.strip())
    assert f"1 key in {store}" in keys("list")[2]
    status, _, err = keys("revoke", "k_00000000")
    assert status == 1
    assert store in err
    old = tmp_path / "authKeys.json"
    old.write_text('{"swordfish-2024-00001": {}}')
    assert store in keys("import", str(old))[2]


async def test_a_gateway_that_runs_elsewhere_is_told_of(
    make_gateway: MakeGateway, keys: Keys, config: Path, alone: Path
) -> None:
    async with make_gateway({}) as running:
        other = running.gateway.settings.data_dir
        _, out, err = await asyncio.to_thread(keys, "create", "phone")
        key = out.splitlines()[-1]
        assert looks_like_ours(key)
        assert f"warning: a gateway runs on {other}: it has other keys" in err
        assert "--config FILE" in err
        assert (await running.json("GET", "/models", key=key))[0] == 401
        # One whose runtime folder can't be seen, as that of a service: by the port in this
        # configuration, where one on this data folder would answer.
        for folder in alone.iterdir():
            (folder / "data_dir").unlink()
        config.write_text(f"port: {running.url.rpartition(':')[2]}\n")
        _, _, err = await asyncio.to_thread(keys, "create", "phone")
        assert f"warning: a gateway answers at {running.url}, on a data_dir of its own" in err


def test_a_name_that_is_there_already(keys: Keys, alone: Path) -> None:
    keys("create", "phone")
    (first,) = rows(keys("list")[1])
    status, out, err = keys("create", "phone")
    assert status == 0, "said, and made: names are for people"
    assert looks_like_ours(out.strip())
    assert f"warning: there is another key of that name, {first[0]}" in err
    for row in rows(keys("list")[1]):
        keys("revoke", row[0])
    assert "another key" not in keys("create", "phone")[2], "those that ended don't matter"


def test_names_that_models_json_has_not(keys: Keys, tmp_path: Path, alone: Path) -> None:
    file = tmp_path / "data" / "models.json"
    file.parent.mkdir()
    model = {"params": {"model": "x.gguf"}, "personalities": {"pirate": "Arr."}}
    file.write_text(json.dumps({"Mistral-7b": {**model, "aliases": ["gpt-4o"]}, "other": model}))
    limits = ("--models", "Mistral-7B,gpt-4o,nope", "--personalities", "pirat", "--rpm", "9")
    status, out, err = keys("create", "kid", *limits)
    assert status == 0, "models.json may be edited later"
    assert looks_like_ours(out.strip())
    assert "no 'Mistral-7B' in models.json, did you mean 'Mistral-7b'?" in err
    assert "no 'gpt-4o' in models.json, but as an alias of 'Mistral-7b'" in err
    assert "no 'nope' in models.json; allowed: 'Mistral-7b', 'other'" in err
    assert "personalities: there is no 'pirat'" in err
    assert err.count("warning: ") == 4
    assert "warning" not in keys("create", "aunt", "--models", "other")[2]
    file.write_text("{")
    assert "were not looked up" in keys("create", "uncle", "--models", "other")[2]
    assert "looked up" not in keys("create", "cousin")[2]
