"""A stolen key is no shell: what chooses programs or files is not set over HTTP."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gateway.models.paths import resolve_model_path
from tests.api.admin_models.box import LOCAL, Box
from tests.harness import DEMO_GGUF, MakeGateway

REMOTE = {"url": "https://box.example/v1"}
FORBIDDEN: list[tuple[dict[str, Any], str]] = [
    ({**LOCAL, "env": {"LD_PRELOAD": "/tmp/x.so"}}, "env.LD_PRELOAD"),
    ({**LOCAL, "extraArgs": ["--log-file", "/etc/cron.d/x"]}, "extraArgs"),
    ({**LOCAL, "extra_args": ["--log-file", "x"]}, "extraArgs"),
    ({**LOCAL, "extraArgs": "--verbose"}, "extraArgs"),
    ({**LOCAL, "extraArgs": ["--ubatch-size", "/etc/passwd"]}, "extraArgs"),
    ({**LOCAL, "extraArgs": ["--ubatch-size", "512", "--verbose"]}, "extraArgs"),
    ({"params": {"model": "/etc/passwd"}}, "params.model"),
    ({"params": {"model": "~/x.gguf"}}, "params.model"),
    ({"params": {"model": "C:\\x.gguf"}}, "params.model"),
    ({"params": {"model": "./out/secret.gguf"}}, "params.model"),
    ({"params": {"model": "\\etc\\passwd"}}, "params.model"),
    ({"params": {"model": "../secret.gguf"}}, "params.model"),
    ({"params": {"model": "deep\\..\\..\\secret.gguf"}}, "params.model"),
    ({"params": {"model": "out.gguf"}}, "params.model"),
    ({"params": {"model": "out/secret.gguf"}}, "params.model"),
    ({"params": {"model": "parts-00001-of-00002.gguf"}}, "params.model"),
    ({"params": {"model": DEMO_GGUF}}, "params.model"),
    ({"params": {"model": "a.gguf", "grammarFile": "/etc/passwd"}}, "params.grammarFile"),
    ({"params": {"model": "a.gguf", "grammar_file": "/etc/passwd"}}, "params.grammarFile"),
    ({"params": {"model": "a.gguf", "promptFile": "../x"}}, "params.promptFile"),
    ({"params": {"model": "a.gguf", "promptCache": "/var/x"}}, "params.promptCache"),
    ({**LOCAL, "mmproj": "/x.gguf"}, "mmproj"),
    ({**LOCAL, "draftModel": "package:json/x.gguf"}, "draftModel"),
    ({**REMOTE, "key": "env:HOME"}, "key"),
    ({**REMOTE, "key": "file:/etc/shadow"}, "key"),
    ({**REMOTE, "caFile": "/etc/passwd"}, "caFile"),
]


@pytest.fixture
def links(storage: Path) -> None:
    """What leads out of llm_storage."""
    outside = storage.parent / "outside"
    outside.mkdir()
    shutil.copy(storage / "a.gguf", outside / "secret.gguf")
    (storage / "out.gguf").symlink_to(outside / "secret.gguf")
    (storage / "out").symlink_to(outside)
    shutil.copy(storage / "a.gguf", storage / "parts-00001-of-00002.gguf")
    (storage / "parts-00002-of-00002.gguf").symlink_to(outside / "secret.gguf")


@pytest.mark.usefixtures("links")
async def test_what_chooses_programs_or_files_is_not_for_http(
    box: Box, subtests: pytest.Subtests
) -> None:
    for body, field in FORBIDDEN:
        with subtests.test(f"{body!r:.80}"):
            for method, name in (("PUT", "new"), ("PUT", "second"), ("PATCH", "second")):
                if method == "PATCH" and "url" in body:
                    body = {**body, "params": None, "personalities": None}
                status, error = await box.refused(method, name, body)
                assert (status, error["code"], error["param"]) == (403, "process_setting", field), (
                    body
                )
                assert "admin.process_settings: true" in error["message"]
                assert field in error["message"]


async def test_a_link_within_llm_storage_is_no_way_out(
    box: Box, storage: Path, subtests: pytest.Subtests
) -> None:
    (storage / "inside.gguf").symlink_to(storage / "a.gguf")
    for model in ("inside.gguf", "deep\\c.gguf", "./deep//c.gguf"):
        with subtests.test(f"{model!r:.80}"):
            assert (await box.ask("PUT", "new", {"params": {"model": model}}))[0] in (200, 201)


async def test_tilde_behind_a_dot_is_no_home(
    box: Box, storage: Path, subtests: pytest.Subtests
) -> None:
    """``./~`` is a folder below llm_storage, for the check and for the load alike."""
    for name in ("./~/x.gguf", ".\\~\\x.gguf", ".//~root/x.gguf"):
        with subtests.test(f"{name!r:.80}"):
            assert (await box.refused("PUT", "new", {"params": {"model": name}}))[0] == 422
            assert resolve_model_path(name, storage).is_relative_to(storage)
            assert (await box.refused("PUT", "new", {**LOCAL, "mmproj": name}))[0] == 422
    (storage / "~").mkdir()
    shutil.copy(storage / "a.gguf", storage / "~/x.gguf")
    assert (await box.ask("PUT", "new", {"params": {"model": "./~/x.gguf"}}))[0] == 201


async def test_what_is_proposed_may_be_taken(box: Box) -> None:
    body = {**LOCAL, "extraArgs": ["--ubatch-size", "512", "--pooling", "mean"], "embeddings": True}
    assert (await box.ask("PUT", "new", body))[0] == 201


SET: dict[str, dict[str, Any]] = {
    "local": {
        "params": {"model": DEMO_GGUF},
        "env": {"HF_TOKEN": "hf_hunter2", "OTHER": "1"},
        "extraArgs": ["--hf-token", "hf_hunter3", "--verbose"],
    },
    "remote": {"url": "https://box.example", "key": "sk-hunter4", "caFile": "~/ca.pem"},
    "named": {"url": "https://box.example", "key": "env:BOX_KEY"},
}


async def test_what_stands_there_may_stay(
    box: Box, caplog: pytest.LogCaptureFixture, subtests: pytest.Subtests
) -> None:
    """And isn't told, nor lost when what was told comes back."""
    caplog.set_level("DEBUG")
    box.write(json.dumps(SET, indent=2))
    answers = []
    for name, entry in SET.items():
        with subtests.test(f"{name!r:.80}"):
            status, shown, etag = await box.ask("GET", name)
            assert status == 200
            answers.append(shown)
            assert (await box.ask("PUT", name, shown, If_Match=str(etag)))[0] == 200
            assert box.entries[name] == entry
            status, shown, _ = await box.ask("PUT", name, {**shown, "description": "changed"})
            assert status == 200
            assert box.entries[name] == {**entry, "description": "changed"}
            answers.append(shown)
            status, shown, _ = await box.ask("PATCH", name, {"description": None, "pinned": True})
            assert status == 200
            assert box.entries[name] == {**entry, "pinned": True}
            answers.append(shown)
    assert "hunter" not in json.dumps(answers)
    assert "hunter" not in caplog.text
    assert answers[0]["env"] == {"HF_TOKEN": "***", "OTHER": "***"}
    assert answers[0]["extraArgs"] == ["--hf-token", "***", "--verbose"]
    assert answers[3]["key"] == "***"
    assert answers[6]["key"] == "env:BOX_KEY"
    # Taken away is less than there was.
    assert (await box.ask("PATCH", "local", {"env": {"OTHER": None}, "extraArgs": None}))[0] == 200
    assert box.entries["local"]["env"] == {"HF_TOKEN": "hf_hunter2"}


