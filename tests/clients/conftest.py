"""A gateway as a process of its own, for clients in every language. See README.md beside this."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Served, project


def pytest_configure(config: pytest.Config) -> None:
    # Whether its author closes a client's connections is no matter of ours.
    for category in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning"):
        config.addinivalue_line("filterwarnings", f"ignore::{category}")
    config.addinivalue_line("filterwarnings", "ignore::DeprecationWarning")


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure() -> None:
    # What pytest itself finds at the end, by filters that are older than those.
    for category in (ResourceWarning, pytest.PytestUnraisableExceptionWarning):
        warnings.simplefilter("ignore", category)


@pytest.fixture(scope="session")
def box(
    tmp_path_factory: pytest.TempPathFactory, parrot_model: Path, minilm_model: Path
) -> Iterator[Served]:
    """``m``, of which it is known what it says, and ``embed``, for embeddings."""
    root = tmp_path_factory.mktemp("box")
    models = {
        "m": {
            "params": {"model": str(parrot_model), "ctxSize": 4096, "threads": 1},
            "personalities": {"pirate": "Arr."},
            "parallel": 2,
        },
        "embed": {"params": {"model": str(minilm_model)}, "embeddings": True},
    }
    config = project(root, models, llama_server="auto")
    served = Served(root, "--config", str(config))
    yield served
    served.stop()


@pytest.fixture
def environ(box: Served) -> dict[str, str]:
    """What tells OpenAI's clients where to ask."""
    return {"OPENAI_BASE_URL": f"{box.url}/v1", "OPENAI_API_KEY": box.key}
