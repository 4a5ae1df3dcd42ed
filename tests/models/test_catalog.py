"""models.json: what loads, what it means, and every way in which it can be wrong."""

import json
import re

import pytest

from gateway.models.catalog import EMPTY, ModelSpec, parse_catalog, parse_partly
from gateway.models.personalities import Personality
from gateway.validation import InvalidFiles
from tests.harness import REPOSITORY

#: The example of DESIGN.md, as its users have it.
EXAMPLE = r"""
{"Mistral-7b": {
   "params": {"model": "TheBloke\\Mistral-7B-Instruct-v0.2-GGUF\\mistral.Q4_K_M.gguf",
              "instruct": true, "temperature": 0.7, "gpuLayers": 80, "threads": 12,
              "ctxSize": 4096, "repeatPenalty": 1.1, "seed": 42, "nPredict": -1},
   "template": "zephyr",
   "personalities": {"geography teacher": "You will introduce yourself as ..."}}}
"""


def one(name: str = "m", params: dict | None = None, **beside: object) -> ModelSpec:
    entry = {"params": {"model": "m.gguf", **(params or {})}, **beside}
    return parse_catalog(json.dumps({name: entry})).models[name]


def problems_of(text: object) -> dict[str, str]:
    """Key -> problem, of a models.json given as text or as an object."""
    with pytest.raises(InvalidFiles) as caught:
        parse_catalog(text if isinstance(text, str) else json.dumps(text))
    found = {problem.key: str(problem) for problem in caught.value.problems}
    assert len(found) == len(caught.value.problems)
    return found


def problems_in(params: dict | None = None, **beside: object) -> dict[str, str]:
    """The same for one entry with these params and other keys; keys without the model's name."""
    entry = {"params": {"model": "m.gguf", **(params or {})}, **beside}
    return {key.removeprefix("m."): text for key, text in problems_of({"m": entry}).items()}


# --- what loads ----------------------------------------------------------------------------


def test_the_example_loads_unchanged():
    catalog = parse_catalog(EXAMPLE)
    assert catalog.names == ["Mistral-7b"]
    spec = catalog.models["Mistral-7b"]
    assert spec.params.model == "TheBloke\\Mistral-7B-Instruct-v0.2-GGUF\\mistral.Q4_K_M.gguf"
    assert spec.params.model_dump(exclude_none=True, exclude={"model"}) == {
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


def test_a_byte_order_mark_as_windows_editors_write_it():
    assert parse_catalog("\ufeff" + EXAMPLE).names == ["Mistral-7b"]


def test_models_keep_the_order_of_the_file():
    entry = {"params": {"model": "m.gguf"}}
    assert parse_catalog(json.dumps({"b": entry, "a": entry, "c": entry})).names == ["b", "a", "c"]


def test_no_models_at_all():
    assert parse_catalog("{}") == EMPTY


def test_the_file_we_ship_is_valid():
    text = (REPOSITORY / "data/models.json").read_text(encoding="utf-8")
    catalog = parse_catalog(text)
    assert catalog.names
    assert catalog.warnings == []


def test_every_parameter_of_the_contract_is_known():
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
    assert None not in spec.params.model_dump().values()
    assert spec.params.keep_prompt is True
    assert spec.params.reverse_prompt == ("User:",)


def test_the_new_keys():
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
def test_durations(written, seconds):
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
def test_sizes(written, size):
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
def test_templates(written, template):
    assert one(template=written).template == template


def test_one_text_where_a_list_may_stand():
    spec = one(aliases="a", extraArgs="--no-warmup", params={"reversePrompt": ["a", "b"]})
    assert spec.aliases == ("a",)
    assert spec.extra_args == ("--no-warmup",)
    assert spec.params.reverse_prompt == ("a", "b")


def test_aliases_lead_to_their_model():
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
def test_an_option_without_effect_is_told_once_with_the_reason(key, value, reason):
    (warning,) = one("Some model", params={key: value}).warnings
    assert warning.startswith(f"Some model: {key} has no effect: ")
    assert reason in warning


@pytest.mark.parametrize("value", [False, None])
def test_an_option_that_is_off_is_not_worth_a_warning(value):
    assert one(params={"instruct": value, "interactive": value}).warnings == ()


def test_warnings_of_all_models():
    entry = {"params": {"model": "m", "instruct": True}}
    warnings = parse_catalog(json.dumps({"a": entry, "b": entry})).warnings
    assert [warning.partition(":")[0] for warning in warnings] == ["a", "b"]


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
def test_files_that_are_no_catalog(text, says):
    assert says in problems_of(text)[""]


def test_every_problem_of_the_file_is_told_at_once():
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


def test_a_problem_says_where_what_and_what_is_allowed():
    text = problems_in({"topP": 2})["params.topP"]
    assert text.startswith("models.json: m.params.topP: ")
    assert "(got 2)" in text
    assert text.endswith("allowed: a number from 0 to 1")


def test_an_unknown_key_is_told_with_the_known_ones():
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
def test_values_that_are_not_allowed(key, value):
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
        ("preload", "x"),
        ("personalities", ["teacher"]),
        ("aliases", 5),
        ("template", "zephir"),
        ("name", "other"),
        ("extraArgs", 5),
        ("params", []),
    ],
)
def test_values_beside_params_that_are_not_allowed(key, value):
    with pytest.raises(InvalidFiles) as caught:
        parse_catalog(json.dumps({"m": {"params": {"model": "x"}} | {key: value}}))
    (problem,) = caught.value.problems
    assert problem.key in (f"m.{key}", f"m.{key}.0")


