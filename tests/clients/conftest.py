"""A gateway as a process of its own, for clients in every language. See README.md beside this."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.tried import Recorder
from tests.harness import Served, project


def pytest_addoption(parser: pytest.Parser) -> None:
    words = "write what was tried into docs/clients.json (see tests/clients/README.md)"
    parser.addoption("--record", action="store_true", help=words)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "tried(client, things): what a test tries with a client")
    if config.getoption("--record", default=False):
        config.pluginmanager.register(Recorder())
    # Whether its author closes a client's connections is no matter of ours.
    for category in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning"):
        config.addinivalue_line("filterwarnings", f"ignore::{category}")
    config.addinivalue_line("filterwarnings", "ignore::DeprecationWarning")


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure() -> None:
    # What pytest itself finds at the end, by filters that are older than those.
    for category in (ResourceWarning, pytest.PytestUnraisableExceptionWarning):
        warnings.simplefilter("ignore", category)


#: A personality that thinks, in no list.
THINKER = {"templateArgs": {"think": True}, "unlisted": True}


@pytest.fixture(scope="session")
def box(
    tmp_path_factory: pytest.TempPathFactory, parrot_model: Path, minilm_model: Path
) -> Iterator[Served]:
    """``m``, of which it is known what it says, and ``embed``, for embeddings."""
    root = tmp_path_factory.mktemp("box")
    models = {
        "m": {
            "params": {"model": str(parrot_model), "ctxSize": 4096, "threads": 1},
            "personalities": {"pirate": "Arr.", "thinker": THINKER},
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
