"""What ``keep_alive`` leaves behind, and whom it concerns, with real llama-servers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.harness import Served, project, wait_until
from tests.tiny_model import write_tiny_model

HELLO = [{"role": "user", "content": "hi"}]
#: Ways to have a model loaded, apart from asking it something: who, path and body.
LOADS: list[tuple[str, str, dict[str, Any]]] = [
    ("admin", "/models/load", {}),
    ("admin", "/loadModel", {}),
    ("plain", "/loadModel", {}),
    ("admin", "/api/generate", {}),
    ("plain", "/api/chat", {}),
    ("plain", "/api/embed", {}),
]


class Box:
    """A gateway with real llama-servers, and two who ask it."""

    def __init__(self, served: Served) -> None:
        self.url = served.url
        self.keys = {"admin": served.key}
        made = self.ask("admin", "POST", "/admin/keys", {"name": "plain"})
        self.keys["plain"] = made["key"]

    def ask(self, who: str, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of an answer that is none of an error."""
        headers = {"Authorization": f"Bearer {self.keys[who]}"}
        answer = httpx.request(method, self.url + path, json=body, headers=headers, timeout=60)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def post(self, who: str, path: str, **body: Any) -> Any:
        return self.ask(who, "POST", path, {"model": "m", "stream": False, **body})

    def look(self, model: str) -> Any:
        """What is reported of it."""
        models = self.ask("admin", "GET", "/admin/models")["models"]
        return next(each for each in models if each["name"] == model)

    def state(self, model: str = "m") -> tuple[str, float | None]:
        """How far it is, and in how many seconds it is unloaded."""
        found = self.look(model)
        return found["state"], found["unload_in"]

    def await_state(self, state: str, model: str = "m") -> None:
        wait_until(lambda: self.state(model)[0] == state, 30, f"{model} is {state}")


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    write_tiny_model(tmp_path / "tiny.gguf")
    params = {"model": str(tmp_path / "tiny.gguf"), "ctxSize": 512, "threads": 1}
    models = {"m": {"params": params}, "first": {"params": params, "preload": True}}
    served = Served(tmp_path, "--config", str(project(tmp_path, models, llama_server="auto")))
    yield Box(served)
    served.stop()


def test_a_load_after_keep_alive_0_is_not_undone(box: Box, subtests: pytest.Subtests) -> None:
    for who, path, body in LOADS:
        with subtests.test(f"{path} by {who}"):
            box.post("plain", "/api/generate")
            box.post("admin", "/api/generate", keep_alive=0)
            box.await_state("stopped")
            box.post(who, path, **body)
            box.await_state("ready")
            assert box.state() == ("ready", None)


@pytest.mark.parametrize("last", ["5m", "1s", 0])
def test_what_was_said_of_a_process_ends_with_it(box: Box, last: str | int) -> None:
    box.post("plain", "/api/chat", messages=HELLO, keep_alive=last)
    if last != 0:
        assert box.state()[1] is not None
        box.ask("admin", "GET", "/unloadModel?model=m")
    box.await_state("stopped")
    box.post("plain", "/loadModel")
    assert box.state() == ("ready", None)


def test_to_be_loaded_is_a_use(box: Box) -> None:
    box.post("plain", "/api/generate", keep_alive="1h")
    _, before = box.state()
    assert before is not None
    wait_until(lambda: (box.state()[1] or before) < before - 0.5, 10, "time passes")
    box.post("plain", "/api/generate", keep_alive="1h")
    _, after = box.state()
    assert after is not None
    assert after > before - 0.4
    box.post("plain", "/loadModel")
    assert box.state() == ("ready", None)


@pytest.mark.parametrize("last", [0, "1s"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/models/load", {}),
        ("/loadModel", {}),
        ("/api/generate", {"keep_alive": -1}),
        ("/api/generate", {"keep_alive": "24h"}),
    ],
)
def test_what_an_administrator_loaded_stays(
    box: Box, path: str, body: dict[str, Any], last: str | int
) -> None:
    box.post("admin", path, **body)
    box.await_state("ready")
    before = box.look("m")["pid"]
    box.post("plain", "/api/generate", keep_alive=last)
    box.post("plain", "/api/generate", prompt="hi", keep_alive=last, options={"num_predict": 1})
    assert box.state() == ("ready", None)
    assert box.look("m")["pid"] == before
    box.post("admin", "/api/generate", keep_alive=0)
    box.await_state("stopped")


def test_what_is_loaded_at_the_start_stays(box: Box) -> None:
    box.await_state("ready", "first")
    box.post("plain", "/api/generate", model="first", keep_alive=0)
    assert box.state("first") == ("ready", None)


def test_what_a_key_loaded_for_its_use_goes_with_it(box: Box) -> None:
    box.post("plain", "/api/generate")
    assert box.state() == ("ready", None)
    began = time.monotonic()
    box.post("plain", "/api/generate", keep_alive="1s")
    box.await_state("stopped")
    assert time.monotonic() - began > 0.9
