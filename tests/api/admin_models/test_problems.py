"""What is wrong with an entry, told to who sent it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.admin_models.box import LOCAL, Box


async def test_all_problems_of_an_entry_are_told_at_once(box: Box) -> None:
    body = {
        "params": {"model": "nowhere.gguf", "topP": 2, "tempratur": 1},
        "template": "nonsense",
        "aliases": ["second"],
        "parallel": 0,
    }
    status, error = await box.refused("PUT", "new", body)
    assert (status, error["code"], error["type"]) == (
        422,
        "invalid_entry",
        "invalid_request_error",
    )
    problems = {problem["key"]: problem for problem in error["problems"]}
    assert problems.keys() == {
        "new.params.model",
        "new.params.topP",
        "new.params.tempratur",
        "new.template",
        "new.aliases",
        "new.parallel",
    }
    assert problems["new.params.topP"] == {
        "key": "new.params.topP",
        "value": "2",
        "message": "must be at most 1",
        "allowed": "a number from 0 to 1",
    }
    assert "did you mean 'temperature'" in problems["new.params.tempratur"]["message"]
    assert all(problem["message"] in error["message"] for problem in error["problems"])


async def test_numbers_of_any_size_break_no_answer(box: Box, subtests: pytest.Subtests) -> None:
    """Where they are only passed on; where they aren't, none breaks an answer."""
    body = {
        **LOCAL,
        "setParams": {"x": 10**30},
        "personalities": {"p": {"setParams": {"y": 2**64}}},
    }
    assert (await box.ask("PUT", "new", body))[:2] == (201, body)
    assert (await box.ask("GET", "new"))[:2] == (200, body)
    deep: Any = 1
    for _ in range(245):
        deep = {"a": deep}
    assert (await box.ask("PATCH", "new", {"setParams": {"x": deep}}))[0] == 200
    assert (await box.ask("GET", "new"))[0] == 200
    for change in ({"memory": "99999999999999GiB"}, {"params": {"ctxSize": 10**20}}):
        assert (await box.refused("PATCH", "new", change))[0] == 422
    for route in ("/admin/models", "/admin/status", "/v1/models"):
        with subtests.test(f"{route!r:.80}"):
            assert (await box.running.json("GET", route))[0] == 200


WRONG: list[tuple[str, Any, str]] = [
    ("new", {}, "new.params.model"),
    ("new", {"params": {"model": "deep"}}, "new.params.model"),
    ("new", {"url": "ftp://x"}, "new.url.0"),
    ("uno", {"params": {"model": "a.gguf"}}, "first.aliases"),
    ("$schema", {"params": {"model": "a.gguf"}}, "$schema"),
    ("a\tb", {"params": {"model": "a.gguf"}}, "'a\\tb'"),
    ("new", {"params": {"model": "a.gguf"}, "name": "x"}, "new.name"),
    ("new", {"params": {"model": "a\0.gguf"}}, "new.params.model"),
]


async def test_entry_that_would_not_be_served_is_refused(
    box: Box, subtests: pytest.Subtests
) -> None:
    for name, body, key in WRONG:
        with subtests.test(f"{name!r:.80}"):
            status, error = await box.refused("PUT", name, body)
            assert (status, [problem["key"] for problem in error["problems"]]) == (422, [key]), body


async def test_body_that_is_no_entry_is_refused(box: Box, subtests: pytest.Subtests) -> None:
    for data in (b"", b"[]", b"{", b'{"params": {"model": "\\ud800"}}', b'"x"'):
        with subtests.test(f"{data!r:.80}"):
            for method in ("PUT", "PATCH"):
                status, answer = await box.running.json(method, "/admin/models/first", data=data)
                assert status in (400, 422), answer
    deep = b'{"setParams": {"x": ' + b"[" * 400 + b"]" * 400 + b"}}"
    status, answer = await box.running.json("PATCH", "/admin/models/first", data=deep)
    assert status in (200, 400, 422), answer
    assert (await box.running.json("PUT", "/admin/models/x", data=b" " * 300_000))[0] == 413


async def test_what_was_wrong_before_stands_in_no_ones_way(box: Box) -> None:
    """A disk that is not there: an entry may be changed all the same."""
    (box.running.gateway.settings.llm_storage / "b.gguf").unlink()
    assert (await box.ask("PATCH", "second", {"pinned": True}))[0] == 200
    status, error = await box.refused("PUT", "third", {"params": {"model": "b.gguf"}})
    assert (status, error["problems"][0]["key"]) == (422, "third.params.model")
