"""Checks that the models and personalities which a key is limited to exist in models.json. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gateway.models.catalog import Catalog
from gateway.spelling import did_you_mean

_SHOWN = 20


class Unknown(NamedTuple):
    """A name that models.json doesn't have: the field of the key that holds it, and a message."""

    field: str
    message: str


def unknown_names(
    catalog: Catalog,
    *,
    models: Iterable[object] = (),
    personalities: Iterable[object] = (),
    default: object = None,
) -> Iterator[Unknown]:
    """Yield every name that isn't there: most likely a typing error.

    An alias is one too: what a key may use is compared with the model's own name.
    """
    known = {name: None for spec in catalog.models.values() for name in spec.personalities}
    for field, names, there in (
        ("models", models, catalog.models),
        ("personalities", personalities, known),
        ("defaultPersonality", () if default is None else (default,), known),
    ):
        for name in names:
            if not isinstance(name, str) or name in there:
                continue
            said = f"{field}: there is no {name[:200]!r} in models.json"
            own = catalog.aliases.get(name) if field == "models" else None
            if own is not None:
                said += f", but as an alias of {own!r}"
            yield Unknown(field, f"{said}{did_you_mean(name, there)}; allowed: {_listed(there)}")


def _listed(names: Iterable[str]) -> str:
    shown = [repr(name) for name in names]
    return ", ".join(shown[:_SHOWN] + ["..."] * (len(shown) > _SHOWN)) or "none"