async def test_what_stands_there_may_not_become_something_else(
    box: Box, subtests: pytest.Subtests
) -> None:
    box.write(json.dumps(SET))
    for name, body, field in (
        ("local", {"env": {"HF_TOKEN": "other"}}, "env.HF_TOKEN"),
        ("local", {"extraArgs": ["--verbose"]}, "extraArgs"),
        ("local", {"params": {"model": DEMO_GGUF.replace("Q4_1", "Q4_0")}}, "params.model"),
        # A key that isn't told would go to whoever asks for it.
        ("remote", {"url": "https://mine.example"}, "url"),
        ("remote", {"url": ["https://box.example", "https://mine.example"]}, "url"),
        ("remote", {"url": "https://mine.example", "key": "***"}, "url"),
        ("named", {"url": "https://mine.example"}, "url"),
        ("named", {"key": "env:HOME"}, "key"),
    ):
        with subtests.test(f"{name!r:.80}"):
            status, error = await box.refused("PATCH", name, body)
            assert (status, error["param"]) == (403, field), body
            assert "hunter" not in error["message"]
    body = {"url": "https://mine.example", "key": "mine", "caFile": None}
    assert (await box.ask("PATCH", "remote", body))[0] == 200


async def test_hidden_value_that_stands_for_nothing_is_refused(box: Box) -> None:
    for body, key in (
        ({**REMOTE, "key": "***"}, "new.key"),
        ({**REMOTE, "url": "ftp://x", "key": "***"}, "new.key"),
    ):
        status, error = await box.refused("PUT", "new", body)
        assert status == 422
        assert key in [problem["key"] for problem in error["problems"]]


