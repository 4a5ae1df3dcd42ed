"""Which model and personality a name means."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from gateway.errors import BadRequest, ModelNotFound
from gateway.models.catalog import parse_catalog
from gateway.proxy.resolve import Active, Resolver

MODELS = {
    "m": {
        "params": {"model": "x.gguf", "logitBias": "15-1"},
        "personalities": {"pirate": "Arr.", "a:b": "Odd."},
        "aliases": ["gpt-4", "org/m"],
    },
    "m:real": {"params": {"model": "y.gguf"}},
    "other": {"params": {"model": "z.gguf"}, "personalities": {"pirate": "Other arr."}},
}
RESOLVER = Resolver(parse_catalog(json.dumps(MODELS)))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("m", {}, ("m", None, False)),
        ("gpt-4", {}, ("m", None, False)),
        ("m:pirate", {}, ("m", "Arr.", True)),
        ("org/m:pirate", {}, ("m", "Arr.", True)),
        ("m:a:b", {}, ("m", "Odd.", True)),
        ("m:real", {}, ("m:real", None, False)),
        ("m", {"choice": "pirate"}, ("m", "Arr.", True)),
        ("m:pirate", {"choice": "None"}, ("m", None, False)),
        ("m:pirate", {"choice": "a:b"}, ("m", "Odd.", True)),
        # Chosen by /loadModel, or the key's own: not asked for by this request.
        ("m", {"active": Active("m", "pirate")}, ("m", "Arr.", False)),
        ("other", {"active": Active("m", "pirate")}, ("other", None, False)),
        ("m", {"default": "pirate"}, ("m", "Arr.", False)),
        ("m:real", {"default": "pirate"}, ("m:real", None, False)),
        ("m", {"default": "a:b", "active": Active("m", "pirate")}, ("m", "Arr.", False)),
        (None, {"active": Active("other")}, ("other", None, False)),
        ("NotNeeded", {"active": Active("other", "pirate")}, ("other", "Other arr.", False)),
        (" ", {"active": Active("other")}, ("other", None, False)),
    ],
)
def test_names_lead_to_their_model(
    name: Any, options: dict[str, Any], expected: tuple[str, str | None, bool]
) -> None:
    target = RESOLVER.resolve(name, **options)
    assert (target.spec.name, target.prompt, target.asked) == expected
    assert bool(target.defaults) == (target.spec.name == "m")


@pytest.mark.parametrize(
    ("name", "options", "code", "words"),
    [
        ("nope", {}, "model_not_found", "'m', 'm:real', 'other'"),
        ("nope:pirate", {}, "model_not_found", "nope:pirate"),
        ("m:nope", {}, "personality_not_found", "'pirate', 'a:b', or 'none'"),
        ("gpt-4:nope", {}, "personality_not_found", "'m'"),
        ("m", {"choice": "nope"}, "personality_not_found", "nope"),
        (None, {}, "model_not_found", "/loadModel"),
        ("", {"active": Active("gone")}, "model_not_found", "/loadModel"),
    ],
)
def test_unknown_name_is_told_with_the_known_ones(
    name: Any, options: dict[str, Any], code: str, words: str
) -> None:
    with pytest.raises(ModelNotFound) as caught:
        RESOLVER.resolve(name, **options)
    assert caught.value.code == code
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("name", "kind"),
    [(7, "a number"), (False, "true or false"), ([], "a list"), (["m"], "a list"), ({}, "an obj")],
)
def test_name_that_is_no_text_is_refused(name: Any, kind: str) -> None:
    with pytest.raises(BadRequest, match=f"`model` must be a text.*, not {kind}") as caught:
        RESOLVER.resolve(name, active=Active("m"))
    assert (caught.value.status, caught.value.param) == (400, "model")


def test_virtual_names_are_listed_and_known() -> None:
    assert [name for name, _, _ in RESOLVER.virtual_names()] == [
        "m",
        "m:pirate",
        "m:a:b",
        "m:real",
        "other",
        "other:pirate",
    ]
    known = [n for n in ("m", "gpt-4", "m:pirate", "org/m:pirate", "x", "m:x") if RESOLVER.knows(n)]
    assert known == ["m", "gpt-4", "m:pirate", "org/m:pirate"]


def test_what_is_found_is_not_kept_without_end() -> None:
    resolver = Resolver(parse_catalog(json.dumps(MODELS)))
    tracemalloc.start()
    try:
        for number in range(20_000):
            # No name, whatever the white space, and however long: the active model.
            name = f"{number:b}".replace("0", " ").replace("1", "\t") + " " * (number % 2 * 3000)
            assert resolver.resolve(name, active=Active("m")).name == "m"
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1024 * 1024
    assert resolver.resolve("m") is resolver.resolve("m")
