"""``llm-gateway cache``: in the folder, and at a gateway with a real llama-server."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.access.principal import ANONYMOUS
from gateway.cli import help_pages, main
from gateway.conversations.files import CacheFiles
from gateway.conversations.node_facts import NodeFacts
from gateway.conversations.shared import SHARED
from tests.cli.test_json import paths
from tests.conversations.test_files import named
from tests.harness import COMMAND, DEMO_GGUF, Served, project, wait_until
from tests.screen import at_terminal
from tests.test_demo import get

Run = Callable[..., tuple[int, str, str]]

FIELDS = {parser.prog: parser.fields for parser in help_pages.every_parser()}
MIB = 2**20


def put(files: CacheFiles, name: str, *, model: str, owner: str, size: int = MIB) -> None:
    """Save something, as a gateway does."""
    one = named(name)
    one.model, one.owner, one.size = model, owner, size
    if owner == SHARED:
        one.chain = one.chain.first(1)._replace(shared=1)
    (files.folder / files.new_name(one)).write_bytes(bytes(size))
    assert files.keep(one, size)


def put_on_node(files: CacheFiles, name: str, *, model: str, owner: str, size: int) -> Path:
    """Know of something on the disk of the node attic, as a gateway does that has saved it there.
    Returns the folder with what is known.
    """
    one = named(name)
    one.model, one.owner, one.size = model, owner, size
    with contextlib.closing(NodeFacts(files.folder, "attic")) as facts:
        facts.open()
        facts.keep(one)
    return facts.folder


def states(folder: Path) -> int:
    return len([*folder.glob("*.kv")])


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``run(CONFIG, ...)`` -> exit status, stdout, stderr of ``cache --config CONFIG ...``."""

    def run(config: Path, *arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["cache", "--config", str(config), *arguments])
        return (status, *capsys.readouterr())

    return run


# --- no gateway runs -------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> CacheFiles:
    """The folder of a gateway that isn't running, with four conversations."""
    project(tmp_path / "project", {}, cache={"enabled": True, "max_size": "64MiB"})
    files = CacheFiles(tmp_path / "project/data/cache", 64 * MIB)
    files.open()
    put(files, "one", model="qwen", owner="k_one", size=3 * MIB)
    put(files, "two", model="tiny", owner="k_one")
    put(files, "three", model="tiny", owner=ANONYMOUS.key_id, size=2 * MIB)
    put(files, "four", model="tiny", owner=SHARED)
    files.close()
    return files


@pytest.fixture
def config(files: CacheFiles) -> Path:
    return files.folder.parent.parent / "conf/gateway.yaml"


def test_what_a_stopped_gateway_has_saved_is_told(
    run: Run, config: Path, files: CacheFiles
) -> None:
    put_on_node(files, "five", model="tiny", owner="k_one", size=MIB)
    status, out, _ = run(config, "--json")
    assert status == 0
    told = json.loads(out)
    fields = FIELDS["llm-gateway cache"]
    assert paths(told, set(fields)) == set(fields)
    assert (told["enabled"], told["problem"]) == (True, None)
    assert (told["conversations"], told["size"], told["budget"]) == (4, 7 * MIB, 64 * MIB)
    assert [(one["model"], one["conversations"], one["size"]) for one in told["models"]] == [
        ("tiny", 4, 5 * MIB),
        ("qwen", 1, 3 * MIB),
    ]
    assert [(one["key"], one["name"], one["size"]) for one in told["keys"]] == [
        ("k_one", None, 5 * MIB),
        (ANONYMOUS.key_id, ANONYMOUS.name, 2 * MIB),
        (SHARED, "shared by all keys", MIB),
    ]
    assert [(one["model"], one["key"], one["kind"], one["size"]) for one in told["openings"]] == [
        ("tiny", SHARED, "personality", MIB)
    ]
    (node,) = told["nodes"]
    assert (node["node"], node["conversations"], node["size"]) == ("attic", 1, MIB)
    assert node["problem"] == "no gateway runs"


