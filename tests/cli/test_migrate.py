"""``llm-gateway migrate`` on folders of LLM-API as people have them."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.config.load import load_settings
from gateway.config.places import skeleton
from gateway.listen_on import first_free_port
from gateway.tls import self_signed
from gateway.yaml_file import read_yaml, with_settings
from tests.harness import COMMAND, DEMO, DEMO_GGUF, Served

pytestmark = pytest.mark.slow

KEY, OTHER = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
PASSPHRASE = 'correct "horse" # battery: \U0001f600'
#: With Windows' line ends and an order of its own: so that a rewritten file would show.
MODELS = (
    '{\r\n    "Mistral-7b": {"params": {"model":"TheBloke\\\\mistral.gguf", "ctxSize": 2048},'
    '\r\n  "template": "zephyr", "personalities": {"teacher": "You teach."}}}\r\n'
)

Migrate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """LLM-API's folder, with TLS and an encrypted key."""
    folder = tmp_path / "LLM-API"
    for name in ("data", "src", "node_modules/express", "public/.well-known", "LLMs/TheBloke"):
        (folder / name).mkdir(parents=True)
    made = self_signed(["box.example.com"], folder / "ssl")
    encrypted = folder / "ssl/encrypted-key.pem"
    command: list[Any] = ["openssl", "pkcs8", "-topk8", "-in", made.private_key, "-out", encrypted]
    command += ["-v2", "aes256", "-passout", f"pass:{PASSPHRASE}"]
    subprocess.run(command, check=True, capture_output=True)
    (folder / "data/models.json").write_bytes(MODELS.encode())
    fields = {"description": "for tests", "createdAt": "2024-02-14T12:21:47.000Z"}
    keys = {KEY: {"name": "PythonKey", **fields}, OTHER: {"name": "Phone", **fields}}
    (folder / "data/authKeys.json").write_text(json.dumps(keys))
    write_config(folder)
    return folder


def write_config(folder: Path, **changed: str) -> None:
    """A config.js, each value a piece of JavaScript."""
    config = {
        "host": "'0.0.0.0'",
        "port": "process.env.PORT || 8443",
        "useSSL": "true",
        "llamaMain": "'/opt/llama.cpp/main'",
        "llmStorage": "'./LLMs'",
        "privateKeyPath": "'../ssl/encrypted-key.pem'",
        "certificatePath": "'../ssl/box.example.com-crt.pem'",
        "caChainPath": "'..\\\\ssl\\\\box.example.com-chain.pem'",
        "passphrase": json.dumps(PASSPHRASE),
        **changed,
    }
    lines = [f"  {name}: {value}, // ..." for name, value in config.items()]
    text = "\n".join(["const config = {", *lines, "};", "module.exports = config;"])
    (folder / "config.js").write_text(text)


