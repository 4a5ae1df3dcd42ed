"""models.json: what loads, and what it means."""

import dataclasses
import json
from dataclasses import asdict

import pytest

from gateway.models.catalog import EMPTY, parse_catalog
from gateway.models.local_model import LocalModel
from gateway.models.personalities import Personality
from tests.harness import REPOSITORY
from tests.models.catalogs import one

#: The example of DESIGN.md, as its users have it.
EXAMPLE = r"""
{"Mistral-7b": {
   "params": {"model": "TheBloke\\Mistral-7B-Instruct-v0.2-GGUF\\mistral.Q4_K_M.gguf",
              "instruct": true, "temperature": 0.7, "gpuLayers": 80, "threads": 12,
              "ctxSize": 4096, "repeatPenalty": 1.1, "seed": 42, "nPredict": -1},
   "template": "zephyr",
   "personalities": {"geography teacher": "You will introduce yourself as ..."}}}
"""


# --- what loads ----------------------------------------------------------------------------


def test_the_example_loads_unchanged() -> None:
    catalog = parse_catalog(EXAMPLE)
    assert catalog.names == ["Mistral-7b"]
    (spec,) = catalog.ours
    assert spec.params.model == "TheBloke\\Mistral-7B-Instruct-v0.2-GGUF\\mistral.Q4_K_M.gguf"
    assert {name: value for name, value in asdict(spec.params).items() if value is not None} == {
        "model": "TheBloke\\Mistral-7B-Instruct-v0.2-GGUF\\mistral.Q4_K_M.gguf",
        "instruct": True,
        "temperature": 0.7,
        "gpu_layers": 80,
        "threads": 12,
        "ctx_size": 4096,
        "repeat_penalty": 1.1,
        "seed": 42,
        "n_predict": -1,
    }
    assert spec.template == "zephyr"
    (teacher,) = spec.personalities.items()
    assert teacher == (
        "geography teacher",
        Personality(prompt="You will introduce yourself as ..."),
    )
    assert (spec.name, spec.parallel, spec.preload, spec.pinned) == ("Mistral-7b", 1, False, False)


def test_byte_order_mark_is_ignored() -> None:
    assert parse_catalog("\ufeff" + EXAMPLE).names == ["Mistral-7b"]


def test_models_keep_the_order_of_the_file() -> None:
    entry = {"params": {"model": "m.gguf"}}
    assert parse_catalog(json.dumps({"b": entry, "a": entry, "c": entry})).names == ["b", "a", "c"]


def test_empty_object_has_no_models() -> None:
    assert parse_catalog("{}") == EMPTY


def test_the_file_we_ship_is_valid() -> None:
    text = (REPOSITORY / "data/models.json").read_text(encoding="utf-8")
    catalog = parse_catalog(text)
    assert catalog.names
    assert catalog.warnings == []


def test_every_parameter_of_the_contract_is_known() -> None:
    spec = one(
        params={
            "instruct": True,
            "interactive": True,
            "interactiveFirst": True,
            "ctxSize": 0,
            "temperature": 0,
            "repeatPenalty": 1,
            "promptFile": "p.txt",
            "threads": -1,
            "threadsBatch": 2,
            "promptCache": "c.bin",
            "keepPrompt": True,
            "gpuLayers": -1,
            "grammar": 'root ::= "a"',
            "grammarFile": "g.gbnf",
            "nPredict": -2,
            "reversePrompt": "User:",
            "inPrefix": " ",
            "inSuffix": "Bot:",
            "topK": 0,
            "topP": 1,
            "ignoreEOS": True,
            "randomPrompt": False,
            "logitBias": "15043+1",
            "seed": -1,
            "mlock": True,
            "noMmap": True,
            "numa": True,
            "batchSize": 512,
        }
    )
    assert None not in asdict(spec.params).values()
    assert spec.params.keep_prompt is True
    assert spec.params.reverse_prompt == ("User:",)


def test_new_keys_are_read() -> None:
    spec = one(
        aliases=["a", "b"],
        preload=True,
        pinned=True,
        ttl="10m",
        memory="6GiB",
        env={"CUDA_VISIBLE_DEVICES": "1", "LLAMA_ARG_FLASH_ATTN": "on"},
        extraArgs=["--cache-ram", "0", "-fa", "on"],
        mmproj="p.gguf",
        draftModel="d.gguf",
        embeddings=True,
        reranking=True,
        parallel=4,
        description="Good at cooking.",
    )
    assert spec.aliases == ("a", "b")
    assert (spec.ttl, spec.memory, spec.parallel) == (600.0, 6 * 2**30, 4)
    assert spec.extra_args == ("--cache-ram", "0", "-fa", "on")
    assert spec.env == {"CUDA_VISIBLE_DEVICES": "1", "LLAMA_ARG_FLASH_ATTN": "on"}


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("30s", 30), ("500ms", 0.5), ("5m", 300), ("12h", 43200), (90, 90), ("2", 2), (None, None)],
)
def test_durations_are_read_with_their_units(
    written: int | str | None, seconds: float | int | None
) -> None:
    assert one(ttl=written).ttl == seconds


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("6GiB", 6 * 2**30),
        ("8GB", 8 * 10**9),
        ("1.5g", 3 * 2**29),
        ("512 MiB", 2**29),
        (1024, 1024),
        (None, None),
    ],
)
def test_sizes_are_read_with_their_units(written: int | str | None, size: int | None) -> None:
    assert one(memory=written).memory == size


