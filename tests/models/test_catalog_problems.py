"""models.json: every way in which it can be wrong."""

import json
import re
from typing import Any

import pytest

from gateway.models.catalog import parse_catalog, parse_partly
from gateway.problems import InvalidFiles
from tests.models.catalogs import one, problems_in, problems_of

# --- what is wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[]", "must be an object"),
        ('"text"', "must be an object"),
        ("[" * 100_000, "nested too deeply"),
        (
            '{"a": {"params": {"model": "x"}}, "a": {"params": {"model": "y"}}}',
            "'a' is given twice",
        ),
        ('{"a": {"params": {"model": "x", "seed": 1, "seed": 2}}}', "'seed' is given twice"),
    ],
)
def test_file_that_is_no_catalog_is_refused(text: str, says: str) -> None:
    assert says in problems_of(text)[""]


def test_every_problem_of_the_file_is_told_at_once() -> None:
    models = {
        "one": {"params": {"model": "x", "temprature": 1}, "ttl": "soon"},
        "two": {"params": {"model": "x", "ctxSize": -1, "topP": 2}, "template": "zephir"},
        "three": {"params": {}},
        "four": 5,
        "five": {"params": {"model": "x"}, "extraArgs": ["--host", "0.0.0.0"]},
        "": {"params": {"model": "x"}},
    }
    assert set(problems_of(models)) == {
        "one.params.temprature",
        "one.ttl",
        "two.params.ctxSize",
        "two.params.topP",
        "two.template",
        "three.params.model",
        "four",
        "five.extraArgs.0",
        "''",
    }


def test_a_problem_says_where_what_and_what_is_allowed() -> None:
    text = problems_in({"topP": 2})["params.topP"]
    assert text.startswith("models.json: m.params.topP: ")
    assert "(got 2)" in text
    assert text.endswith("allowed: a number from 0 to 1")


def test_an_unknown_key_is_told_with_the_known_ones() -> None:
    assert "ctxSize" in problems_in({"contextSize": 1})["params.contextSize"]
    text = problems_in(temperature=1)["temperature"]
    assert "unknown key" in text
    assert "extraArgs" in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", ""),
        ("model", 5),
        ("ctxSize", "big"),
        ("ctxSize", 1.5),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("repeatPenalty", float("inf")),
        ("threads", -2),
        ("gpuLayers", "all"),
        ("nPredict", -3),
        ("topK", -1),
        ("topP", 1.1),
        ("ignoreEOS", "perhaps"),
        ("reversePrompt", 5),
        ("seed", -2),
        # Python has any number, llama.cpp 32 bits, and JSON answers 64.
        ("ctxSize", 2**31),
        ("ctxSize", 10**20),
        ("keepPrompt", 2**31),
        ("seed", 2**32),
        ("numa", "everywhere"),
        ("batchSize", 0),
        ("keepPrompt", "all"),
        ("logitBias", {"15043": False}),
        ("logitBias", {"15043": float("inf")}),
        ("logitBias", {"hello": 1}),
        ("logitBias", ["15043-inf"]),
        ("logitBias", "15043"),
        ("logitBias", "hello+1"),
        ("logitBias", "15043+1 --host 0.0.0.0"),
    ],
)
def test_wrong_value_in_params_is_told_with_the_allowed_ones(key: str, value: Any) -> None:
    found = problems_in({key: value})
    assert set(found) == {f"params.{key}"}
    assert "allowed: " in found[f"params.{key}"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ttl", "soon"),
        ("ttl", -1),
        ("memory", "6 elephants"),
        ("memory", True),
        ("memory", 2**60),
        ("memory", "99999999999999GiB"),
        ("memory", "9" * 400 + "GiB"),
        ("ttl", "9" * 400),
        ("aliases", ["a\nb"]),
        ("aliases", [""]),
        ("parallel", 0),
        ("parallel", 257),
        ("nodes", ["attic", "ATTIC"]),
        ("nodes", ["attic.lan"]),
        ("nodes", "attic/CUDA0"),
        ("nodes", [""]),
        ("replicas", 0),
        ("replicas", 65),
        ("machines", 0),
        ("machines", 17),
        ("preload", "x"),
        ("personalities", ["teacher"]),
        ("aliases", 5),
        ("template", "zephir"),
        ("name", "other"),
        ("extraArgs", 5),
        ("params", []),
    ],
)
def test_wrong_value_beside_params_is_told_by_its_key(
    key: str, value: bool | int | list[str] | str
) -> None:
    with pytest.raises(InvalidFiles) as caught:
        parse_catalog(json.dumps({"m": {"params": {"model": "x"}} | {key: value}}))
    (problem,) = caught.value.problems
    assert problem.key in (f"m.{key}", f"m.{key}.0")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("replicas", 2),
        ("extraArgs", ["--tensor-split", "3,1"]),
        ("extraArgs", ["--n_gpu_layers=80"]),
        ("extraArgs", ["-ot", "exps=CPU"]),
        ("env", {"LLAMA_ARG_RPC": "10.0.0.1:50052"}),
    ],
)
def test_a_model_that_may_span_machines_is_divided_by_the_gateway(key: str, value: Any) -> None:
    parse_catalog(json.dumps({"m": {"params": {"model": "x"}, key: value}}))  # else it may
    found = problems_in(machines=2, **{key: value})
    assert set(found) == {key}
    assert "beside machines" in found[key]


