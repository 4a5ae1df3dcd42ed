"""What `llm-gateway service` writes, and that it leaves alone what its owner has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.places import skeleton
from gateway.service import managed, release, units
from gateway.service.install import variables_in
from gateway.service.managed import Written
from gateway.service.places import SYSTEM, UNIT, of_user


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
    text = units.service(shipped, SYSTEM)
    assert text.endswith(shipped[shipped.index("[Unit]") :])


def test_user_unit_names_the_users_own_places_and_no_privilege_of_root(
    subtests: pytest.Subtests,
) -> None:
    places = of_user(Path("/home/me"), {})
    text = units.service(skeleton(f"systemd/{UNIT}").read_text(), places)

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
