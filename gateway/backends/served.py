"""What takes the requests of a model: its backend, or one of several llama-servers behind it."""

from __future__ import annotations

from typing import Any, Protocol

from gateway.backends.flights import Flights
from gateway.backends.slot_looks import SlotLooks
from gateway.errors import GatewayError
from gateway.models.model import Model
from gateway.upstream import Upstream, UpstreamError


class Served(Protocol):
    """See :class:`gateway.backends.backend.Backend` for all that is not said here."""

    starts: int
    deaths: int
    by_request: bool
    accused: list[Any]
    last_death: GatewayError | None
    sleeping: bool

    @property
    def spec(self) -> Model:
        """The model."""

    @property
    def pool(self) -> Upstream:
        """The upstream that requests are sent to. Raises :class:`ConnectFailed`."""

    @property
    def flights(self) -> Flights:
        """The requests that it is working on."""

    @property
    def slot_looks(self) -> SlotLooks:
        """The looks at its slots."""

    @property
    def node(self) -> str | None:
        """The node that it runs on; None: this machine."""

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint that saved slots must have to fit it."""

    @property
    def inherited(self) -> bool:
        """Whether its process was an earlier gateway's, so that nobody knows what is in it."""

    async def suspect(self, *, refused: bool = False) -> None:
        """Find out quickly, after a connection broke, or was ``refused``, what has happened."""

    async def reason(self, error: UpstreamError, deaths: int) -> GatewayError:
        """Return why a request came to the end that ``error`` tells of, for its client."""
