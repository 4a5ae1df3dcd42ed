"""A llama-server that records what it is asked, and models for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.harness import FAKE, fake_model

RECORDER = str(FAKE.with_name("recording_llama_server.py"))
USER = {"role": "user", "content": "hi"}
TEACHER = "You teach."


class Recorded:
    """The requests that a scripted llama-server has got."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self) -> list[dict[str, Any]]:
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [json.loads(line) for line in lines]

    @property
    def last(self) -> dict[str, Any]:
        return self()[-1]

    @property
    def body(self) -> Any:
        return json.loads(self.last["body"])


def model(tmp_path: Path, **env: Any) -> dict[str, Any]:
    """One that can do everything."""
    made = fake_model(
        tmp_path, record=tmp_path / "record", personalities={"teacher": TEACHER, "mute": ""}, **env
    )
    abilities = {"mmproj": made["params"]["model"], "embeddings": True, "reranking": True}
    return {**made, **abilities, "aliases": ["org/m"]}
