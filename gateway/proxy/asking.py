"""Fields added to a request so that its answer tells how many tokens it took. Pure.

The client doesn't notice. Most answers tell by themselves, and need no such field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.proxy.gathered import Completions, GatheredChoices, Gatherer, ask_for_stream
from gateway.proxy.telling import answers_to_each, ask_for_timings, chosen_fields

if TYPE_CHECKING:  # backends come with it, which the worker process doesn't need
    from gateway.proxy.call import Call

#: Routes of llama-server where ``response_fields`` chooses what is in the answer.
_CHOSEN = frozenset({"/completion", "/completions", "/infill"})
#: Routes whose answers are one object with ``choices``, and numbers for the first choice only.
_CHAT = "/v1/chat/completions"
_CHOICES = frozenset({_CHAT, "/v1/completions"})


@dataclass(frozen=True, slots=True)
class Asked:
    """The number of answers that a request asks for, and what was added to its body."""

    many_prompts: bool
    answers: int
    adds_timings: bool = False
    gathers: Callable[[], Gatherer] | None = None

    @property
    def changed(self) -> bool:
        """Whether the body was changed."""
        return self.adds_timings or self.gathers is not None

    def note(self, call: Call) -> None:
        """Set on ``call`` how its answer is to be read."""
        call.several = self.many_prompts or self.answers > 1
        call.many_prompts, call.answers = self.many_prompts, self.answers
        call.strips_timings = self.adds_timings
        call.gathers = self.gathers


def ask_to_tell(body: dict[str, Any], target: str, *, here: bool) -> Asked:
    """Change ``body``, for the path ``target``, so that its answer tells how many tokens it took.

    ``here``: whether a llama-server of ours answers. Remote servers other than llama.cpp's tell one
    ``usage`` for all answers together.
    """
    prompt = body.get("prompt")
    many = isinstance(prompt, list) and not all(type(part) is int for part in prompt)
    answers = answers_to_each(body)
    if here and (many or answers > 1) and body.get("stream") is not True:
        if target in _CHOICES and not (target == _CHAT and _wants_logprobs(body)):
            ask_for_stream(body)
            return Asked(many, answers, gathers=partial(GatheredChoices, answers))
        # The tokens of one character are not all in a stream.
        if target in _CHOSEN and not body.get("return_tokens"):
            fields = chosen_fields(body)
            body.pop("response_fields", None)
            ask_for_stream(body)
            return Asked(many, answers, gathers=partial(Completions, answers, fields))
    return Asked(many, answers, target in _CHOSEN and ask_for_timings(body))


def _wants_logprobs(body: dict[str, Any]) -> bool:
    """Return whether an answer lists each token, so that they can be counted.

    The stream of a chat lacks the tokens that aren't shown, such as the end or a tag.
    """
    return bool(body.get("logprobs") or body.get("n_probs"))
