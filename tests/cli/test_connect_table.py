"""The lines of clients' configurations; tests/clients runs more of these clients with them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import replace

import openai
import pytest
import yaml

from gateway.clients import CLIENTS, KEY, ClientTarget, Part
from gateway.clients.page import page
from gateway.clients.tried import THINGS, read, written
from tests.harness import REPOSITORY

pytestmark = pytest.mark.slow


#: What no configuration may take for its own syntax.
ODD = "Bär's \"7b\" \\ $HOME `id` #1:pi'rate: ${{ x }}"
TARGET = ClientTarget("https://box.example.com:8443", ODD, context=32768, vision=True)
KEY_TEXT = "llmgw_0123456789"


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


def parts_of(word: str, target: ClientTarget = TARGET) -> list[Part]:
    return CLIENTS[word].parts_for(target)


def variables_of(word: str, target: ClientTarget) -> dict[str, str]:
    settings = [p.text for p in parts_of(word, target) if p.language == "sh" and not p.example]
    return shell(*settings, **{KEY: "" if target.key else KEY_TEXT})


def test_codex_gets_its_configuration() -> None:
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
def test_key_comes_to_the_variable_that_a_client_reads(
    key: str | None, subtests: pytest.Subtests
) -> None:
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
        with subtests.test(f"{word!r:.80}"):
            found = variables_of(word, target)
            assert found[key_name] == KEY_TEXT, word
            assert found.items() >= wanted.items(), word
    assert "ANTHROPIC_API_KEY" not in found  # it would be taken instead


def test_continue_gets_its_configuration() -> None:
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


def test_zed_gets_its_configuration() -> None:
    (part,) = parts_of("zed")
    ((name, provider),) = json.loads(part.text)["language_models"]["openai_compatible"].items()
    # Zed makes the variable's name of the provider's.
    assert re.sub(r"\W", "_", name).upper() + "_API_KEY" == KEY
    assert provider["api_url"] == f"{TARGET.url}/v1"
    (model,) = provider["available_models"]
    assert (model["name"], model["max_tokens"]) == (ODD, 32768)
    assert model["capabilities"]["images"]


def test_llm_gets_its_configuration() -> None:
    file, key, use = parts_of("llm")
    (entry,) = yaml.safe_load(file.text)
    assert (entry["model_name"], entry["api_base"]) == (ODD, f"{TARGET.url}/v1")
    command = shell(f'llm() {{ export TOLD="$*"; }}\n{key.text}', **{KEY: KEY_TEXT})
    assert command["TOLD"] == f"keys set {entry['api_key_name']} --value {KEY_TEXT}"
    command = shell(f'llm() {{ export TOLD="$2"; }}\n{use.text}')
    assert command["TOLD"] == entry["model_id"]


@pytest.mark.parametrize("word", ["home-assistant", "obsidian"])
def test_windows_gets_its_own_lines(word: str) -> None:
    (part,) = parts_of(word, replace(TARGET, key=KEY_TEXT))
    fields = dict(line.split(":", 1) for line in part.text.splitlines())
    values = {name: value.strip() for name, value in fields.items()}
    assert set(values.values()) >= {f"{TARGET.url}/v1", KEY_TEXT, ODD}


@pytest.mark.parametrize("word", CLIENTS)
def test_each_client_is_told_of_its_authority(word: str) -> None:
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


def test_page_of_clients_is_made_from_the_table() -> None:
    text = (REPOSITORY / "docs" / "clients.md").read_text()
    file = REPOSITORY / "docs" / "clients.json"
    record = read(file)
    assert text == page(record), "python -m gateway.clients.page docs/clients.md"
    assert file.read_text() == written(record), "pytest tests/clients --record"
    assert all(set(one.things) <= set(THINGS) for one in record)
    assert {one.api for one in record} == {"OpenAI", "Anthropic", "Ollama"}
