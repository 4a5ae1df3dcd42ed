"""``llm-gateway connect``: the address it names, the keys it makes."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from gateway.cli import main
from gateway.cli.reached_at import address_of, is_only_here
from gateway.clients import CLIENTS
from gateway.config.load import parse_settings
from gateway.config.settings import Settings
from gateway.tls import self_signed
from tests.harness import COMMAND, Served, project, tied
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.slow


# --- the address -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "listening", "address"),
    [
        ({}, "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ({"host": "::1"}, "http://[::1]:80", "http://[::1]"),
        ({"host": ["127.0.0.1", "192.0.2.7"]}, "http://127.0.0.1:8080", "http://192.0.2.7:8080"),
        (
            {"host": "0.0.0.0", "allowed_hosts": ["*.example.com", "box.lan"]},
            "http://127.0.0.1:8080",
            "http://box.lan:8080",
        ),
        # Only this machine reaches it: whatever it is called elsewhere.
        ({"allowed_hosts": ["box.lan"]}, "http://127.0.0.1:80", "http://127.0.0.1"),
        (
            {
                "host": "0.0.0.0",
                "tls": {
                    "enabled": True,
                    "public_port": 443,
                    "acme": {"domains": ["box.example.com"], "agree_tos": True},
                },
            },
            "https://127.0.0.1:8443",
            "https://box.example.com",
        ),
    ],
)
def test_an_address_is_the_one_that_clients_reach(
    settings: dict[str, Any], listening: str, address: str
) -> None:
    assert address_of(parse_settings(settings), [listening]) == (address, None)


def test_address_for_the_network_is_no_wildcard() -> None:
    url, _ = address_of(Settings(host="0.0.0.0"), ["http://127.0.0.1:8080"])
    assert re.fullmatch(r"http://[\d.]+:8080", url)
    assert "0.0.0.0" not in url


@pytest.mark.parametrize(
    ("host", "names", "address"),
    [
        ("127.0.0.1", ["localhost", "127.0.0.1"], "127.0.0.1"),
        ("127.0.0.1", ["box.lan", "localhost"], "localhost"),
        ("127.0.0.1", ["box.lan"], "box.lan"),
        ("0.0.0.0", ["localhost", "127.0.0.1", "box.lan"], "box.lan"),
        ("0.0.0.0", ["localhost", "box.example.com"], "box.example.com"),
        ("192.0.2.7", ["localhost", "192.0.2.7"], "192.0.2.7"),
    ],
)
def test_address_is_a_name_of_the_certificate(
    tmp_path: Path, host: str, names: list[str], address: str
) -> None:
    made = self_signed(names, tmp_path)
    tls = {
        "enabled": True,
        "private_key": made.private_key,
        "certificate": made.certificate,
        "ca_chain": made.chain,
    }
    found = address_of(parse_settings({"host": host, "tls": tls}), ["https://127.0.0.1:8443"])
    assert found == (f"https://{address}:8443", str(made.chain))
    assert is_only_here(found.url) == (address in ("127.0.0.1", "localhost"))


# --- the command -----------------------------------------------------------------------------

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("box")
    write_tiny_model(root / "tiny.gguf")
    entry = {"params": {"model": str(root / "tiny.gguf"), "ctxSize": 2048, "seed": 1}}
    tiny = {**entry, "personalities": {"pirate": "Arr."}, "aliases": ["gpt-4o"]}
    models = {"tiny": tiny, "other": entry, "embed": {**entry, "embeddings": True}}
    project(root / "project", models)
    served = Served(root / "project")
    try:
        assert served.url
        yield served
    finally:
        served.stop()


@pytest.fixture
def run(served: Served, capsys: pytest.CaptureFixture[str]) -> Run:
    """``run(ARGUMENT, ...)``: connect on this machine -> exit status, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        config = str(served.root / "conf/gateway.yaml")
        return (main(["connect", *arguments, "--config", config]), *capsys.readouterr())

    return run