@pytest.mark.parametrize("label", ["none", "None", " NONE ", "", " "])
def test_a_personality_that_could_never_be_chosen(label):
    assert set(problems_in(personalities={label: "You are ..."})) == {f"personalities.{label}"}


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x00b", "a\x1b[31mb"])
def test_names_that_would_break_a_header_or_a_terminal(name):
    with pytest.raises(InvalidFiles, match="printable"):
        parse_catalog(json.dumps({name: {"params": {"model": "x"}}}))


def test_aliases_that_clash():
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
def test_arguments_that_are_not_the_users(argument):
    for written in ([argument, "x"], [f"{argument}=x"], ["-fa", "on", argument]):
        (key,) = problems_in(extraArgs=written)
        assert key == f"extraArgs.{len(written) - 1 if written[0] == '-fa' else 0}"


def test_llama_cpp_reads_underscores_as_dashes():
    assert set(problems_in(extraArgs=["--api_key", "x"])) == {"extraArgs.0"}
    assert set(problems_in(extraArgs="--ssl_key_file=x")) == {"extraArgs.0"}


@pytest.mark.parametrize(
    "argument",
    """--no-agent --hf-token --hosts --ubatch-size -mg --spec-default --model-draft --models-x
    --no-ui -c --portable --alias-x""".split(),
)
def test_arguments_that_only_look_alike(argument):
    assert one(extraArgs=[argument, "1"]).extra_args == (argument, "1")


@pytest.mark.parametrize(
    "variable",
    """LLAMA_ARG_HOST LLAMA_ARG_PORT LLAMA_ARG_ALIAS LLAMA_ARG_MODEL LLAMA_ARG_HF_REPO
    LLAMA_ARG_API_PREFIX LLAMA_API_KEY LLAMA_ARG_API_KEY_FILE LLAMA_ARG_SSL_KEY_FILE
    LLAMA_ARG_TOOLS LLAMA_ARG_AGENT LLAMA_ARG_UI_MCP_PROXY LLAMA_ARG_WEBUI_MCP_PROXY
    LLAMA_ARG_MCP_SERVERS_JSON LLAMA_ARG_MODELS_DIR LLAMA_ARG_N_PARALLEL LLAMA_ARG_STATIC_PATH
    AIP_HTTP_PORT A=B""".split(),
)
def test_variables_that_are_not_the_users(variable):
    assert set(problems_in(env={variable: "hunter2"})) == {f"env.{variable}"}
    assert "hunter2" not in problems_in(env={variable: "hunter2"})[f"env.{variable}"]


def test_a_variable_needs_a_text():
    assert set(problems_in(env={"OMP_NUM_THREADS": 4})) == {"env.OMP_NUM_THREADS"}


# --- what clients' bodies become -----------------------------------------------------------


def test_shaping_of_bodies():
    fixed = {"seed": 7, "chat_template_kwargs": {"enable_thinking": False}, "stop": ["x", None]}
    spec = one(setParams=fixed, stripParams="temperature")
    assert spec.set_params == fixed
    assert spec.strip_params == ("temperature",)
    assert one(stripParams=["a", "b"]).strip_params == ("a", "b")
    assert one().set_params == {}
    assert one().process_identity() == spec.process_identity(), "no process starts anew for it"


@pytest.mark.parametrize("key", ["model", "personality"])
def test_what_chooses_where_a_request_goes_cannot_be_shaped(key: str):
    assert set(problems_in(stripParams=["x", key])) == {"stripParams.1"}
    (problem,) = problems_in(setParams={key: "x"}).values()
    assert "chooses where the request goes" in problem


# --- models elsewhere ----------------------------------------------------------------------


def elsewhere(**entry: object) -> ModelSpec:
    return parse_catalog(json.dumps({"m": entry})).models["m"]


def problems_elsewhere(**entry: object) -> dict[str, str]:
    found = problems_of({"m": {"url": "http://box", **entry}})
    return {key.removeprefix("m."): text for key, text in found.items()}


def test_a_model_elsewhere():
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


def test_what_a_model_elsewhere_need_not_say():
    spec = elsewhere(url="http://127.0.0.1:8081")
    assert (spec.sent_as, spec.parallel, spec.timeout, spec.key) == ("m", 64, 600, None)
    assert elsewhere(url="http://box", parallel=3).parallel == 3
    assert one().sent_as is None


def test_a_key_that_travels_in_the_open_is_warned_about():
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
def test_what_cannot_be_said_of_a_model_elsewhere(key, value, says):
    field = key.partition(".")[0]
    problems = problems_elsewhere(**{field: value})
    expected = "params.model" if value == [] else key
    assert list(problems) == [expected]
    assert says in problems[expected]
    assert "two words" not in problems[expected]


def test_a_password_in_an_address_is_not_repeated():
    (problem,) = problems_elsewhere(url="https://me:s3cret@box/v1").values()
    assert "no user and password" in problem
    assert "s3cret" not in problem


@pytest.mark.parametrize(
    ("key", "value"),
    [("key", "sk-1"), ("modelName", "x"), ("caFile", "/ca.pem"), ("timeout", "1m")],
)
def test_what_only_a_model_elsewhere_has(key, value):
    assert problems_in(**{key: value}) == {
        key: f"models.json: m.{key}: is only for models with url"
    }


def test_everything_wrong_with_a_model_elsewhere_is_told_at_once():
    wrong = problems_elsewhere(env={"A": "b"}, template="zephyr", params={"topK": 1, "seed": 2})
    assert set(wrong) == {"env", "template", "params.topK", "params.seed"}


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
def test_what_is_meant(text: str, words: str) -> None:
    with pytest.raises(InvalidFiles, match=re.escape(words)):
        parse_catalog(text)


def test_what_is_right_beside_what_is_wrong() -> None:
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
    assert catalog.models["m"].params.model == "m.gguf"
    assert catalog.models["m"].parallel == 2
    assert catalog.aliases == {"x": "n"}
    with pytest.raises(InvalidFiles):
        parse_catalog(text)