@pytest.mark.parametrize("label", ["none", "None", " NONE ", "", " "])
def test_personality_that_could_never_be_chosen_is_refused(label: str) -> None:
    assert set(problems_in(personalities={label: "You are ..."})) == {f"personalities.{label}"}


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x00b", "a\x1b[31mb"])
def test_unprintable_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidFiles, match="printable"):
        parse_catalog(json.dumps({name: {"params": {"model": "x"}}}))


def test_aliases_that_clash_are_refused() -> None:
    models = {
        "a": {"params": {"model": "x"}, "aliases": ["small", "b"]},
        "b": {"params": {"model": "y"}, "aliases": ["small"]},
    }
    found = problems_of(models)
    assert "is the name of a model" in found["a.aliases"]
    assert "is an alias of a already" in found["b.aliases"]


# --- what the gateway keeps to itself ------------------------------------------------------

RESERVED = """
    --host --port --reuse-port --alias -a --model -m --model-url -mu --hf-repo -hf -hfr --hf-file
    -hff --docker-repo -dr --gpt-oss-20b-default --fim-qwen-7b-spec --embd-gemma-default
    --vision-gemma-4b-default --models-dir --models-preset --parallel -np --api-key --api-key-file
    --ssl-key-file --ssl-cert-file --api-prefix --path --media-path --tools --tools-runtime --agent
    -ag --mcp-servers-config --mcp-servers-json --ui-mcp-proxy --webui-mcp-proxy
    --log-prompts-dir
"""


@pytest.mark.parametrize("argument", RESERVED.split())
def test_argument_that_the_gateway_sets_is_refused(
    argument: Any, subtests: pytest.Subtests
) -> None:
    for written in ([argument, "x"], [f"{argument}=x"], ["-fa", "on", argument]):
        with subtests.test(f"{written!r:.80}"):
            (key,) = problems_in(extraArgs=written)
            assert key == f"extraArgs.{len(written) - 1 if written[0] == '-fa' else 0}"


def test_llama_cpp_reads_underscores_as_dashes() -> None:
    assert set(problems_in(extraArgs=["--api_key", "x"])) == {"extraArgs.0"}
    assert set(problems_in(extraArgs="--ssl_key_file=x")) == {"extraArgs.0"}


@pytest.mark.parametrize(
    "argument",
    """--no-agent --hf-token --hosts --ubatch-size -mg --spec-default --model-draft --models-x
    --no-ui -c --portable --alias-x""".split(),
)
def test_argument_that_only_looks_alike_is_taken(argument: Any) -> None:
    assert one(extraArgs=[argument, "1"]).extra_args == (argument, "1")


@pytest.mark.parametrize(
    "variable",
    """LLAMA_ARG_HOST LLAMA_ARG_PORT LLAMA_ARG_ALIAS LLAMA_ARG_MODEL LLAMA_ARG_HF_REPO
    LLAMA_ARG_API_PREFIX LLAMA_API_KEY LLAMA_ARG_API_KEY_FILE LLAMA_ARG_SSL_KEY_FILE
    LLAMA_ARG_TOOLS LLAMA_ARG_AGENT LLAMA_ARG_UI_MCP_PROXY LLAMA_ARG_WEBUI_MCP_PROXY
    LLAMA_ARG_MCP_SERVERS_JSON LLAMA_ARG_MODELS_DIR LLAMA_ARG_N_PARALLEL LLAMA_ARG_STATIC_PATH
    AIP_HTTP_PORT A=B""".split(),
)
def test_variable_that_the_gateway_sets_is_refused(variable: Any) -> None:
    assert set(problems_in(env={variable: "hunter2"})) == {f"env.{variable}"}
    assert "hunter2" not in problems_in(env={variable: "hunter2"})[f"env.{variable}"]


