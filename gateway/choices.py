"""The choices of ``/loadModel``: one for each key, and an administrator's for all keys without one.

Choices last as long as the gateway runs. All administrators share one choice, as everybody did in
the system that this one replaces, and whoever has no choice of their own follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from gateway.models.catalog import Catalog
from gateway.proxy.resolve import Active


class Choices:
    """The model and personality that each key chose last."""

    def __init__(self) -> None:
        #: The administrators' choice.
        self.common: Active | None = None
        self._own: dict[str, Active] = {}
        #: Called with every choice.
        self.chosen: Callable[[Active], None] = lambda active: None

    def of(self, key_id: str, *, admin: bool) -> Active | None:
        """Return what the key's requests mean that name no model."""
        return self.common if admin else self._own.get(key_id, self.common)

    def choose(self, key_id: str, active: Active, *, admin: bool) -> None:
        """Remember a choice: the key's own, or that of the administrators."""
        if admin:
            self.common = active
        else:
            self._own[key_id] = active
        self.chosen(active)

    def personalities_of(self, model: str) -> list[str]:
        """Return the personalities that were chosen with ``model``, the administrators' first."""
        chosen = (self.common, *self._own.values())
        names = (one.personality for one in chosen if one is not None and one.model == model)
        return [*dict.fromkeys(name for name in names if name is not None)]

    def unloaded(self, model: str) -> None:
        """Note that an administrator unloaded ``model``. Keys that chose it may load it again."""
        if self.common is not None and self.common.model == model:
            self.common = None

    def keep_keys(self, key_ids: Collection[str]) -> None:
        """Forget the choices of keys that are not among these."""
        self._own = {key_id: own for key_id, own in self._own.items() if key_id in key_ids}

    def keep_models(self, catalog: Catalog) -> None:
        """Forget choices of models and personalities that ``catalog`` doesn't have."""
        self.common = self.common and _kept(self.common, catalog)
        kept = {key_id: _kept(own, catalog) for key_id, own in self._own.items()}
        self._own = {key_id: own for key_id, own in kept.items() if own is not None}


def _kept(active: Active, catalog: Catalog) -> Active | None:
    spec = catalog.models.get(active.model)
    if spec is None:
        return None
    return active if active.personality in spec.personalities else Active(active.model)