def keys(served: Served) -> list[dict[str, Any]]:
    with served.client() as client:
        answer = client.with_options(base_url=served.url).get("/admin/keys", cast_to=object)
    return list(answer["keys"])  # type: ignore[index]


def test_connect_lists_every_client(capsys: pytest.CaptureFixture[str]) -> None:
    """It needs no gateway."""
    assert main(["connect"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(CLIENTS)
    assert max(map(len, lines)) <= 80
    assert main(["connect", "--json"]) == 0
    assert [row["client"] for row in json.loads(capsys.readouterr().out)] == list(CLIENTS)


@pytest.mark.parametrize("word", CLIENTS)
def test_each_client_gets_its_lines(run: Run, served: Served, word: str) -> None:
    """stdout is the first part, and stderr says where it goes, with no key anywhere."""
    status, out, err = run(word, "--model", "tiny:pirate")
    assert status == 0
    told = json.loads(run(word, "--model", "tiny:pirate", "--json")[1])
    first = told["parts"][0]
    assert out == first["text"]
    assert first["where"] in " ".join(err.split())
    assert told["url"] == served.url
    assert "tiny:pirate" in json.dumps(told["parts"])
    assert served.url in json.dumps(told["parts"])
    assert not re.search(r"llmgw_\w", out + err)
    assert told["key"] is None


def test_the_models_named_are_those_of_the_gateway(run: Run, served: Served) -> None:
    status, out, err = run("codex")
    assert (status, out) == (1, "")
    assert "which model? Add --model with one of: other, tiny" in err
    status, _, err = run("codex", "--model", "tiny:pirat")
    assert status == 1
    assert "'tiny:pirate'" in err
    assert tomllib.loads(run("codex", "--model", "gpt-4o")[1])["model"] == "gpt-4o"
    config = str(served.root / "conf/gateway.yaml")
    assert main(["load", "--config", config, "tiny:pirate"]) == 0
    run("codex")  # takes what `load` has printed
    try:
        assert tomllib.loads(run("codex")[1])["model"] == "tiny:pirate"
        models = yaml.safe_load(run("continue")[1])["models"]
        assert [model["model"] for model in models] == ["tiny:pirate", "embed"]
    finally:
        assert main(["unload", "--config", config, "tiny"]) == 0


def test_new_key_is_good_for_its_model_only(run: Run, served: Served) -> None:
    status, out, err = run("codex", "--model", "tiny:pirate", "--create-key")
    assert status == 0
    assert "llmgw_" not in out
    (key,) = re.findall(r"^export LLM_GATEWAY_API_KEY=(llmgw_\w+)$", err, re.MULTILINE)
    (made,) = (row for row in keys(served) if row["name"] == "codex")
    assert (made["models"], made["admin"]) == (["tiny"], False)
    assert made["id"] in err
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0) as client:
        assert {model.id for model in client.models.list()} == {"tiny", "tiny:pirate"}
        hello: Any = [{"role": "user", "content": "hi"}]
        model = tomllib.loads(out)["model"]
        answer = client.chat.completions.create(model=model, messages=hello, max_tokens=4)
        assert answer.usage is not None
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="other", messages=hello, max_tokens=4)


def test_new_key_is_good_for_other_models_that_a_client_needs(
    run: Run, served: Served, subtests: pytest.Subtests
) -> None:
    run("continue", "--model", "gpt-4o", "--create-key", "laptop")
    run("open-webui", "--model", "tiny", "--create-key", "page", "--models", "tiny,other")
    made = {row["name"]: row["models"] for row in keys(served)}
    assert made["laptop"] == ["tiny", "embed"]  # what its lines name
    assert made["page"] == ["tiny", "other"]
    before = len(keys(served))
    for arguments, reason in (
        (("--models", "other"), "lacks tiny"),
        (("--models", ","), "names no model"),
        (("--models", "tiny,tyni"), "tyni"),
    ):
        with subtests.test(f"{arguments!r:.80}"):
            status, out, err = run("codex", "--model", "tiny", "--create-key", *arguments)
            assert (status, out) == (1, "")
            assert reason in err
    assert len(keys(served)) == before


