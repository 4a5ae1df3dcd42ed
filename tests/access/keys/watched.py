"""A store of keys that tells when it was written."""

import asyncio
from collections.abc import Mapping
from datetime import datetime

from gateway.access.store import Store


class Watched(Store):
    """The store, and a signal after each try to write activity."""

    tries: asyncio.Queue[Mapping[str, datetime]]

    async def touch_keys(self, last_activity: Mapping[str, datetime]) -> None:
        try:
            await super().touch_keys(last_activity)
        finally:
            self.tries.put_nowait(dict(last_activity))
