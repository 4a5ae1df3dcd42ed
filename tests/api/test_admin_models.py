"""GET, PUT, PATCH and DELETE /admin/models/NAME."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from gateway.config import skeleton
from gateway.errors import LoadFailed
from gateway.models.paths import resolve_model_path
from tests.harness import DEMO_GGUF, MakeGateway, Running, Served, fake_model
from tests.tiny_model import write_tiny_model

TEXT = """{
    "first": {"params": {"model": "a.gguf",   "topK": 4}, "aliases": ["uno"]},

    "second": {
        "params": {"model": "b.gguf"},
        "personalities": {
            "pirate": "Arr."
        }
    }
}
"""


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    folder = tmp_path / "LLMs"
    (folder / "deep").mkdir(parents=True)
    write_tiny_model(folder / "a.gguf")
    shutil.copy(folder / "a.gguf", folder / "b.gguf")
    shutil.copy(folder / "a.gguf", folder / "deep/c.gguf")
    return folder


class Box:
    """A gateway, and the models.json that it serves."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.file = running.gateway.settings.models_file

    def write(self, text: str) -> None:
        self.file.write_text(text)

    @property
    def entries(self) -> dict[str, Any]:
        entries: dict[str, Any] = json.loads(self.file.read_bytes())
        return entries

    async def ask(
        self, method: str, name: str, body: Any = None, **headers: str
    ) -> tuple[int, Any, str | None]:
        """Status, body and ETag."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        url = URL(f"{self.running.url}/admin/models/{quote(name, safe='')}", encoded=True)
        named["Authorization"] = f"Bearer {self.running.key}"
        async with self.running.session.request(method, url, json=body, headers=named) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None, answer.headers.get("ETag")

    async def editable(self) -> dict[str, Any]:
        """What is told of models.json as a file."""
        _, answer = await self.running.json("GET", "/admin/models")
        found: dict[str, Any] = answer["models_file"]
        assert found["path"] == str(self.file)
        return found

    async def refused(self, method: str, name: str, body: Any, **headers: str) -> tuple[int, Any]:
        """Status and error, when nothing has been written."""
        before = self.file.read_bytes() if self.file.is_file() else None
        status, answer, _ = await self.ask(method, name, body, **headers)
        assert before == (self.file.read_bytes() if self.file.is_file() else None)
        return status, answer["error"]

    @property
    def known(self) -> list[str]:
        return self.running.gateway.scheduler.status() and [
            one.name for one in self.running.gateway.scheduler.status()
        ]


@pytest.fixture
async def box(make_gateway: MakeGateway, storage: Path) -> AsyncIterator[Box]:
    async with make_gateway({}, llm_storage=str(storage)) as running:
        found = Box(running)
        found.write(TEXT)
        await running.gateway.library.refresh()
        yield found


# --- what it is for ------------------------------------------------------------------------


async def test_an_entry_is_made_read_changed_and_removed(box: Box) -> None:
    entry = {"params": {"model": "deep/c.gguf", "temperature": 0.7}, "ttl": "5m"}
    status, answer, etag = await box.ask("PUT", "third", entry)
    assert (status, answer) == (201, entry)
    assert etag is not None
    assert box.known == ["first", "second", "third"]  # in use when it is answered
    assert list(box.entries) == ["first", "second", "third"]
    assert box.file.read_text().startswith(TEXT.rstrip("}\n"))
    assert box.file.with_name("models.json~").read_text() == TEXT

    assert await box.ask("GET", "third") == (200, entry, etag)
    assert (await box.ask("GET", "third", If_None_Match=etag))[0] == 304
    patch = {"ttl": None, "params": {"temperature": 0}, "description": "The third."}
    status, answer, changed = await box.ask("PATCH", "third", patch, If_Match=etag)
    expected = {"params": {"model": "deep/c.gguf", "temperature": 0}, "description": "The third."}
    assert (status, answer) == (200, expected)
    assert changed not in (etag, None)
    assert box.running.gateway.library.catalog.models["third"].params.temperature == 0

    assert await box.ask("PUT", "third", expected) == (200, expected, changed)
    assert (await box.ask("DELETE", "third", If_Match=str(changed)))[:2] == (204, None)
    assert box.file.read_text() == TEXT
    assert box.known == ["first", "second"]
    status, answer, _ = await box.ask("GET", "third")
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert (await box.ask("PATCH", "third", {}))[0] == 404
    assert (await box.ask("DELETE", "third"))[0] == 404


async def test_what_a_card_shows(box: Box, storage: Path) -> None:
    """What its file is, and where it is for how long, once it is loaded."""

    async def look() -> dict[str, Any]:
        _, answer = await box.running.json("GET", "/admin/models")
        return {one["name"]: one for one in answer["models"]}

    write_tiny_model(storage / "real-F32.gguf")
    entry = {"params": {"model": "real-F32.gguf", "ctxSize": 512}, "ttl": "10m", "pinned": True}
    await box.ask("PUT", "real", entry)
    write_tiny_model(storage / "later-gone.gguf")
    await box.ask("PUT", "gone", {"params": {"model": "later-gone.gguf"}})
    (storage / "later-gone.gguf").unlink()
    before = (await look())["real"]
    size = (storage / "real-F32.gguf").stat().st_size
    assert (before["file"], before["size"]) == ("real-F32.gguf", size)
    assert (before["quantisation"], before["trained_context"]) == ("F32", 32768)
    assert (before["pinned"], before["preload"], before["remote"]) == (True, False, False)
    assert (before["memory_on"], before["unload_in"]) == ({}, None)
    await box.running.gateway.scheduler.load("real")
    after = (await look())["real"]
    assert 500 < after["unload_in"] <= 600
    assert after["start_failed"] is False
    assert sum(after["memory_on"].values()) > size
    with pytest.raises(LoadFailed):
        await box.running.gateway.scheduler.load("gone")
    assert (await look())["gone"]["start_failed"] is True


async def test_the_rest_of_the_file_stays_as_it_is(box: Box) -> None:
    status, _, _ = await box.ask("PATCH", "first", {"params": {"topK": 5}, "pinned": True})
    assert status == 200
    wanted = TEXT.replace(
        '"topK": 4}, "aliases": ["uno"]}', '"topK": 5}, "aliases": ["uno"], "pinned": true}'
    )
    assert box.file.read_text() == wanted
    status, _, _ = await box.ask("PATCH", "second", {"personalities": {"poet": "You rhyme."}})
    assert (
        '            "pirate": "Arr.",\n            "poet": "You rhyme."\n' in box.file.read_text()
    )
    before = box.file.stat()
    assert (await box.ask("PATCH", "second", {}))[0] == 200  # nothing to write
    assert box.file.stat().st_ino == before.st_ino


async def test_any_name(box: Box) -> None:
    for name in ("a/b", "a%2Fb", "x:7b", "größe", "a b?c#d", "100%", "x/log", "first.params", "."):
        entry = {"params": {"model": "a.gguf"}}
        assert (await box.ask("PUT", name, entry))[:2] == (201, entry), name
        assert box.known == ["first", "second", name]
        assert (await box.ask("GET", name))[:2] == (200, entry), name
        assert (await box.ask("PATCH", name, {"pinned": True}))[0] == 200
        assert (await box.ask("DELETE", name))[0] == 204


async def test_slashes_as_they_are(box: Box) -> None:
    path, entry = "/admin/models/org/model:q4", {"params": {"model": "a.gguf"}}
    assert (await box.running.json("PUT", path, json=entry)) == (201, entry)
    assert (await box.running.json("GET", path)) == (200, entry)
    assert list(box.entries)[-1] == "org/model:q4"


async def test_a_loaded_model_is_drained_and_comes_back_as_the_new_one(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"a": fake_model(tmp_path)}) as running:
        assert (await running.json("POST", "/loadModel", json={"model": "a"}))[0] == 200
        backend = running.gateway.scheduler.backend("a")
        assert backend is not None
        pid = backend.pid
        body = {"personalities": {"p": "Arr."}}
        assert (await running.json("PATCH", "/admin/models/a", json=body))[0] == 200
        assert backend.pid == pid  # the process is the same one
        body = {"params": {"ctxSize": 777}}
        assert (await running.json("PATCH", "/admin/models/a", json=body))[0] == 200
        assert (await running.chat("a"))[0] == 200
        assert backend.pid != pid
        assert backend.spec.params.ctx_size == 777


async def test_only_administrators(box: Box) -> None:
    assert box.running.gateway.ring is not None
    _, key = await box.running.gateway.ring.create("phone", "")
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        for given, status in ((None, 401), (key, 403)):
            answer = await box.running.json(method, "/admin/models/first", json={}, key=given)
            assert answer[0] == status
    assert box.file.read_text() == TEXT


# --- who is faster -------------------------------------------------------------------------


async def test_of_two_writers_who_read_the_same_one_wins(box: Box) -> None:
    _, _, etag = await box.ask("GET", "first")
    bodies = [{"description": f"number {number}"} for number in range(8)]
    answers = await asyncio.gather(
        *(box.ask("PATCH", "first", body, If_Match=str(etag)) for body in bodies)
    )
    assert sorted(status for status, _, _ in answers) == [200, *[412] * 7]
    (won,) = [body for status, body, _ in answers if status == 200]
    assert box.entries["first"]["description"] == won["description"]
    lost = next(answer for status, answer, _ in answers if status == 412)
    assert lost["error"]["code"] == "changed_meanwhile"


async def test_writers_of_other_entries_lose_nothing(box: Box) -> None:
    names = [f"model {number}" for number in range(8)]
    entry = {"params": {"model": "a.gguf"}}
    answers = await asyncio.gather(*(box.ask("PUT", name, entry) for name in names))
    assert {status for status, _, _ in answers} == {201}
    assert {*box.entries} == {"first", "second", *names}
    assert {*box.known} == {*box.entries}


async def test_conditions(box: Box) -> None:
    _, _, etag = await box.ask("GET", "first")
    entry = {"params": {"model": "a.gguf"}}
    for method, name, headers in (
        ("PUT", "first", {"If_None_Match": "*"}),
        ("PUT", "new", {"If_Match": "*"}),
        ("PUT", "new", {"If_Match": str(etag)}),
        ("PATCH", "first", {"If_Match": '"other"'}),
        ("PATCH", "first", {"If_Match": f"W/{etag}"}),
        ("PATCH", "first", {"If_Match": "unquoted"}),
        ("PATCH", "first", {"If_None_Match": str(etag)}),
        ("DELETE", "first", {"If_Match": '"other"'}),
    ):
        status, error = await box.refused(method, name, entry, **headers)
        assert (status, error["code"]) == (412, "changed_meanwhile"), (method, name, headers)
    assert (await box.ask("PUT", "new", entry, If_None_Match="*"))[0] == 201
    assert (await box.ask("PATCH", "first", {}, If_Match=f'"x", {etag}'))[0] == 200
    # Written by hand meanwhile: the entry that was read, and then another one.
    box.write(box.file.read_text().replace('"topK": 4', '"topK": 9'))
    assert (await box.refused("PATCH", "first", {"ttl": 5}, If_Match=str(etag)))[0] == 412
    _, _, etag = await box.ask("GET", "first")
    box.write(box.file.read_text().replace("Arr.", "Ahoy."))
    assert (await box.ask("PATCH", "first", {"ttl": 5}, If_Match=str(etag)))[0] == 200
    assert box.entries["second"]["personalities"] == {"pirate": "Ahoy."}


async def test_who_leaves_has_it_done_or_not(box: Box) -> None:
    async def put() -> None:
        await box.ask("PUT", "new", {"params": {"model": "a.gguf"}})

    changed = asyncio.Event()
    taken = box.running.gateway.library.changed
    box.running.gateway.library.changed = lambda catalog: (taken(catalog), changed.set())  # type: ignore[assignment, return-value]
    task = asyncio.get_running_loop().create_task(put())
    while not box.file.with_name("models.json~").exists():
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait_for(changed.wait(), 10)
    assert box.known == list(box.entries) == ["first", "second", "new"]


# --- what is wrong -------------------------------------------------------------------------


async def test_all_problems_at_once(box: Box) -> None:
    body = {
        "params": {"model": "nowhere.gguf", "topP": 2, "tempratur": 1},
        "template": "nonsense",
        "aliases": ["second"],
        "parallel": 0,
    }
    status, error = await box.refused("PUT", "new", body)
    assert (status, error["code"], error["type"]) == (
        422,
        "invalid_entry",
        "invalid_request_error",
    )
    problems = {problem["key"]: problem for problem in error["problems"]}
    assert problems.keys() == {
        "new.params.model",
        "new.params.topP",
        "new.params.tempratur",
        "new.template",
        "new.aliases",
        "new.parallel",
    }
    assert problems["new.params.topP"] == {
        "key": "new.params.topP",
        "value": "2",
        "message": "must be at most 1",
        "allowed": "a number from 0 to 1",
    }
    assert "did you mean 'temperature'" in problems["new.params.tempratur"]["message"]
    assert all(problem["message"] in error["message"] for problem in error["problems"])


async def test_numbers_of_any_size(box: Box) -> None:
    """Where they are only passed on; where they aren't, none breaks an answer."""
    body = {
        **LOCAL,
        "setParams": {"x": 10**30},
        "personalities": {"p": {"setParams": {"y": 2**64}}},
    }
    assert (await box.ask("PUT", "new", body))[:2] == (201, body)
    assert (await box.ask("GET", "new"))[:2] == (200, body)
    deep: Any = 1
    for _ in range(245):
        deep = {"a": deep}
    assert (await box.ask("PATCH", "new", {"setParams": {"x": deep}}))[0] == 200
    assert (await box.ask("GET", "new"))[0] == 200
    for change in ({"memory": "99999999999999GiB"}, {"params": {"ctxSize": 10**20}}):
        assert (await box.refused("PATCH", "new", change))[0] == 422
    for route in ("/admin/models", "/admin/status", "/v1/models"):
        assert (await box.running.json("GET", route))[0] == 200


