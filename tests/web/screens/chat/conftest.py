"""Fixtures of the tests in this folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.web.screens.chat.asking import CODE, HARM, LONG
from tests.web.upstream import Upstream, delta, upstream


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Upstream]:
    with upstream() as told:
        told.answer("harm", *re.findall(r"[\s\S]{1,9}", HARM))
        told.answer(
            "break", "Half of an", {"error": {"message": "the server fell over", "code": 500}}
        )
        told.answer(
            "code", f"Look:\n\n```python\n{CODE}\n```\n\n- and `here`:\n\n  ~~~\n  x\n  ~~~\n"
        )
        told.answer(
            "think",
            delta(reasoning_content="Let me *see*."),
            delta(
                tool_calls=[
                    {"index": 0, "id": "c", "function": {"name": "weather", "arguments": ""}}
                ]
            ),
            delta(tool_calls=[{"index": 0, "function": {"arguments": '{"city": "Cairo"}'}}]),
        )
        yield told


@pytest.fixture(scope="module")
def models(models: dict[str, Any], elsewhere: Upstream) -> dict[str, Any]:
    remote = {"url": elsewhere.url, "modelName": "scripted"}
    return {**models, "scripted": remote, LONG: remote}
