"""Prints the names of the placement groups that a Ray cluster has, as JSON.

By the way that Ray's own commands take: a driver would be longer in starting than all else here.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any


def main(address: str) -> list[str]:
    state: Any = import_module("ray._private.state").GlobalState()
    options: Any = import_module("ray._raylet").GcsClientOptions
    state._initialize_global_state(options.create(address, None, True, True))  # noqa: SLF001
    groups = state.placement_group_table().values()
    return [str(group["name"]) for group in groups if group["state"] != "REMOVED"]


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