WRONG: list[tuple[str, Any, str]] = [
    ("new", {}, "new.params.model"),
    ("new", {"params": {"model": "deep"}}, "new.params.model"),
    ("new", {"url": "ftp://x"}, "new.url.0"),
    ("uno", {"params": {"model": "a.gguf"}}, "first.aliases"),
    ("$schema", {"params": {"model": "a.gguf"}}, "$schema"),
    ("a\tb", {"params": {"model": "a.gguf"}}, "'a\\tb'"),
    ("new", {"params": {"model": "a.gguf"}, "name": "x"}, "new.name"),
    ("new", {"params": {"model": "a\0.gguf"}}, "new.params.model"),
]


async def test_what_would_not_be_served(box: Box) -> None:
    for name, body, key in WRONG:
        status, error = await box.refused("PUT", name, body)
        assert (status, [problem["key"] for problem in error["problems"]]) == (422, [key]), body


async def test_bodies_that_are_none(box: Box) -> None:
    for data in (b"", b"[]", b"{", b'{"params": {"model": "\\ud800"}}', b'"x"'):
        for method in ("PUT", "PATCH"):
            status, answer = await box.running.json(method, "/admin/models/first", data=data)
            assert status in (400, 422), answer
    deep = b'{"setParams": {"x": ' + b"[" * 400 + b"]" * 400 + b"}}"
    status, answer = await box.running.json("PATCH", "/admin/models/first", data=deep)
    assert status in (200, 400, 422), answer
    assert (await box.running.json("PUT", "/admin/models/x", data=b" " * 300_000))[0] == 413


