"""`models scan`, `add`, `rm` and `pull` of a gateway elsewhere, by its address and a key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from tests.harness import FAKE, Served, project
from tests.hub_server import HubServer, Repo, hub_server
from tests.screen import at_terminal
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.slow

HUB = "me/tiny-GGUF"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    write_tiny_model(tmp_path / "hub.gguf")
    model = (tmp_path / "hub.gguf").read_bytes()
    with hub_server() as server:
        server.repos[HUB] = Repo({"tiny-Q4_0.gguf": model, "tiny-Q8_0.gguf": model})
        yield server


@pytest.fixture
def box(
    serve: Callable[..., Served],
    hub: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Served:
    """It is on a machine of its own, as far as its settings and files go."""
    storage = tmp_path / "LLMs"
    storage.mkdir()
    for name in ("one.gguf", "two.gguf"):
        write_tiny_model(storage / name)
    config = project(tmp_path / "box", {}, llm_storage=str(storage), llama_server=str(FAKE))
    environ = {**hub.environ, "HF_TOKEN_PATH": "/nowhere"}
    served = serve("--config", str(config), env=environ)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("LLM_GATEWAY_API_KEY", served.key)
    return served


@pytest.fixture
def run(box: Served, capsys: pytest.CaptureFixture[str]) -> Run:
    """``run(COMMAND, ...)`` -> exit status, stdout, stderr."""

    def run(command: str, *arguments: str) -> tuple[int, str, str]:
        status = main([*command.split(), *arguments, "--url", box.url])
        return (status, *capsys.readouterr())

    return run


def entries(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "box/data/models.json").read_text())
    return found


def test_scan_works_on_a_gateway_elsewhere(run: Run, box: Served, tmp_path: Path) -> None:
    status, out, err = run("models scan")
    assert (status, err, entries(tmp_path)) == (0, "", {})
    assert re.search(r"^1 +one +llama", out, re.MULTILINE)
    assert "no model was added" in out
    listed = json.loads(run("models scan", "--json")[1])
    assert [one["name"] for one in listed] == ["one", "two"]
    assert "refused" not in listed[0]
    status, out, _ = run("models scan", "--yes")
    assert f"2 written at {box.url}: one, two" in out
    assert entries(tmp_path) == {one["name"]: one["entry"] for one in listed}
    assert "no GGUF file that models.json doesn't name" in run("models scan")[1]
    status, _, err = run("models scan", "somewhere")
    assert status == 1
    assert "FOLDER is for this machine" in err


def test_add_and_rm_work_on_a_gateway_elsewhere(
    run: Run, box: Served, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    assert run("models add", "far=http://192.0.2.1:8080")[:2] == (0, f"far written at {box.url}\n")
    assert entries(tmp_path) == {"far": {"url": "http://192.0.2.1:8080"}}
    assert run("models add", "two.gguf", "--name", "mine")[0] == 0
    assert entries(tmp_path)["mine"]["params"]["model"] == "two.gguf"
    for arguments, word in (
        (("far=http://192.0.2.2:8080",), "there is a model 'far' already"),
        (("one.gguf", "--name", "far"), "there is a model 'far' already"),
        (("two.gguf",), "has no file two.gguf"),  # an entry names it
        (("far=http://192.0.2.2:8080", "--name", "x"), "--name is for a FILE"),
    ):
        with subtests.test(f"{arguments!r:.80}"):
            status, _, err = run("models add", *arguments)
            assert status == 1
            assert word in err
    assert entries(tmp_path)["far"]["url"] == "http://192.0.2.1:8080"
    assert run("models rm", "far")[:2] == (0, f"far removed at {box.url}\n")
    assert list(entries(tmp_path)) == ["mine"]
    assert "'far'" in run("models rm", "far")[2]
    status, _, err = run("models rm", "mine", "--file")
    assert (status, list(entries(tmp_path))) == (1, ["mine"])
    assert "--file deletes files of this machine" in err
    assert (tmp_path / "LLMs/two.gguf").exists()


def test_pull_works_on_a_gateway_elsewhere(
    run: Run, box: Served, hub: HubServer, tmp_path: Path
) -> None:
    status, out, err = run("pull", HUB)
    assert status == 2
    assert re.search(r"Q4_0 .*yes +recommended", out)
    assert f"llm-gateway pull {HUB}:Q4_0, or --yes" in err
    assert [q["name"] for q in json.loads(run("pull", HUB, "--json")[1])["quantisations"]] == [
        "Q4_0",
        "Q8_0",
    ]
    assert hub.starts() == []
    status, out, _ = run("pull", f"https://huggingface.co/{HUB}", "--yes")
    assert status == 0
    assert f"done: it is the model tiny of {box.url}" in out
    assert f"llm-gateway chat tiny --url {box.url}" in out
    assert entries(tmp_path)["tiny"]["params"]["model"] == f"{HUB}/tiny-Q4_0.gguf"
    assert (tmp_path / "LLMs" / HUB / "tiny-Q4_0.gguf").exists()
    status, out, _ = run("pull", f"{HUB}:Q8_0", "--no-entry")
    assert (status, "done: it is in llm_storage of" in out) == (0, True)
    assert list(entries(tmp_path)) == ["tiny"]
    status, _, err = run("pull", f"{HUB}:Q3_K")
    assert status == 1
    assert "has no 'Q3_K'" in err
    assert not (tmp_path / "here/data").exists()  # nothing of it is on this machine


def test_pull_at_a_terminal_goes_on_without_it(
    box: Served, run: Run, hub: HubServer, tmp_path: Path
) -> None:
    hub.repos[HUB].files["tiny-Q8_0.gguf"] += bytes(3_000_000)
    hub.holds = [1_500_000]
    command = ("pull", HUB, "--no-entry", "--url", box.url)
    with at_terminal(*command, columns=80, env={"LLM_GATEWAY_API_KEY": box.key}) as terminal:
        terminal.until(r"Fetch which\? \[1\]")
        terminal.type("2\n")
        terminal.until(r"downloading .* \d\.\d/3\.3 MiB")
        terminal.interrupt()
        assert terminal.ended() == 130
        assert "goes on fetching it" in " ".join(terminal.screen.text.split())
    hub.stopping.set()  # what is held breaks off, and the gateway goes on
    status, out, err = run("pull", f"{HUB}:Q8_0", "--no-entry")
    assert (status, err.count("error")) == (0, 0), err
    assert "done: it is in llm_storage" in out
    file = tmp_path / "LLMs" / HUB / "tiny-Q8_0.gguf"
    assert file.stat().st_size == len(hub.repos[HUB].files["tiny-Q8_0.gguf"])
