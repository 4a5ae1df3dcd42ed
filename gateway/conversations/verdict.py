"""What was read back, judged by llama-server's own numbers."""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.conversations.chain import Chain
from gateway.conversations.in_vain import MOST
from gateway.conversations.index import Saved
from gateway.conversations.shelf import Shelf

#: Tokens that may be missing at the end of what is in common: a question may change the last one.
_TOLERANCE: Final = 16
#: Links behind an opening that a first question has at most: a system message, and itself.
_FIRST: Final = 2
#: The part of what was promised of which less is far less.
_FAR_LESS: Final = 0.5


class Reading(NamedTuple):
    """``saved`` was read back, which took so many ``seconds``."""

    saved: Saved
    seconds: float


def still_fits(
    shelf: Shelf,
    read: Reading,
    chain: Chain,
    promised: int | None,
    cached: int,
    *,
    raw: bool = False,
) -> bool:
    """Return whether what was ``read`` is worth being kept, which was for a request with ``chain``;
    ``promised`` tokens of it were there (``None``: that isn't known), of which llama-server used
    ``cached``. ``raw``: its prompt is no conversation.

    A model for which reading back doesn't work begins anew, at 0, or goes on with nearly nothing
    each time, as where its template begins with the date: reading back takes longer than it spares.
    Less than was promised may still be worth it: the prompt is another one, as templates write that
    leave out earlier thoughts. An opening fits no more where a first question goes on with a part
    of it only; in the middle of a conversation some templates begin otherwise.
    """
    saved = read.saved
    first = len(chain.links) <= saved.chain.shared + _FIRST
    # Fewer may be what all prompts of a template begin with, so they are there without it.
    counts = cached >= max(1, shelf.min_tokens)
    spared = shelf.seconds(saved.fingerprint, cached) if counts else 0.0
    worth_it = spared >= read.seconds and counts
    far_less = promised is not None and cached < promised * _FAR_LESS
    failed = not worth_it and far_less and (first or not saved.is_opening)
    if (worth_it or failed) and shelf.in_vain.note(saved.fingerprint, raw=raw, failed=failed):
        what = f"of {promised} tokens that were read back llama-server used {cached}"
        took = f"that took {read.seconds:.2f} s and spared {spared:.2f}"
        _end(shelf, saved, f"{what}, {took}, {MOST} times in a row", raw=raw)
    if saved.is_opening and first and promised is not None and cached < promised - _TOLERANCE:
        shelf.drop(saved)
        return False
    return True


def _end(shelf: Shelf, saved: Saved, reason: str, *, raw: bool) -> None:
    """Have no more saved of such a process, for a ``reason``."""
    if raw:
        what = f"model {saved.model}: raw completions and gaps are not saved any more"
        shelf.warn_once(f"{what}: {reason}", about=f"{what} {saved.fingerprint}")
    else:
        shelf.switch_off(saved.model, saved.fingerprint, reason)
