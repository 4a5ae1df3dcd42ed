"""Personalities of models.json as texts and as objects."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from gateway.models.catalog import Catalog, parse_catalog
from gateway.models.personalities import Personality
from gateway.problems import InvalidFiles

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def catalog(personality: Any, **beside: Any) -> Catalog:
    entry = {"params": {"model": "m.gguf"}, "personalities": {"p": personality}, **beside}
    return parse_catalog(json.dumps({"m": entry}))


def personality(given: Any) -> Personality:
    return catalog(given).models["m"].personalities["p"]


def test_a_text_is_the_prompt() -> None:
    assert personality("Arr") == Personality(prompt="Arr")
    assert personality("").prompt == ""


def test_an_object_may_say_all_of_it() -> None:
    given = {
        "prompt": "You write code.",
        "setParams": {"temperature": 0},
        "stripParams": "seed",
        "reasoning": "low",
        "templateArgs": {"style": "terse"},
        "tools": [TOOL],
        "description": "for code",
        "unlisted": True,
    }
    found = personality(given)
    assert found.set_params == {"temperature": 0}
    assert found.strip_params == ("seed",)
    assert found.reasoning == "low"
    assert found.template_args == {"style": "terse"}
    assert found.tools == (TOOL,)
    assert found.unlisted
    assert personality({}).prompt is None


def test_slot_may_be_stripped_though_not_set() -> None:
    assert personality({"stripParams": ["id_slot"]}).strip_params == ("id_slot",)


def test_reasoning_may_be_switched_off_by_word() -> None:
    assert personality({"reasoning": "off"}).reasoning is False


def test_template_args_may_be_written_as_python_does() -> None:
    assert personality({"template_args": {"a": 1}}).template_args == {"a": 1}


@pytest.mark.parametrize("value", [True, False, 0, 512, "low", "medium", "high"])
def test_reasoning_keeps_its_kind(value: Any) -> None:
    found = personality({"reasoning": value}).reasoning
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("given", "key", "said"),
    [
        (5, "p", "a system prompt, or an object"),
        (["Arr"], "p", "a system prompt, or an object"),
        ({"prompt": 5}, "p.prompt", "must be a text"),
        ({"promt": "x"}, "p.promt", "did you mean 'prompt'?"),
        ({"setParams": {"model": "other"}}, "p.setParams.model", "cannot be set"),
        ({"stripParams": ["personality"]}, "p.stripParams.0", "cannot be set"),
        ({"setParams": {"messages": []}}, "p.setParams.messages", "it is what a client asks"),
        ({"setParams": {"stream": False}}, "p.setParams.stream", "as it asked for"),
        ({"setParams": {"id_slot": 0}}, "p.setParams.id_slot", "the gateway chooses the slot"),
        ({"setParams": {"seed": math.nan}}, "p.setParams", "no number that JSON has"),
        ({"stripParams": ["seed", "prompt"]}, "p.stripParams.1", "cannot be set or stripped"),
        ({"templateArgs": {"a": [{"b": math.inf}]}}, "p.templateArgs", "no number that JSON has"),
        ({"templateargs": {}}, "p.templateargs", "did you mean 'templateArgs'?"),
        ({"tools": [TOOL, TOOL]}, "p.tools", "two with the name look"),
        ({"reasoning": -1}, "p.reasoning", "true, false (or off), low"),
        ({"reasoning": "hard"}, "p.reasoning", "true, false (or off), low"),
        ({"reasoning": 1.5}, "p.reasoning", "true, false (or off), low"),
        ({"tools": [{"name": "look"}]}, "p.tools", '{"type": "function"'),
        ({"tools": [{"type": "function", "function": {}}]}, "p.tools", "needs a name"),
        ({"unlisted": "x"}, "p.unlisted", "true or false"),
    ],
)
def test_what_is_wrong_is_named(given: Any, key: str, said: str) -> None:
    with pytest.raises(InvalidFiles) as caught:
        catalog(given)
    (problem,) = caught.value.problems
    assert problem.key.startswith(f"m.personalities.{key}")
    assert said in str(problem)


def test_tools_beside_a_named_template_are_warned_of() -> None:
    (warning,) = catalog({"tools": [TOOL]}, template="zephyr").warnings
    assert "'p'" in warning
    assert not catalog({"tools": [TOOL]}).warnings


def test_capability_that_is_misspelt_is_warned_of() -> None:
    meta = {"capabilities": ["chat", "vison", "telepathy"]}
    remote = json.dumps({"m": {"url": "http://127.0.0.1:1", "meta": meta}})
    for warnings in (catalog("", meta=meta).warnings, parse_catalog(remote).warnings):
        (warning,) = warnings
        assert "'vison'" in warning
        assert "did you mean 'vision'?" in warning


@pytest.mark.parametrize("meta", [{"displayName": ""}, {"listed": False}, {"capabilities": "chat"}])
def test_wrong_meta_is_refused(meta: dict[str, Any]) -> None:
    with pytest.raises(InvalidFiles):
        catalog("", meta=meta)
