"""GET, PUT, PATCH and DELETE /admin/models/NAME."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import LoadFailed
from gateway.models.catalog import Catalog
from tests.api.admin_models.box import TEXT, Box
from tests.harness import MakeGateway, fake_model
from tests.tiny_model import write_tiny_model

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
    models = {model.name: model for model in box.running.gateway.library.catalog.ours}
    assert models["third"].params.temperature == 0

    assert await box.ask("PUT", "third", expected) == (200, expected, changed)
    assert (await box.ask("DELETE", "third", If_Match=str(changed)))[:2] == (204, None)
    assert box.file.read_text() == TEXT
    assert box.known == ["first", "second"]
    status, answer, _ = await box.ask("GET", "third")
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert (await box.ask("PATCH", "third", {}))[0] == 404
    assert (await box.ask("DELETE", "third"))[0] == 404


async def test_list_tells_the_file_of_a_model_and_how_long_it_stays(
    box: Box, storage: Path
) -> None:
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


async def test_an_entry_may_have_any_name(box: Box, subtests: pytest.Subtests) -> None:
    for name in ("a/b", "a%2Fb", "x:7b", "größe", "a b?c#d", "100%", "x/log", "first.params", "."):
        with subtests.test(f"{name!r:.80}"):
            entry = {"params": {"model": "a.gguf"}}
            assert (await box.ask("PUT", name, entry))[:2] == (201, entry), name
            assert box.known == ["first", "second", name]
            assert (await box.ask("GET", name))[:2] == (200, entry), name
            assert (await box.ask("PATCH", name, {"pinned": True}))[0] == 200
            assert (await box.ask("DELETE", name))[0] == 204


async def test_slashes_of_a_name_may_stand_as_they_are(box: Box) -> None:
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
        body: Any = {"personalities": {"p": "Arr."}}
        assert (await running.json("PATCH", "/admin/models/a", json=body))[0] == 200
        assert backend.pid == pid  # the process is the same one
        body = {"params": {"ctxSize": 777}}
        assert (await running.json("PATCH", "/admin/models/a", json=body))[0] == 200
        assert (await running.chat("a"))[0] == 200
        assert backend.pid != pid
        assert backend.spec.ctx_size == 777


async def test_only_administrators_may_change_entries(box: Box, subtests: pytest.Subtests) -> None:
    assert box.running.gateway.ring is not None
    _, key = await box.running.gateway.ring.create("phone", "")
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        with subtests.test(f"{method!r:.80}"):
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


async def test_a_write_is_made_only_if_its_conditions_hold(
    box: Box, subtests: pytest.Subtests
) -> None:
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
        with subtests.test(f"{method!r:.80}"):
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

    def told(catalog: Catalog) -> None:
        taken(catalog)
        changed.set()

    box.running.gateway.library.changed = told
    task = asyncio.get_running_loop().create_task(put())
    while not box.file.with_name("models.json~").exists():
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait_for(changed.wait(), 10)
    assert box.known == list(box.entries) == ["first", "second", "new"]
