"""GET /key and /key/usage: what a key may know of itself, and usage as CSV."""

from __future__ import annotations

import contextlib
import csv
import io
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.access.request_log import Record
from gateway.proxy.sse import Usage
from tests.harness import MakeGateway, Running, fake_model

TPM = 1000


@pytest.fixture
async def running(make_gateway: MakeGateway, tmp_path: Path) -> AsyncIterator[Running]:
    models = {
        "m": fake_model(tmp_path, personalities={"p": "Be p."}),
        "other": fake_model(tmp_path),
    }
    async with make_gateway(models) as running:
        yield running


async def key_of(running: Running, name: str, **fields: Any) -> tuple[str, str]:
    assert running.gateway.ring is not None
    record, key = await running.gateway.ring.create(name, **fields)
    return record.id, key


def used(running: Running, key_id: str, *, days_ago: int = 0, model: str = "m") -> None:
    accounting = running.gateway.accounting
    at = accounting.wall() - days_ago * 86400
    route = "/v1/chat/completions"
    accounting.add(*Record(at, key_id, model, None, 200, Usage(30, 12, 20), 0.5, route))


async def test_key_sees_what_it_may_do_and_what_is_left(running: Running) -> None:
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    key_id, key = await key_of(
        running,
        "phone",
        description="in the kitchen",
        expires=expires,
        models=["m"],
        personalities=["p"],
        default_personality="p",
        limits={"rpm": 2, "tpm": TPM, "tpd": 5000, "concurrency": 3, "max_tokens": 64},
    )
    assert (await running.json("POST", "/v1/chat/completions", key=key, json=CHAT))[0] == 200
    used(running, key_id)
    for _ in range(5):  # a look counts for no limit
        status, told = await running.json("GET", "/key", key=key)
        assert status == 200
    left = told.pop("left")
    assert told == {
        "id": key_id,
        "name": "phone",
        "description": "in the kitchen",
        "admin": False,
        "expires": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "models": ["m"],
        "personalities": ["p"],
        "defaultPersonality": "p",
        "limits": {"rpm": 2, "tpm": TPM, "tpd": 5000, "concurrency": 3, "max_tokens": 64},
        "keys_needed": True,
    }
    assert left["rpm"]["left"] == 1
    assert 0 < left["rpm"]["reset_seconds"] <= 30
    assert left["concurrency"] == {"limit": 3, "left": 3, "reset_seconds": None}
    assert left["tpd"]["limit"] == 5000
    assert left["tpd"]["left"] <= 5000 - 42
    assert 0 < left["tpm"]["left"] <= TPM


CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


async def test_admin_key_without_limits_sees_none(running: Running) -> None:
    _, told = await running.json("GET", "/key")
    assert (told["name"], told["admin"], told["models"]) == ("test", True, None)
    assert (told["limits"], told["left"], told["expires"]) == ({}, {}, None)
    assert (await running.json("GET", "/key", key=None))[0] == 401


async def test_without_keys_everybody_is_an_administrator(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    settings = {"auth": {"enabled": False}}
    async with make_gateway({"m": fake_model(tmp_path)}, **settings) as running:
        status, told = await running.json("GET", "/key", key=None)
        assert (status, told["id"], told["admin"]) == (200, "anonymous", True)
        assert told["keys_needed"] is False
        await running.json("POST", "/v1/chat/completions", key=None, json=CHAT)
        _, usage = await running.json("GET", "/key/usage", key=None)
        assert [row["requests"] for row in usage["usage"]] == [1]
        # A web page of somebody else's is no administrator, as elsewhere.
        origin = {"Origin": "https://elsewhere.example"}
        _, told = await running.json("GET", "/key", key=None, headers=origin)
        assert told["admin"] is False


async def test_own_usage_is_nobody_elses(running: Running, subtests: pytest.Subtests) -> None:
    mine, key = await key_of(running, "mine")
    other, _ = await key_of(running, "other")
    for key_id in (mine, mine, other):
        used(running, key_id)
    used(running, mine, days_ago=3, model="other")
    _, told = await running.json("GET", "/key/usage?days=7", key=key)
    assert [(row["model"], row["requests"]) for row in told["usage"]] == [("other", 1), ("m", 2)]
    assert told["usage"][1]["prompt_tokens"] == 60
    assert all(row.keys() == {"day", "model", *COUNTERS} for row in told["usage"])
    _, told = await running.json("GET", "/key/usage?days=1&by=model", key=key)
    assert [row["model"] for row in told["usage"]] == ["m"]
    status, said = await running.json("GET", "/key/usage?by=key", key=key)
    assert (status, said["error"]["param"]) == (400, "by")
    for days in ("0", "x", "000000030999999999"):  # the last begins like a small one
        with subtests.test(f"{days!r:.80}"):
            status, said = await running.json("GET", f"/key/usage?days={days}", key=key)
            assert (status, said["error"]["param"]) == (400, "days")


async def test_only_administrators_are_told_where_a_database_is_that_fails(
    running: Running,
) -> None:
    _, key = await key_of(running, "plain")
    _, admin = await key_of(running, "admin", admin=True)
    file = running.gateway.settings.database
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("ALTER TABLE usage RENAME TO elsewhere")
    status, said = await running.json("GET", "/key/usage", key=key)
    assert (status, said["error"]["code"]) == (500, "store_error")
    assert "no such table" in said["error"]["message"]
    assert str(file.parent) not in said["error"]["message"]
    status, said = await running.json("GET", "/key/usage", key=admin)
    assert (status, said["error"]["code"]) == (500, "store_error")
    assert f"Its file is {file}." in said["error"]["message"]
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("ALTER TABLE elsewhere RENAME TO usage")
    assert (await running.json("GET", "/key/usage", key=key))[0] == 200


COUNTERS = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens")


@pytest.mark.parametrize("asked", [{"format": "csv"}, None])
async def test_usage_comes_as_csv_too(running: Running, asked: dict[str, str] | None) -> None:
    key_id, key = await key_of(running, '=1+1, "quoted"')
    used(running, key_id)
    headers = {} if asked else {"Accept": "text/csv"}
    async with running.request(
        "GET", "/admin/usage", params={"by": "day,key", **(asked or {})}, headers=headers
    ) as response:
        assert response.content_type == "text/csv"
        assert "attachment" in response.headers["Content-Disposition"]
        rows = [*csv.reader(io.StringIO(await response.text()))]
    today = datetime.now(UTC).date().isoformat()
    assert rows == [
        ["day", "key", "name", *COUNTERS],
        [today, key_id, '\'=1+1, "quoted"', "1", "30", "12", "20"],
    ]
    async with running.request("GET", "/key/usage?format=csv", key=key) as response:
        own = [*csv.reader(io.StringIO(await response.text()))]
    assert own == [["day", "model", *COUNTERS], [today, "m", "1", "30", "12", "20"]]
    status, said = await running.json("GET", "/admin/usage?format=xml")
    assert (status, said["error"]["param"]) == (400, "format")
