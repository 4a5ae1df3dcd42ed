"""`llm-gateway check` on folders as newcomers have them: everything wrong is told, all at once."""

from __future__ import annotations

import os
import re
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.models.gguf_header import read_extent
from gateway.models.paths import resolve_model_path
from gateway.tls import self_signed
from tests.gguf_file import Kind, Tensor, entry, write_gguf
from tests.harness import DEMO, DEMO_GGUF, FAKE, MakeGateway, project
from tests.tiny_model import write_tiny_model


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Files that are no good models, by names that say what they are."""
    folder = tmp_path / "LLMs"
    folder.mkdir()
    write_tiny_model(folder / "good.gguf")
    good = (folder / "good.gguf").read_bytes()
    for name, data in {
        "cut.gguf": good[:-1000],
        "header.gguf": good[:300],
        "empty.gguf": b"",
        "text.gguf": b"hello\nworld\n",
        "page.gguf": b"\n<!DOCTYPE html><html>",
        "lfs.gguf": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 7\n",
        "tensors.gguf": struct.pack("<Q", 100) + b'{"a":1}' + bytes(100),
        "other.gguf": bytes(range(256)),
        "old.gguf": b"tjgg" + bytes(100),
        "s-00001-of-00003.gguf": good,
        "s-00002-of-00003.gguf": good,
        "t-00001-of-00002.gguf": good,
        "t-00002-of-00002.gguf": good[:-50],
        "latin.gbnf": "root ::= \u00e4".encode("latin-1"),
    }.items():
        (folder / name).write_bytes(data)
    (folder / "folder").mkdir()
    shutil.copy(folder / "good.gguf", folder / "folder/m.Q4.gguf")
    llama = entry("general.architecture", Kind.STRING, "llama")
    clip = entry("general.architecture", Kind.STRING, "clip")
    adapter = entry("general.type", Kind.STRING, "adapter")
    write_gguf(folder / "projector.gguf", [clip], [])
    write_gguf(folder / "lora.gguf", [llama, adapter], [])
    write_gguf(folder / "renamed.gguf", [llama, entry("split.count", Kind.U32, 2)], [])
    return folder


#: File of params.model, what is said of it ("FOLDER" is llm_storage).
MODELS = {
    "cut.gguf": "the file FOLDER/cut.gguf is cut off, its download did not finish: it has ",
    "header.gguf": "cannot be loaded: it is cut off or damaged",
    "empty.gguf": "the file FOLDER/empty.gguf is empty",
    "text.gguf": "is a text, not a GGUF file",
    "page.gguf": "is a web page",
    "lfs.gguf": "is a pointer of Git LFS",
    "tensors.gguf": "is in the safetensors format",
    "other.gguf": "is not a GGUF file",
    "old.gguf": "has the format before GGUF",
    "folder": "FOLDER/folder is a folder: name the file in it, like m.Q4.gguf",
    "s-00001-of-00003.gguf": "the file FOLDER/s-00001-of-00003.gguf is part 1 of 3; missing: 3",
    "s-00002-of-00003.gguf": "is part 2 of 3: name the first",
    "t-00001-of-00002.gguf": "FOLDER/t-00002-of-00002.gguf is cut off",
    "renamed.gguf": "is one of 2 parts, which llama.cpp finds by their names",
    "projector.gguf": "is a multimodal projector, which the key mmproj is for, not a model",
    "lora.gguf": 'is a LoRA adapter, which "extraArgs": ["--lora", FILE] is for, not a model',
    "god.gguf": "does not exist, did you mean 'good.gguf'?",
    "folders/m.Q4.gguf": "there is no folder FOLDER/folders, did you mean 'folder'?",
    "nothing like it.gguf": "the file FOLDER/nothing like it.gguf does not exist (got",
    "D:\\LLMs\\good.gguf": "is a path on a Windows drive: copy the file below llm_storage (FOLDER)",
    "package:nothing/x.gguf": "is not installed",
}


def check(config: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["check", "--config", str(config)])
    out, err = capsys.readouterr()
    return code, out, err


def test_check_reads_the_files_of_models(
    tmp_path: Path, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models: dict[str, Any] = {
        f"m{number}": {"params": {"model": file}} for number, file in enumerate(MODELS)
    }
    models["good"] = {"params": {"model": "good.gguf"}}
    config = project(tmp_path / "p", models, llama_server=str(FAKE), llm_storage=str(storage))
    code, out, err = check(config, capsys)
    assert code == 1
    lines = dict(re.findall(r"models\.json: (m\d+|good)\.params\.model: (.*)", out))
    assert set(lines) == set(models) - {"good"}
    for number, expected in enumerate(MODELS.values()):
        assert expected.replace("FOLDER", str(storage)) in lines[f"m{number}"]
    assert err == f"{len(MODELS)} problems\n"


def test_every_file_that_an_entry_names_is_looked_at(
    tmp_path: Path, storage: Path, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    entry_ = {
        "params": {"model": "good.gguf", "grammarFile": "latin.gbnf", "promptFile": "p.txt"},
        "mmproj": "good.gguf",
        "draftModel": "cut.gguf",
        "extraArgs": [
            *("--lora", f"{storage}/lora.gguf,{storage}/good.gguf"),
            *("--lora-scaled", f"{storage}/lora.gguf:0.5,{storage}/missing.gguf:1.5"),
            *("--control-vector", "~/x.gguf"),
            *("--chat_template-file", "relative.jinja", "--slot-save-path", f"{storage}/slots"),
            f"--grammar-file={storage}/empty.gguf",
            "--lora",
        ],
    }
    config = project(
        tmp_path / "p", {"m": entry_}, llama_server=str(FAKE), llm_storage=str(storage)
    )
    code, out, err = check(config, capsys)
    assert code == 1
    for expected in (
        f"m.params.grammarFile: the file {storage}/latin.gbnf is no text (UTF-8)",
        f"m.mmproj: the file {storage}/good.gguf is a model, not a multimodal projector",
        f"m.draftModel: the file {storage}/cut.gguf is cut off",
        f"m.extraArgs: the file {storage}/good.gguf is a model, not a LoRA adapter",
        f"m.extraArgs: the file {storage}/missing.gguf does not exist",
        "m.extraArgs: ~ means nothing to llama-server: write the whole path",
        f"m.extraArgs: the folder {storage}/slots does not exist",
        f"m.extraArgs: the file {storage}/empty.gguf is empty",
        "m.extraArgs: is followed by no name of a LoRA adapter (got '--lora')",
    ):
        with subtests.test(f"{expected!r:.80}"):
            assert expected in out
    assert out.count("\n") == 9
    for warning in (
        f"warning: {config.parent.parent}/data/models.json: m.params.promptFile: the file ",
        "m.extraArgs: the file relative.jinja does not exist (a path from the folder that the",
    ):
        assert warning in err


def test_unreadable_model_is_told(
    tmp_path: Path, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe, secret = storage / "pipe.gguf", storage / "secret.gguf"
    os.mkfifo(pipe)
    shutil.copy(storage / "good.gguf", secret)
    secret.chmod(0)
    models = {name: {"params": {"model": f"{name}.gguf"}} for name in ("pipe", "secret")}
    config = project(tmp_path / "p", models, llama_server=str(FAKE), llm_storage=str(storage))
    _, out, _ = check(config, capsys)
    assert f"pipe.params.model: {pipe} is no file" in out
    if os.geteuid() != 0:  # root reads everything
        assert f"the file {secret} cannot be read: Permission denied" in out


def test_one_broken_file_does_not_hide_what_is_wrong_with_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    models = {
        "m": {"params": {"model": "gone.gguf", "ctxSize": "many"}, "extraArgs": ["--lora", "/no"]},
        "n": {"params": {"model": "gone too.gguf"}},
    }
    config = project(tmp_path / "p", models)
    data = config.parent.parent / "data"
    (data / "models.json").rename(data / "mine.json")
    config.write_text(
        "port: 99999\nhots: x\nmodels_file: data/mine.json\nllm_storage: LLMs\n"
        "llama_server: /nowhere/llama-server\ntls: {enabled: true, private_key: k.pem, what: 1}\n"
    )
    code, out, _ = check(config, capsys)
    assert code == 1
    for expected in (
        "gateway.yaml: port:",
        "gateway.yaml: hots: unknown key",
        "gateway.yaml: tls.what: unknown key",
        "gateway.yaml: tls.private_key: cannot be read",
        "gateway.yaml: tls.certificate: is missing",
        "gateway.yaml: llama_server: there is no file '/nowhere/llama-server'",
        "mine.json: m.params.ctxSize:",
        "mine.json: m.params.model: the file",
        "mine.json: m.extraArgs: the file /no does not exist",
        "mine.json: n.params.model: the file",
    ):
        with subtests.test(f"{expected!r:.80}"):
            assert expected in out
    (data / "mine.json").write_text('{"m": {"params": {"model": "x"}},}')
    _, out, _ = check(config, capsys)
    assert "mine.json: is not valid JSON, line 1, column 33: the comma behind the last" in out
    assert "gateway.yaml: port:" in out
    config.write_text("port: 1\n\thost: x\n")
    (data / "mine.json").rename(data / "models.json")
    _, out, _ = check(config, capsys)
    assert "a tab: lines are indented with spaces" in out
    assert "models.json: is not valid JSON" in out


@pytest.mark.parametrize("path", ["LLMs\\new.gguf", "LLMs\\tiny.gguf", "C:\\LLMs\\new.gguf"])
def test_single_backslash_in_a_path_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    config = project(tmp_path / "p", {})
    text = '{"m": {"params": {"model": "' + path.replace("C:\\LLMs", "C:") + '"}}}'
    (tmp_path / "p/data/models.json").write_text(text)
    _, out, _ = check(config, capsys)
    assert "in JSON a backslash is written twice, as in D:\\\\LLMs\\\\new.gguf" in out
    assert len(out.splitlines()) == 1


def test_warnings_are_not_called_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models: dict[str, Any] = {DEMO: {"params": {"model": DEMO_GGUF}}}
    assert check(project(tmp_path / "p", models), capsys)[1].endswith(": everything is in order\n")
    models[DEMO]["params"]["instruct"] = True
    code, out, err = check(project(tmp_path / "q", models), capsys)
    assert (code, err.count("warning: ")) == (0, 1)
    assert out.endswith("gateway.yaml: no problems, 1 warning\n")


def test_private_key_that_everybody_can_read_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As far as their folder lets everybody in; the public halves are nobody's secret."""
    made = self_signed(["localhost"], tmp_path / "p/ssl")
    tls = {"enabled": True, "private_key": str(made.private_key)}
    tls |= {"certificate": str(made.certificate), "ca_chain": str(made.chain)}
    config = project(tmp_path / "p", {}, llama_server=str(FAKE), tls=tls)
    data, ssl = tmp_path / "p/data", tmp_path / "p/ssl"
    (data / "acme/localhost").mkdir(parents=True)
    secret = [data / "gateway.db", data / "gateway.db-wal", data / "first-admin-key.txt"]
    secret += [data / "acme/account-a.pem", data / "acme/localhost/certificate.pem"]
    for file in secret:
        file.touch()
    secret.append(ssl / "local-ca-key.pem")
    for file in secret:
        file.chmod(0o644)
    for folder in {file.parent for file in secret}:
        folder.chmod(0o755)
    told = [f"warning: {file} can be read by every user of this machine: chmod" for file in secret]
    assert main(["check", "--config", str(config)]) == 0
    found = capsys.readouterr().err
    assert all(line in found for line in told)
    assert found.count("can be read by every user") == len(told)
    for folder in {file.parent for file in secret}:
        folder.chmod(0o700)
    assert main(["check", "--config", str(config)]) == 0
    assert "can be read by every user" not in capsys.readouterr().err


