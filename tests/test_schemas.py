"""The JSON Schemas say what those say that read the files, and are the ones that are shipped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from gateway import json_schemas
from gateway.cli import main
from gateway.config.load import load_partly
from gateway.config.places import skeleton
from gateway.models.catalog import parse_partly
from gateway.models.entry_schema import ENTRY as MODEL
from gateway.models.entry_schema import PARAMS
from gateway.validation import key_paths
from tests.harness import REPOSITORY, MakeGateway, fake_model

MODELS = Draft202012Validator(json_schemas.made()["models.json"])
SETTINGS = Draft202012Validator(json_schemas.made()["gateway.json"])


def test_those_shipped_are_those_made() -> None:
    for name, schema in json_schemas.made().items():
        shipped = json.loads(json_schemas.read(name))
        assert shipped == schema, "write them anew: python -m gateway.json_schemas"
        Draft202012Validator.check_schema(shipped)


def described(schema: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every property, with its schema."""
    if isinstance(schema, dict):
        for name, inner in schema.get("properties", {}).items():
            if isinstance(inner, dict) and not path.endswith(("if", "then", "else")):
                yield f"{path}/{name}", inner
        for key, inner in schema.items():
            if key not in ("if", "then", "else"):
                yield from described(inner, f"{path}/{key}")


@pytest.mark.parametrize("validator", [MODELS, SETTINGS], ids=["models", "settings"])
def test_an_editor_says_something_about_each_key(validator: Draft202012Validator) -> None:
    found = dict(described(validator.schema))
    assert len(found) > 50
    assert not [path for path, schema in found.items() if not schema.get("description")]


def test_every_key_is_in_them() -> None:
    entry = MODELS.schema["$defs"]["Entry"]["properties"]
    assert entry.keys() == {f.alias or n for n, f in MODEL.model_fields.items()} - {"name"}
    params = MODELS.schema["$defs"]["Params"]["properties"]
    assert params.keys() == {f.alias or n for n, f in PARAMS.model_fields.items()}
    text = yaml.safe_load(skeleton("conf/gateway.yaml").read_bytes())
    assert text.keys() <= SETTINGS.schema["properties"].keys()
    assert "mistral" in entry["template"]["enum"]
    assert entry["parallel"]["maximum"] == 256


# --- models.json -----------------------------------------------------------------------------

RIGHT: list[Any] = [
    {},
    {"$schema": "models.schema.json"},
    {"a": {"params": {"model": "D:\\x.gguf"}}},
    {"a/b:c ü": {"params": {"model": "x.gguf", "ctxSize": 0, "seed": -1, "topP": 1}}},
    {"a": {"params": {"model": "x", "logitBias": "12+1.5", "reversePrompt": ["x"], "numa": True}}},
    {"a": {"params": {"model": "x", "logitBias": {"1": -3}, "keepPrompt": -1, "mlock": None}}},
    {"a": {"params": {"model": "x"}, "ttl": "10m", "memory": "6GiB", "template": "mistral"}},
    {"a": {"params": {"model": "x"}, "ttl": 90, "memory": 1e9, "template": None, "ttl ": 1}},
    {"a": {"params": {"model": "x"}, "aliases": "b", "extraArgs": ["--ubatch-size", "512"]}},
    {"a": {"params": {"model": "x"}, "env": {"CUDA_VISIBLE_DEVICES": "0"}, "parallel": 256}},
    {
        "a": {
            "params": {"model": "x"},
            "personalities": {"p": "Arr.", "q": {"prompt": "x", "reasoning": "low"}},
            "meta": {"displayName": "A"},
            "setParams": {"x": [1, {"y": None}]},
            "stripParams": ["z"],
        }
    },
    {"a": {"url": "https://box.example/v1", "key": "env:KEY", "timeout": "5m", "modelName": "x"}},
    {"a": {"url": ["http://a", "http://b:1"], "params": {"temperature": 1, "ctxSize": 5}}},
]
RIGHT[7]["a"].pop("ttl ")
WRONG: list[Any] = [
    [],
    {"$schema": {"params": {"model": "x"}}},
    {" ": {"params": {"model": "x"}}},
    {"a": {}},
    {"a": {"params": {}}},
    {"a": {"params": {"model": ""}}},
    {"a": {"params": {"model": None}}},
    {"a": {"params": {"model": "x", "tempratur": 1}}},
    {"a": {"params": {"model": "x"}, "name": "b"}},
    {"a": {"params": {"model": "x", "topP": 1.1}}},
    {"a": {"params": {"model": "x", "batchSize": 0}}},
    {"a": {"params": {"model": "x", "ctxSize": "many"}}},
    {"a": {"params": {"model": "x", "numa": "perhaps"}}},
    {"a": {"params": {"model": "x", "logitBias": "12"}}},
    {"a": {"params": {"model": "x"}, "parallel": 257}},
    {"a": {"params": {"model": "x"}, "ttl": "soon"}},
    {"a": {"params": {"model": "x"}, "ttl": -1}},
    {"a": {"params": {"model": "x"}, "memory": "6 apples"}},
    {"a": {"params": {"model": "x"}, "template": "nonsense"}},
    {"a": {"params": {"model": "x"}, "extraArgs": ["--port", "1"]}},
    {"a": {"params": {"model": "x"}, "extraArgs": "--api-key=x"}},
    {"a": {"params": {"model": "x"}, "env": {"LLAMA_ARG_PORT": "1"}}},
    {"a": {"params": {"model": "x"}, "env": {"A": 1}}},
    {"a": {"params": {"model": "x"}, "key": "x"}},
    {"a": {"params": {"model": "x"}, "timeout": 5}},
    {"a": {"params": {"model": "x"}, "personalities": {"p": 1}}},
    {"a": {"params": {"model": "x"}, "personalities": {"p": {"promt": "x"}}}},
    {"a": {"url": "ftp://x"}},
    {"a": {"url": "http://x", "params": {"model": "x"}}},
    {"a": {"url": "http://x", "extraArgs": ["--verbose"]}},
    {"a": {"url": "http://x", "timeout": 0}},
    {"a": {"url": "http://x", "caFile": "relative.pem"}},
]