def test_a_variable_needs_a_text() -> None:
    assert set(problems_in(env={"OMP_NUM_THREADS": 4})) == {"env.OMP_NUM_THREADS"}


@pytest.mark.parametrize("key", ["model", "personality"])
def test_what_chooses_where_a_request_goes_cannot_be_shaped(key: str) -> None:
    assert set(problems_in(stripParams=["x", key])) == {"stripParams.1"}
    (problem,) = problems_in(setParams={key: "x"}).values()
    assert "chooses where the request goes" in problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"m": {"params": {},}}', "line 1, column 20: the comma behind the last entry must go"),
        ('{"m": ["a",\n ]}', "line 1, column 11: the comma behind the last entry must go"),
        ('{\n "m": {},\n}', "line 2, column 9: the comma behind the last entry must go"),
        ('{"m": {"params": {"model": "D:\\LLMs\\x"}}}', "a backslash in a text is written twice"),
        ("// mine\n{}", "line 1, column 1: a comment: JSON has none"),
        ("{'m': {}}", "texts and names stand in straight double quotes"),
        ("{\u201cm\u201d: {}}", "texts and names stand in straight double quotes"),
        ("{m: {}}", 'names stand in double quotes: "m"'),
        ('{"m": True}', "True is written true"),
        ('{"m": "a\nb"}', "a line break within a text is written \\n"),
        ('{"m": "a\tb"}', "a tab within a text is written \\t"),
        ('{"m": 1 "n": 2}', "line 1, column 9: a comma is missing before this"),
        ('{"m" {}}', "line 1, column 6: a colon is missing before this"),
        ('{"m": {"params": {"model": "x", "gpuLayers": "all"}}}', "must be a whole number (got"),
        ('{"m": {"params": {"model": ""}}}', "m.params.model: must not be empty"),
        ('{"m": {"params": {"model": "x"}, "personalities": []}}', "must be an object: names"),
        ('{"m": {"params": {"model": "x", "topP": 2}}}', "must be at most 1 (got 2)"),
        ('{"m": {"params": {"model": "x"}, "template": "mistal"}}', "did you mean 'mistral'?"),
        ('{"m": "a}', "a text has no end"),
        ('{"m": 1', "it ends too soon"),
        ("{} {}", "there is more behind the end"),
        (" \n", "it is empty"),
        ('{"m": {"params": {"model": "x", "ctxsize": 1}}}', "did you mean 'ctxSize'?"),
        (
            '{"m": {"params": {"model": "x", "aliases": []}}}',
            "it belongs beside 'params', not into",
        ),
        ('{"m": {"params": {"model": "x"}, "ctxSize": 1}}', "it belongs into 'params'"),
        ('{"m": {"params": {"model": "x"}, "personalites": {}}}', "did you mean 'personalities'?"),
        ('{"m": {"params": {"model": "x"}, "zzzz": {}}}', "m.zzzz: unknown key (got {}); allowed"),
    ],
)
def test_mistake_in_json_is_explained(text: str, words: str) -> None:
    with pytest.raises(InvalidFiles, match=re.escape(words)):
        parse_catalog(text)


def test_right_entries_beside_wrong_ones_are_read() -> None:
    text = json.dumps(
        {
            "m": {"params": {"model": "m.gguf", "ctxSize": "many"}, "parallel": 2, "ttl": []},
            "n": {"params": {"model": "n.gguf"}, "aliases": ["x"]},
            "wrong": [],
        }
    )
    catalog, problems = parse_partly(text)
    assert {p.key for p in problems} == {"m.params.ctxSize", "m.ttl", "wrong"}
    assert catalog.names == ["m", "n"]
    assert catalog.models["m"].file == "m.gguf"
    assert catalog.models["m"].parallel == 2
    assert catalog.aliases == {"x": "n"}
    with pytest.raises(InvalidFiles):
        parse_catalog(text)