@pytest.fixture
def migrate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Migrate:
    """``migrate(DIR, ...)`` -> exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
        status = main(["migrate", str(folder), *arguments])
        return (status, *capsys.readouterr())

    return run


def snapshot(folder: Path) -> dict[str, Any]:
    """Everything that could change in a folder."""
    return {
        str(file): (
            file.stat().st_mode,
            file.stat().st_mtime_ns,
            file.is_file() and file.read_bytes(),
        )
        for file in (folder, *folder.rglob("*"))
    }


def steps(out: str) -> dict[str, dict[str, Any]]:
    return {step["what"]: step for step in json.loads(out)["steps"]}


def test_everything_is_taken_over_and_served(
    old: Path,
    migrate: Migrate,
    tmp_path: Path,
    serve: Callable[..., Served],
    subtests: pytest.Subtests,
) -> None:
    """As far as that an old key is let in over TLS, with the old certificate."""
    models = {DEMO: {"params": {"model": DEMO_GGUF}}}
    (old / "data/models.json").write_text(json.dumps(models))
    before = snapshot(old)
    status, out, err = migrate(old)
    assert snapshot(old) == before
    assert (status, err) == (0, ""), out
    new = tmp_path / "llm-gateway"
    for secret in (KEY, OTHER, PASSPHRASE, "horse"):
        with subtests.test(f"{secret!r:.80}"):
            assert secret not in out
    assert "key of 'PythonKey': imported as k_" in out
    assert f"Now: llm-gateway serve --config {new}/conf/gateway.yaml" in out
    assert f"delete {old}/data/authKeys.json" in out
    for file in new.rglob("*"):
        assert file.stat().st_mode & 0o777 == (0o700 if file.is_dir() else 0o600), file
    lines = (new / "conf/gateway.yaml").read_text().splitlines()
    assert lines[0] == "# yaml-language-server: $schema=gateway.schema.json"  # as `init` makes it
    assert (new / "conf/gateway.schema.json").exists()
    settings = load_settings(new / "conf/gateway.yaml", environ={}).settings
    assert (settings.host, settings.port) == ("0.0.0.0", 8443)
    assert settings.llm_storage == old / "LLMs"
    assert settings.public_dir == old / "public"
    assert settings.tls.passphrase is not None
    assert settings.tls.passphrase.reveal() == PASSPHRASE
    served = serve("--config", str(new / "conf/gateway.yaml"), "--host", "127.0.0.1")
    context = ssl.create_default_context(cafile=str(old / "ssl/local-ca-crt.pem"))
    context.check_hostname = False
    request = urllib.request.Request(f"{served.url}/models?authKey={KEY}")
    with urllib.request.urlopen(request, context=context) as answer:
        assert json.load(answer) == [DEMO]


def test_what_is_not_understood_is_told_line_by_line(
    old: Path, migrate: Migrate, subtests: pytest.Subtests
) -> None:
    write_config(
        old,
        llmStorage="'D:\\\\LLMs'",
        passphrase="readSecret('correct horse')",
        caChainPath="process.env.CHAIN",
        maxTokens="100",
        hots="'x'",
        port="'80'",
    )
    (old / "notes.txt").touch()
    status, out, _ = migrate(old, "--json")
    report = json.loads(out)
    assert status == 1  # its model isn't here, and there is no passphrase
    assert report["from"] == str(old)
    assert (report["dry_run"], report["problems"] != []) == (False, True)
    found = steps(out)
    for what, outcome, text, line in (
        ("host", "taken", "host: 0.0.0.0 (reached by other machines, as before)", 2),
        ("port", "taken", "port: 80", 3),
        ("useSSL", "taken", "tls.enabled: true", 4),
        ("llamaMain", "left", "interactive program is not used", 5),
        ("llmStorage", "to do", "on a Windows drive", 6),
        ("privateKeyPath", "taken", "tls.private_key: ssl/encrypted-key.pem (a copy", 7),
        ("caChainPath", "to do", "variable CHAIN, which has no default here: not understood", 9),
        ("passphrase", "to do", "not understood, left out: set it by hand", 10),
        ("maxTokens", "to do", "no such setting: left out", 11),
        ("hots", "to do", "did you mean 'host'?: left out", 12),
        ("config.js", "to do", "CHAIN came from the environment", None),
        ("data/models.json", "taken", "word for word", None),
        ("src", "left", "the old program's", None),
        ("node_modules", "left", "the old program's", None),
        ("public/", "taken", "public_dir: ", None),
        ("notes.txt", "left", "not known from LLM-API", None),
        ("ssl/local-ca-key.pem", "left", "doesn't name it", None),
    ):
        with subtests.test(f"{what!r:.80}"):
            assert found[what]["outcome"] == outcome, what
            assert text in found[what]["became"], what
            assert found[what]["line"] == line, what
    assert "horse" not in out
    assert any("Port 80" in text for text in report["to_do"]) == (first_free_port() > 80)


def test_models_stay_word_for_word(old: Path, migrate: Migrate, tmp_path: Path) -> None:
    status, out, _ = migrate(old)
    assert status == 1  # the model isn't there, as `check` says
    assert (tmp_path / "llm-gateway/data/models.json").read_bytes() == MODELS.encode()
    assert f"the file {old}/LLMs/TheBloke/mistral.gguf does not exist" in out
    assert "When that is mended: llm-gateway serve" in out


def test_a_dry_run_writes_nothing(old: Path, migrate: Migrate, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    status, out, _ = migrate(old, "--dry-run")
    assert status == 0
    assert snapshot(tmp_path) == before
    assert "host -> host: 0.0.0.0" in out
    assert "key of 'Phone': to be imported as an admin key" in out
    assert KEY not in out
    assert "to be imported as a key" in migrate(old, "--dry-run", "--no-admin")[1]


@pytest.mark.parametrize(
    "there", ["conf/gateway.yaml", "data/gateway.db", "ssl/box.example.com-crt.pem"]
)
def test_nothing_is_overwritten(old: Path, migrate: Migrate, tmp_path: Path, there: str) -> None:
    file = tmp_path / "new" / there
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    before = snapshot(tmp_path)
    status, out, err = migrate(old, "--to", "new")
    assert (status, out) == (1, "")
    assert f"nothing was done, since it is there already: {file}" in err
    assert snapshot(tmp_path) == before


def test_migrate_never_writes_into_the_old_folder(
    old: Path, migrate: Migrate, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    (tmp_path / "link").symlink_to(old)
    for target in (old, old / "new", tmp_path / "link/new"):
        with subtests.test(f"{target!r:.80}"):
            status, _, err = migrate(old, "--to", str(target))
            assert status == 1
            assert "where nothing is changed" in err


def test_folder_that_is_not_llm_apis_is_refused(tmp_path: Path, migrate: Migrate) -> None:
    assert "there is no folder" in migrate(tmp_path / "nothing")[2]
    (tmp_path / "empty").mkdir()
    status, out, err = migrate(tmp_path / "empty")
    assert (status, out) == (1, "")
    assert "is no folder of LLM-API: neither config.js nor" in err
    assert not (tmp_path / "llm-gateway").exists()


def test_folder_with_keys_only_is_taken_over(tmp_path: Path, migrate: Migrate) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/authKeys.json").write_text(json.dumps({KEY: {"name": "me"}}))
    _, out, _ = migrate(tmp_path / "old", "--no-admin")
    assert "! config.js: is not there: settings are defaults" in out
    assert "key of 'me': imported as k_" in out
    assert "a key that may load and chat" in out
    models = json.loads((tmp_path / "llm-gateway/data/models.json").read_text())
    assert models == {"$schema": "models.schema.json"}


def test_file_of_keys_that_is_not_understood_is_left_to_do(old: Path, migrate: Migrate) -> None:
    (old / "data/authKeys.json").write_text(f'{{"{KEY}": {{}}, "x": [1]}}')
    status, out, _ = migrate(old, "--json")
    assert status == 1
    keys = [step for step in json.loads(out)["steps"] if step["what"] == "data/authKeys.json"]
    assert [step["outcome"] for step in keys] == ["to do"]
    assert "no key was imported" in keys[0]["became"]
    assert KEY not in out


def test_certificates_that_others_renew_are_named(
    old: Path, migrate: Migrate, tmp_path: Path
) -> None:
    """Those outside of the folder: certbot writes new ones there."""
    live = tmp_path / "letsencrypt"
    (old / "ssl").rename(live)
    (old / "ssl").mkdir()
    (old / "ssl/box.example.com-crt.pem").symlink_to(live / "box.example.com-crt.pem")
    write_config(
        old,
        privateKeyPath="'../../letsencrypt/encrypted-key.pem'",
        caChainPath="'../../letsencrypt/box.example.com-chain.pem'",
    )
    _, out, _ = migrate(old)
    settings = load_settings(tmp_path / "llm-gateway/conf/gateway.yaml", environ={}).settings
    assert settings.tls.private_key == live / "encrypted-key.pem"
    assert settings.tls.certificate == old / "ssl/box.example.com-crt.pem"
    assert "it stays where it is" in out
    assert not list((tmp_path / "llm-gateway/ssl").iterdir())


def test_passphrase_of_an_open_key_is_left_out(old: Path, migrate: Migrate, tmp_path: Path) -> None:
    write_config(old, privateKeyPath="'../ssl/box.example.com-key.pem'")
    _, out, _ = migrate(old)
    assert "- passphrase: the private key needs none" in out
    text = (tmp_path / "llm-gateway/conf/gateway.yaml").read_text()
    assert "horse" not in text


def test_unfilled_template_is_told(old: Path, migrate: Migrate, tmp_path: Path) -> None:
    """Nobody has filled it in."""
    ends = {"privateKeyPath": "key", "certificatePath": "crt", "caChainPath": "chain"}
    write_config(
        old,
        host="''",
        port="80",
        useSSL="false",
        llamaMain="'<path to llama.cpp build folder>\\\\bin\\\\Release\\\\main.exe'",
        passphrase="'<passphrase>'",
        **{name: f"'../ssl/<Server IP/Domain>-{end}.pem'" for name, end in ends.items()},
    )
    _, out, _ = migrate(old)
    assert out.count("is still the template's") == 5
    assert "! host (line 2, column 9): '' is no host or address" in out
    settings = load_settings(tmp_path / "llm-gateway/conf/gateway.yaml", environ={}).settings
    assert (settings.host, settings.port, settings.tls.enabled) == ("127.0.0.1", 80, False)
    assert settings.tls.passphrase is None


def test_llama_server_beside_the_old_program_is_used(
    old: Path, migrate: Migrate, tmp_path: Path
) -> None:
    (old / "bin").mkdir()
    (old / "bin/llama-server").touch(0o755)
    write_config(old, llamaMain="'bin/main'")
    migrate(old)
    settings = load_settings(tmp_path / "llm-gateway/conf/gateway.yaml", environ={}).settings
    assert settings.llama_server == str(old / "bin/llama-server")


def test_the_program_in_config_js_is_not_run(old: Path, migrate: Migrate, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    text = (
        f"require('fs').writeFileSync({json.dumps(str(mark))}, 'x');\nmodule.exports = {{port: 81}}"
    )
    (old / "config.js").write_text(text)
    _, out, _ = migrate(old)
    assert not mark.exists()
    assert "! config.js (line 1, column" in out
    assert "port -> port: 81" in out


def test_it_fits_a_narrow_terminal(old: Path, tmp_path: Path) -> None:
    import pty

    main_end, terminal = pty.openpty()
    env = {**os.environ, "COLUMNS": "60", "TERM": "xterm-256color"}
    command = [COMMAND, "migrate", str(old), "--dry-run"]
    subprocess.run(command, stdout=terminal, stderr=terminal, cwd=tmp_path, env=env, check=True)
    os.close(terminal)
    out = b""
    while True:
        try:
            out += os.read(main_end, 65536)
        except OSError:
            break
    os.close(main_end)
    assert b"\x1b[32m+ " in out  # green, and a sign for who sees no colours
    lines = re.sub(r"\x1b\[[\d;]*m", "", out.decode()).splitlines()
    longest = len(str(old)) + 20  # a path is not cut in two
    assert all(
        len(line) <= 60 or (" " not in line.strip()[2:] and len(line) < longest) for line in lines
    )


@pytest.mark.parametrize(
    "value",
    [
        "0.0.0.0",
        "::1",
        "no",
        "a: b # c",
        "",
        "\u2028\x85\x07",
        "/x y/z",
        "1e3",
        "~",
        "'",
        '"\\',
        "=1",
    ],
)
def test_settings_go_into_the_commented_configuration(value: str, tmp_path: Path) -> None:
    """What was meant is what is read, whatever it looks like; and comments stay."""
    text = skeleton("conf/gateway.yaml").read_text()
    settings = {"llm_storage": value, "tls.passphrase": value, "tls.enabled": True, "odd.key": 5}
    changed = with_settings(text, {**settings, "allowed_hosts": (value, "b")})
    file = tmp_path / "gateway.yaml"
    file.write_text(changed, encoding="utf-8")
    data, problems = read_yaml(file)
    assert not problems
    assert data["llm_storage"] == data["tls"]["passphrase"] == value
    assert data["allowed_hosts"] == [value, "b"]
    assert data["tls"]["enabled"] is True
    assert data["odd"] == {"key": 5}
    assert changed.count("#") - value.count("#") * 3 == text.count("#")
