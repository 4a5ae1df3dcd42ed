"""JSON bodies in every dialect, with one to three fields that no decent client would send."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st

CHAT, EMBED, FAR = "chat", "embed", "far"  # models of the gateways under test: see box.py


@dataclass(frozen=True)
class Raw:
    """Text that goes into the JSON as it is, whether JSON or not."""

    text: str


def text_of(value: Any) -> str:
    """``value`` as JSON, with what is :class:`Raw` in it."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, list):
        return f"[{', '.join(map(text_of, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(k)}: {text_of(v)}' for k, v in value.items())}}}"
    return json.dumps(value)


def body_of(value: Any) -> bytes:
    return text_of(value).encode("utf-8", "surrogatepass")


# --- what is asked in which way --------------------------------------------------------------

_MESSAGES: Final = [{"role": "user", "content": "Say hi."}]
_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}

#: Path -> a body that is answered with 200.
GOOD: Final[Mapping[str, Mapping[str, Any]]] = {
    "/v1/chat/completions": {"model": CHAT, "messages": _MESSAGES, "max_tokens": 4},
    "/chat/completions": {"model": CHAT, "messages": _MESSAGES, "max_tokens": 4, "stream": True},
    "/v1/completions": {"model": CHAT, "prompt": "Once", "max_tokens": 4},
    "/completion": {"model": CHAT, "prompt": "Once", "n_predict": 4},
    "/completions": {"model": CHAT, "prompt": ["Once", [1, 2]], "n_predict": 4, "stream": True},
    "/v1/responses": {"model": CHAT, "input": "Say hi.", "max_output_tokens": 4},
    "/responses": {"model": CHAT, "input": [*_MESSAGES], "max_output_tokens": 4, "stream": True},
    "/v1/messages": {"model": CHAT, "messages": _MESSAGES, "max_tokens": 4},
    "/messages": {"model": CHAT, "messages": _MESSAGES, "max_tokens": 4, "stream": True},
    "/infill": {"model": CHAT, "input_prefix": "a", "input_suffix": "b", "n_predict": 4},
    "/v1/embeddings": {"model": EMBED, "input": ["a river", "a sea"]},
    "/embedding": {"model": EMBED, "content": "a river"},
    "/v1/rerank": {"model": EMBED, "query": "water", "documents": ["a river", "a stone"]},
    "/tokenize": {"model": CHAT, "content": "a river"},
    "/detokenize": {"model": CHAT, "tokens": [1, 2, 3]},
    "/apply-template": {"model": CHAT, "messages": _MESSAGES},
    "/v1/chat/completions/input_tokens": {"model": CHAT, "messages": _MESSAGES},
    "/v1/responses/input_tokens": {"model": CHAT, "input": "Say hi."},
    "/v1/messages/count_tokens": {"model": CHAT, "messages": _MESSAGES},
    "/chat/completions/control": {"model": CHAT, "id": "chatcmpl-x", "action": "stop"},
    "/v1/systemone": {"model": CHAT, "input": "x"},
    "/loadModel": {"model": CHAT, "personality": "poet"},
    "/models/load": {"model": CHAT},
}

#: Fields that llama-server, OpenAI or Anthropic know.
_FIELDS: Final = (
    "model messages prompt input content stream stop stop_sequences max_tokens n_predict "
    "max_completion_tokens max_output_tokens n temperature top_k top_p min_p typical_p seed "
    "logit_bias logprobs top_logprobs n_probs post_sampling_probs ignore_eos repeat_last_n "
    "repeat_penalty presence_penalty frequency_penalty dry_multiplier dry_base dry_penalty_last_n "
    "dry_allowed_length dry_sequence_breakers xtc_probability mirostat mirostat_tau dynatemp_range "
    "samplers min_keep n_keep n_discard n_indent t_max_predict_ms id_slot cache_prompt "
    "n_cache_reuse return_tokens return_progress timings_per_token response_fields lora grammar "
    "grammar_lazy grammar_triggers preserved_tokens json_schema response_format tools tool_choice "
    "parallel_tool_calls chat_template_kwargs reasoning_format reasoning_effort thinking "
    "add_generation_prompt stream_options user metadata store previous_response_id instructions "
    "system personality query documents top_n input_prefix input_suffix input_extra tokens "
    "encoding_format dimensions embd_normalize add_special parse_special with_pieces echo suffix "
    "best_of truncation include text modalities audio prediction service_tier id action"
).split()

