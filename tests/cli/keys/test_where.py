"""What is said of where a key is, and of what is odd about it."""

import asyncio
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.access.key_format import looks_like_ours
from tests.cli.keys.commands import Keys, rows
from tests.harness import MakeGateway


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Runtime folders in a place of their own, with a short path: no other gateways in sight."""
    with tempfile.TemporaryDirectory(prefix="gw", dir="/tmp") as folder:
        monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setattr("gateway.runtime.runtime_homes", lambda: iter([Path(folder)]))
        yield Path(folder)


def test_every_action_says_which_store_it_used(keys: Keys, tmp_path: Path, alone: Path) -> None:
    store = str(tmp_path / "data" / "gateway.db")
    _, out, err = keys("create", "phone", "Bob's phone")
    assert store in err
    assert f"no gateway is running on {tmp_path / 'data'}" in err
    assert "warning" not in err
    assert looks_like_ours(out.strip())
    assert f"1 key in {store}" in keys("list")[2]
    status, _, err = keys("revoke", "k_00000000")
    assert status == 1
    assert store in err
    old = tmp_path / "authKeys.json"
    old.write_text('{"swordfish-2024-00001": {}}')
    assert store in keys("import", str(old))[2]


async def test_a_gateway_that_runs_elsewhere_is_told_of(
    make_gateway: MakeGateway, keys: Keys, config: Path, alone: Path
) -> None:
    async with make_gateway({}) as running:
        other = running.gateway.settings.data_dir
        _, out, err = await asyncio.to_thread(keys, "create", "phone")
        key = out.splitlines()[-1]
        assert looks_like_ours(key)
        assert f"warning: a gateway runs on {other}: it has other keys" in err
        assert "--config FILE" in err
        assert (await running.json("GET", "/models", key=key))[0] == 401
        # One whose runtime folder can't be seen, as that of a service: by the port in this
        # configuration, where one on this data folder would answer.
        for folder in alone.iterdir():
            (folder / "data_dir").unlink()
        config.write_text(f"port: {running.url.rpartition(':')[2]}\n")
        _, _, err = await asyncio.to_thread(keys, "create", "phone")
        assert f"warning: a gateway answers at {running.url}, on a data_dir of its own" in err


def test_second_key_of_a_name_is_warned_of(keys: Keys, alone: Path) -> None:
    keys("create", "phone")
    (first,) = rows(keys("list")[1])
    status, out, err = keys("create", "phone")
    assert status == 0, "said, and made: names are for people"
    assert looks_like_ours(out.strip())
    assert f"warning: there is another key of that name, {first[0]}" in err
    for row in rows(keys("list")[1]):
        keys("revoke", row[0])
    assert "another key" not in keys("create", "phone")[2], "those that ended don't matter"


def test_names_missing_in_models_json_are_warned_of(
    keys: Keys, tmp_path: Path, alone: Path
) -> None:
    file = tmp_path / "data" / "models.json"
    file.parent.mkdir()
    model = {"params": {"model": "x.gguf"}, "personalities": {"pirate": "Arr."}}
    file.write_text(json.dumps({"Mistral-7b": {**model, "aliases": ["gpt-4o"]}, "other": model}))
    limits = ("--models", "Mistral-7B,gpt-4o,nope", "--personalities", "pirat", "--rpm", "9")
    status, out, err = keys("create", "kid", *limits)
    assert status == 0, "models.json may be edited later"
    assert looks_like_ours(out.strip())
    assert "no 'Mistral-7B' in models.json, did you mean 'Mistral-7b'?" in err
    assert "no 'gpt-4o' in models.json, but as an alias of 'Mistral-7b'" in err
    assert "no 'nope' in models.json; allowed: 'Mistral-7b', 'other'" in err
    assert "personalities: there is no 'pirat'" in err
    assert err.count("warning: ") == 4
    assert "warning" not in keys("create", "aunt", "--models", "other")[2]
    file.write_text("{")
    assert "were not looked up" in keys("create", "uncle", "--models", "other")[2]
    assert "looked up" not in keys("create", "cousin")[2]
