"""The link to Ray, where that cannot be joined."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.cluster.link import Link


async def test_who_has_no_token_of_the_cluster_is_told_where_it_is_looked_for(
    tmp_path: Path,
) -> None:
    # Without Ray its driver fails at once, with Ray there is nobody at that port.
    link = Link("127.0.0.1:9", lambda: None, tmp_path)
    link.open()
    try:
        async with asyncio.timeout(60):
            while f"(no token of a cluster is in {tmp_path})" not in (link.problem or ""):
                await asyncio.sleep(0.02)  # it tells of what has changed, and nothing has
    finally:
        await link.close()