@pytest.mark.parametrize(
    ("written", "template"),
    [
        ("zephyr", "zephyr"),
        ("mistral", "mistral-v1"),
        ("mistral-v7", "mistral-v7"),
        ("", None),
        (None, None),
    ],
)
def test_template_names_are_those_of_llama_cpp(written: str | None, template: str | None) -> None:
    assert one(template=written).template == template


def test_one_text_may_stand_for_a_list() -> None:
    spec = one(aliases="a", extraArgs="--no-warmup", params={"reversePrompt": ["a", "b"]})
    assert spec.aliases == ("a",)
    assert spec.extra_args == ("--no-warmup",)
    assert spec.params.reverse_prompt == ("a", "b")


def test_aliases_lead_to_their_model() -> None:
    models = {
        "a": {"params": {"model": "x"}, "aliases": ["small", "fast"]},
        "b": {"params": {"model": "y"}, "aliases": ["large"]},
    }
    assert parse_catalog(json.dumps(models)).aliases == {"small": "a", "fast": "a", "large": "b"}


# --- options without effect ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("instruct", True, "chat template"),
        ("interactive", True, "never typed into"),
        ("interactiveFirst", True, "never typed into"),
        ("promptFile", "p.txt", "personality"),
        ("promptCache", "c.bin", "prompt cache"),
        ("inPrefix", " ", "chat template"),
        ("inSuffix", "Bot:", "chat template"),
        ("randomPrompt", True, "no longer"),
    ],
)
def test_an_option_without_effect_is_told_once_with_the_reason(
    key: str, value: bool | str, reason: str
) -> None:
    (warning,) = one("Some model", params={key: value}).warnings
    assert warning.startswith(f"Some model: {key} has no effect: ")
    assert reason in warning


@pytest.mark.parametrize("value", [False, None])
def test_an_option_that_is_off_is_not_worth_a_warning(value: bool | None) -> None:
    assert one(params={"instruct": value, "interactive": value}).warnings == ()


def test_warnings_of_all_models_are_told() -> None:
    entry = {"params": {"model": "m", "instruct": True}}
    warnings = parse_catalog(json.dumps({"a": entry, "b": entry})).warnings
    assert [warning.partition(":")[0] for warning in warnings] == ["a", "b"]


# --- what clients' bodies become -----------------------------------------------------------


def test_fields_that_shape_bodies_are_read() -> None:
    fixed = {"seed": 7, "chat_template_kwargs": {"enable_thinking": False}, "stop": ["x", None]}
    spec = one(setParams=fixed, stripParams="temperature")
    assert spec.set_params == fixed
    assert spec.strip_params == ("temperature",)
    assert one(stripParams=["a", "b"]).strip_params == ("a", "b")
    assert one().set_params == {}
    assert one().process_identity() == spec.process_identity(), "no process starts anew for it"


def test_a_model_may_be_for_some_machines_and_several_times() -> None:
    entry = {"params": {"model": "x"}, "nodes": ["Attic", "here"], "replicas": 2}
    spec = parse_catalog(json.dumps({"m": entry})).models["m"]
    assert isinstance(spec, LocalModel)
    assert (spec.nodes, spec.replicas) == (("attic", "here"), 2)
    plain = parse_catalog(json.dumps({"m": {"params": {"model": "x"}}})).models["m"]
    assert isinstance(plain, LocalModel)
    assert (plain.nodes, plain.replicas) == ((), 1)
    assert plain.machines == 1
    entry = {"params": {"model": "x"}, "nodes": ["attic"], "machines": 3}
    big = parse_catalog(json.dumps({"m": entry})).models["m"]
    assert isinstance(big, LocalModel)
    assert big.machines == 3
    assert big.warnings == (
        "m: machines has no effect: nodes names too few (here is none of them)",
    )
    assert dataclasses.replace(big, nodes=("attic", "here")).warnings == big.warnings
    assert dataclasses.replace(big, nodes=("attic", "cellar")).warnings == ()
    assert dataclasses.replace(big, nodes=()).warnings == ()
    # Where it may run is no reason to end it where it runs.
    assert spec.process_identity() == plain.process_identity()
