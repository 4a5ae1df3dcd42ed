"""/admin/keys and /admin/usage."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.access.key_format import looks_like_ours
from tests.harness import MakeGateway, Running, fake_model


@pytest.fixture
async def running(make_gateway: MakeGateway, tmp_path: Path) -> AsyncIterator[Running]:
    models = {
        "a": fake_model(tmp_path, personalities={"teacher": "Teach.", "pirate": "Arr."}),
        "b": fake_model(tmp_path),
    }
    async with make_gateway(models) as running:
        yield running


async def made(running: Running, **fields: Any) -> dict[str, Any]:
    status, answer = await running.json("POST", "/admin/keys", json={"name": "phone", **fields})
    assert status == 201, answer
    assert isinstance(answer, dict)
    return answer


async def listed(running: Running, key_id: str) -> dict[str, Any]:
    status, answer = await running.json("GET", "/admin/keys")
    assert status == 200
    (found,) = [key for key in answer["keys"] if key["id"] == key_id]
    assert isinstance(found, dict)
    return found


async def models_seen(running: Running, key: str) -> tuple[int, Any]:
    return await running.json("GET", "/models", key=key)


async def test_a_key_is_made_used_changed_and_revoked(running: Running) -> None:
    async with running.request("POST", "/admin/keys", json={"name": "phone"}) as response:
        assert response.status == 201
        assert response.headers["Cache-Control"] == "no-store"
        answer = await response.json()
    key = answer.pop("key")
    assert looks_like_ours(key)
    assert answer == await listed(running, answer["id"])
    assert answer["state"] == "ok"
    assert answer["admin"] is False
    assert "hash" not in answer
    assert await models_seen(running, key) == (200, ["a", "b"])

    path = f"/admin/keys/{answer['id']}"
    status, changed = await running.json("PATCH", path, json={"models": ["b"], "name": "tv"})
    assert (status, changed["models"], changed["name"]) == (200, ["b"], "tv")
    assert await models_seen(running, key) == (200, ["b"])

    status, ended = await running.json("DELETE", path)
    assert (status, ended["state"]) == (200, "revoked")
    status, refused = await models_seen(running, key)
    assert (status, refused["error"]["code"]) == (401, "api_key_revoked")
    assert (await running.json("DELETE", path))[1] == ended  # again: nothing changes
    status, refused = await running.json("PATCH", path, json={"name": "x"})
    assert (status, refused["error"]["code"]) == (400, "key_revoked")


async def test_each_field_of_a_key_can_be_set_and_is_told(running: Running) -> None:
    fields = {
        "description": "Bob's",
        "admin": True,
        "expires": "2100-01-01T02:00:00+02:00",
        "models": ["a"],
        "personalities": ["teacher"],
        "defaultPersonality": "teacher",
        "limits": {"rpm": 60, "tpm": 1000, "tpd": 10_000, "concurrency": 2},
    }
    key = await made(running, **fields)
    expected = {**fields, "name": "phone", "expires": "2100-01-01T00:00:00Z", "imported": False}
    assert {name: key[name] for name in expected} == expected
    path = f"/admin/keys/{key['id']}"
    # A merge patch: null takes away, what isn't named stays, also inside of `limits`.
    status, changed = await running.json(
        "PATCH", path, json={"limits": {"rpm": None, "tpd": 5}, "expires": None, "models": None}
    )
    assert status == 200
    assert changed["limits"] == {"tpm": 1000, "tpd": 5, "concurrency": 2}
    assert (changed["expires"], changed["models"]) == (None, None)
    assert changed["personalities"] == ["teacher"]
    assert (await running.json("PATCH", path, json={}))[0] == 200


async def test_expiry_may_be_a_duration(running: Running) -> None:
    key = await made(running, expires="30d")
    ends = datetime.fromisoformat(key["expires"])
    assert timedelta(days=29, hours=23) < ends - datetime.now(UTC) <= timedelta(days=30)


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"nmae": "x"}, "nmae", "allowed: name, description, admin, metrics, expires"),
    ({"hash": "0" * 64}, "hash", "unknown field"),
    ({"name": ""}, "name", "1 to 100"),
    ({"name": 7}, "name", "1 to 100"),
    ({"description": None}, "description", "text"),
    ({"admin": 1}, "admin", "true or false"),
    ({"expires": "soon"}, "expires", "like 30d"),
    ({"expires": "2030-01-01T00:00:00"}, "expires", "like 30d"),
    ({"expires": "2020-01-01T00:00:00Z"}, "expires", "to come"),
    ({"expires": "0001-01-01T00:00:00+14:00"}, "expires", "like 30d"),
    ({"expires": -1}, "expires", "like 30d"),
    ({"expires": True}, "expires", "like 30d"),
    ({"models": []}, "models", "at least one"),
    ({"models": "a"}, "models", "list"),
    ({"models": ["c"]}, "models", "there is no 'c' in models.json; allowed: 'a', 'b'"),
    ({"models": [["a"]]}, "models", "list"),
    ({"personalities": ["x"]}, "personalities", "allowed: 'teacher', 'pirate'"),
    ({"defaultPersonality": "x"}, "defaultPersonality", "there is no 'x'"),
    (
        {"personalities": ["pirate"], "defaultPersonality": "teacher"},
        "defaultPersonality",
        "not among those",
    ),
    ({"limits": 60}, "limits", "allowed: rpm, tpm, tpd, concurrency"),
    ({"limits": {"rph": 60}}, "limits", "unknown limit 'rph'"),
    ({"limits": {"rpm": 0}}, "limits.rpm", "1 or more"),
    ({"limits": {"rpm": "60"}}, "limits.rpm", "whole number"),
]


async def test_what_is_wrong_is_named_and_what_is_allowed(
    running: Running, subtests: pytest.Subtests
) -> None:
    _, before = await running.json("GET", "/admin/keys")
    path = f"/admin/keys/{before['keys'][0]['id']}"
    for fields, param, said in WRONG:
        with subtests.test(f"{fields!r:.80}"):
            for method, where, more in (
                ("POST", "/admin/keys", {"name": "x"}),
                ("PATCH", path, {}),
            ):
                status, answer = await running.json(method, where, json={**more, **fields})
                assert (status, answer["error"]["param"]) == (400, param), fields
                assert said in answer["error"]["message"]
    _, after = await running.json("GET", "/admin/keys")
    for key in (*before["keys"], *after["keys"]):
        key.pop("lastActivity")
    assert after == before


async def test_bad_requests_name_their_field(running: Running, subtests: pytest.Subtests) -> None:
    status, answer = await running.json("POST", "/admin/keys", json={})
    assert (status, answer["error"]["param"]) == (400, "name")
    for body in (b"", b"[]", b"{"):
        with subtests.test(f"{body!r:.80}"):
            assert (await running.json("POST", "/admin/keys", data=body))[0] == 400
    for method in ("PATCH", "DELETE"):
        for key_id in ("k_12345678", "nonsense", running.key):
            with subtests.test(f"{key_id!r:.80}"):
                status, answer = await running.json(method, f"/admin/keys/{key_id}", json={})
                assert (status, answer["error"]["code"]) == (404, "key_not_found")
                assert running.key not in json.dumps(answer)
    for days in ("0", "x", "-1", "99999", "9" * 100, "1.5", "²"):
        with subtests.test(f"{days!r:.80}"):
            status, answer = await running.json("GET", f"/admin/usage?days={days}")
            assert (status, answer["error"]["param"]) == (400, "days")


async def test_the_last_admin_key_is_kept(running: Running) -> None:
    mine = await made(running, name="mine", admin=True)
    _, answer = await running.json("GET", "/admin/keys")
    running.key = mine["key"]
    for other in answer["keys"]:
        if other["id"] != mine["id"]:
            assert (await running.json("DELETE", f"/admin/keys/{other['id']}"))[0] == 200
    path = f"/admin/keys/{mine['id']}"
    for method, body in (("DELETE", None), ("PATCH", {"admin": False})):
        status, answer = await running.json(method, path, json=body)
        assert (status, answer["error"]["code"]) == (400, "last_admin_key")
        assert "?force=true" in answer["error"]["message"]
    assert (await running.json("DELETE", f"{path}?force=perhaps"))[0] == 400
    assert (await running.json("PATCH", path, json={"name": "still here"}))[0] == 200
    assert (await running.json("DELETE", f"{path}?force=true"))[0] == 200
    assert (await running.json("GET", "/admin/keys"))[0] == 401


async def test_nothing_of_it_is_for_chat_keys(running: Running, subtests: pytest.Subtests) -> None:
    key = (await made(running))["key"]
    for method, path in (
        ("GET", "/admin/keys"),
        ("POST", "/admin/keys"),
        ("PATCH", "/admin/keys/k_12345678"),
        ("DELETE", "/admin/keys/k_12345678"),
        ("GET", "/admin/usage"),
    ):
        with subtests.test(f"{method!r:.80}"):
            assert (await running.json(method, path, json={}, key=key))[0] == 403
            assert (await running.json(method, path, json={}, key=None))[0] == 401


async def test_usage_is_told_by_key_and_day(running: Running, subtests: pytest.Subtests) -> None:
    phone = await made(running)
    for model in ("a", "b", "a"):
        with subtests.test(f"{model!r:.80}"):
            body = {"model": model, "messages": [{"role": "user", "content": "private words"}]}
            status, _ = await running.json(
                "POST", "/v1/chat/completions", json=body, key=phone["key"]
            )
            assert status == 200
    status, answer = await running.json("GET", "/admin/usage?days=2")
    assert (status, answer["days"]) == (200, 2)
    common = {"key": phone["id"], "name": "phone", "cached_tokens": 0}
    assert answer["usage"] == [
        {**common, "model": "a", "requests": 2, "prompt_tokens": 6, "completion_tokens": 4},
        {**common, "model": "b", "requests": 1, "prompt_tokens": 3, "completion_tokens": 2},
    ]
    assert [(r["key"], r["model"], r["status"]) for r in answer["recent"]] == [
        (phone["id"], model, 200) for model in ("a", "b", "a")
    ]
    assert phone["key"] not in json.dumps(answer)
    assert "private" not in json.dumps(answer)
