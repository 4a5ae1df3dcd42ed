"""A backup of a running gateway, and what comes of it on an empty machine."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.backup import BackupError, BackupSource, make, restore
from gateway.cli import main
from gateway.tls.selfsigned import self_signed
from tests.harness import FAKE, Served, fake_model, project
from tests.serve.processes import STORY, Serve
from tests.test_demo import get


def answered(start: Serve, folder: Path) -> tuple[Served, Path]:
    """A gateway that runs and has answered, and its configuration."""
    root = folder / "box"
    config = project(root, {"m": fake_model(folder)}, llama_server=str(FAKE))
    served = start("--config", str(config), root=root)
    with served.client() as client:
        client.chat.completions.create(model="m", messages=STORY)
    return served, config


@pytest.fixture
def box(serve: Serve, tmp_path: Path) -> tuple[Served, Path]:
    """One that a test may stop."""
    return answered(serve, tmp_path)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The configuration of one that goes on, for those that only read it."""

    def start(*arguments: str, root: Path) -> Served:
        return Served(root, *arguments)

    served, config = answered(start, tmp_path_factory.mktemp("running"))
    yield config
    served.stop()


@pytest.mark.slow
def test_restored_gateway_has_the_keys_models_and_certificate(serve: Serve, tmp_path: Path) -> None:
    root = tmp_path / "box"
    made = self_signed(["127.0.0.1"], root / "ssl")
    tls = {
        "enabled": True,
        "private_key": "ssl/127.0.0.1-key.pem",
        "certificate": "ssl/127.0.0.1-crt.pem",
    }
    config = project(root, {"m": fake_model(tmp_path)}, llama_server=str(FAKE), tls=tls)
    served = serve("--config", str(config), root=root)
    key = served.key
    file = tmp_path / "box.backup"

    assert main(["backup", "--config", str(config), str(file)]) == 0  # while it runs
    served.stop()
    there = tmp_path / "elsewhere/conf/gateway.yaml"
    assert main(["restore", str(file), "--config", str(there)]) == 0

    assert file.stat().st_mode & 0o777 == 0o600
    certificate = tmp_path / "elsewhere/ssl/127.0.0.1-crt.pem"
    assert certificate.read_bytes() == made.certificate.read_bytes()
    private = tmp_path / "elsewhere/ssl/127.0.0.1-key.pem"
    assert private.stat().st_mode & 0o777 == 0o600
    again = serve("--config", str(there), root=tmp_path / "elsewhere")
    assert again.url.startswith("https://")
    assert again.stop() == 0
    assert "Admin key" not in "".join(again.out)  # there was one
    there.write_text(json.dumps({"llama_server": str(FAKE)}))
    plain = serve("--config", str(there), root=tmp_path / "elsewhere")
    assert get(plain, "/models", key=key) == (200, ["m"])


@pytest.mark.slow
def test_restored_gateway_knows_what_was_used(
    box: tuple[Served, Path], serve: Serve, tmp_path: Path
) -> None:
    served, config = box
    key = served.key
    served.stop()  # what is in memory is written
    make(BackupSource.at(config), tmp_path / "b")

    there = tmp_path / "new/conf/gateway.yaml"
    restore(tmp_path / "b", there)

    again = serve("--config", str(there), root=tmp_path / "new")
    _, usage = get(again, "/admin/usage", key=key)
    assert (
        usage
        == get(serve("--config", str(config), root=tmp_path / "box"), "/admin/usage", key=key)[1]
    )
    assert "m" in json.dumps(usage)


def test_restore_is_refused_while_a_gateway_runs_there(running: Path, tmp_path: Path) -> None:
    make(BackupSource.at(running), tmp_path / "b")
    with pytest.raises(BackupError, match=r"a gateway runs on .*: stop it first"):
        restore(tmp_path / "b", running)


def test_file_that_differs_is_kept_and_only_force_replaces_it(
    box: tuple[Served, Path], tmp_path: Path
) -> None:
    served, config = box
    served.stop()
    make(BackupSource.at(config), tmp_path / "b")
    models = config.parent.parent / "data/models.json"
    before = models.read_bytes()
    models.write_text("{}")

    with pytest.raises(BackupError, match=r"other ones are there: .*models.json; --force"):
        restore(tmp_path / "b", config)
    assert models.read_text() == "{}"

    assert models in restore(tmp_path / "b", config, force=True)
    assert models.read_bytes() == before
    assert models.with_name("models.json.bak").read_text() == "{}"


def test_second_restore_finds_everything_as_it_is(running: Path, tmp_path: Path) -> None:
    make(BackupSource.at(running), tmp_path / "b")
    there = tmp_path / "new/conf/gateway.yaml"
    restore(tmp_path / "b", there)
    assert restore(tmp_path / "b", there) == []


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_backup_that_is_cut_short_changes_nothing(
    running: Path, tmp_path: Path, keep: float
) -> None:
    file = tmp_path / "b"
    make(BackupSource.at(running), file)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])

    with pytest.raises(BackupError):
        restore(file, tmp_path / "new/conf/gateway.yaml")

    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file()]


def test_byte_that_was_changed_is_found(running: Path, tmp_path: Path) -> None:
    file = tmp_path / "b"
    make(BackupSource.at(running), file)
    content = bytearray(gzip.decompress(file.read_bytes()))
    at = content.rindex(b"SQLite format 3")
    content[at + 3000] ^= 1
    file.write_bytes(gzip.compress(bytes(content)))

    with pytest.raises(BackupError, match=r"is damaged: gateway.db"):
        restore(file, tmp_path / "new/conf/gateway.yaml")


def archive(manifest: object, *members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as made:
        for name, content in (("manifest.json", json.dumps(manifest).encode()), *members):
            head = tarfile.TarInfo(name)
            head.size = len(content)
            made.addfile(head, io.BytesIO(content))
    return out.getvalue()


def told(**changes: object) -> dict[str, object]:
    return {"format": 1, "program": "9.9", "schema": 1, "files": {}, **changes}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"not a tar", "no whole backup"),
        (lambda: archive(told(format=2)), "llm-gateway 9.9, which is newer"),
        (lambda: archive(told(schema=10**6)), "which is newer"),
        (lambda: archive([]), "no whole backup"),
        (lambda: archive(told(files={"../x": {"sha256": "", "size": 0}})), "unknown file"),
        (lambda: archive(told(files={"acme/../../x": {}})), "unknown file"),
        (lambda: archive(told(), ("surprise", b"")), "'surprise' in it"),
    ],
)
def test_file_that_is_no_backup_is_refused(
    tmp_path: Path, content: Callable[[], bytes], message: str
) -> None:
    (tmp_path / "b").write_bytes(content())
    with pytest.raises(BackupError, match=message):
        restore(tmp_path / "b", tmp_path / "new/conf/gateway.yaml")


def test_certificate_of_the_machine_is_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = self_signed(["127.0.0.1"], tmp_path / "letsencrypt")
    tls = {
        "enabled": True,
        "private_key": str(made.private_key),
        "certificate": str(made.certificate),
    }
    config = project(tmp_path / "box", {}, tls=tls)
    (tmp_path / "box/data/gateway.db").touch()

    assert main(["backup", "--config", str(config), str(tmp_path / "b")]) == 0

    printed = capsys.readouterr()
    assert f"{made.certificate} is not the gateway's own" in printed.err
    assert "tls" not in printed.out


def test_gateway_without_a_database_has_nothing_to_back_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = project(tmp_path / "box", {})
    assert main(["backup", "--config", str(config), str(tmp_path / "b")]) == 1
    assert "nothing was set up yet" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