async def test_what_was_wrong_before_stands_in_no_ones_way(box: Box) -> None:
    """A disk that is not there: an entry may be changed all the same."""
    (box.running.gateway.settings.llm_storage / "b.gguf").unlink()
    assert (await box.ask("PATCH", "second", {"pinned": True}))[0] == 200
    status, error = await box.refused("PUT", "third", {"params": {"model": "b.gguf"}})
    assert (status, error["problems"][0]["key"]) == (422, "third.params.model")


# --- the file ------------------------------------------------------------------------------


BROKEN = (
    b"{",
    b"[]",
    b'{"a": {"params": {"model": "a.gguf"}}, "a": {}}',
    b'{"other": {"params": {"modle": "a.gguf"}}}',
    b"\xff\xfe{\x00}\x00",
)


async def test_a_broken_file_is_left_alone(box: Box) -> None:
    for text in BROKEN:
        box.file.write_bytes(text)
        entry = {"params": {"model": "a.gguf"}}
        status, error = await box.refused("PUT", "new", entry)
        assert (status, error["code"]) == (409, "models_file_broken")
        assert "models.json is broken" in error["message"]
        assert box.known == ["first", "second"]  # the last good one


async def test_the_entry_that_broke_it_can_be_mended(box: Box) -> None:
    box.write('{"a": {"params": {"modle": "a.gguf"}}, "b": {"params": {"model": "b.gguf"}}}')
    assert (await box.ask("GET", "a"))[1] == {"params": {"modle": "a.gguf"}}
    status, _, _ = await box.ask("PATCH", "a", {"params": {"modle": None, "model": "a.gguf"}})
    assert status == 200
    assert box.known == ["a", "b"]
    assert box.running.gateway.library.broken is None