_NUMBERS: Final = st.sampled_from(
    [
        *(0, -1, 1, 2, 100, 4096, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53 + 1, 2**63, -(2**63)),
        *(10**30, 0.0, -0.0, 0.5, -3.5, 1e-320, 1e308, -1e308),
        *(Raw("1e999"), Raw("9" * 400), Raw("-" + "9" * 5000), Raw("NaN"), Raw("-Infinity")),
        *(Raw("0." + "1" * 2000), Raw("01"), Raw("1E400"), Raw("0x10")),
    ]
)
_TEXTS: Final = st.one_of(
    st.sampled_from(
        [
            *("", "\0", "a\0b", "\ud800", "\udfff\ud800", "\uffff", "\U0010ffff", "\u202e"),
            *("<|im_start|>system\n", "<|im_end|>", "{{ 7 * 7 }}", "{% for x in range(10**9) %}"),
            *("../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1:1/", "data:;base64,"),
            *("data:image/png;base64,AAAA", "auto", "required", "none", "any", "json_object"),
            *(
                Raw('"\\ud800"'),
                Raw('"\\u0000"'),
                Raw('"\\x"'),
                Raw('"\x01"'),
                Raw('"'),
                Raw("'a'"),
            ),
            *("a" * 5000, "\u00e9" * 3000, "word " * 600, "\U0001f600" * 800, CHAT, EMBED, FAR),
        ]
    ),
    st.text(max_size=12),
)


@st.composite
def _deep(draw: st.DrawFn) -> Any:
    depth = draw(st.sampled_from([5, 60, 130, 600, 5_000, 100_000]))
    start, end = draw(st.sampled_from([("[", "]"), ('{"a":', "}"), ("[{}, ", "]"), ("[", "")]))
    middle = "1" if start.endswith(":") else ""
    return Raw(start * depth + (middle or "1") + end * depth)


@st.composite
def _many(draw: st.DrawFn) -> Any:
    count = draw(st.sampled_from([2, 17, 128, 1_000, 20_000]))
    item = draw(
        st.sampled_from(
            [
                *("a", "", 1, 0.5, None, [], {}, [1, -1e9], ["a", 2], _MESSAGES[0], _TOOL),
                {"type": "text", "text": "a"},
                {"role": "assistant", "content": "a"},
                {"role": "tool", "content": "a", "tool_call_id": "x"},
                {"type": "function_call_output", "call_id": "x", "output": "y"},
            ]
        )
    )
    return [item] * count


@st.composite
def grammars(draw: st.DrawFn) -> str:
    """GBNF: good, bad, big, deep and dear ones."""
    count = draw(st.sampled_from([1, 3, 20, 400, 3000]))
    return draw(
        st.sampled_from(
            [
                "root ::= [a-z ]+",
                f'root ::= {chr(40)}"a"|"b"{chr(41)}*',
                "root ::= " + '("a"|"a")?' * count,
                "root ::= " + "(" * count + '"a"' + ")" * count,
                "root ::= " + "(" * count,
                f'root ::= "a"{{{count}}}',
                f'root ::= ("a"{{0,{count}}}){{0,{count}}}',
                f"root ::= [a-z]{{{count},}}",
                "root ::= root",
                "root ::= a\na ::= b\nb ::= a",
                'root ::= root "a" | "a"',
                'root ::= ""*',
                'root ::= ("")*',
                "root ::= nowhere",
                "\n".join(f"r{i} ::= r{i + 1} r{i + 1}" for i in range(count))
                + f'\nr{count} ::= "a"\nroot ::= r0',
                "root ::= [\\U00110000-\\UFFFFFFFF]",
                'root ::= "\\xZZ"',
                "root ::= [z-a]",
                "root ::= [^\\x00-\\U0010FFFF]",
                'root ::= "a"{99999999999999999999}',
                'root ::= "a"{5,2}',
                "root ::= " + "|".join(f'"{i}"' for i in range(count)),
                "ro\0ot ::= 1",
                "root ::= <[1]> | !<[2]>",
                "root ::= .",
            ]
        )
    )


@st.composite
def schemas(draw: st.DrawFn) -> Any:
    """JSON Schemas, of which llama-server makes grammars."""
    count = draw(st.sampled_from([1, 10, 200, 3000]))
    deep: Any = {"type": "string"}
    for _ in range(min(count, 200)):
        deep = {"type": "object", "properties": {"a": deep}, "required": ["a"]}
    return draw(
        st.sampled_from(
            [
                {},
                True,
                [],
                {"type": "object"},
                {"type": "nothing"},
                {"type": []},
                {"$ref": "#"},
                {"$ref": "#/definitions/none"},
                {"$ref": "https://127.0.0.1:1/schema.json"},
                {"type": "array", "items": {"$ref": "#"}},
                {"type": "string", "pattern": "^" + "(a|a)?" * count + "$"},
                {"type": "string", "pattern": "^" + "(" * count + "a" + ")" * count + "$"},
                {"type": "string", "pattern": "["},
                {"type": "string", "minLength": count, "maxLength": count},
                {"type": "string", "minLength": -5},
                {"type": "string", "maxLength": 10**12},
                {"type": "array", "items": {"type": "null"}, "minItems": count},
                {"type": "integer", "minimum": -(10**18), "maximum": 10**18},
                {"type": "integer", "minimum": 5, "maximum": 1},
                {"enum": [f"v{i}" for i in range(count)]},
                {"enum": []},
                {"const": {"a": [None]}},
                {"anyOf": [{"type": "string"}] * count},
                {"allOf": [{"properties": {f"p{i}": {}}} for i in range(count)]},
                {"properties": {f"p{i}": {"type": "string"} for i in range(min(count, 200))}},
                {"type": "string", "format": "date-time"},
                deep,
            ]
        )
    )


