"""Prints the names of the placement groups that a Ray cluster has, as JSON; with ``--follow`` again
whenever they have changed.

By the way that Ray's own commands take: a driver would be longer in starting than all else here.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from typing import Any


def joined(address: str) -> Any:
    state: Any = import_module("ray._private.state").GlobalState()
    options: Any = import_module("ray._raylet").GcsClientOptions
    state._initialize_global_state(options.create(address, None, True, True))  # noqa: SLF001
    return state


def names(state: Any) -> list[str]:
    groups = state.placement_group_table().values()
    return sorted(str(group["name"]) for group in groups if group["state"] != "REMOVED")


def follow(state: Any) -> None:
    told = None
    while True:
        if (now := names(state)) != told:
            print(json.dumps(now), flush=True)
            told = now
        time.sleep(0.005)  # Ray tells nobody


if __name__ == "__main__":
    ray = joined(sys.argv[1])
    if sys.argv[2:] == ["--follow"]:
        follow(ray)
    print(json.dumps(names(ray)))
