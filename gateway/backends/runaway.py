"""The errors about a request that made a llama-server compute endlessly."""

from __future__ import annotations

import logging

from gateway.backends.flights import Verdict
from gateway.errors import Unprocessable

_log = logging.getLogger(__name__)

#: The ``code`` of that death, and of the error for the client that caused it.
RUNAWAY = "runaway_request"


def pass_sentence(model: str, what: str, verdict: Verdict) -> None:
    """Tell each request its part, before the server of ``model`` is ended, which ``what``."""
    for flight in verdict.cleared:
        flight.cleared = True
    blamed, trait = verdict.blamed, verdict.trait
    if blamed is None:
        return
    advice = "Change it before you send it again."
    if trait is not None:
        advice = f"Most likely that comes of its `{trait.field}`: make it simpler."
    blamed.blamed = Unprocessable(
        f"With this request the llama-server of {model!r} {what}, and so it was ended, as nobody "
        f"else got an answer. {advice}",
        code=RUNAWAY,
        param=trait.field if trait is not None else None,
    )
    _log.error("model %s: %s", model, describe(verdict))


def describe(verdict: Verdict) -> str:
    """Return who has done it, in words for the log and for administrators: nothing of what was
    asked.
    """
    blamed, trait = verdict.blamed, verdict.trait
    if blamed is None:
        return "Which request has done that is not known."
    which = f"a request to {blamed.target.partition('?')[0][:100]}"
    which += f" with a `{trait.field}` of {trait.size} bytes" if trait is not None else ""
    gone = ", whose client had left" if blamed.left is not None else ""
    return f"It was most likely {which}{gone}."