def test_what_is_on_a_node_is_cleared_though_no_gateway_runs(
    run: Run, config: Path, files: CacheFiles
) -> None:
    known = put_on_node(files, "five", model="tiny", owner="k_one", size=MIB)
    _, out, _ = run(config, "clear", "--yes", "--model", "qwen")
    assert out == "removed 1 conversation\n"
    assert len([*known.glob("*.json")]) == 1
    _, out, _ = run(config)
    assert "node attic: 1 conversation, 1 MiB (no gateway runs)" in out
    _, out, _ = run(config, "clear", "--yes", "--of-key", "k_one")
    assert out == "removed 2 conversations\n"
    assert [*known.glob("*.json")] == []


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        ((), 0),
        (("--model", "tiny"), 1),
        (("--of-key", "k_one"), 2),
        (("--of-key", "k_one", "--model", "tiny"), 3),
        (("--model", "other"), 4),
    ],
)
def test_only_what_is_chosen_is_removed(
    run: Run, config: Path, files: CacheFiles, chosen: tuple[str, ...], left: int
) -> None:
    status, out, _ = run(config, "clear", "--yes", *chosen)
    removed = 4 - left
    assert (status, out) == (0, f"removed {removed} conversation{'s' * (removed != 1)}\n")
    assert states(files.folder) == left


def test_nothing_is_removed_without_a_yes(run: Run, config: Path, files: CacheFiles) -> None:
    status, _, err = run(config, "clear")
    assert (status, err) == (1, "error: nothing was removed: --yes removes without a question\n")
    assert states(files.folder) == 4


@pytest.mark.parametrize(("answer", "left"), [("\n", 4), ("n\n", 4), ("yes\n", 3)])
def test_at_a_terminal_it_asks(config: Path, files: CacheFiles, answer: str, left: int) -> None:
    chosen = ("--model", "qwen")
    with at_terminal("cache", "--config", config, "clear", *chosen, columns=80) as terminal:
        terminal.until(r"Remove the saved conversations of the model qwen for good\? \[no\]")
        terminal.type(answer)
        assert terminal.ended() == 0
    assert states(files.folder) == left


def test_folder_that_another_gateway_uses_is_left_alone(
    run: Run, config: Path, files: CacheFiles
) -> None:
    files.open()
    try:
        for arguments in (("--json",), ("clear", "--yes")):
            status, out, err = run(config, *arguments)
            assert (status, out) == (1, "")
            assert err == f"error: {files.folder} is in use by another gateway\n"
    finally:
        files.close()
    assert states(files.folder) == 4


def test_there_may_be_no_folder_and_none_is_made(run: Run, tmp_path: Path) -> None:
    config = project(tmp_path / "bare", {}, cache={"enabled": False})
    status, out, _ = run(config)
    assert status == 0
    assert out.splitlines() == [
        "Conversations are not saved: `cache: {enabled: true}` in gateway.yaml saves them.",
        f"{tmp_path / 'bare/data/cache'}: 0 conversations, 0 MiB of at most 0 MiB",
    ]
    assert run(config, "clear", "--yes")[:2] == (0, "removed 0 conversations\n")
    assert not (tmp_path / "bare/data/cache").exists()


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_fit_the_terminal(config: Path, columns: int) -> None:
    with at_terminal("cache", "--config", config, columns=columns, lines=40) as terminal:
        assert terminal.ended() == 0
        rows = terminal.screen.rows
    models, openings = [row for row in rows if row.startswith("MODEL")]
    assert models.split() == "MODEL SAVED SIZE DISK SLOT TOKENS SECONDS STATE".split()
    assert openings.split() == "MODEL KEY BEGINS WITH SIZE TOKENS USED".split()
    assert [row.split()[:4] for row in rows if row.startswith("qwen")] == [
        ["qwen", "1", "3", "MiB"]
    ]
    assert any(row.startswith("KEY") for row in rows)


# --- at a gateway ----------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    entry: dict[str, Any] = {"params": {"model": DEMO_GGUF, "ctxSize": 1024, "threads": 1}}
    project(
        tmp_path / "box",
        {"a": entry, "b": entry},
        cache={"enabled": True, "min_tokens": 16},
        scheduler={"max_loaded": 1},
    )
    return tmp_path / "box"


