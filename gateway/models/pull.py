"""Downloads the files of one model from the hub: see :mod:`gateway.models.fetching`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway.models import fetching
from gateway.models.fetching import Told
from gateway.models.hub import HubFile, Repository, Variant, safe_path
from gateway.models.hub_client import Hub, Pieces


@dataclass(frozen=True, slots=True)
class PullPlan:
    """A plan: what to fetch, and below which folder (``llm_storage``) it goes."""

    repository: Repository
    variant: Variant
    projector: HubFile | None
    storage: Path

    @property
    def files(self) -> tuple[HubFile, ...]:
        """All files in order; the projector is the last."""
        return (*self.variant.files, *((self.projector,) if self.projector is not None else ()))

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return fetching.size_of(self)

    def place(self, file: HubFile) -> Path:
        """Return where a file goes: ``OWNER/REPO/its path``, as other programs store
        them as well.
        """
        if safe_path(file.path) is None:
            raise ValueError(f"no name for a file: {file.path!r}")
        return self.storage.joinpath(*self.repository.id.split("/"), *file.path.split("/"))

    def part(self, file: HubFile) -> Path:
        """Return where it grows: another file in the repository never goes on from this one."""
        return fetching.part_of(self.place(file), file)

    @property
    def stored(self) -> int:
        """The bytes that are already here, of complete and partial files."""
        return fetching.stored(self)


def pull(plan: PullPlan, hub: Hub, told: Told, *, replace: bool = False) -> list[Path]:
    """Fetch what is missing; returns where all of it is. ``replace``: what differs, as well.

    Raises :class:`GatewayError`, whose message says what to do. ``KeyboardInterrupt`` may end it.
    """
    return fetching.fetch(plan, _HubSource(hub, plan.repository), told, replace=replace)


def discard(plan: PullPlan) -> None:
    """Delete what has come of files that aren't whole. Raises ``OSError``."""
    for file in plan.files:
        plan.part(file).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _HubSource:
    """One state of a repository, as a source of its files."""

    hub: Hub
    repository: Repository

    @property
    def host(self) -> str:
        return self.hub.host

    def stream(self, file: HubFile, start: int) -> Pieces:
        return self.hub.stream(self.repository, file, start)
