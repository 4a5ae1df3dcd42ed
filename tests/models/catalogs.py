"""Entries of models.json, and what is wrong with them."""

import json
from typing import Any

import pytest

from gateway.models.catalog import parse_catalog
from gateway.models.local_model import LocalModel
from gateway.problems import InvalidFiles


def one(name: str = "m", params: dict[str, Any] | None = None, **beside: object) -> LocalModel:
    entry = {"params": {"model": "m.gguf", **(params or {})}, **beside}
    spec = parse_catalog(json.dumps({name: entry})).models[name]
    assert isinstance(spec, LocalModel)
    return spec


def problems_of(text: object) -> dict[str, str]:
    """Key -> problem, of a models.json given as text or as an object."""
    with pytest.raises(InvalidFiles) as caught:
        parse_catalog(text if isinstance(text, str) else json.dumps(text))
    found = {problem.key: str(problem) for problem in caught.value.problems}
    assert len(found) == len(caught.value.problems)
    return found


def problems_in(params: dict[str, Any] | None = None, **beside: object) -> dict[str, str]:
    """The same for one entry with these params and other keys; keys without the model's name."""
    entry = {"params": {"model": "m.gguf", **(params or {})}, **beside}
    return {key.removeprefix("m."): text for key, text in problems_of({"m": entry}).items()}
