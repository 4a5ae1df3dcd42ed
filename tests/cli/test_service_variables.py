"""Commands take the variables of the service whose configuration they use."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.harness import COMMAND


@pytest.mark.parametrize(
    ("config", "variables", "used"),
    [
        ((), {}, "of-service"),
        (("--config", "home/llm-gateway/gateway.yaml"), {}, "of-service"),
        ((), {"LLM_GATEWAY_DATA_DIR": "of-shell"}, "of-shell"),
        (("--config", "other/gateway.yaml"), {}, "of-file"),
    ],
    ids=["found", "named", "set already", "of no service"],
)
def test_key_is_made_where_the_service_looks(
    tmp_path: Path, config: tuple[str, ...], variables: dict[str, str], used: str
) -> None:
    for folder in ("home/llm-gateway", "other"):
        (tmp_path / folder).mkdir(parents=True)
        settings = {"data_dir": str(tmp_path / "of-file")}
        (tmp_path / folder / "gateway.yaml").write_text(json.dumps(settings))
        secrets = f"# mine\nLLM_GATEWAY_DATA_DIR='{tmp_path / 'of-service'}'\n"
        (tmp_path / folder / "environment").write_text(secrets)
    clean = {name: text for name, text in os.environ.items() if not name.startswith("LLM_GATEWAY_")}
    own = {name: str(tmp_path / text) for name, text in variables.items()}
    made = subprocess.run(
        [COMMAND, "keys", "create", "phone", *config],
        cwd=tmp_path,
        env={**clean, "XDG_CONFIG_HOME": str(tmp_path / "home"), **own},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert made.returncode == 0, made.stderr
    assert [file.parent.name for file in tmp_path.rglob("gateway.db")] == [used]
