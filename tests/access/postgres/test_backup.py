"""A gateway with a PostgreSQL database on an empty machine: from `backup`, and from pg_dump."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import openai
import pytest

from gateway.backup import BackupError, BackupSource, make, restore
from gateway.cli import main
from tests.harness import FAKE, Served, fake_model, project
from tests.postgres import PostgresServer, program
from tests.serve.processes import STORY
from tests.test_demo import get

pytestmark = pytest.mark.slow

Serve = Callable[..., Served]


def test_backup_and_dump_are_all_that_a_new_box_needs(
    serve: Serve,
    tmp_path: Path,
    running_server: PostgresServer,
    url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = {"m": fake_model(tmp_path)}
    config = project(tmp_path / "box", models, llama_server=str(FAKE), store={"url": url})
    served = serve("--config", str(config))
    key = served.key
    with served.client() as client:
        client.chat.completions.create(model="m", messages=STORY)
    assert served.stop() == 0
    assert main(["backup", "--config", str(config), str(tmp_path / "b")]) == 0
    said = capsys.readouterr()
    assert "back that up with pg_dump" in said.err
    assert "gateway.db" not in said.out
    dump = tmp_path / "gateway.dump"
    subprocess.run(
        [program("pg_dump"), "--format=custom", f"--file={dump}", url], check=True, timeout=60
    )

    there = tmp_path / "new/conf/gateway.yaml"
    assert main(["restore", str(tmp_path / "b"), "--config", str(there)]) == 0
    another = running_server.new_database()
    options = ("--clean", "--if-exists", "--no-owner", f"--dbname={another}")
    subprocess.run([program("pg_restore"), *options, str(dump)], check=True, timeout=60)
    again = serve("--config", str(there), env={"LLM_GATEWAY_STORE__URL": another})
    with openai.OpenAI(base_url=f"{again.url}/v1", api_key=key) as client:
        client.chat.completions.create(model="m", messages=STORY)
    _, told = get(again, "/admin/requests", key=key)
    assert len(told["ended"]) == 2
    assert again.stop() == 0
    assert "Admin key" not in "".join(again.out)  # there was one


def test_file_of_sqlite_is_not_restored_where_nothing_would_read_it(
    serve: Serve, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = project(tmp_path / "box", {}, llama_server=str(FAKE))
    served = serve("--config", str(config))
    assert served.key
    assert served.stop() == 0
    make(BackupSource.at(config), tmp_path / "b")
    monkeypatch.setenv("LLM_GATEWAY_STORE__URL", url)
    with pytest.raises(BackupError, match=r"store\.url is set"):
        restore(tmp_path / "b", tmp_path / "new/conf/gateway.yaml")
    assert not (tmp_path / "new/data/gateway.db").exists()