def test_wrong_words_are_told(
    run: Run, capsys: pytest.CaptureFixture[str], served: Served, subtests: pytest.Subtests
) -> None:
    for arguments, reason in (
        (("codx",), "codex"),
        (("--create-key", "codex"), "CLIENT stands before --create-key"),
        (("codex", "--models", "tiny"), "--create-key makes one"),
    ):
        with subtests.test(f"{arguments!r:.80}"):
            status, out, err = run(*arguments)
            assert (status, out) == (1, "")
            assert reason in err
    empty = project(served.root / "empty", {})
    assert main(["connect", "codex", "--config", str(empty)]) == 1
    assert "no gateway is running on" in capsys.readouterr().err


def test_connect_reaches_a_gateway_elsewhere_without_printing_its_key(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an address and a key, which is not printed; only an administrator's makes others."""
    monkeypatch.setenv("LLM_GATEWAY_URL", f"{served.url}/v1/")
    monkeypatch.setenv("LLM_GATEWAY_API_KEY", served.key)
    command = ["connect", "openai-python", "--model", "tiny"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert f"export OPENAI_BASE_URL={served.url}/v1\n" in out
    assert served.key not in out + err
    assert main([*command, "--create-key", "far"]) == 0
    (key,) = re.findall(r"OPENAI_API_KEY=(llmgw_\w+)", capsys.readouterr().out)
    monkeypatch.setenv("LLM_GATEWAY_API_KEY", key)
    assert main(["connect", "openai-python"]) == 0  # the only model that it may use
    assert main([*command, "--create-key", "further"]) == 1
    assert "further" not in {row["name"] for row in keys(served)}


def test_lines_fit_a_terminal_of_80_columns(served: Served) -> None:
    """80 columns: what goes where, and lines that can be pasted as they are."""
    screen, terminal = pty.openpty()
    config = served.root / "conf/gateway.yaml"
    process = subprocess.Popen(
        tied(COMMAND, "connect", "codex", "--config", config, "--model", "tiny"),
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "COLUMNS": "80"},
    )
    os.close(terminal)
    seen = b""
    try:
        while piece := os.read(screen, 1000):
            seen += piece
    except OSError:
        pass  # it has ended (pty(7))
    finally:
        assert process.wait(20) == 0
        os.close(screen)
    lines = seen.decode().replace("\r", "").splitlines()
    assert max(map(len, lines)) <= 80
    assert "Into ~/.codex/config.toml:" in lines
    assert 'env_key = "LLM_GATEWAY_API_KEY"' in lines
    assert "https://developers.openai.com/codex/config-reference" in lines[-1]


def test_openai_client_answers_with_the_printed_lines(demo: Served, tmp_path: Path) -> None:
    """As somebody would at a prompt, with the demo model and a key of its own."""
    assert demo.url
    assert demo.key
    environ = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("LLM_GATEWAY", "OPENAI"))},
        "XDG_DATA_HOME": str(demo.root / "share"),
    }
    run: dict[str, Any] = {
        "cwd": demo.root,
        "env": environ,
        "text": True,
        "check": True,
        "capture_output": True,
    }
    told = subprocess.run([COMMAND, "connect", "openai-python", "--json"], **run)
    example = next(part["text"] for part in json.loads(told.stdout)["parts"] if part["example"])
    program = tmp_path / "program.py"
    program.write_text(example.replace("    messages", "    max_tokens=8,\n    messages"))
    script = 'eval "$("$1" connect openai-python --create-key)" && exec "$2" "$3"'
    answered = subprocess.run(
        ["sh", "-euc", script, "sh", COMMAND, sys.executable, str(program)], **run
    )
    assert answered.stdout.strip()
