"""Keys of the old file go on working."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.access.keys import KeyRing
from gateway.problems import InvalidFiles

OLD = """{"3f9a8b7c6d5e4f3a": {"name": "phone", "description": "Bob's"},
          "b1946ac92492d234": {"name": "web", "lastActivity": "2024-03-05T10:00:00.000Z"},
          "secret": {"name": "tv"}}"""


async def test_old_keys_go_on_working(
    ring: KeyRing, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    path = tmp_path / "authKeys.json"
    path.write_text(OLD)
    report = await ring.import_legacy(path)
    assert set(report.imported) == set(ring.records)
    assert report.skipped == ()
    assert {(record.name, record.admin, record.imported) for record in ring.records} == {
        ("web", True, True),
        ("phone", True, True),
        ("tv", True, True),
    }
    by_name = {record.name: record for record in ring.records}
    assert by_name["web"].last_activity == datetime(2024, 3, 5, 10, tzinfo=UTC)
    assert by_name["phone"].description == "Bob's"
    for key, name in {
        "3f9a8b7c6d5e4f3a": "phone",
        "b1946ac92492d234": "web",
        "secret": "tv",
    }.items():
        with subtests.test(f"{key!r:.80}"):
            assert ring.lookup.find(key, time.time()).name == name
            assert key not in repr(report)
    assert ["6 characters" in warning for warning in report.warnings] == [True]


async def test_importing_twice_changes_nothing(ring: KeyRing, tmp_path: Path) -> None:
    path = tmp_path / "authKeys.json"
    path.write_text(OLD)
    first = (await ring.import_legacy(path)).imported
    report = await ring.import_legacy(path)
    assert report.imported == ()
    assert [text.split(": ")[1] for text in report.skipped] == [
        f"is here already, as {record.id}" for record in first
    ]
    assert set(ring.records) == set(first)


async def test_an_import_without_admin_makes_no_administrators(
    ring: KeyRing, tmp_path: Path
) -> None:
    path = tmp_path / "authKeys.json"
    path.write_text('{"3f9a8b7c6d5e4f3a": {}, "b1946ac92492d234": {}}')
    await ring.import_legacy(path, admin=False)
    assert [record.admin for record in ring.records] == [False, False]


async def test_one_bad_entry_and_nothing_is_imported(ring: KeyRing, tmp_path: Path) -> None:
    path = tmp_path / "authKeys.json"
    path.write_text('{"3f9a8b7c6d5e4f3a": {}, "tv": {"key": "b1946ac92492d234"}, "web": 7}')
    with pytest.raises(InvalidFiles) as caught:
        await ring.import_legacy(path)
    assert [problem.key for problem in caught.value.problems] == ["entry 2", "entry 3"]
    assert ring.records == ()
    with pytest.raises(InvalidFiles, match="No such file"):
        await ring.import_legacy(tmp_path / "none.json")
