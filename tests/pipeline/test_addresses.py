"""What is answered to who asks for a route or a model that there isn't: what was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.harness import MakeGateway, fake_model

OPENAI = "The base URL of OpenAI's clients is the address of this server and /v1"
ANTHROPIC = "The base URL of Anthropic's clients is the address of this server, without /v1"

#: Method, path, and what follows "there is no route METHOD PATH".
ROUTES = {
    ("POST", "/v1/v1/chat/completions"): f": did you mean POST /v1/chat/completions? {OPENAI}",
    ("GET", "/v1/v1/models"): f": did you mean GET /v1/models? {OPENAI}",
    ("POST", "/openai/v1/embeddings"): f": did you mean POST /v1/embeddings? {OPENAI}",
    ("GET", "/api/v1/models/m"): f": did you mean GET /v1/models/m? {OPENAI}",
    ("POST", "/openai/deployments/m/chat/completions"): (
        f": did you mean POST /chat/completions? {OPENAI}"
    ),
    ("POST", "/v1/v1/messages"): f": did you mean POST /v1/messages? {ANTHROPIC}",
    ("GET", "/openai/v1"): f": t{OPENAI[1:]}, and GET /v1/models lists the models",
    ("GET", "/api/v1/"): f": t{OPENAI[1:]}, and GET /v1/models lists the models",
    ("POST", "/v1/chat/completions/"): (
        ": did you mean POST /v1/chat/completions? There is no slash at the end"
    ),
    ("GET", "/models/"): ": did you mean GET /models? There is no slash at the end",
    ("POST", "/loadmodel"): ": did you mean POST /loadModel? Upper and lower case count",
    ("POST", "/v1/loadModel"): (
        ": did you mean POST /loadModel? It stands beside /v1, not below it"
    ),
    ("POST", "/v1/chat/completions/chat/completions"): (
        f": did you mean POST /v1/chat/completions? {OPENAI}"
    ),
    ("GET", "/v1/chat/completions/models"): f": did you mean GET /v1/models? {OPENAI}",
    ("POST", "//v1//completions"): ": did you mean POST /v1/completions?",
    ("POST", "/v1/chat/completion"): ": did you mean POST /v1/chat/completions?",
    ("GET", "/stauts"): ": did you mean GET /status?",
    ("POST", "/v1/api/chat"): ": did you mean POST /api/chat? It stands beside /v1, not below it",
    ("POST", "/api/chat/"): ": did you mean POST /api/chat? There is no slash at the end",
    ("GET", "/wp-login.php"): "",
    ("GET", "/" + "x" * 300): None,
}


async def test_the_page_is_no_route_of_the_api(make_gateway: MakeGateway) -> None:
    base, docs = f"t{OPENAI[1:]}", "/docs lists all routes"
    for number, (settings, told) in enumerate(
        (
            (
                {},
                f"/ is the page, for who asks for HTML; {base}, {docs}, "
                "llama.cpp's own page is /ui/",
            ),
            ({"ui": False}, f"/ is the page, for who asks for HTML; {base}, {docs}"),
            (
                {"page": False},
                f"there is no route GET /: a page for browsers is /ui/, {base}, and {docs}",
            ),
            ({"page": False, "ui": False}, f"there is no route GET /: {base}, and {docs}"),
        )
    ):
        folder = f"project{number}"
        async with make_gateway({}, folder=folder, **settings) as running:
            status, answer = await running.json("GET", "/")
            assert (status, answer["error"]["code"]) == (404, "route_not_found")
            assert answer["error"]["message"] == told
            status, answer = await running.json("GET", "/", key=None)
            assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
            assert ("/ is a page" in answer["error"]["message"]) == ("page" not in settings)


async def test_wrong_address_is_hinted_at_the_right_one(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        for (method, path), hint in ROUTES.items():
            with subtests.test(f"{hint!r:.80}"):
                status, answer = await running.json(method, path)
                error = answer["error"]
                assert status == 404
                anthropics = "/messages" in path
                assert error["type"] == (
                    "not_found_error" if anthropics else "invalid_request_error"
                )
                assert error.get("code") == (None if anthropics else "route_not_found")
                asked = f"there is no route {method} {path}"
                if hint is None:
                    assert error["message"] == f"{asked[:-101]}..."
                else:
                    assert error["message"] == f"{asked}{hint}"
                # Who has no key learns nothing of it.
                status, answer = await running.json(method, path, key=None)
                assert status == 401
                assert answer["error"].get("code") == (None if anthropics else "invalid_api_key")


#: Method and path that are taken for the name of a model, or are a route for other methods; what
#: follows the methods that are allowed.
OTHER_METHODS = {
    ("POST", "/models/unlaod"): ("GET", ". Did you mean POST /models/unload?"),
    ("POST", "/models/Load"): (
        "GET",
        ". Did you mean POST /models/load? Upper and lower case count",
    ),
    ("POST", "/v1/models/unload"): (
        "GET",
        ". Did you mean POST /models/unload? It stands beside /v1, not below it",
    ),
    ("POST", "/models/chat/completions"): (
        "GET",
        f". Did you mean POST /v1/chat/completions? {OPENAI}",
    ),
    ("POST", "/models/m"): ("GET", ""),
    ("GET", "/loadModel"): ("POST", ""),
    ("DELETE", "/models/unload"): ("GET, POST", ""),
    ("HEAD", "/upstream/m/health"): ("DELETE, GET, PATCH, POST, PUT", ""),
    ("POST", "/models/" + "x" * 300): ("GET", None),
}


async def test_other_methods_are_refused_with_those_allowed(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        for (method, path), (allowed, hint) in OTHER_METHODS.items():
            with subtests.test(f"{method!r:.80}"):
                async with running.request(method, path) as response:
                    assert response.status == 405, path
                    told = set(response.headers["Allow"].replace(" ", "").split(","))
                    assert told >= set(allowed.replace(" ", "").split(",")), told
                    if method == "HEAD":
                        continue
                    message = (await response.json())["error"]["message"]
                methods = response.headers["Allow"]
                if hint is None:
                    assert message == f"{path[:200]}... does not take {method}; allowed: {methods}"
                else:
                    assert message == f"{path} does not take {method}; allowed: {methods}{hint}"


@pytest.mark.parametrize("base", ["/v1/v1", "/openai/v1", "/api/v1", "/openai/v1/"])
async def test_openai_client_with_a_wrong_base_url_is_told(
    make_gateway: MakeGateway, tmp_path: Path, base: str
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        client = openai.AsyncOpenAI(base_url=running.url + base, api_key=running.key, max_retries=0)
        async with client:
            with pytest.raises(openai.NotFoundError, match=r"did you mean POST /v1/chat/compl"):
                await client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": "hi"}]
                )


async def test_anthropic_client_with_openais_base_url_is_told(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        client = anthropic.AsyncAnthropic(
            base_url=f"{running.url}/v1", api_key=running.key, max_retries=0
        )
        async with client:
            with pytest.raises(anthropic.NotFoundError, match="without /v1"):
                await client.messages.create(
                    model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
                )


async def test_name_a_key_may_not_use_is_told_as_unknown(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """And of a model or personality that a key may not use it learns nothing."""
    personalities = {"pirate": "Arr.", "poet": "Oh."}
    models = {
        name: {**fake_model(tmp_path, personalities=personalities), "aliases": [alias]}
        for name, alias in (("SmolLM2-135M", "gpt-4o"), ("Secret-7B", "hush"))
    }
    async with make_gateway(models) as running:
        assert running.gateway.ring is not None
        _, key = await running.gateway.ring.create(
            "few", models=["SmolLM2-135M"], personalities=["pirate"]
        )

        async def message(model: str, **options: Any) -> str:
            status, answer = await running.json(
                "POST",
                "/v1/chat/completions",
                json={"model": model, "messages": [{"role": "user", "content": "hi"}]},
                **options,
            )
            assert status == 404, answer
            text: str = answer["error"]["message"]
            return text

        for wrong, meant in {
            "smollm2-135m": "SmolLM2-135M",
            "openai/SmolLM2-135M": "SmolLM2-135M",
            "SmolLM-135M": "SmolLM2-135M",
            "gpt-4": "gpt-4o",
            "SmolLM2-135M:prate": "pirate",
            "SmolLM2-135M:Pirate": "pirate",
        }.items():
            with subtests.test(f"{wrong!r:.80}"):
                for of in (running.key, key):
                    assert f"did you mean {meant!r}?" in await message(wrong, key=of)
        assert "did you mean 'Secret-7B'?" in await message("Secret-7")
        assert "did you mean 'poet'?" in await message("SmolLM2-135M:poe")
        for wrong in ("Secret-7", "hus", "Secret-7B:nobody", "SmolLM2-135M:poe", "nothing"):
            with subtests.test(f"{wrong!r:.80}"):
                told = await message(wrong, key=key)
                for secret in ("'Secret-7B'", "'hush'", "'poet'"):
                    assert secret not in told, told
        assert "did you mean" not in await message("something quite different")
        for path in ("/v1/models/", "/models/"):
            status, answer = await running.json("GET", f"{path}SmolLM2-135", key=key)
            assert (status, answer["error"]["message"]) == (
                404,
                "there is no model 'SmolLM2-135', did you mean 'SmolLM2-135M'?",
            )
            _, answer = await running.json("GET", f"{path}Secret-7", key=key)
            assert answer["error"]["message"] == "there is no model 'Secret-7'"
        _, answer = await running.json("GET", "/admin/models/Secret-7/log?follow=false")
        assert "did you mean 'Secret-7B'?" in answer["error"]["message"]

        # A model that was added a moment ago, with a typing error in the file.
        running.gateway.settings.models_file.write_text("{")
        assert "models.json is broken" in await message("new", key=key)