def test_argument_the_bundled_llama_server_does_not_take_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    model = {"params": {"model": DEMO_GGUF}}
    models = {
        DEMO: {**model, "extraArgs": ["--ubatch-size", "256"]},
        "odd": {**model, "extraArgs": ["--bogus", "1"]},
        "short": {**model, "extraArgs": ["--ubatch-size"]},
    }
    config = project(tmp_path / "p", models)
    code, out, _ = check(config, capsys)
    said = "the bundled llama-server says: "
    assert code == 1
    assert f"odd.extraArgs: {said}invalid argument: --bogus" in out
    assert f"short.extraArgs: {said}expected value for argument --ubatch-size" in out
    assert out.count("\n") == 2


def test_address_that_cannot_be_listened_on_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (host, said) in enumerate(
        (
            ("192.0.2.1", {"192.0.2.1": "this machine has no such address"}),  # RFC 5737
            (["127.0.0.1", "nobody.invalid"], {"nobody.invalid": "there is no machine of that"}),
            (["127.0.0.1", "0.0.0.0"], {"127.0.0.1": "0.0.0.0 stands beside it, which is every"}),
            (["127.0.0.1", "127.0.0.2", "localhost"], {}),
            ("0.0.0.0", {}),
            ("a" * 70 + ".example", {"a" * 70 + ".example": "there is no machine of that name"}),
        )
    ):
        config = project(tmp_path / str(number), {}, host=host, llama_server=str(FAKE))
        assert main(["check", "--config", str(config)]) == bool(said)
        printed = capsys.readouterr().out
        assert printed.count("host: ") == len(said), printed
        for one, why in said.items():
            assert f"host: {why}" in printed
            assert f"(got '{one}')" in printed


