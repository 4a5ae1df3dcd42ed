"""Ollama's API, with a real llama-server behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.conversations.test_real_media import picture
from tests.harness import Served, project
from tests.parrot_model import ANSWER, CITY, FILLING, REPORT, THOUGHT, TOOL
from tests.projector_model import write_projector
from tests.tiny_model import write_tiny_model

HELLO = [{"role": "user", "content": "hi"}]
#: docs/api.md: the fields of the last line.
NUMBERS = (
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, parrot_model: Path) -> Iterator[Served]:
    """``m``, of which it is known what it says, ``sees``, which takes pictures, and ``embed``, for
    embeddings.
    """
    root = tmp_path_factory.mktemp("ollama")
    write_tiny_model(root / "tiny.gguf")
    write_projector(root / "projector.gguf")
    thinker = {"templateArgs": {"think": True}}
    models = {
        "m": {
            "params": {"model": str(parrot_model), "ctxSize": 4096, "threads": 1},
            "personalities": {"pirate": "Arr.", "thinker": thinker},
            "aliases": ["llama3.2:3b"],
            "parallel": 2,
        },
        "sees": {
            "params": {"model": str(root / "tiny.gguf"), "ctxSize": 1024, "threads": 1},
            "mmproj": str(root / "projector.gguf"),
        },
        "embed": {
            "params": {"model": str(parrot_model), "ctxSize": 512, "threads": 1},
            "embeddings": True,
            "extraArgs": ["--pooling", "mean"],
        },
    }
    served = Served(root, "--config", str(project(root, models, llama_server="auto")))
    yield served
    served.stop()


@pytest.fixture(scope="module")
def client(box: Served) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {box.key}"}
    with httpx.Client(base_url=box.url, headers=headers, timeout=60) as client:
        yield client


def post(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    answer = client.post(path, json={"model": "m", **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("application/json")
    parsed: dict[str, Any] = answer.json()
    return parsed


def lines(client: httpx.Client, path: str, **body: Any) -> list[dict[str, Any]]:
    with client.stream("POST", path, json={"model": "m", **body}) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        return [json.loads(line) for line in answer.iter_lines()]


def whole(client: httpx.Client, **body: Any) -> dict[str, Any]:
    return post(client, "/api/chat", messages=HELLO, stream=False, **body)


def test_a_chat_comes_in_lines_and_the_last_one_tells_what_it_took(client: httpx.Client) -> None:
    *pieces, last = lines(client, "/api/chat", messages=HELLO)
    assert "".join(piece["message"]["content"] for piece in pieces) == ANSWER
    assert len(pieces) > 1
    assert not any(piece["done"] for piece in pieces)
    assert (last["done"], last["done_reason"], last["model"]) == (True, "stop", "m")
    assert all(type(last[name]) is int for name in NUMBERS)
    assert last["eval_count"] == 6
    assert last["total_duration"] >= last["eval_duration"] > 0


def test_a_chat_in_one_piece(client: httpx.Client) -> None:
    answer = whole(client)
    assert answer["message"] == {"role": "assistant", "content": ANSWER}
    assert (answer["done"], answer["done_reason"], answer["eval_count"]) == (True, "stop", 6)


def test_options_reach_the_model(client: httpx.Client) -> None:
    assert whole(client, options={"num_predict": 2})["done_reason"] == "length"
    assert whole(client, options={"stop": [" river"]})["message"]["content"] == "Hello from the"


def test_thoughts_stand_apart(client: httpx.Client) -> None:
    answer = whole(client, model="m:thinker")
    assert answer["message"] == {"role": "assistant", "content": ANSWER, "thinking": THOUGHT}
    pieces = lines(client, "/api/chat", model="m:thinker", messages=HELLO)
    assert "".join(piece["message"].get("thinking", "") for piece in pieces) == THOUGHT


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_and_its_answer_taken(client: httpx.Client, stream: bool) -> None:
    body = {"messages": HELLO, "tools": [TOOL]}
    if stream:
        *_, told, last = lines(client, "/api/chat", **body)
    else:
        told = last = post(client, "/api/chat", stream=False, **body)
    (call,) = told["message"]["tool_calls"]
    assert (call["function"]["name"], call["function"]["arguments"]) == ("weather", CITY)
    assert last["done_reason"] == "stop"
    result = {"role": "tool", "content": "40 degrees", "tool_name": "weather"}
    messages = [*HELLO, told["message"], result]
    answer = post(client, "/api/chat", messages=messages, tools=[TOOL], stream=False)
    assert answer["message"]["content"] == REPORT


def test_probabilities_of_tokens(client: httpx.Client) -> None:
    told = whole(client, logprobs=True, top_logprobs=2)["logprobs"]
    assert told[0]["token"] == "Hello"
    assert len(told[0]["top_logprobs"]) == 2
    pieces = lines(client, "/api/chat", messages=HELLO, logprobs=True)
    assert any(piece.get("logprobs") for piece in pieces)


def test_pictures_are_seen_in_chats_and_prompts(client: httpx.Client) -> None:
    red, blue = (
        picture(colour)["image_url"]["url"].partition(",")[2]
        for colour in ((210, 10, 10), (10, 10, 210))
    )
    asked: dict[str, Any] = {
        "model": "sees",
        "stream": False,
        "logprobs": True,
        "options": {"num_predict": 3, "temperature": 0},
    }

    def seen(*images: str) -> tuple[list[float], int]:
        message = {"role": "user", "content": "What is it?", "images": images}
        told = post(client, "/api/chat", messages=[message], **asked)
        return [one["logprob"] for one in told["logprobs"]], told["prompt_eval_count"]

    (with_red, tokens), (with_blue, _), (_, without) = seen(red), seen(blue), seen()
    assert with_red != with_blue
    assert tokens >= without + 4  # what a picture takes
    told = post(client, "/api/generate", prompt="What is it?", images=[red], **asked)
    assert [one["logprob"] for one in told["logprobs"]] == pytest.approx(with_red, abs=0.01)
    assert "vision" in post(client, "/api/show", model="sees")["capabilities"]
    answer = client.post(
        "/api/chat",
        json={"model": "m", "messages": [{"role": "user", "content": "hi", "images": [red]}]},
    )
    assert answer.status_code == 400
    assert "mmproj" in answer.json()["error"]


def test_a_format_is_kept_to(client: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    for asked in ("json", schema):
        answer = whole(client, format=asked, options={"num_predict": 60, "temperature": 0})
        assert answer["message"]["content"].lstrip().startswith("{")


def test_a_prompt_is_answered_and_its_context_taken_up(client: httpx.Client) -> None:
    *pieces, last = lines(client, "/api/generate", prompt="hi", system="Be brief.")
    assert "".join(piece["response"] for piece in pieces) == ANSWER
    again = post(client, "/api/generate", prompt="and?", context=last["context"], stream=False)
    assert again["response"] == ANSWER
    assert again["prompt_eval_count"] > last["prompt_eval_count"] + last["eval_count"]


def test_a_raw_prompt_and_a_gap(client: httpx.Client) -> None:
    raw = {"prompt": "<|im_start|>assistant<|say|>", "raw": True}
    *pieces, last = lines(client, "/api/generate", **raw)
    assert "".join(piece["response"] for piece in pieces) == ANSWER
    assert "context" not in last
    gap = {"prompt": "def f():", "suffix": "    # end"}
    for answer in (
        post(client, "/api/generate", stream=False, **gap),
        *lines(client, "/api/generate", **gap)[-1:],
    ):
        assert (answer["done_reason"], answer["eval_count"] > 1) == ("stop", True)
    assert post(client, "/api/generate", stream=False, **gap)["response"] == FILLING


def test_embeddings_of_one_text_and_of_several(client: httpx.Client) -> None:
    one = post(client, "/api/embed", model="embed", input="hello")
    assert [len(vector) for vector in one["embeddings"]] == [384]
    assert one["prompt_eval_count"] > 0
    texts = ["hello", "world"] * 30  # so many are passed on in pieces
    many = post(client, "/api/embed", model="embed", input=texts)
    assert [len(vector) for vector in many["embeddings"]] == [384] * 60
    assert many["embeddings"][0] == pytest.approx(one["embeddings"][0], abs=1e-4)
    short = post(client, "/api/embed", model="embed", input="hello", dimensions=16)
    assert sum(number**2 for number in short["embeddings"][0]) == pytest.approx(1)
    older = post(client, "/api/embeddings", model="embed", prompt="hello")
    assert older["embedding"] == pytest.approx(one["embeddings"][0], abs=1e-4)


def test_texts_that_are_too_long_are_cut_at_their_end(client: httpx.Client) -> None:
    long = "hello " * 300  # a batch is of 512 tokens: two of the model's own, and each byte is one
    cut = post(client, "/api/embed", model="embed", input=["hello", long, long[:510], long[:509]])
    short, longer, fits, shorter = cut["embeddings"]
    assert short == pytest.approx(
        post(client, "/api/embed", model="embed", input="hello")["embeddings"][0], abs=1e-4
    )
    assert longer == pytest.approx(fits, abs=1e-4)
    assert longer != pytest.approx(shorter, abs=1e-4)
    refused = {"model": "embed", "input": long, "truncate": False}
    assert client.post("/api/embed", json=refused).status_code == 400


def test_names_are_known_with_and_without_their_tag(client: httpx.Client) -> None:
    tags = {model["name"] for model in client.get("/api/tags").json()["models"]}
    assert tags == {"m:latest", "m:pirate", "m:thinker", "embed:latest", "sees:latest"}
    for name in ("m", "m:latest", "m:pirate", "llama3.2:3b"):
        answer = whole(client, model=name)
        assert (answer["model"], answer["message"]["content"]) == (name, ANSWER)


def test_a_model_is_shown(client: httpx.Client) -> None:
    shown = post(client, "/api/show", model="m:latest")
    assert shown["details"]["format"] == "gguf"
    assert shown["details"]["family"] == "llama"
    assert shown["capabilities"] == ["completion", "tools", "thinking", "insert"]
    assert shown["model_info"]["llama.context_length"] == 2048  # in each of two slots
    assert "<|im_start|>" in shown["template"]


def test_the_version_is_told(client: httpx.Client) -> None:
    assert client.get("/api/version").json()["version"].count(".") == 2
    assert client.head("/").status_code == 200


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/embed", "/api/show"])
def test_an_unknown_model_is_said_in_ollamas_words(client: httpx.Client, path: str) -> None:
    body = {"model": "none", "messages": HELLO, "prompt": "hi", "input": "hi"}
    answer = client.post(path, json=body)
    assert answer.status_code == 404
    said = answer.json()
    assert list(said) == ["error"]
    assert said["error"].startswith('model "none" not found, try pulling it first')
    assert "hf.co/OWNER/REPO:QUANT" in said["error"]


@pytest.mark.parametrize("think", [True, "high"])
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_who_cannot_think_says_so(client: httpx.Client, path: str, think: bool | str) -> None:
    body = {"messages": HELLO, "prompt": "hi", "options": {"num_predict": 2}, "stream": False}
    for name in ("sees", "sees:latest"):
        answer = client.post(path, json={"model": name, **body, "think": think})
        assert answer.status_code == 400, answer.text
        assert answer.json() == {"error": f'"{name}" does not support thinking'}
    for model, more in (("sees", {"think": False}), ("sees", {}), ("m", {"think": think})):
        answer = client.post(path, json={"model": model, **body, **more})
        assert answer.status_code == 200, answer.text


def test_errors_are_texts(client: httpx.Client) -> None:
    for answer, status in (
        (client.post("/api/chat", content=b"{"), 400),
        (client.post("/api/chat", json={"messages": HELLO}), 400),
        (client.post("/api/embed", json={"model": "m", "input": "hi"}), 400),
        (client.post("/api/create", json={"model": "x", "from": "m"}), 400),
        (client.get("/api/chat"), 405),
        (httpx.post(f"{client.base_url}/api/chat", json={"model": "m"}), 401),
    ):
        assert answer.status_code == status, answer.text
        assert isinstance(answer.json()["error"], str)


def test_requests_are_accounted_by_their_own_route(client: httpx.Client) -> None:
    whole(client)
    (row,) = client.get("/admin/requests", params={"limit": 1}).json()["ended"]
    assert (row["route"], row["model"]) == ("/api/chat", "m")
    assert row["completion_tokens"] == 6
