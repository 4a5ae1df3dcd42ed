"""A remote model: other servers have it, and nothing is started here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gateway.models.endpoints import Endpoint, key_variable, parse_endpoint
from gateway.models.model import Model
from gateway.secret import Secret

#: The default of ``parallel``: remote servers have queues of their own.
PARALLEL = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteParams:
    """The part of ``params`` that has a meaning for remote models: for requests that don't set it,
    and for lists.
    """

    temperature: float | None = None
    top_p: float | None = None
    ctx_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteModel(Model):
    """An entry with ``url``. ``timeout`` in seconds, until an answer has begun."""

    ours: ClassVar[bool] = False
    takes_memory: ClassVar[bool] = False

    params: RemoteParams = RemoteParams()
    parallel: int = PARALLEL
    url: tuple[str, ...] = ()
    key: Secret | None = None
    model_name: str | None = None
    ca_file: str | None = None
    timeout: float = 600.0

    def process_identity(self) -> tuple[object, ...]:
        """Return the servers, and how they are asked."""
        return (
            self.params,
            self.embeddings,
            self.reranking,
            self.parallel,
            self.url,
            self.key,
            self.ca_file,
            self.timeout,
        )

    def request_defaults(self) -> dict[str, object]:
        """Return the fields that every API with defaults has."""
        wanted = {"temperature": self.params.temperature, "top_p": self.params.top_p}
        return {field: value for field, value in wanted.items() if value is not None}

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each setting that is probably a mistake, or that sends the key without
        encryption.
        """
        open_ends = self.endpoints if self.key is not None else ()
        unencrypted = [e.url for e in open_ends if not (e.tls or e.is_loopback)]
        return (
            *self.meta.warnings(self.name),
            *(f"{self.name}: the key goes to {url} unencrypted" for url in unencrypted),
        )

    @property
    def ctx_size(self) -> int | None:
        """The tokens of context, as the entry says."""
        return self.params.ctx_size

    @property
    def sent_as(self) -> str:
        """The model's name in requests to the servers at ``url``."""
        return self.model_name or self.name

    @property
    def key_variable(self) -> str | None:
        """The environment variable that ``key`` names, if it names one."""
        return key_variable(self.key.reveal()) if self.key is not None else None

    @property
    def servers(self) -> tuple[str, ...]:
        """The value of ``url``."""
        return self.url

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The servers that have the model."""
        return tuple(map(parse_endpoint, self.url))
