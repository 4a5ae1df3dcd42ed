"""The roster of models: those of models.json, as it changes, and removed ones that still run."""

from __future__ import annotations

from collections.abc import Callable

from gateway.backends.backend import Backend, Environment
from gateway.backends.kinds import backend_for
from gateway.backends.scheduled_model import ScheduledModel
from gateway.errors import GatewayError, ModelNotFound
from gateway.models.catalog import Catalog
from gateway.models.model import Model


class Roster:
    """The models of one scheduler, each with its backend.

    ``changed`` is called when a backend has entered another state, ``refuse`` to send away who
    waits for a model that is gone.
    """

    def __init__(
        self,
        catalog: Catalog,
        environment: Environment,
        *,
        changed: Callable[[Backend], None],
        refuse: Callable[[ScheduledModel, GatewayError], None],
    ) -> None:
        self._environment = environment
        self._changed = changed
        self._refuse = refuse
        self._sockets = 0
        self._retired = 0
        #: The models by name, in the order of models.json. It stays the same object.
        self.models: dict[str, ScheduledModel] = {}
        #: Models by key that are gone from models.json, but whose processes still run.
        self.leaving: dict[str, ScheduledModel] = {}
        environment.withheld.update(catalog.key_variables)
        for spec in catalog.models.values():
            self._add(spec)

    def all(self) -> list[ScheduledModel]:
        """Return every model, those too that are gone from models.json."""
        return [*self.models.values(), *self.leaving.values()]

    def local(self) -> list[ScheduledModel]:
        """Return those of this machine."""
        return [model for model in self.all() if model.spec.takes_memory]

    def by_key(self, key: str) -> ScheduledModel:
        """Return the model that a decision is about."""
        return self.models.get(key) or self.leaving[key]

    def of(self, backend: Backend) -> ScheduledModel | None:
        """Return the model that ``backend`` stands behind."""
        return next((model for model in self.all() if model.backend is backend), None)

    def note_rivals(self, used: ScheduledModel, now: float, late: float) -> None:
        """Note which models compete with ``used``: requests wait for them, for longer than
        ``late`` seconds, while it is in use.
        """
        if not used.spec.takes_memory:
            return
        for model in self.models.values():
            oldest = model.oldest_wait
            if oldest is None or oldest >= now - late or model.resident:
                continue
            if model.spec.takes_memory:
                used.vied = model.vied = now

    def apply(self, catalog: Catalog) -> None:
        """Take over a changed models.json, touching only what changed.

        A model whose process would be started otherwise is drained and stopped, to come back
        as the new one; one that is gone likewise, for good. Everything else just changes.
        """
        self._environment.withheld.update(catalog.key_variables)
        for name, model in list(self.models.items()):
            spec = catalog.models.get(name)
            if spec is None:
                self._remove(model)
            elif spec != model.spec:
                self._change(model, spec)
        for name, spec in catalog.models.items():
            if name not in self.models:
                self._add(spec)
        in_order = {name: self.models[name] for name in catalog.models}
        self.models.clear()
        self.models.update(in_order)

    def _add(self, spec: Model) -> None:
        self.models[spec.name] = ScheduledModel(spec, self._backend_for(spec), key=spec.name)

    def _backend_for(self, spec: Model) -> Backend:
        self._sockets += 1
        return backend_for(spec, self._environment, f"{self._sockets}.sock", self._changed)

    def _remove(self, model: ScheduledModel) -> None:
        name = model.spec.name
        del self.models[name]
        self._refuse(model, ModelNotFound(f"the model {name!r} is gone from models.json"))
        if model.resident:
            self._retired += 1
            model.key = f"{name}\0{self._retired}"  # no name in models.json has a NUL
            self.leaving[model.key] = model
            model.send_away()

    def _change(self, model: ScheduledModel, spec: Model) -> None:
        same_process = spec.process_identity() == model.spec.process_identity()
        model.take(spec)
        if same_process and not model.unload:
            model.backend.spec = spec
        elif model.resident:
            model.send_away()  # the new spec goes to the backend when it has stopped
        else:
            self.settle(model)

    def settle(self, model: ScheduledModel) -> None:
        """Finish the unloading of a model whose process is gone; it may come back with a changed
        entry.
        """
        if model.resident:
            return
        model.unload = model.steady = False
        model.stay = None
        model.on = ()
        model.held = None
        if model.growing is not None:
            model.growing.cancel()
            model.growing = None
        self.leaving.pop(model.key, None)
        spec = model.spec
        if type(model.backend.spec) is not type(spec):
            model.backend = self._backend_for(spec)
            model.loaded = 0
        elif model.backend.spec is not spec:
            model.backend.spec = spec
            model.backend.reset()