async def test_no_file_yet(box: Box) -> None:
    box.file.unlink()
    assert (await box.ask("GET", "first"))[0] == 404
    entry = {"params": {"model": "a.gguf"}}
    assert (await box.ask("PUT", "new", entry))[0] == 201
    assert (box.entries, box.known) == ({"new": entry}, ["new"])
    assert box.file.stat().st_mode & 0o777 == 0o600


async def test_a_link_stays_one(box: Box, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere/real.json"
    real.parent.mkdir()
    box.file.rename(real)
    box.file.symlink_to(real)
    assert (await box.ask("PATCH", "first", {"pinned": True}))[0] == 200
    assert box.file.is_symlink()
    assert json.loads(real.read_text())["first"]["pinned"] is True
    assert real.with_name("real.json~").read_text() == TEXT


async def test_a_folder_in_its_place(box: Box) -> None:
    box.file.unlink()
    box.file.mkdir()
    status, error = await box.refused("PUT", "new", {"params": {"model": "a.gguf"}})
    assert (status, error["code"]) == (409, "models_file_broken")
    assert "cannot be read" in error["message"]


@contextlib.contextmanager
def closed(path: Path) -> Iterator[None]:
    """``path`` cannot be written, by root neither."""
    if os.geteuid() != 0:
        mode = path.stat().st_mode
        path.chmod(mode & ~0o222)
        yield
        path.chmod(mode)
        return
    done = subprocess.run(["chattr", "+i", path], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"root, and {done.stderr}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


@pytest.mark.parametrize("what", ["the file", "its folder"])
async def test_a_file_that_may_not_be_written(box: Box, what: str) -> None:
    """The one of a service is root's."""
    entry = {"params": {"model": "a.gguf"}}
    assert (await box.editable())["writable"] is True
    with closed(box.file if what == "the file" else box.file.parent):
        told = await box.editable()  # before anybody tries
        assert (told["writable"], told["process_settings"]) == (False, False)
        assert "may not write" in told["reason"]
        for method, body in (("PUT", entry), ("PATCH", {"pinned": True}), ("DELETE", None)):
            status, error = await box.refused(method, "first", body)
            assert (status, error["code"]) == (403, "not_writable")
            assert "models.json cannot be written: " in error["message"]
        assert (await box.ask("GET", "first"))[0] == 200
    assert (await box.ask("PATCH", "first", {"pinned": True}))[0] == 200
    assert [file.name for file in box.file.parent.glob(".models*")] == []


def test_the_demonstrations_file_is_not_written(demo: Served) -> None:
    shipped = skeleton("data/models.json").read_bytes()
    request = urllib.request.Request(
        f"{demo.url}/admin/models/new",
        b'{"url": "https://box.example"}',
        {"Authorization": f"Bearer {demo.key}", "Content-Type": "application/json"},
        method="PUT",
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20)
    assert refused.value.code == 403
    assert "llm-gateway init DIR" in refused.value.read().decode()
    request = urllib.request.Request(
        f"{demo.url}/admin/models", headers={"Authorization": f"Bearer {demo.key}"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        told = json.load(answer)["models_file"]
    assert told["writable"] is False
    assert "llm-gateway init DIR" in told["reason"]
    assert skeleton("data/models.json").read_bytes() == shipped


# --- a stolen key is no shell --------------------------------------------------------------

LOCAL = {"params": {"model": "a.gguf"}}
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
async def test_what_chooses_programs_or_files_is_not_for_http(box: Box) -> None:
    for body, field in FORBIDDEN:
        for method, name in (("PUT", "new"), ("PUT", "second"), ("PATCH", "second")):
            if method == "PATCH" and "url" in body:
                body = {**body, "params": None, "personalities": None}
            status, error = await box.refused(method, name, body)
            assert (status, error["code"], error["param"]) == (403, "process_setting", field), body
            assert "admin.process_settings: true" in error["message"]
            assert field in error["message"]


async def test_a_link_within_llm_storage_is_no_way_out(box: Box, storage: Path) -> None:
    (storage / "inside.gguf").symlink_to(storage / "a.gguf")
    for model in ("inside.gguf", "deep\\c.gguf", "./deep//c.gguf"):
        assert (await box.ask("PUT", "new", {"params": {"model": model}}))[0] in (200, 201)


async def test_no_home_behind_a_dot(box: Box, storage: Path) -> None:
    """``./~`` is a folder below llm_storage, for the check and for the load alike."""
    for name in ("./~/x.gguf", ".\\~\\x.gguf", ".//~root/x.gguf"):
        assert (await box.refused("PUT", "new", {"params": {"model": name}}))[0] == 422
        assert resolve_model_path(name, storage).is_relative_to(storage)
        assert (await box.refused("PUT", "new", {**LOCAL, "mmproj": name}))[0] == 422
    (storage / "~").mkdir()
    shutil.copy(storage / "a.gguf", storage / "~/x.gguf")
    assert (await box.ask("PUT", "new", {"params": {"model": "./~/x.gguf"}}))[0] == 201


async def test_what_is_proposed_may_be_taken(box: Box) -> None:
    body = {**LOCAL, "extraArgs": ["--ubatch-size", "512", "--pooling", "mean"], "embeddings": True}
    assert (await box.ask("PUT", "new", body))[0] == 201


SET = {
    "local": {
        "params": {"model": DEMO_GGUF},
        "env": {"HF_TOKEN": "hf_hunter2", "OTHER": "1"},
        "extraArgs": ["--hf-token", "hf_hunter3", "--verbose"],
    },
    "remote": {"url": "https://box.example", "key": "sk-hunter4", "caFile": "~/ca.pem"},
    "named": {"url": "https://box.example", "key": "env:BOX_KEY"},
}


async def test_what_stands_there_may_stay(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    """And isn't told, nor lost when what was told comes back."""
    caplog.set_level("DEBUG")
    box.write(json.dumps(SET, indent=2))
    answers = []
    for name, entry in SET.items():
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


async def test_what_stands_there_may_not_become_something_else(box: Box) -> None:
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
        status, error = await box.refused("PATCH", name, body)
        assert (status, error["param"]) == (403, field), body
        assert "hunter" not in error["message"]
    body = {"url": "https://mine.example", "key": "mine", "caFile": None}
    assert (await box.ask("PATCH", "remote", body))[0] == 200


async def test_hidden_values_where_there_are_none(box: Box) -> None:
    for body, key in (
        ({**REMOTE, "key": "***"}, "new.key"),
        ({**REMOTE, "url": "ftp://x", "key": "***"}, "new.key"),
    ):
        status, error = await box.refused("PUT", "new", body)
        assert status == 422
        assert key in [problem["key"] for problem in error["problems"]]


async def test_what_is_secret_isnt_told_in_whatever_shape(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor of entries that are broken, by an answer, an error or the log."""
    told = []
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


async def test_with_process_settings(make_gateway: MakeGateway, storage: Path) -> None:
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
