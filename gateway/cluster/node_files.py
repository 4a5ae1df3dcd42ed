"""The files of one machine of a cluster: what it has, gives, copies from others, and pulls.

Nothing here knows of Ray. The gateway's own machine has one too, as it may be a source.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from gateway.backends.hub_variables import with_hub
from gateway.backends.pull_process import Job, as_text
from gateway.backends.pulls import Pull, Pulls, PullWish
from gateway.cluster.ca import Credentials
from gateway.cluster.copying import Copies, Offers, Told
from gateway.cluster.files import Missing, StorageFiles, given, missing
from gateway.cluster.node_source import CopyFailed
from gateway.cluster.offer import Offer
from gateway.errors import NotFound
from gateway.models.local_model import LocalModel

_HASHES: Final = "hashes.json"


class NodeFiles:
    """The files of the machine that is called ``node`` and reached at ``host``.

    ``data_dir``: where it remembers hashes. ``environ``: for its processes. ``changed`` is called
    when :attr:`files` are others.
    """

    def __init__(
        self,
        node: str,
        host: str,
        storage: Path,
        data_dir: Path,
        environ: Callable[[], Mapping[str, str]],
        changed: Callable[[], None],
    ) -> None:
        self._node = node
        self._environ = environ
        self._storage = storage.expanduser().absolute()
        self._data_dir = data_dir
        self._listing = StorageFiles(self._storage, changed)
        self._offers = Offers(node, host, environ, data_dir / _HASHES)
        self._copies = Copies(self._storage, environ)
        #: What it fetches from the hub. It has no models.json.
        self.pulls = Pulls(environ, self._listing.look)

    @property
    def files(self) -> Mapping[str, int]:
        """Bytes of each model file, by its path below ``llm_storage``."""
        return self._listing.files

    async def open(self) -> None:
        """Look, and watch the folder from now on."""
        await self._listing.open()

    async def close(self) -> None:
        """End whatever is under way; what has come of copies and pulls stays."""
        await asyncio.gather(
            self._listing.close(),
            self._offers.close_all(),
            self._copies.close(),
            self.pulls.close(),
        )

    async def missing(self, spec: LocalModel) -> list[Missing]:
        """Return what ``spec`` needs and isn't here."""
        return await asyncio.to_thread(missing, spec, self._storage)

    async def give(
        self, spec: LocalModel, wanted: Sequence[str], credentials: Credentials
    ) -> Offer | None:
        """Give those of the ``wanted`` files that ``spec`` names and that are here, if any.

        Raises :class:`CopyFailed`. An offer ends by :meth:`take_back`, or when nobody asks.
        """
        here = await asyncio.to_thread(given, spec, self._storage)
        files = {path: here[path] for path in wanted if path in here}
        return await self._offers.open(files, credentials) if files else None

    async def take_back(self, offer: str) -> None:
        """End an offer, by its id."""
        await self._offers.close(offer)

    async def fetch(
        self, spec: LocalModel, offers: Sequence[Offer], credentials: Credentials, told: Told
    ) -> None:
        """Copy what ``spec`` lacks here; return when all of it is whole and in its place.

        Raises :class:`CopyFailed`, at once where something is missing that can't be copied.
        """
        try:
            await self._fetch(spec, offers, credentials, told)
        except CopyFailed as error:  # paths, and which machines there are, are for administrators
            what = f"files of {spec.name!r} are missing on its node, and could not be copied there."
            where = f"{self._node}: {error.message}"
            raise CopyFailed(what, detail=where, code=error.code) from error

    async def _fetch(
        self, spec: LocalModel, offers: Sequence[Offer], credentials: Credentials, told: Told
    ) -> None:
        lacks = await self.missing(spec)
        for one in lacks:
            if one.copied_as is None:
                raise CopyFailed(one.why or "a file is missing", code="not_copied")
        names = [one.copied_as for one in lacks if one.copied_as is not None]
        if names:
            await self._copies.copy(names, offers, credentials, told)
            await self._listing.look()

    def pull(self, wish: PullWish, llama_server: str, hub: Mapping[str, str]) -> Pull:
        """Begin to fetch what is wished from the hub, or return the pull that does so already.

        Without a quantisation it is what fits this machine best. ``hub``: see :func:`with_hub`.
        Raises :class:`Unavailable`: too many. How it goes is for the subscribers of :attr:`pulls`;
        an entry is made, which whoever wishes it may write.
        """
        model, revision = wish.model, wish.revision
        if (running := self.pulls.running(model, revision)) is not None:
            return running
        job = Job(
            model=model,
            storage=str(self._storage),
            models_file=str(self._data_dir / "models.json"),  # not read without an entry
            llama_server=llama_server,
            revision=revision,
            entry=False,
            propose=wish.entry,
            replace=wish.replace,
        )
        return self.pulls.begin(model, revision, as_text(job), with_hub(self._environ(), hub))

    async def end_pull(self, pull: Pull, *, discard: bool) -> None:
        """End a pull, and have it off the list."""
        with contextlib.suppress(NotFound):  # it is off it
            await self.pulls.end(pull.id, discard=discard)


def copied_as(missing: Missing) -> str:
    """Return the path by which another may have what is missing. Raises :class:`CopyFailed`."""
    if missing.copied_as is None:
        raise CopyFailed(missing.why or "a file is missing", code="not_copied")
    return missing.copied_as
