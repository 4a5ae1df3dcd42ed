"""What the README shows is run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest

from tests.harness import REPOSITORY, Served


def block(marker: str) -> str:
    text = (REPOSITORY / "README.md").read_text()
    found = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found, f"the README has no {marker} block"
    return found[1]


@pytest.fixture
def unloaded_after(demo: Served) -> Iterator[None]:
    """A personality that was chosen with ``/loadModel`` holds for everybody, until this."""
    yield
    headers = {"Authorization": f"Bearer {demo.key}"}
    unload = urllib.request.Request(f"{demo.url}/unloadModel", b"", headers, method="POST")
    with urllib.request.urlopen(unload, timeout=30) as answer:
        assert answer.status == 200


@pytest.mark.usefixtures("unloaded_after")
def test_the_python_demo_runs_as_written(demo: Served) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block("demo")],
        env={**os.environ, "OPENAI_BASE_URL": f"{demo.url}/v1", "OPENAI_API_KEY": demo.key},
        capture_output=True,
        text=True,
        timeout=110,  # two whole answers, on any machine
    )
    assert done.returncode == 0, done.stderr
    loaded, *answers = done.stdout.strip().splitlines()
    assert loaded == "Model SmolLM2-135M loaded with personality geography teacher."
    assert "".join(answers).strip()


def test_every_test_that_security_md_names_is_there() -> None:
    text = (REPOSITORY / "SECURITY.md").read_text()
    names = re.findall(r"`(?:tests/[\w/]*?/?)?(test_\w+)(\.py)?`", text)
    assert len(names) > 10
    files = list((REPOSITORY / "tests").rglob("test_*.py"))  # some names are there twice
    texts = [file.read_text() for file in files]
    for name, ending in names:
        if ending:
            assert any(file.name == name + ending for file in files), name
        else:
            assert any(f"def {name}(" in text for text in texts), name
