"""A personality of models.json: a system prompt, or an object with more than that.

``{"coder": "You write code."}``, or ``{"coder": {"prompt": "You write code.", "setParams":
{"temperature": 0}, "reasoning": false}}``: a model of its own to clients, ``NAME:coder``, over the
same process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Personality:
    """One personality. All but ``prompt`` is put into every request that it is chosen for.

    ``reasoning``: whether the model thinks before it answers, for how long (tokens), or how hard
    (OpenAI's ``reasoning_effort``). ``template_args``: variables of the chat template
    (``chat_template_kwargs`` of llama-server). ``tools``: in the shape of OpenAI's chat
    completions, added before those of a request.
    """

    prompt: str | None = None
    set_params: Mapping[str, Any] = field(default_factory=dict)
    strip_params: tuple[str, ...] = ()
    reasoning: bool | int | Literal["low", "medium", "high"] | None = None
    template_args: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[dict[str, Any], ...] = ()
    description: str | None = None
    unlisted: bool = False
