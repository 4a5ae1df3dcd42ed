"""How fast llama-server processes read prompts. Pure."""

from __future__ import annotations

from typing import Final

#: Tokens of a prompt that are read in a second, where that was never seen.
_SPEED: Final = 500.0
#: How much a new speed counts.
_NEWEST: Final = 0.3


class Speeds:
    """Those of processes, by fingerprint: tokens a second."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}

    def know(self, fingerprint: str, speed: float) -> None:
        """That was the speed of such a process."""
        self._seen[fingerprint] = speed

    def learn(self, fingerprint: str, speed: float) -> None:
        """Such a process has just read so fast."""
        before = self._seen.get(fingerprint, speed)
        self._seen[fingerprint] = (1 - _NEWEST) * before + _NEWEST * speed

    def seconds(self, fingerprint: str, tokens: int) -> float:
        """Return what it takes such a process to compute so many, as far as that was seen."""
        return tokens / self._seen.get(fingerprint, _SPEED)
