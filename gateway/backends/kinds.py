"""Makes the backend of a model, by its kind."""

from __future__ import annotations

from collections.abc import Callable

from gateway.backends.backend import Backend, Environment
from gateway.backends.local import LocalBackend
from gateway.models.local_model import LocalModel
from gateway.models.model import Model
from gateway.models.remote_model import RemoteModel


def backend_for(
    spec: Model, environment: Environment, socket_name: str, changed: Callable[[Backend], None]
) -> Backend:
    """Return the backend of ``spec``. ``socket_name``: of a socket, if it needs one."""
    match spec:
        case LocalModel() if environment.nodes is not None:
            from gateway.backends.replicated import ReplicatedBackend  # only in a cluster

            return ReplicatedBackend(spec, environment, socket_name, changed)
        case LocalModel():
            return LocalBackend(spec, environment, socket_name, changed)
        case RemoteModel():
            from gateway.backends.remote import RemoteBackend  # imported only if there is one

            return RemoteBackend(spec, environment, changed)
        case _:
            raise TypeError(f"no backend is known for a {type(spec).__name__}")
