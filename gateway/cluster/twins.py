"""Notices another gateway with our identity, as a machine that was copied as a whole has."""

from __future__ import annotations

import logging
import time
from typing import Final

_log = logging.getLogger(__name__)

#: Seconds for which two must have asked, again and again; after an outage a node may still have a
#: question that nobody waits for.
_LONG: Final = 10.0
_GAP: Final = 5.0


class Twins:
    """What one node tells of that, for a gateway that shares its identity with no other."""

    def __init__(self) -> None:
        self._since = self._last = -_GAP
        self._told = False

    def hear(self, node: str, asking: int) -> None:
        """Take how many gateways of our identity have waited for news of ``node``."""
        if asking < 2:
            return
        now = time.monotonic()
        if now - self._last > _GAP:
            self._since, self._told = now, False
        self._last = now
        if not self._told and now - self._since > _LONG:
            self._told = True
            _log.error(
                "another gateway has the identity of this one, and uses the node %s, too: each "
                "ends what the other loads. Remove cluster/ from data_dir of one of them, and "
                "restart it; or have both share models (store.url)",
                node,
            )
