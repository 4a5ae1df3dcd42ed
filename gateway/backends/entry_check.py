"""Checks one entry of models.json on this machine, without loading the model. Blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

from gateway.backends.command import bundled_program, find_program
from gateway.backends.remote import client_context
from gateway.config.settings import Settings
from gateway.errors import GatewayError
from gateway.models.endpoints import read_key
from gateway.models.files import Fault, faults
from gateway.models.local_model import LocalModel
from gateway.models.model import Model
from gateway.models.remote_model import RemoteModel
from gateway.problems import Problem


def faults_here(spec: LocalModel, settings: Settings) -> Iterator[Fault]:
    """Yield what is wrong with the files of a model on this machine, as far as that matters: what
    other machines may run, this one need not be able to.
    """
    cluster = settings.cluster is not None
    if not spec.may_run_here(cluster=cluster):
        return
    elsewhere = spec.may_run_elsewhere(cluster=cluster)
    for fault in faults(spec, settings.llm_storage):
        if elsewhere:
            yield fault._replace(message=f"{fault.message} (on this machine)", sure=False)
        else:
            yield fault


class EntryCheck:
    """Looks at files, arguments and keys, with one llama-server and environment."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = environ

    def problems(self, spec: Model) -> Iterator[tuple[Problem, bool]]:
        """Yield the problems, each with whether it certainly fails a load. No remote server is
        asked.
        """
        match spec:
            case LocalModel():
                yield from self._own(spec)
            case RemoteModel():
                yield from self._remote(spec)

    def _own(self, spec: LocalModel) -> Iterator[tuple[Problem, bool]]:
        file = str(self._settings.models_file)
        for fault in faults_here(spec, self._settings):
            key = f"{spec.name}.{fault.key}"
            yield Problem(file, key, repr(fault.value), fault.message), fault.sure
        if not spec.extra_args or self._understood is None:
            return
        if (wrong := self._understood(spec)) is not None:
            yield Problem(file, f"{spec.name}.extraArgs", None, wrong), True

    def _remote(self, spec: RemoteModel) -> Iterator[tuple[Problem, bool]]:
        """Yield the key and the CA file, as they are here and now."""
        file = str(self._settings.models_file)
        if spec.key is not None:
            try:
                read_key(spec.key.reveal(), self._environ)
            except ValueError as error:
                yield Problem(file, f"{spec.name}.key", None, str(error)), True
        if spec.ca_file is not None:
            try:
                client_context(spec.ca_file)
            except ValueError as error:
                yield Problem(file, f"{spec.name}.caFile", None, str(error)), True

    @cached_property
    def _understood(self) -> Callable[[LocalModel], str | None] | None:
        """The check of arguments by the bundled llama-server, if that is in use."""
        try:
            if find_program(self._settings.llama_server, self._environ) != bundled_program():
                return None
        except GatewayError:
            return None
        from gateway.backends import bundled

        def understood(spec: LocalModel) -> str | None:
            try:
                bundled.parse(spec.extra_args, {})
            except bundled.UsageError as error:
                return f"the bundled llama-server says: {str(error).removeprefix('error: ')}"
            return None

        return understood