@pytest.fixture
def served(root: Path) -> Iterator[Served]:
    served = Served(root)
    try:
        assert served.url
        yield served
    finally:
        served.stop()


def talk(served: Served, *arguments: str) -> None:
    """Have one conversation with ``a``, and see it saved: its model is unloaded."""
    config = str(served.root / "conf/gateway.yaml")
    question = "Tell me about the old cat, the green hill and the dogs that ran over it, please."
    said = [COMMAND, "chat", *arguments, "--max-tokens", "2", "a", question]
    subprocess.run(said, check=True, capture_output=True)
    subprocess.run([COMMAND, "unload", "--config", config, "a"], check=True, capture_output=True)


@pytest.mark.slow
def test_gateway_tells_what_it_has_saved_and_what_that_has_spared(
    served: Served, run: Run, root: Path
) -> None:
    config = root / "conf/gateway.yaml"
    made = [COMMAND, "keys", "create", "guest", "--config", str(config)]
    key = subprocess.run(made, check=True, capture_output=True, text=True).stdout.strip()
    guest = ("--url", served.url, "--key", key)
    talk(served, *guest)
    told = json.loads(run(config, "--json")[1])
    assert (told["folder"], told["problem"]) == (str(root / "data/cache"), None)
    assert [(one["model"], one["conversations"], one["hits"]) for one in told["models"]] == [
        ("a", 1, 0)
    ]
    assert [(one["name"], one["conversations"]) for one in told["keys"]] == [("guest", 1)]
    assert told["size"] == sum(file.stat().st_size for file in (root / "data/cache").glob("*.kv"))
    assert told["budget"] > told["size"]

    talk(served, *guest)  # once more: it is read back
    told = json.loads(run(config, "--json")[1])
    (model,), (of_guest,) = told["models"], told["keys"]
    assert (model["hits"], of_guest["hits"]) == (1, 1)
    assert model["tokens"] == of_guest["tokens"] > 16
    assert model["seconds"] == of_guest["seconds"] > 0
    assert "Written since the start: " in run(config)[1]
    assert model["bytes_read"] == of_guest["bytes_read"] > 0
    assert model["bytes_written"] == of_guest["bytes_written"] >= told["size"]
    assert told["conversations"] == states(root / "data/cache") >= 1

    status, _, err = run(config, "clear", "--yes", "--model", "nope")
    assert status == 1
    assert err.startswith("error: there is no model 'nope', and nothing is saved of one")
    assert run(config, "clear", "--yes", "--of-key", of_guest["key"])[0] == 0
    assert states(root / "data/cache") == 0


@pytest.mark.slow
def test_conversations_go_with_their_key_also_while_no_gateway_runs(
    served: Served, run: Run, root: Path
) -> None:
    config = root / "conf/gateway.yaml"
    made = [COMMAND, "keys", "create", "guest", "--config", str(config), "--json"]
    key = json.loads(subprocess.run(made, check=True, capture_output=True, text=True).stdout)
    talk(served, "--url", served.url, "--key", key["key"])
    served.stop()
    assert states(root / "data/cache") == 1
    assert main(["keys", "revoke", key["id"], "--config", str(config)]) == 0
    again = Served(root)
    try:
        ready = lambda: get(again, "/ready", key="-")[0] == 200  # noqa: E731
        wait_until(ready, 20, "it has opened its database, and the folder")
        assert json.loads(run(config, "--json")[1])["keys"] == []
    finally:
        again.stop()
    assert states(root / "data/cache") == 0


@pytest.mark.slow
def test_what_is_left_is_removed_though_the_gateway_saves_no_more(
    files: CacheFiles, config: Path, run: Run
) -> None:
    config.write_text(json.dumps({"cache": {"enabled": False}}))
    served = Served(config.parent.parent)
    try:
        assert served.url
        told = json.loads(run(config, "--json")[1])
        assert (told["enabled"], told["conversations"]) == (False, 4)
        assert run(config, "clear", "--yes")[:2] == (0, "removed 4 conversations\n")
    finally:
        served.stop()
    assert states(files.folder) == 0
