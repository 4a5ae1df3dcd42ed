"""The lines of clients' configurations; tests/clients runs more of these clients with them."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from gateway.cli import main
from gateway.cli.reached_at import address_of, is_only_here
from gateway.clients import CLIENTS, KEY, Part, Target
from gateway.clients.page import page
from gateway.config.load import parse_settings
from gateway.config.settings import Settings
from gateway.tls import self_signed
from tests.harness import COMMAND, REPOSITORY, Served, project, tied
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.slow

#: What no configuration may take for its own syntax.
ODD = "Bär's \"7b\" \\ $HOME `id` #1:pi'rate: ${{ x }}"
TARGET = Target("https://box.example.com:8443", ODD, context=32768, vision=True)
KEY_TEXT = "llmgw_0123456789"


# --- the table -------------------------------------------------------------------------------


def shell(*texts: str, **environ: str) -> dict[str, str]:
    """The variables that these lines of a shell set."""
    script = (
        "".join(texts) + '\nexec "$0" -c "import os, json; print(json.dumps(dict(os.environ)))"'
    )
    done = subprocess.run(
        ["sh", "-euc", script, sys.executable],
        env={"PATH": os.environ["PATH"], "ANTHROPIC_API_KEY": "theirs", **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def parts_of(word: str, target: Target = TARGET) -> list[Part]:
    return CLIENTS[word].parts_for(target)


def variables_of(word: str, target: Target) -> dict[str, str]:
    settings = [p.text for p in parts_of(word, target) if p.language == "sh" and not p.example]
    return shell(*settings, **{KEY: "" if target.key else KEY_TEXT})


def test_codex() -> None:
    (part,) = parts_of("codex")
    assert part.where == "~/.codex/config.toml"
    config = tomllib.loads(part.text)
    provider = config["model_providers"][config["model_provider"]]
    assert (config["model"], config["model_context_window"]) == (ODD, 32768)
    assert provider["base_url"] == "https://box.example.com:8443/v1"
    assert (provider["wire_api"], provider["env_key"]) == ("responses", KEY)
    assert "model_context_window" not in parts_of("codex", replace(TARGET, context=None))[0].text
    made = replace(TARGET, key=KEY_TEXT)
    assert KEY_TEXT not in parts_of("codex", made)[0].text
    assert variables_of("codex", made)[KEY] == KEY_TEXT


@pytest.mark.parametrize("key", [None, KEY_TEXT])
def test_environments(key: str | None) -> None:
    """By its variable or in its text, the key comes to the variable that the client reads."""
    target = replace(TARGET, key=key)
    base, url = f"{TARGET.url}/v1", TARGET.url
    for word, key_name, wanted in (
        ("openai-python", "OPENAI_API_KEY", {"OPENAI_BASE_URL": base}),
        ("openai-node", "OPENAI_API_KEY", {"OPENAI_BASE_URL": base}),
        ("open-webui", "OPENAI_API_KEY", {"OPENAI_API_BASE_URL": base, "DEFAULT_MODELS": ODD}),
        ("aider", "OPENAI_API_KEY", {"OPENAI_API_BASE": base, "AIDER_MODEL": f"openai/{ODD}"}),
        (
            "claude-code",
            "ANTHROPIC_AUTH_TOKEN",
            {
                "ANTHROPIC_BASE_URL": url,
                "ANTHROPIC_MODEL": ODD,
                "ANTHROPIC_DEFAULT_HAIKU_MODEL": ODD,
                "CLAUDE_CODE_MAX_CONTEXT_TOKENS": "32768",
            },
        ),
    ):
        found = variables_of(word, target)
        assert found[key_name] == KEY_TEXT, word
        assert found.items() >= wanted.items(), word
    assert "ANTHROPIC_API_KEY" not in found  # it would be taken instead


def test_continue() -> None:
    target = replace(TARGET, embeddings="MiniLM", ca="/home/me/ca.pem", key=KEY_TEXT)
    config, secrets = parts_of("continue", target)
    chat, embed = yaml.safe_load(config.text)["models"]
    assert (chat["model"], chat["provider"]) == (ODD, "openai")
    assert (embed["model"], embed["roles"]) == ("MiniLM", ["embed"])
    for model in (chat, embed):
        assert model["apiBase"] == f"{TARGET.url}/v1"
        assert model["apiKey"] == f"${{{{ secrets.{KEY} }}}}"
        assert model["requestOptions"] == {"caBundlePath": "/home/me/ca.pem"}
    assert chat["defaultCompletionOptions"] == {"contextLength": 32768}
    assert chat["capabilities"] == ["tool_use", "image_input"]
    assert secrets.text == f"{KEY}={KEY_TEXT}\n"


def test_zed() -> None:
    (part,) = parts_of("zed")
    ((name, provider),) = json.loads(part.text)["language_models"]["openai_compatible"].items()
    # Zed makes the variable's name of the provider's.
    assert re.sub(r"\W", "_", name).upper() + "_API_KEY" == KEY
    assert provider["api_url"] == f"{TARGET.url}/v1"
    (model,) = provider["available_models"]
    assert (model["name"], model["max_tokens"]) == (ODD, 32768)
    assert model["capabilities"]["images"]


def test_llm() -> None:
    file, key, use = parts_of("llm")
    (entry,) = yaml.safe_load(file.text)
    assert (entry["model_name"], entry["api_base"]) == (ODD, f"{TARGET.url}/v1")
    command = shell(f'llm() {{ export TOLD="$*"; }}\n{key.text}', **{KEY: KEY_TEXT})
    assert command["TOLD"] == f"keys set {entry['api_key_name']} --value {KEY_TEXT}"
    command = shell(f'llm() {{ export TOLD="$2"; }}\n{use.text}')
    assert command["TOLD"] == entry["model_id"]


@pytest.mark.parametrize("word", ["home-assistant", "obsidian"])
def test_windows(word: str) -> None:
    (part,) = parts_of(word, replace(TARGET, key=KEY_TEXT))
    fields = dict(line.split(":", 1) for line in part.text.splitlines())
    values = {name: value.strip() for name, value in fields.items()}
    assert set(values.values()) >= {f"{TARGET.url}/v1", KEY_TEXT, ODD}


@pytest.mark.parametrize("word", CLIENTS)
def test_own_authorities(word: str) -> None:
    """Each client is told of one, or its notes say how else it comes to trust it."""
    file = "/home/me/my certificates/ca.pem"
    setup, parts = CLIENTS[word], parts_of(word, replace(TARGET, ca=file))
    if setup.ca_variable is not None:
        lines = [line for part in parts for line in part.text.splitlines()]
        assert f"export {setup.ca_variable}={shlex.quote(file)}" in lines
    else:
        assert setup.ca_note or file in parts[0].text
    assert not any(file in part.text for part in parts_of(word))


def test_versions_are_those_that_the_tests_run() -> None:
    """Where a client runs here, it was this version of it."""
    clients = REPOSITORY / "tests" / "clients"
    node = json.loads((clients / "package.json").read_text())["dependencies"]
    codex = json.loads((clients / "codex" / "package.json").read_text())["dependencies"]
    assert CLIENTS["codex"].checked == f"Codex CLI {codex['@openai/codex']}"
    assert CLIENTS["openai-node"].checked == f"openai {node['openai']}"
    assert CLIENTS["openai-python"].checked == f"openai {openai.__version__}"
    llm = re.search(r"^llm==(\S+)$", (clients / "requirements.in").read_text(), re.MULTILINE)
    assert llm is not None
    assert CLIENTS["llm"].checked == f"llm {llm[1]}"


def test_the_page() -> None:
    text = (REPOSITORY / "docs" / "clients.md").read_text()
    assert text == page(), "python -m gateway.clients.page docs/clients.md"


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
def test_address(settings: dict[str, Any], listening: str, address: str) -> None:
    assert address_of(parse_settings(settings), [listening]) == (address, None)


def test_address_in_the_network() -> None:
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
def test_address_in_a_certificate(
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


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    """It needs no gateway."""
    assert main(["connect"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(CLIENTS)
    assert max(map(len, lines)) <= 80
    assert main(["connect", "--json"]) == 0
    assert [row["client"] for row in json.loads(capsys.readouterr().out)] == list(CLIENTS)


@pytest.mark.parametrize("word", CLIENTS)
def test_each(run: Run, served: Served, word: str) -> None:
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


def test_models(run: Run, served: Served) -> None:
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


def test_a_new_key(run: Run, served: Served) -> None:
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


def test_new_keys_for_other_models(run: Run, served: Served) -> None:
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
        status, out, err = run("codex", "--model", "tiny", "--create-key", *arguments)
        assert (status, out) == (1, "")
        assert reason in err
    assert len(keys(served)) == before


def test_wrong_words(run: Run, capsys: pytest.CaptureFixture[str], served: Served) -> None:
    for arguments, reason in (
        (("codx",), "codex"),
        (("--create-key", "codex"), "CLIENT stands before --create-key"),
        (("codex", "--models", "tiny"), "--create-key makes one"),
    ):
        status, out, err = run(*arguments)
        assert (status, out) == (1, "")
        assert reason in err
    empty = project(served.root / "empty", {})
    assert main(["connect", "codex", "--config", str(empty)]) == 1
    assert "no gateway is running on" in capsys.readouterr().err


def test_from_elsewhere(
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


def test_on_a_terminal(served: Served) -> None:
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


def test_openai_with_the_printed_lines(demo: Served, tmp_path: Path) -> None:
    """As somebody would at a prompt, with the demo model and a key of its own."""
    assert demo.url
    assert demo.key
    environ = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("LLM_GATEWAY", "OPENAI"))},
        "XDG_DATA_HOME": str(demo.root / "share"),
    }
    run = {"cwd": demo.root, "env": environ, "text": True, "check": True, "capture_output": True}
    told = subprocess.run([COMMAND, "connect", "openai-python", "--json"], **run)  # type: ignore[call-overload]
    example = next(part["text"] for part in json.loads(told.stdout)["parts"] if part["example"])
    program = tmp_path / "program.py"
    program.write_text(example.replace("    messages", "    max_tokens=8,\n    messages"))
    script = 'eval "$("$1" connect openai-python --create-key)" && exec "$2" "$3"'
    answered = subprocess.run(
        ["sh", "-euc", script, "sh", COMMAND, sys.executable, str(program)], **run
    )
    assert answered.stdout.strip()
