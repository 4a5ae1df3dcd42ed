"""models.json: entries of models elsewhere."""

import json
from typing import Any

import pytest

from gateway.models.catalog import parse_catalog
from gateway.models.remote_model import RemoteModel
from tests.models.catalogs import one, problems_in, problems_of


def elsewhere(**entry: object) -> RemoteModel:
    spec = parse_catalog(json.dumps({"m": entry})).models["m"]
    assert isinstance(spec, RemoteModel)
    return spec


def problems_elsewhere(**entry: object) -> dict[str, str]:
    found = problems_of({"m": {"url": "http://box", **entry}})
    return {key.removeprefix("m."): text for key, text in found.items()}


def test_model_elsewhere_has_its_servers() -> None:
    spec = elsewhere(
        url=["http://box:8080/", "https://api.example.com/v1/"],
        key="env:THE_KEY",
        modelName="qwen",
        caFile="/etc/ca.pem",
        timeout="2m",
        params={"temperature": 0.5, "topP": 0.9, "ctxSize": 8192},
        personalities={"pirate": "Arr"},
        aliases=["q"],
        setParams={"seed": 1},
        preload=True,
    )
    assert spec.url == ("http://box:8080", "https://api.example.com/v1")
    assert (spec.sent_as, spec.parallel, spec.timeout) == ("qwen", 64, 120)
    assert [endpoint.tls for endpoint in spec.endpoints] == [False, True]
    assert "THE_KEY" not in repr(spec)


def test_remote_model_has_defaults() -> None:
    spec = elsewhere(url="http://127.0.0.1:8081")
    assert (spec.sent_as, spec.parallel, spec.timeout, spec.key) == ("m", 64, 600, None)
    assert elsewhere(url="http://box", parallel=3).parallel == 3
    assert one().sent_as is None


def test_a_key_that_travels_in_the_open_is_warned_about() -> None:
    spec = elsewhere(url=["http://box", "https://box", "http://127.0.0.1:1"], key="sk-1")
    assert spec.warnings == ("m: the key goes to http://box unencrypted",)
    assert elsewhere(url="http://box").warnings == ()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("url.0", "box:8080", "must begin with http://"),
        ("url", [], "is missing (or url"),
        ("url", 5, "allowed: http://HOST"),
        ("url.1", ["http://a", "ftp://b"], "must begin with http://"),
        ("url", ["http://a", "http://A:80/"], "names a server twice"),
        ("key", "two words", "printable ASCII without spaces (got a hidden value); allowed: the"),
        ("modelName", "", "printable"),
        ("modelName", "a\nb", "printable"),
        ("caFile", "ca.pem", "allowed: a PEM file"),
        ("timeout", "soon", "allowed: a duration"),
        ("timeout", 0, "must be over 0"),
        ("parallel", 0, "allowed: a number of slots"),
        ("env", {"A": "b"}, "no llama-server is started"),
        ("extraArgs", ["--x"], "no llama-server is started"),
        ("mmproj", "p.gguf", "no llama-server is started"),
        ("draftModel", "d.gguf", "no llama-server is started"),
        ("template", "zephyr", "no llama-server is started"),
        ("memory", "1GiB", "no llama-server is started"),
        ("params.model", {"model": "m.gguf"}, "one or the other"),
        ("params.gpuLayers", {"gpuLayers": 1}, "allowed: temperature, topP, ctxSize"),
        ("params.ignoreEOS", {"ignoreEOS": True}, "setParams"),
    ],
)
def test_wrong_value_of_a_remote_model_is_refused(
    key: str, value: dict[str, Any] | int | list[str] | str, says: str
) -> None:
    field = key.partition(".")[0]
    problems = problems_elsewhere(**{field: value})
    expected = "params.model" if value == [] else key
    assert list(problems) == [expected]
    assert says in problems[expected]
    assert "two words" not in problems[expected]


def test_a_password_in_an_address_is_not_repeated() -> None:
    (problem,) = problems_elsewhere(url="https://me:s3cret@box/v1").values()
    assert "no user and password" in problem
    assert "s3cret" not in problem


@pytest.mark.parametrize(
    ("key", "value"),
    [("key", "sk-1"), ("modelName", "x"), ("caFile", "/ca.pem"), ("timeout", "1m")],
)
def test_key_of_remote_models_is_refused_for_local_ones(key: str, value: str) -> None:
    assert problems_in(None, **{key: value}) == {
        key: f"models.json: m.{key}: is only for models with url"
    }


def test_everything_wrong_with_a_model_elsewhere_is_told_at_once() -> None:
    wrong = problems_elsewhere(env={"A": "b"}, template="zephyr", params={"topK": 1, "seed": 2})
    assert set(wrong) == {"env", "template", "params.topK", "params.seed"}
