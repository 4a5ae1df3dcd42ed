"""Errors of llama-server in each API's shape, and the usage of streams."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.proxy.routes import TABLE, ModelIn
from gateway.scope import Scope
from tests.api.routes.recorded import RECORDER, USER, model
from tests.harness import MakeGateway, Running

OVERFLOW = {
    "code": 400,
    "message": "request (3031 tokens) exceeds the available context size (1024 tokens)",
    "type": "exceed_context_size_error",
    "n_prompt_tokens": 3031,
    "n_ctx": 1024,
}


async def test_errors_have_the_shape_of_each_api(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    answers = {
        path: [400, {"error": OVERFLOW}]
        for path in ("/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens")
    }
    answers["/v1/embeddings"] = [501, {"error": {"code": 501, "message": "no", "type": "x"}}]
    answers["/tokenize"] = [500, "not JSON"]
    models = {"m": model(tmp_path, answers=json.dumps(answers))}
    async with make_gateway(models, llama_server=RECORDER) as running:
        status, answer = await running.chat("m")
        assert status == 400
        error = answer["error"]
        assert error["code"] == "context_length_exceeded"
        assert (error["n_prompt_tokens"], error["n_ctx"], error["param"]) == (3031, 1024, None)
        assert error["message"] == OVERFLOW["message"]
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            status, answer = await running.json(
                "POST", path, json={"model": "m", "messages": [USER]}
            )
            assert status == 400
            assert answer == {
                "type": "error",
                "error": {"type": "invalid_request_error", "message": OVERFLOW["message"]},
            }
            for body, key, expected in (
                ({"model": "no", "messages": [USER]}, running.key, (404, "not_found_error")),
                ({"model": "m"}, running.key, (400, "invalid_request_error")),
                ({}, "wrong", (401, "authentication_error")),
            ):
                with subtests.test(f"{body!r:.80}"):
                    status, answer = await running.json("POST", path, json=body, key=key)
                    assert (status, answer["error"]["type"]) == expected
                    assert answer["type"] == "error"
        status, answer = await running.json("POST", "/v1/embeddings", json={"model": "m"})
        assert (status, answer["error"]["message"]) == (501, "no")
        status, answer = await running.json("POST", "/tokenize", json={"model": "m"})
        assert (status, answer["error"]["message"]) == (500, "not JSON")


async def test_streams_are_counted_by_what_they_say_of_usage(running: Running) -> None:
    for path, expected in (("/v1/messages", (31, 2, 3)), ("/v1/responses", (5, 7, 0))):
        body = {"model": "m", "stream": True, "messages": [USER], "input": "hi"}
        async with running.request("POST", path, json=body) as response:
            assert response.content_type == "text/event-stream"
            assert b"event: " in await response.read()
        usage = running.gateway.accounting.recent[-1].usage
        assert usage[:3] == expected


async def test_query_that_names_another_model_than_the_body_is_refused(
    running: Running, subtests: pytest.Subtests
) -> None:
    message = {"messages": [{"role": "user", "content": "hi"}]}
    routes = [
        route.path
        for route in TABLE
        if (route.method, route.model, route.scope) == ("POST", ModelIn.BODY, Scope.CHAT)
        and not route.refused
    ]
    for path in ("/loadModel", "/models/load", *routes):
        with subtests.test(f"{path!r:.80}"):
            for body in ({"model": "org/m", **message}, message):
                status, answer = await running.json("POST", f"{path}?model=m", json=body)
                assert status == 400, path
                assert "?model=" in answer["error"]["message"]
    for path in ("/v1/chat/completions", "/loadModel"):
        status, _ = await running.json("POST", f"{path}?model=m", json={"model": "m", **message})
        assert status == 200, path
