"""OpenAI's Conversations, by OpenAI's own client, of a real llama-server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.harness import MakeGateway, Running
from tests.parrot_model import ANSWER

AT = "/v1/conversations"
HELLO: Any = {"role": "user", "content": "hello"}


@pytest.fixture
async def running(make_gateway: MakeGateway, parrot_model: Path) -> AsyncIterator[Running]:
    params = {"model": str(parrot_model), "threads": 1, "ctxSize": 4096}
    models = {"m": {"params": params, "parallel": 2}}
    async with make_gateway(models, llama_server="auto", responses={"store": True}) as running:
        yield running


def texts(items: Any) -> list[str]:
    return [item.content[0].text for item in items]


async def test_what_is_said_in_a_conversation_comes_before_what_is_said_next(
    running: Running,
) -> None:
    async with running.openai() as client:
        told: Any = {"type": "message", "role": "developer", "content": "Be kind."}
        made = await client.conversations.create(items=[told], metadata={"about": "a test"})
        assert (made.object, made.metadata) == ("conversation", {"about": "a test"})
        ask = client.responses
        first = await ask.create(model="m", input="hello", conversation=made.id)
        assert first.output_text == ANSWER
        assert first.conversation is not None
        assert first.conversation.id == made.id
        second = await ask.create(model="m", input="again", conversation={"id": made.id})
        assert first.usage is not None
        assert second.usage is not None
        assert second.usage.input_tokens > first.usage.input_tokens
        listed = [one async for one in client.conversations.items.list(made.id, order="asc")]
        assert texts(listed) == ["Be kind.", "hello", ANSWER, "again", ANSWER]
        assert [one.type for one in listed] == ["message"] * 5
        page = await client.conversations.items.list(made.id, limit=2)
        assert [one.id for one in page.data] == [listed[4].id, listed[3].id]
        assert page.has_more
        rest = [one async for one in page]
        assert [one.id for one in rest] == [one.id for one in reversed(listed)]

        # Without its first answer, it is shorter.
        left = await client.conversations.items.delete(listed[2].id, conversation_id=made.id)
        assert left.id == made.id
        after = [one async for one in client.conversations.items.list(made.id, order="asc")]
        assert texts(after) == ["Be kind.", "hello", "again", ANSWER]
        third = await ask.create(model="m", input="x", conversation=made.id, store=False)
        assert third.output_text == ANSWER
        assert len([one async for one in client.conversations.items.list(made.id)]) == 4

        await client.conversations.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            await ask.create(model="m", input="x", conversation=made.id)
        assert (await ask.retrieve(first.id)).output_text == ANSWER


async def test_items_and_metadata_are_changed(running: Running) -> None:
    async with running.openai() as client:
        made = await client.conversations.create()
        assert made.metadata == {}
        changed = await client.conversations.update(made.id, metadata={"a": "b"})
        assert changed.metadata == {"a": "b"}
        assert await client.conversations.retrieve(made.id) == changed
        call: Any = {"type": "function_call", "id": "mine", "call_id": "c", "name": "f"}
        call["arguments"] = "{}"
        added = await client.conversations.items.create(made.id, items=[HELLO, call, HELLO])
        assert [one.type for one in added.data] == ["message", "function_call", "message"]
        ids = [str(one.id) for one in added.data]
        assert len(set(ids)) == 3
        assert "mine" not in ids
        found = await client.conversations.items.retrieve(ids[1], conversation_id=made.id)
        assert found.to_dict() == {**call, "id": ids[1]}
        deleted = await client.conversations.delete(made.id)
        assert deleted.to_dict() == {
            "id": made.id,
            "object": "conversation.deleted",
            "deleted": True,
        }
        for gone in (
            client.conversations.retrieve(made.id),
            client.conversations.update(made.id, metadata={}),
            client.conversations.items.create(made.id, items=[HELLO]),
            client.conversations.items.retrieve(ids[0], conversation_id=made.id),
            client.conversations.items.delete(ids[0], conversation_id=made.id),
            client.conversations.delete(made.id),
        ):
            with pytest.raises(openai.NotFoundError) as refused:
                await gone
            assert refused.value.code == "conversation_not_found"


async def test_no_other_key_finds_a_conversation(running: Running) -> None:
    _, other = await running.json("POST", "/admin/keys", json={"name": "other"})
    status, made = await running.json("POST", AT, json={"items": [HELLO]})
    assert status == 200
    one = f"{AT}/{made['id']}"
    _, items = await running.json("GET", f"{one}/items")
    item = f"{one}/items/{items['first_id']}"
    for method, path, body in (
        ("GET", one, None),
        ("POST", one, {"metadata": {}}),
        ("DELETE", one, None),
        ("GET", f"{one}/items", None),
        ("POST", f"{one}/items", {"items": [HELLO]}),
        ("GET", item, None),
        ("DELETE", item, None),
        ("POST", "/v1/responses", {"model": "m", "input": "x", "conversation": made["id"]}),
    ):
        status, answer = await running.json(method, path, json=body, key=other["key"])
        assert (status, answer["error"]["code"]) == (404, "conversation_not_found"), (method, path)
    _, again = await running.json("GET", f"{one}/items")
    assert again == items


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("", {"items": "hello"}, "items"),
        ("", {"items": [{"content": "hello"}]}, "items"),
        ("", {"items": [{"type": 3}]}, "items"),
        ("", {"metadata": {"a": 1}}, "metadata"),
        ("/x", {}, "metadata"),
        ("/x/items", {}, "items"),
        ("/x/items?limit=0", None, "limit"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    make_gateway: MakeGateway, path: str, body: Any, param: str
) -> None:
    async with make_gateway({}, responses={"store": True}) as running:
        method = "GET" if body is None else "POST"
        status, answer = await running.json(method, AT + path, json=body)
        assert (status, answer["error"]["param"]) == (400, param)


async def test_none_are_kept_where_responses_are_not(make_gateway: MakeGateway) -> None:
    async with make_gateway({}) as running:
        status, answer = await running.json("POST", AT, json={})
        assert (status, answer["error"]["code"]) == (404, "conversation_not_found")
        assert "responses.store" in answer["error"]["message"]


async def test_many_turns_at_once_lose_nothing(running: Running) -> None:
    async with running.openai() as client:
        made = await client.conversations.create()
        turns = [
            client.responses.create(model="m", input=f"hello {turn}", conversation=made.id)
            for turn in range(6)
        ]
        await asyncio.gather(*turns)
        listed = [one async for one in client.conversations.items.list(made.id, order="asc")]
        assert sorted(texts(listed)[::2]) == [f"hello {turn}" for turn in range(6)]
        assert texts(listed)[1::2] == [ANSWER] * 6