@pytest.mark.parametrize("models", RIGHT + WRONG, ids=lambda models: json.dumps(models)[:60])
def test_models_are_judged_as_by_the_gateway(models: Any) -> None:
    errors = list(MODELS.iter_errors(models))
    _, problems = parse_partly(json.dumps(models))
    assert bool(problems) == (models not in RIGHT), problems
    assert bool(errors) == bool(problems), (errors, problems)


def test_what_is_shown_in_the_documentation_is_right() -> None:
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    shown = [
        json.loads(block)
        for page in pages
        for block in re.findall(r"```json\n(.*?)```", page.read_text(), re.DOTALL)
        if '"params"' in block
    ]
    assert len(shown) >= 2
    for models in (*shown, json.loads(skeleton("data/models.json").read_bytes())):
        MODELS.validate(models)


# --- gateway.yaml ----------------------------------------------------------------------------


def both(text: str, folder: Path) -> tuple[bool, bool]:
    """Whether there is something wrong with it, to the schema and to the gateway."""
    file = folder / "gateway.yaml"
    file.write_text(text)
    _, problems = load_partly(file, environ={})
    return not SETTINGS.is_valid(yaml.safe_load(text)), bool(problems)


@pytest.mark.parametrize(
    "text",
    [
        skeleton("conf/gateway.yaml").read_text(),
        "{}",
        "host: [127.0.0.1, '::1']",
        "limits: {max_body: 1GiB, queue_timeout: 90, request: {time: null, list_bytes: 4k}}",
        "scheduler: {memory_budget: 20GiB, idle_unload: 30m, max_loaded: 2}",
        "tls: {enabled: true, acme: {domains: [box.example.com], agree_tos: true}}",
        "admin: {process_settings: true}",
    ],
)
def test_right_settings_pass_schema_and_program(tmp_path: Path, text: str) -> None:
    assert both(text, tmp_path) == (False, False)


@pytest.mark.parametrize(
    "text",
    [
        "prot: 8080",
        "port: 70000",
        "port: many",
        "tls: {enable: true}",
        "tls: {acme: {domains: [a.example]}}",
        "tls: {acme: {domains: [a.example], agree_tos: true, challenge: dns-01}}",
        "limits: {heartbeat: 0}",
        "limits: {max_body: 12}",
        "limits: {max_body: large}",
        "limits: {queue_timeout: 5 minutes}",
        "limits: {request: {time: 0}}",
        "limits: {request: {grammar_depth: 1001}}",
        "scheduler: {memory_budget: some}",
        "cors: {origins: 5}",
        "admin: {process_settings: perhaps}",
    ],
)
def test_wrong_settings_fail_schema_and_program(tmp_path: Path, text: str) -> None:
    assert both(text, tmp_path) == (True, True)


def test_every_setting_is_in_it() -> None:
    from gateway.config import schema

    text = json.dumps(SETTINGS.schema)
    assert not [path for path in key_paths(schema.SETTINGS) if f'"{path[-1]}"' not in text]


# --- where they come to people ---------------------------------------------------------------


def test_init_names_them_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path)]) == 0
    config, models = tmp_path / "conf/gateway.yaml", tmp_path / "data/models.json"
    first = config.read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=gateway.schema.json"
    named = json.loads(models.read_text())["$schema"]
    for file, beside in ((models, named), (config, first.partition("=")[2])):
        schema = json.loads((file.parent / beside).read_text())
        Draft202012Validator(schema).validate(yaml.safe_load(file.read_text()))
    assert main(["check", "--config", str(config)]) == 0
    assert main(["models", "--config", str(config)]) == 0
    assert "$schema" not in capsys.readouterr().out
    # Again, after an update: what people wrote stays, the schemas are those of this version.
    (models.parent / named).write_text("{}")
    models.write_text("{}")
    assert main(["init", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"kept   {models}" in out
    assert f"wrote  {models.parent / named}" in out
    assert (models.parent / named).read_bytes() == json_schemas.read("models.json")


async def test_they_are_served_to_who_has_a_key(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    models = {"$schema": "models.schema.json", "a": fake_model(tmp_path)}
    async with make_gateway(models) as running:
        assert running.gateway.ring is not None
        _, key = await running.gateway.ring.create("phone", "")
        for name, schema in json_schemas.made().items():
            async with running.request("GET", f"/schemas/{name}", key=key) as response:
                assert response.status == 200
                assert response.content_type == "application/schema+json"
                assert await response.json(content_type=None) == schema
            assert (await running.json("GET", f"/schemas/{name}", key=None))[0] == 401
        for name in ("other.json", "..%2Fconfig.py", "models"):
            with subtests.test(f"{name!r:.80}"):
                assert (await running.json("GET", f"/schemas/{name}"))[0] == 404
        assert await running.json("GET", "/models") == (200, ["a"])
        assert (await running.json("GET", "/admin/models/$schema"))[0] == 404
        assert (await running.json("DELETE", "/admin/models/$schema"))[0] == 404
