"""What was read back, judged by llama-server's own numbers."""

from __future__ import annotations

from typing import Final

from gateway.conversations.chain import Chain
from gateway.conversations.index import Saved
from gateway.conversations.shelf import Shelf

#: Tokens that may be missing at the end of what is in common: a question may change the last one.
_TOLERANCE: Final = 16
#: Links behind an opening that a first question has at most: a system message, and itself.
_FIRST: Final = 2


def still_fits(shelf: Shelf, saved: Saved, chain: Chain, promised: int | None, cached: int) -> bool:
    """Return whether ``saved`` is worth being kept, which was read back for a request with
    ``chain``; ``promised`` tokens of it were there (``None``: that isn't known), of which
    llama-server used ``cached``.

    A model for which reading back doesn't work begins anew, at 0. What is partly of use was right:
    the prompt is another one, as templates write that leave out earlier thoughts, or begin with the
    date. So an opening fits no more where a first question goes on with a part of it only; in the
    middle of a conversation some templates begin otherwise.
    """
    if promised is None:
        return True
    first = len(chain.links) <= saved.chain.shared + _FIRST
    if cached == 0 and (first or not saved.is_opening):
        what = f"of {promised} tokens that were read back llama-server used {cached}"
        shelf.count_failure(saved.model, saved.fingerprint, what)
    if saved.is_opening and first and cached < promised - _TOLERANCE:
        shelf.drop(saved)
        return False
    return True
