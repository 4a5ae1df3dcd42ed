"""Writes a model that says what it was made to say: a real one, for real llama-servers.

Each token has one dimension of its own, attention and feed-forward give nothing, and the output
matrix is a table: after this token comes that one. So what is said depends on the last token of
the prompt alone, which the chat template chooses:

- an answer, :data:`ANSWER`;
- :data:`THOUGHT` and then the answer, with ``"chat_template_kwargs": {"think": true}``;
- with tools in the request, a call of ``weather`` for :data:`CITY`;
- when a tool has answered, :data:`REPORT`.

After a prompt without template it says the answer, and it fills a gap (/infill) with
:data:`FILLING`. What is a thought, a call or an answer, llama-server finds out from the template,
as with any model. (``"tool_choice": "required"`` aborts it: the grammar then wants another text.)
"""

from __future__ import annotations

import array
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.gguf_file import Kind, Tensor, Token, entry, write_gguf
from tests.tiny_model import BASIC_TOKENS, llama_metadata

CITY = {"city": "Cairo"}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}

_THOUGHT = ("What", " would", " a", " parrot", " say?")
_ANSWER = ("Hello", " from", " the", " river", " Nile.")
_REPORT = ("It", " is", " hot", " and", " dry.")
_FILLING = ("return", " nothing")
_CALL = (
    *("<tool_call>\n", '{"name": "weather", ', '"arguments": '),
    *(json.dumps(CITY), "}\n", "</tool_call>"),
)
THOUGHT, ANSWER, REPORT, FILLING = map("".join, (_THOUGHT, _ANSWER, _REPORT, _FILLING))

#: What a prompt ends with -> what follows.
_SCRIPTS = {
    "<|say|>": _ANSWER,
    "<|call|>": _CALL,
    "<|report|>": _REPORT,
    "<|middle|>": _FILLING,
    "<think>": (*_THOUGHT, "</think>\n\n", *_ANSWER),
}
_END, _LEARNT = 2, 40.0
_WIDTH, _INNER = 384, 32
_TEMPLATE = """\
{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif %}
{%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.reasoning_content %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content or '' }}{% for call in m.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}
{%- if messages[-1].role == 'tool' %}<|im_start|>assistant<|report|>
{%- elif tools %}<|im_start|>assistant<|call|>
{%- elif think is defined %}<|im_start|>assistant<think>
{%- else %}<|im_start|>assistant<|say|>{% endif %}{% endif %}
"""
_MARKERS = (*_SCRIPTS, "<|prefix|>", "<|suffix|>")
_PIECES = tuple(dict.fromkeys(piece for script in _SCRIPTS.values() for piece in script))
_TOKENS = (
    *BASIC_TOKENS,
    *((marker, Token.CONTROL) for marker in _MARKERS),
    *((piece.replace(" ", "\u2581"), Token.NORMAL) for piece in _PIECES),
)
_IDS = {text: number for number, text in enumerate((*_MARKERS, *_PIECES), len(BASIC_TOKENS))}


def write_parrot_model(file: Path) -> None:
    """Write the model, of 4 MB."""
    metadata = [*llama_metadata("parrot", _TOKENS, _TEMPLATE, _WIDTH, _INNER, 1, 4)]
    for key, marker in {"pre": "<|prefix|>", "suf": "<|suffix|>", "mid": "<|middle|>"}.items():
        metadata.append(entry(f"tokenizer.ggml.fim_{key}_token_id", Kind.U32, _IDS[marker]))
    write_gguf(file, metadata, list(_tensors()))


def _successors() -> dict[int, int]:
    """Token -> the one that comes after it."""
    after = dict.fromkeys(range(len(_TOKENS)), _IDS[_ANSWER[0]])
    for marker, script in _SCRIPTS.items():
        chain = [_IDS[marker], *(_IDS[piece] for piece in script), _END]
        after |= dict(itertools.pairwise(chain))
    return after


def _tensors() -> Iterator[Tensor]:
    scale = _WIDTH**0.5  # so that the norm of a row is as the normalisation makes it
    yield _table("token_embd", {token: [token] for token in range(len(_TOKENS))}, scale)
    befores: dict[int, list[int]] = {}
    for token, next_token in _successors().items():
        befores.setdefault(next_token, []).append(token)
    yield _table("output", befores, _LEARNT / scale)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        yield Tensor(f"{name}.weight", (_WIDTH,), array.array("f", [1.0] * _WIDTH).tobytes())
    for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
        yield _nothing(f"blk.0.{part}", _WIDTH, _WIDTH)
    yield _nothing("blk.0.ffn_gate", _WIDTH, _INNER)
    yield _nothing("blk.0.ffn_up", _WIDTH, _INNER)
    yield _nothing("blk.0.ffn_down", _INNER, _WIDTH)


def _table(name: str, columns_of: dict[int, list[int]], value: float) -> Tensor:
    """A row for each token, with ``value`` in some columns."""
    values = array.array("f", bytes(4 * _WIDTH * len(_TOKENS)))
    for row, columns in columns_of.items():
        for column in columns:
            values[row * _WIDTH + column] = value
    return Tensor(f"{name}.weight", (_WIDTH, len(_TOKENS)), values.tobytes())


def _nothing(name: str, columns: int, rows: int) -> Tensor:
    return Tensor(f"{name}.weight", (columns, rows), bytes(4 * columns * rows))
