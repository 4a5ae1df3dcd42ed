"""All that is saved, here and on nodes."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from gateway.conversations.node_facts import NodeFacts
from gateway.conversations.shelves import Shelves
from tests.conversations.test_files import kept, named, opened
from tests.conversations.test_node_store import SIZE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One conversation is saved here, another on a node."""
    with opened(tmp_path) as (files, _):
        kept(files, "one")
    with contextlib.closing(NodeFacts(tmp_path, "attic")) as facts:
        facts.open()
        two = named("two")
        two.size, two.owner = SIZE, "l"
        facts.keep(two)
    return tmp_path


async def test_what_is_on_nodes_is_forgotten_also_where_there_is_no_cluster(folder: Path) -> None:
    shelves = Shelves(folder, None, max_size=2**30, max_age=1e9, min_tokens=1)
    await shelves.open()
    report = await shelves.report()
    assert (report.conversations, report.keys["k"].conversations) == (1, 1)
    assert report.keys["l"].size == SIZE
    (attic,) = report.nodes
    assert (attic.node, attic.conversations, attic.size) == ("attic", 1, SIZE)
    assert attic.problem == "this gateway has no cluster in gateway.yaml"
    assert (shelves.on_nodes("m"), shelves.on_nodes("n")) == ({"attic": 1}, {})
    assert shelves.forget(goes=lambda saved: saved.owner == "l") == 1
    await shelves.removed()
    assert [*(folder / "nodes/attic").glob("*.json")] == []
    assert len([*folder.glob("*.json")]) == 1
    await shelves.close()
