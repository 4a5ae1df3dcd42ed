"""How often what was read back was of no use, of processes that are started alike. Pure."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

#: Times in a row until nothing more is read back.
MOST: Final = 3


class InVain:
    """That of all models.

    Prompts that are no conversations are counted by themselves: of a gap llama-server reads no more
    than three quarters of a batch before it, so that what is read begins elsewhere each time. Then
    they are left alone, and conversations with the same model are not.
    """

    def __init__(self) -> None:
        self._conversations: dict[str, int] = defaultdict(int)
        self._prompts: dict[str, int] = defaultdict(int)

    def note(self, fingerprint: str, *, raw: bool, failed: bool) -> bool:
        """Note a reading for a process, and whether it ``failed``; return whether the last ones
        have. ``raw``: it was no conversation's.
        """
        counts = self._prompts if raw else self._conversations
        counts[fingerprint] = counts[fingerprint] + 1 if failed else 0
        return counts[fingerprint] >= MOST

    def leaves_alone(self, fingerprint: str) -> bool:
        """Return whether prompts that are no conversations are neither saved nor read back."""
        return self._prompts.get(fingerprint, 0) >= MOST
