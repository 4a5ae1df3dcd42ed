"""Changes to models.json leave everything else in it as it stands."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.models import editing
from gateway.problems import InvalidFiles
from tests.harness import tied

ENTRY = {"params": {"model": "a/b.gguf", "ctxSize": 4096}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda of: st.lists(of) | st.dictionaries(st.text(), of),
)
MODELS = st.dictionaries(st.text(), JSON, max_size=5)


@settings(max_examples=40)
@given(models=MODELS, added=MODELS, indent=st.sampled_from([None, 1, 2, 4, "\t"]))
def test_entries_are_added_behind_the_others(
    models: dict[str, Any], added: dict[str, Any], indent: int | str | None
) -> None:
    added = {name: entry for name, entry in added.items() if name not in models}
    text = json.dumps(models, indent=indent, ensure_ascii=False)
    changed = editing.with_entries(text, added)
    assert list(json.loads(changed).items()) == list({**models, **added}.items())
    for name in reversed(added):
        changed = editing.without_entry(changed, name)
    assert json.loads(changed) == models
    if models:
        assert changed == text


@settings(max_examples=40)
@given(models=MODELS.filter(bool), data=st.data())
def test_one_entry_is_taken_away(models: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(models)))
    changed = json.loads(editing.without_entry(json.dumps(models, indent=2), name))
    del models[name]
    assert list(changed.items()) == list(models.items())


def test_an_entry_is_written_as_the_others_are() -> None:
    text = '{\r\n\t"old":   {"params": {"model":"D:\\\\x.gguf"}}  ,\r\n\r\n\t"two": {}\r\n}\r\n'
    changed = editing.with_entries(text, {"ü": ENTRY})
    assert changed.startswith(text[: text.rindex("\r\n}")])
    assert changed.endswith("\r\n}\r\n")
    assert '\r\n\t"ü": {\r\n\t\t"params": {' in changed
    assert "\n" not in changed.replace("\r\n", "")


@settings(max_examples=40)
@given(
    models=MODELS.filter(bool), entry=JSON, data=st.data(), indent=st.sampled_from([None, 2, "\t"])
)
def test_one_entry_is_replaced(
    models: dict[str, Any], entry: Any, data: st.DataObject, indent: int | str | None
) -> None:
    name = data.draw(st.sampled_from([*models, "new"]))
    text = json.dumps(models, indent=indent, ensure_ascii=False)
    changed = editing.with_entry(text, name, entry)
    assert list(json.loads(changed)) == list({**models, name: entry})
    assert json.loads(changed) == {**models, name: entry}
    assert editing.with_entry(changed, name, entry) == changed
    if name in models and models[name] == entry and json.dumps(models[name]) == json.dumps(entry):
        assert changed == text


def test_of_an_entry_only_what_differs_is_written_anew() -> None:
    text = (
        '{\r\n\t"a": {\r\n\t\t"params": { "model":"x.gguf",  "topK": 4 },\r\n\r\n'
        '\t\t"aliases": ["one"],\r\n\t\t"ttl":   "5m"\r\n\t}\r\n}\r\n'
    )
    entry = {
        "params": {"model": "x.gguf", "topK": 5},
        "aliases": ["one", "two"],
        "personalities": {"p": "Arr."},
    }
    assert editing.with_entry(text, "a", entry) == (
        '{\r\n\t"a": {\r\n\t\t"params": { "model":"x.gguf",  "topK": 5 },\r\n\r\n'
        '\t\t"aliases": ["one", "two"],\r\n\t\t"personalities": {\r\n\t\t\t"p": "Arr."\r\n\t\t}'
        "\r\n\t}\r\n}\r\n"
    )


def test_of_writers_in_several_processes_one_wins(tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    file.write_text("{}")
    program = """if 1:
        import sys
        from pathlib import Path
        from gateway.models import editing
        file = Path(sys.argv[1])
        before = file.read_bytes()
        print("read", flush=True)
        sys.stdin.readline()
        try:
            editing.write(file, sys.argv[2], before=before)
        except editing.ChangedMeanwhile:
            sys.exit(7)
    """
    writers = [
        subprocess.Popen(
            tied(sys.executable, "-c", program, file, json.dumps({"writer": number})),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for one in writers:
        assert one.stdout is not None
        assert one.stdout.readline() == "read\n"  # before any of them writes
    for one in writers:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    codes = []
    for one in writers:
        one.communicate(timeout=30)
        codes.append(one.returncode)
    assert sorted(codes) == [0, 7, 7, 7]
    assert json.loads(file.read_text()) == {"writer": codes.index(0)}
    assert (tmp_path / "models.json~").read_text() == "{}"


def test_one_line_stays_one_line() -> None:
    assert editing.with_entries('{"a": {}}', {"b": {"c": 1}}) == '{"a": {}, "b": {"c": 1}}'


@pytest.mark.parametrize("text", ["", " \n", "{}", "{ }\n"])
def test_first_entry_is_written_into_an_empty_file(text: str) -> None:
    changed = editing.with_entries(text, {"a": ENTRY})
    assert json.loads(changed) == {"a": ENTRY}
    assert changed.startswith('{\n  "a": {\n')


def test_a_name_that_is_there_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' already"):
        editing.with_entries('{"a": {}}', {"a": ENTRY})


@pytest.mark.parametrize("text", ["[]", '{"a": }', '{"a": {}', "nothing"])
def test_what_is_no_object_is_not_touched(text: str) -> None:
    with pytest.raises(InvalidFiles):
        editing.with_entries(text, {"b": ENTRY})


def test_the_file_before_stays_beside_it(tmp_path: Path) -> None:
    file, before = tmp_path / "models.json", b'\xef\xbb\xbf{"a": {}}\n'
    file.write_bytes(before)
    file.chmod(0o640)
    editing.write(file, '{"b": {}}\n', before=before)
    assert file.read_bytes() == b'\xef\xbb\xbf{"b": {}}\n'
    assert (tmp_path / "models.json~").read_bytes() == before
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o640}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real/m.json", tmp_path / "models.json"
    target.write_bytes(b"{}")
    link.symlink_to(target)
    editing.write(link, '{"b": {}}', before=b"{}")
    assert link.is_symlink()
    assert target.read_bytes() == b'{"b": {}}'


def test_what_somebody_else_wrote_meanwhile_is_not_lost(tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    file.write_bytes(b'{"theirs": {}}')
    with pytest.raises(editing.ChangedMeanwhile):
        editing.write(file, "{}", before=b'{"before": {}}')
    assert file.read_bytes() == b'{"theirs": {}}'
    assert list(tmp_path.iterdir()) == [file]


def test_a_new_file_is_nobody_elses_to_read(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        editing.write(tmp_path / "models.json", "{}", before=b"")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "models.json").stat().st_mode) == 0o600


def test_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """A real one, of a few kilobytes in memory; where that may not be made, it is skipped."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    file = disk / "models.json"
    try:
        with pytest.raises(editing.DiskFull, match="No space left") as caught:
            editing.replace(file, "x" * 100_000, before=b"")
        assert (caught.value.status, caught.value.code) == (507, "disk_full")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_file_mounted_by_itself_is_told(tmp_path: Path) -> None:
    """As Docker's ``--volume models.json:...`` has it: what can be done is said."""
    file = tmp_path / "models.json"
    file.write_text("{}")
    other = tmp_path / "other"
    other.write_text("{}")
    done = subprocess.run(["mount", "--bind", other, file], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(done.stderr)
    try:
        with pytest.raises(editing.NotWritten, match="mount its folder"):
            editing.replace(file, '{"a": 1}', before=b"{}")
        assert file.read_text() == "{}"
        assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []
    finally:
        subprocess.run(["umount", file], check=True)