def test_check_says_that_config_js_is_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    Path("config.js").write_text("module.exports = {}")
    assert main(["check"]) == 0
    assert f"{tmp_path}/config.js is not read" in capsys.readouterr().err


def test_mistyped_command_is_hinted_at(
    capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    for words, meant in {
        "servr": "serve",
        "Chek": "check",
        "keys crate": "create",
        "tls selfsigned": "self-signed",
        "serve --confg x": "--config",
        "serve --prot=9": "--port",
    }.items():
        with subtests.test(f"{words!r:.80}"):
            with pytest.raises(SystemExit, match="2"):
                main(words.split())
            assert f"did you mean {meant!r}?" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["xyzzy"])
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize("reference", ["tiny", DEMO_GGUF])
def test_the_extent_of_a_real_file_is_its_size(tmp_path: Path, reference: str) -> None:
    """To the byte: so that one byte less is told, and a whole file never suspected."""
    if reference == "tiny":
        path = tmp_path / "tiny.gguf"
        write_tiny_model(path)
        slack = 31  # the last tensor is filled up to the alignment
    else:
        path, slack = resolve_model_path(reference, tmp_path), 31
    extent = read_extent(path)[1]
    assert 0 <= path.stat().st_size - extent <= slack


async def test_what_check_calls_cut_off_cannot_be_loaded(
    make_gateway: MakeGateway, tmp_path: Path, storage: Path
) -> None:
    """By the real llama-server; and what it calls good can."""
    models = {name: {"params": {"model": f"{name}.gguf"}} for name in ("good", "cut", "header")}
    async with make_gateway(models, llama_server="auto", llm_storage=str(storage)) as running:
        await running.gateway.scheduler.load("good")
        for name in ("cut", "header"):
            assert (await running.chat(name))[0] == 500


def test_tensor_of_an_unknown_type_needs_its_beginning_only(tmp_path: Path) -> None:
    """Of a type of a newer llama.cpp at least the beginning must be there."""
    path = tmp_path / "m.gguf"
    write_gguf(path, [], [Tensor("a", (8,), bytes(32)), Tensor("b", (8,), bytes(32))])
    data = path.read_bytes()
    at = data.rindex(struct.pack("<IQ", 0, 32))
    path.write_bytes(data[:at] + struct.pack("<I", 999) + data[at + 4 :])
    assert read_extent(path)[1] == len(data) - 32
