"""What clients send for want of a key is no key: not a wrong one, and no guess."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import openai
import pytest

from gateway.access.key_format import PLACEHOLDERS
from gateway.access.legacy_keys import parse_legacy
from tests.harness import MakeGateway, fake_model

UNFILLED = ("${API_KEY}", "$OPENAI_API_KEY", "{{ key }}", "<your key>", "${input:key}")
QUOTED = ('"null"', "'undefined'", '""', '"$API_KEY"')
NONE = (*sorted(PLACEHOLDERS), "NULL", "Undefined", "None", "EMPTY", "N/A", *UNFILLED, *QUOTED)
#: BufferedResponse headers without a key in them.
HEADERS = (
    *({"Authorization": f"Bearer {word}"} for word in (*NONE, "", "  ")),
    {"Authorization": "Bearer"},
    {"Authorization": "bearer"},
    {"Authorization": ""},
    {"Authorization": "undefined"},
    {"X-Api-Key": ""},
    {"X-Api-Key": "null"},
    {"Authorization": "Bearer null", "X-Api-Key": "undefined"},
)


async def test_they_are_no_key_and_no_guess(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        for headers in HEADERS:  # over 20 of them: as guesses they would be refused
            with subtests.test(f"{headers!r:.80}"):
                for method, path, body in (
                    ("GET", "/v1/models", None),
                    ("POST", "/v1/chat/completions", chat),  # the other door
                ):
                    status, answer = await running.json(
                        method, path, key=None, headers=headers, json=body
                    )
                    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
                    assert "no API key was sent" in answer["error"]["message"], headers
        for word in NONE:
            with subtests.test(f"{word!r:.80}"):
                status, answer = await running.json(
                    "GET", f"/models?authKey={quote(word)}", key=None
                )
                assert status == 401
                assert "no API key was sent" in answer["error"]["message"]
        # All 20 wrong keys that an address may send are still allowed.
        statuses = [(await running.json("GET", "/models", key="wrong"))[0] for _ in range(21)]
        assert statuses == [401] * 20 + [429]


async def test_a_good_key_beside_one_wins(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        for headers in HEADERS:
            with subtests.test(f"{headers!r:.80}"):
                if "Authorization" not in headers:
                    continue
                both = {**headers, "X-Api-Key": running.key}
                assert (await running.json("GET", "/models", key=None, headers=both))[0] == 200
                status, _ = await running.json(
                    "POST", "/v1/chat/completions", key=None, headers=both, json=chat
                )
                assert status == 200
                query = f"/models?authKey={running.key}"
                assert (await running.json("GET", query, key=None, headers=headers))[0] == 200
        # And the other way round.
        turned = {"Authorization": f"Bearer {running.key}", "X-Api-Key": "undefined"}
        assert (await running.json("GET", "/models", key=None, headers=turned))[0] == 200


async def test_openai_client_without_a_key_is_refused(make_gateway: MakeGateway) -> None:
    async with make_gateway({}) as running:
        running.key = "None"
        async with running.openai() as client:
            for _ in range(30):
                with pytest.raises(openai.AuthenticationError, match="no API key was sent"):
                    await client.models.list()


def test_none_is_imported() -> None:
    old = {"null": {"name": "a"}, "swordfish-2024-0001": {"name": "b"}, "None": {"name": "c"}}
    file = parse_legacy(json.dumps(old).encode(), "authKeys.json")
    assert [key.name for key in file.keys] == ["b"]
    assert file.skipped == (
        "entry 1 (a): its key is a word that clients send who have none",
        "entry 3 (c): its key is a word that clients send who have none",
    )