_TOOLS: Final = schemas().map(
    lambda schema: [{"type": "function", "function": {"name": "f", "parameters": schema}}]
)
_FORMATS: Final = schemas().map(
    lambda schema: {"type": "json_schema", "json_schema": {"schema": schema}}
)
_CONTENT: Final = st.sampled_from(
    [
        [{"type": "text", "text": "a"}, {"type": "nothing"}],
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
        [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/a.png"}}],
        [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}],
        [{"type": "image", "source": {"type": "base64", "data": "AAAA"}}],
        [{"type": "tool_result", "tool_use_id": "x", "content": [{"type": "text"}]}],
        [{"type": "tool_use", "id": "x", "name": "f", "input": 1}],
        {"prompt_string": "a <__media__>", "multimodal_data": ["AAAA"]},
        [[], {}],
        [None],
    ]
)
_ANY: Final = st.one_of(
    _NUMBERS,
    _TEXTS,
    st.sampled_from([None, True, False, [], {}, [[]], [{}], [None], {"": None}]),
    _deep(),
    _many(),
    _CONTENT,
    st.recursive(
        st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=6,
    ),
)
#: What a field is likelier to be given: values near to what it takes get further.
_LIKELY: Final[Mapping[str, st.SearchStrategy[Any]]] = {
    "grammar": grammars(),
    "json_schema": schemas(),
    "response_format": _FORMATS,
    "text": _FORMATS.map(lambda f: {"format": {**f["json_schema"], "type": "json_schema"}}),
    "tools": _TOOLS,
    "tool_choice": st.sampled_from(["required", "auto", "none", {"type": "any"}, {"name": "f"}]),
    "samplers": st.sampled_from(["", ";;;", "kkkkk" * 1000, ["top_k"] * 1000, ["nothing"], [1]]),
    "logit_bias": st.sampled_from(
        [
            *([[1, False]], [["a", -1e9]], {"1": 1e308}, {"-5": 1}, {"99999999999": 1}),
            [[i, 1] for i in range(20_000)],
            {str(i): -100 for i in range(3000)},
        ]
    ),
    "stop": st.sampled_from(["", [""], ["a"] * 5000, ["\0"], ["b" * 100_000], [1]]),
    "lora": st.sampled_from([[{"id": 0, "scale": 1}], [{"id": -1}], [{}], [{"id": 10**9}]]),
    "dry_sequence_breakers": st.sampled_from([[], [""], ["a"] * 5000, ["b" * 50_000], [1]]),
    "grammar_triggers": st.sampled_from([[{"type": 2, "value": "("}], [{}], [{"type": 9}]]),
    "response_fields": st.sampled_from([["content"], ["a/b/c"], [""], ["timings"] * 1000]),
    "model": st.sampled_from([CHAT, EMBED, FAR, "chat:poet", "none such", "NotNeeded", ""]),
    "tokens": st.sampled_from([[-1], [10**9], [2**31], [1] * 50_000, ["a"], [[1]], []]),
    "documents": st.sampled_from([[], [""], ["a " * 3000], [{"text": "a"}], ["a"] * 500, [1]]),
}


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a body."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield (*at, key)
        yield from _places(inner, (*at, key))


def _with(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    key, *rest = place
    if isinstance(value, list):
        return [_with(v, tuple(rest), new) if i == key else v for i, v in enumerate(value)]
    if isinstance(value, dict):
        return {**value, key: _with(value.get(key), tuple(rest), new)}
    return value


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """A path, and a body for it that is not quite as it should be."""
    path = draw(st.sampled_from(sorted(GOOD)))
    body: Any = dict(GOOD[path])
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.integers(0, 3)):
            field = draw(st.sampled_from(sorted(_LIKELY) * 3 + _FIELDS))
            values = _LIKELY.get(field, _NUMBERS) if draw(st.integers(0, 2)) else _ANY
            body = _with(body, (field,), draw(values))
        else:
            body = _with(body, draw(st.sampled_from([*_places(body)])), draw(_ANY))
    if draw(st.integers(0, 4)) == 0 and isinstance(body, dict):
        body["model"] = FAR
    data = body_of(body)
    match draw(st.integers(0, 40)):
        case 0:
            data = data.replace(b"{", b'{"model": "chat", ', 1)  # given twice
        case 1:
            data = data[: draw(st.integers(0, len(data)))]
        case 2:
            data = "\ufeff".encode() + data
        case 3:
            data = data.decode("utf-8", "replace").encode("utf-16")
        case 4:
            data = data.replace(b"a", draw(st.binary(min_size=1, max_size=3)))
        case 5:
            data = draw(st.binary(max_size=40))
    return path, data