async def test_what_is_secret_isnt_told_in_whatever_shape(
    box: Box, caplog: pytest.LogCaptureFixture, subtests: pytest.Subtests
) -> None:
    """Nor of entries that are broken, by an answer, an error or the log."""
    told: list[Any] = []
    right = {**LOCAL, "extraArgs": "--hf-token=hunter2"}
    box.write(json.dumps({"m": right}))
    status, shown, _ = await box.ask("GET", "m")
    assert (status, shown) == (200, {**LOCAL, "extraArgs": "--hf-token=***"})
    assert (await box.ask("PUT", "m", {**shown, "pinned": True}))[0] == 200
    assert box.entries["m"] == {**right, "pinned": True}
    for wrong in (
        {"env": ["TOKEN=hunter2"]},
        {"env": "hunter2"},
        {"key": ["hunter2"]},
        {"extraArgs": [["--hf-token", "hunter2"]]},
        {"extraArgs": {"--hf-token": "hunter2"}},
    ):
        with subtests.test(f"{wrong!r:.80}"):
            box.write(json.dumps({"m": {**LOCAL, **wrong}}))
            told.append(await box.ask("GET", "m"))
            told.append(await box.refused("PATCH", "m", {"pinned": True}))
            assert [one[0] for one in told[-2:]] == [200, 422]
    for misspelt in ("Env", "extraArg", "keys"):
        box.write(json.dumps({"m": {**LOCAL, misspelt: {"TOKEN": "hunter2"}}}))
        told.append(await box.refused("PATCH", "m", {"pinned": True}))
        await box.running.gateway.library.refresh()
    assert "unknown key" in caplog.text
    assert "hunter2" not in json.dumps(told) + caplog.text


async def test_with_process_settings_an_admin_may_choose_programs(
    make_gateway: MakeGateway, storage: Path
) -> None:
    given = {"process_settings": True}
    async with make_gateway({}, admin=given) as running:
        box = Box(running)
        entry = {
            "params": {"model": str(storage / "a.gguf")},
            "env": {"FAKE_RECORD": "x"},
            "extraArgs": ["--verbose"],
        }
        assert (await box.ask("PUT", "a", entry))[:2] == (201, entry)
        assert (await box.ask("GET", "a"))[1]["env"] == {"FAKE_RECORD": "x"}
        remote = {"url": "http://127.0.0.1:9", "key": "sk-hunter2"}
        assert (await box.ask("PUT", "b", remote))[1]["key"] == "***"
        assert (await box.ask("PATCH", "b", {"url": "http://127.0.0.1:8"}))[0] == 200
        assert box.entries["b"]["key"] == "sk-hunter2"
        status, _ = await box.refused("PUT", "c", {"params": {"model": "/no/such.gguf"}})
        assert status == 422
