"""Requests of every kind, as hypothesis strategies."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlencode

from hypothesis import strategies as st

from tests.fuzz.bodies import CHAT, EMBED, FAR, GOOD, bodies, body_of, grammars
from tests.fuzz.body_attacks import forms, packed
from tests.fuzz.heads import DOORS, JSON, MANNERS, ROLES, Requests, head, key_of
from tests.fuzz.http_attacks import targets, wires
from tests.fuzz.sending import Manner, Request


@st.composite
def dialects(draw: st.DrawFn) -> Request:
    """A body in a dialect, with something strange in it."""
    path, body = draw(bodies())
    lines = [key_of(draw(ROLES)), JSON]
    if draw(st.integers(0, 15)) == 0:
        lines[1] = draw(st.sampled_from(["X-A: b", "Content-Type: text/plain", JSON + "; a=\xff"]))
    if draw(st.integers(0, 7)) == 0:
        path = draw(st.sampled_from([f"/upstream/chat{path}", f"/v1{path}", f"{path}?model=embed"]))
    before = head("POST", path, *lines, length=len(body))
    return Request("dialect", draw(DOORS), before, body, draw(MANNERS))


# --- what has been found before --------------------------------------------------------------


def _chat(**fields: Any) -> bytes:
    return body_of({**GOOD["/v1/chat/completions"], **fields})


_CLASSICS: Final[dict[str, Callable[[], tuple[str, bytes]]]] = {
    "a group 400 times": lambda: (
        "/v1/chat/completions",
        _chat(grammar="root ::= " + '("a"|"a")?' * 400, max_tokens=100),
    ),
    "400 KB of parentheses": lambda: (
        "/v1/chat/completions",
        _chat(grammar="root ::= " + "(" * 200_000 + '"a"' + ")" * 200_000),
    ),
    "57 MB of lists": lambda: (
        "/v1/chat/completions",
        b'{"model": "chat", "x": [' + b"[]," * 19_000_000 + b"[]]}",
    ),
    "57 MB of lists, no JSON": lambda: ("/tokenize", b"[" + b"[]," * 19_000_000),
    "40 MB of brackets": lambda: ("/v1/embeddings", b"[" * 40_000_000),
    "30 MB of short keys": lambda: (
        "/completion",
        b"{" + b",".join(b'"%d":0' % i for i in range(2_500_000)) + b"}",
    ),
    "60 MB of one text": lambda: (
        "/tokenize",
        b'{"model": "chat", "content": "' + b"a" * 60_000_000 + b'"}',
    ),
    "20 MB of escapes": lambda: (
        "/v1/responses",
        b'{"model": "chat", "input": "' + b"\\u00e9" * 3_300_000 + b'"}',
    ),
    "2 MB for the tokenizer": lambda: (
        "/tokenize",
        b'{"model": "chat", "content": "' + b"a b " * 500_000 + b'"}',
    ),
    "windows without end": lambda: (
        "/completion",
        body_of(
            {
                "model": CHAT,
                "prompt": "a",
                "repeat_last_n": 2**31 - 1,
                "dry_penalty_last_n": 2**31 - 1,
                "dry_multiplier": 1,
                "n_predict": 4,
            }
        ),
    ),
    "probabilities of everything": lambda: (
        "/completion",
        body_of({"model": CHAT, "prompt": "a", "n_probs": 10**9, "n_predict": 64}),
    ),
    "no end": lambda: (
        "/completion",
        body_of({"model": CHAT, "prompt": "a", "n_predict": -1, "ignore_eos": True}),
    ),
    "many answers": lambda: ("/v1/chat/completions", _chat(n=10_000)),
    "many prompts": lambda: (
        "/v1/completions",
        body_of({"model": CHAT, "prompt": ["a"] * 50_000, "max_tokens": 1}),
    ),
    "a model named twice": lambda: (
        "/v1/chat/completions",
        b'{"model": "chat", "model": "embed", "messages": []}',
    ),
    "a schema that repeats": lambda: (
        "/v1/chat/completions",
        _chat(json_schema={"type": "string", "minLength": 100_000}),
    ),
    "a schema deep as the sea": lambda: (
        "/completion",
        b'{"model": "chat", "prompt": "a", "json_schema": '
        + b'{"items":' * 400
        + b"{}"
        + b"}" * 401,
    ),
}


@st.composite
def classics(draw: st.DrawFn) -> Request:
    """Those that have been somebody's evil day."""
    path, body = _CLASSICS[draw(st.sampled_from(sorted(_CLASSICS)))]()
    before = head("POST", path, key_of(draw(ROLES)), JSON, length=len(body))
    return Request("classic", draw(DOORS), before, body, draw(MANNERS))


@st.composite
def constrained(draw: st.DrawFn) -> Request:
    """A grammar, in each way to give one."""
    grammar = draw(grammars())
    path = draw(
        st.sampled_from(
            ["/v1/chat/completions", "/completion", "/infill", "/v1/messages", "/responses"]
        )
    )
    body = body_of({**GOOD[path], "grammar": grammar, "stream": draw(st.booleans())})
    before = head("POST", path, key_of("chat"), JSON, length=len(body))
    return Request("grammar", draw(DOORS), before, body, draw(MANNERS))


# --- what the OpenAPI document allows --------------------------------------------------------


def documented(document: dict[str, Any]) -> Requests:
    """What schemathesis makes of the gateway's own document, on every route of it."""
    import schemathesis  # takes a second

    schema = schemathesis.openapi.from_dict(document)
    found: list[Any] = list(schema.get_all_operations())
    operations = [one.ok() for one in found]

    @st.composite
    def request(draw: st.DrawFn) -> Request:
        operation = draw(st.sampled_from(operations))
        case = draw(operation.as_strategy())
        options = case.as_transport_kwargs(base_url="http://127.0.0.1")
        body = options.get("json")
        model = draw(st.sampled_from([CHAT, CHAT, EMBED, FAR, "none such"]))
        if isinstance(body, dict) and "model" in body:
            body = {**body, "model": model}
        data = b"" if body is None else json.dumps(body).encode()
        path = re.sub(r"^https?://[^/]*", "", options["url"])
        query = {**(options.get("params") or {})}
        if "model" in query:
            query["model"] = model
        if query:
            path += "?" + urlencode(query, doseq=True, errors="surrogatepass")
        path = re.sub(r"[\x00-\x20\x7f-\uffff]", "%20", path)
        lines = [key_of(draw(st.sampled_from(["chat", "chat", "admin", "limited"])))]
        lines += [JSON] if data else []
        return Request(
            "documented",
            draw(DOORS),
            head(case.method, path, *lines, length=len(data)),
            data,
            Manner(),
        )

    return request()


def everything(document: dict[str, Any]) -> dict[str, Requests]:
    """The strategies by their names, as often as each comes."""
    return {
        "dialect": dialects(),
        "documented": documented(document),
        "wire": wires(),
        "dialect again": dialects(),
        "grammar": constrained(),
        "target": targets(),
        "form": forms(),
        "packed": packed(),
        "classic": classics(),
    }
