"""What is reserved in Ray for llama-servers: a placement group for each, called as
:func:`.told.reservation` says. Blocks; for processes that have joined Ray.
"""

from __future__ import annotations

from typing import Any

#: Seconds for Ray to make a reservation, which it does at once if it ever can.
_RESERVE = 10.0


def reserve(name: str, resources: dict[str, float]) -> Any:
    """Reserve ``resources`` under ``name``, and return the placement group. Raises ``TimeoutError``
    where there is not so much left.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([resources], name=name, lifetime="detached")
    if not group.wait(_RESERVE):
        remove_placement_group(group)
        raise TimeoutError(f"Ray has not so much left: {resources}")
    return group


def reserved() -> dict[str, tuple[str, ...]]:
    """Return the resources of every reservation, by its name."""
    from ray.util.placement_group import placement_group_table

    return {
        str(group["name"]): tuple(name for of in group["bundles"].values() for name in of)
        for group in placement_group_table().values()
        if group["state"] != "REMOVED"
    }


def release(name: str) -> None:
    """Give back what is reserved under ``name``, if anything is."""
    from ray.util.placement_group import get_placement_group, remove_placement_group

    try:
        group = get_placement_group(name)
    except ValueError:  # there is none
        return
    remove_placement_group(group)
