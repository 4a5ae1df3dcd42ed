"""What Ollama's fields about an answer become."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.ollama.options import keep_alive, output_format, probabilities, sampling, thinking


def test_every_option_for_an_answer_is_sent_on() -> None:
    # docs/api.md, "Generate request (With options)", those that aren't about loading a model
    given = {
        "num_keep": 5,
        "seed": 42,
        "num_predict": 100,
        "top_k": 20,
        "top_p": 0.9,
        "min_p": 0.0,
        "typical_p": 0.7,
        "repeat_last_n": 33,
        "temperature": 0.8,
        "repeat_penalty": 1.2,
        "presence_penalty": 1.5,
        "frequency_penalty": 1.0,
        "mirostat": 1,
        "mirostat_tau": 0.8,
        "mirostat_eta": 0.6,
    }
    made = sampling({**given, "stop": ["\n", "user:"]})
    renamed = {"num_keep": "n_keep", "num_predict": "max_tokens"}
    wanted = {renamed.get(name, name): value for name, value in given.items()}
    assert made == {**wanted, "stop": ["\n", "user:"]}


def test_options_about_loading_and_unknown_ones_are_left_out() -> None:
    loading = {"numa": False, "num_ctx": 1024, "num_batch": 2, "num_gpu": 1, "main_gpu": 0}
    more = {"use_mmap": True, "num_thread": 8, "penalize_newline": True, "tfs_z": 1.0}
    assert sampling({**loading, **more, "vocal_range": 3, "seed": None}) == {}


@pytest.mark.parametrize("endless", [-1, -2, 0])
def test_a_length_without_end_is_none(endless: int) -> None:
    assert sampling({"num_predict": endless}) == {}


def test_a_number_of_the_other_kind_becomes_the_right_one() -> None:
    assert sampling({"top_k": 20.0, "temperature": 1}) == {"top_k": 20, "temperature": 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
        ({"seed": True}, 'option "seed" must be of type integer'),
        ({"stop": 3}, 'option "stop" must be of type array'),
        ({"stop": [3]}, 'option "stop" must be of an array of strings'),
        ([], "options must be an object"),
    ],
)
def test_an_option_of_another_type_is_refused_in_ollamas_words(options: Any, said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        sampling(options)
    assert refused.value.public == said


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (None, None),
        (0, 0),
        ("0", 0),
        ("0s", 0),
        (300, 300),
        (1.5, 1.5),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("24h0m0s", 86400),
        ("60", 60),
        (-1, math.inf),
        ("-1", math.inf),
        ("-1m", math.inf),
    ],
)
def test_a_model_is_kept_for_as_long_as_was_asked(asked: Any, seconds: float | None) -> None:
    assert keep_alive(asked) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("asked", ["", "soon", "5 m", "m5", "5x", True, [], {}, "9" * 99])
def test_what_is_no_duration_is_refused(asked: Any) -> None:
    with pytest.raises(BadRequest, match="keep_alive"):
        keep_alive(asked)


def test_thinking_is_told_to_the_template() -> None:
    assert thinking(None) == {}
    assert thinking(False) == {"chat_template_kwargs": {"enable_thinking": False}}
    assert thinking(True) == {"chat_template_kwargs": {"enable_thinking": True}}
    for asked, effort in {"low": "low", "medium": "medium", "high": "high", "max": "high"}.items():
        told = {"enable_thinking": True, "reasoning_effort": effort}
        assert thinking(asked) == {"chat_template_kwargs": told, "reasoning_effort": effort}


@pytest.mark.parametrize("think", ["a lot", 1, []])
def test_what_is_no_level_of_thinking_is_refused(think: Any) -> None:
    with pytest.raises(BadRequest, match="invalid think value"):
        thinking(think)


def test_a_format_is_json_or_a_schema() -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}}
    assert output_format(None) is None
    assert output_format("") is None
    assert output_format("json") == {}
    assert output_format(schema) == schema
    for wrong in ("xml", 3, ["json"]):
        with pytest.raises(BadRequest, match="invalid format"):
            output_format(wrong)


def test_probabilities_are_given_to_who_asks() -> None:
    assert probabilities({"top_logprobs": 3}) is None
    assert probabilities({"logprobs": True}) == 0
    assert probabilities({"logprobs": True, "top_logprobs": 3}) == 3
    for wrong in (-1, 21, "3", True):
        with pytest.raises(BadRequest, match="between 0 and 20"):
            probabilities({"logprobs": True, "top_logprobs": wrong})
