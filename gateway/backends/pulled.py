"""Turns what the hub has into a served model: chooses what fits this machine, and makes its entry.

Of `llm-gateway pull` and, in a process of its own, of ``POST /admin/pulls``. Blocking.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from gateway.backends.command import find_program
from gateway.backends.machine import Machine, read_machine
from gateway.backends.proposal import SHARE, Proposal, propose
from gateway.errors import BadRequest, LoadFailed, Unprocessable
from gateway.models import editing, hub
from gateway.models.catalog import EMPTY, Catalog, parse_catalog, parse_partly
from gateway.models.hub import Reference, Repository, Variant
from gateway.models.hub_client import Hub, check_installed
from gateway.models.paths import resolve_model_path
from gateway.models.pull import PullPlan
from gateway.models.storage import Found, Task, look_at
from gateway.private_files import make_folder
from gateway.problems import InvalidFiles, Problem
from gateway.syntax import encoding_problem

#: The factor on a file's size for buffers and the least useful context.
_OVERHEAD: Final = 1.1
_LEAST: Final = 512 * 2**20
#: How often models.json is read again if somebody else writes it at the same moment.
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class PullPlace:
    """The folder that models go to, and the machine they will run on. ``budget``: bytes, ``None``:
    what there is.
    """

    storage: Path
    models_file: Path
    llama_server: str
    budget: int | None = None

    def machine(self) -> Machine:
        """Return this machine. It looks at the devices, which may take a second."""
        program: tuple[str, ...] = ()
        with contextlib.suppress(LoadFailed):  # `serve` says so
            program = find_program(self.llama_server, os.environ)
        return read_machine(program, dict(os.environ))


@dataclass(frozen=True, slots=True)
class DiskRoom:
    """The room that this machine has for one model: bytes where it runs, and of RAM beside that."""

    main: int
    ram: int = 0

    @classmethod
    def of(cls, machine: Machine, budget: int | None) -> DiskRoom:
        """Return that of ``machine``, of which all models together may take ``budget`` bytes."""
        main = machine.budget if budget is None else min(budget, machine.budget)
        ram = machine.ram.budget if machine.gpu and machine.ram is not None else 0
        return cls.of_bytes(main, ram)

    @classmethod
    def of_bytes(cls, main: int, ram: int) -> DiskRoom:
        """Return that of a machine where all models together may take so much."""
        return cls(int(main * SHARE), int(ram * SHARE))

    def fits(self, size: int) -> str:
        """Return ``yes``, ``partly`` (not all of it on the GPU) or ``no``, for files of ``size``
        bytes.
        """
        needs = about(size)
        if needs <= self.main:
            return "yes"
        return "partly" if self.ram and needs <= self.main + self.ram else "no"

    def why(self, size: int) -> str:
        """Return what :meth:`fits` says, with its numbers."""
        needs, main = _size(about(size)), _size(self.main)
        if not self.ram:
            return f"needs about {needs}, and there is {main} for one model"
        both = f"{main} of GPU memory and {_size(self.ram)} of RAM"
        return f"needs about {needs}, and there is {both} for one model"


def about(size: int) -> int:
    """Return bytes of memory that a model will take, as far as the size of its files tells."""
    return max(int(size * _OVERHEAD), size + _LEAST)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a repository offers, and which of it fits. ``shut``: gated, and there is no token."""

    reference: Reference
    repository: Repository
    room: DiskRoom
    shut: bool = False

    def size(self, variant: Variant) -> int:
        """Return bytes of its files, its projector's as well."""
        projector = self.repository.projector_for(variant)
        return variant.size + (projector.size if projector is not None else 0)

    def fits(self, variant: Variant) -> str:
        """See :meth:`DiskRoom.fits`."""
        return self.room.fits(self.size(variant))

    @property
    def recommended(self) -> Variant | None:
        """The default choice: one that fits on the GPU as a whole, if there is one."""
        for enough in (("yes",), ("yes", "partly")):
            found = hub.recommended(self.repository, partial(self._is, enough))
            if found is not None:
                return found
        return None

    def _is(self, enough: tuple[str, ...], variant: Variant) -> bool:
        return self.fits(variant) in enough

    def report(self) -> dict[str, Any]:
        """Return the same as JSON."""
        best = self.recommended
        return {
            "repository": self.repository.id,
            "revision": self.repository.commit,
            "gated": self.repository.gated,
            "shut": self.shut,
            "left_out": self.repository.left_out,
            "quantisations": [
                {
                    "name": one.label,
                    "files": [file.path for file in one.files],
                    "missing": one.missing,
                    "size": one.size,
                    "projector": projector.path if projector is not None else None,
                    "download": self.size(one),
                    "memory": about(self.size(one)),
                    "fits": self.fits(one),
                    "why": self.room.why(self.size(one)),
                    "recommended": one is best,
                }
                for one in self.repository.variants
                for projector in (self.repository.projector_for(one),)
            ],
        }


def _size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def look(
    place: PullPlace,
    client: Hub,
    reference: Reference,
    revision: str | None = None,
    room: DiskRoom | None = None,
) -> Offer:
    """Return what the hub has of ``reference``. ``room``: of the machine that it is for, if that is
    another. Raises :class:`gateway.errors.GatewayError`.
    """
    found = client.repository(reference, revision)
    if not found.variants:
        raise Unprocessable(
            f"{found.id} has no GGUF file: what llama-server runs is often in one called "
            f"{reference.name}-GGUF",
            param="model",
        )
    shut = found.gated and not client.has_token
    if room is None:
        room = DiskRoom.of(place.machine(), place.budget)
    return Offer(reference, found, room, shut)


def chosen(offer: Offer) -> Variant:
    """Return what the reference names, else what is recommended. Raises :class:`BadRequest`."""
    if offer.reference.quantisation is not None:
        return hub.choose(offer.repository, offer.reference.quantisation)
    best = offer.recommended
    if best is None:
        labels = ", ".join(one.label for one in offer.repository.variants[:20])
        raise BadRequest(
            f"nothing in {offer.repository.id} fits this machine's memory; to fetch one all the "
            f"same, name it: {labels}",
            param="model",
        )
    return best


def planned(place: PullPlace, offer: Offer, variant: Variant) -> PullPlan:
    """Return what is fetched for ``variant``, and where it goes."""
    storage = place.storage.expanduser().absolute()
    projector = offer.repository.projector_for(variant)
    return PullPlan(offer.repository, variant, projector, storage)


# --- its entry -------------------------------------------------------------------------------


def check(place: PullPlace, name: str | None, *, entry: bool, here: bool = True) -> None:
    """Check, before hours of downloading, for what would stop a pull at its end.

    ``entry``: whether an entry is to be written; ``here``: whether it is this machine that fetches.
    Raises :class:`gateway.problems.InvalidFiles`, :class:`editing.NotWritten`, :class:`BadRequest`
    for a name that can't be used, and :class:`gateway.models.hub_client.NoHubClient`.
    """
    if here:
        check_installed()
    if not entry:
        return
    _, catalog = _catalog(place.models_file)
    if name is not None:
        if name in catalog.models or name in catalog.aliases:
            raise _taken(name)
        try:
            _, problems = parse_partly(json.dumps({name: {"params": {"model": "x.gguf"}}}), file="")
        except InvalidFiles as error:
            problems = list(error.problems)
        if problems:
            raise BadRequest(
                f"{name[:100]!r} can't be the name of a model: {problems[0].message}", param="name"
            )
    file = place.models_file.resolve()
    try:
        make_folder(file.parent)
    except OSError as error:
        raise editing.not_written(file, error) from None
    for path in (file.parent, *((file,) if file.exists() else ())):
        if not os.access(path, os.W_OK):
            raise editing.NotWritten(file, PermissionError(13, f"no right to write to {path}"))


def add_entry(place: PullPlace, plan: PullPlan, name: str | None) -> Proposal | str:
    """Write an entry for what was fetched. A name alone: models.json has had one under it.

    Raises :class:`Unprocessable` for a file that is no model, and as :func:`check` does.
    """
    found = _found(plan)
    for _ in range(_TRIES):
        before, catalog = _catalog(place.models_file)
        if (served_as := _named(catalog, found.file, plan.storage)) is not None:
            return served_as
        proposal = _proposed(place, plan, found, {*catalog.models, *catalog.aliases})
        if name is not None:
            proposal = proposal._replace(name=name)
        try:
            _write(place.models_file, before, {proposal.name: proposal.entry})
        except editing.ChangedMeanwhile:
            continue
        except ValueError:
            raise _taken(str(name)) from None
        return proposal
    raise editing.ChangedMeanwhile(f"{place.models_file.name} is changed all the time")


def proposed(place: PullPlace, plan: PullPlan) -> Proposal:
    """Return an entry for what was fetched, for :func:`enter` elsewhere. Raises
    :class:`Unprocessable` for a file that is no model.
    """
    return _proposed(place, plan, _found(plan), ())


def _proposed(place: PullPlace, plan: PullPlan, found: Found, taken: Container[str]) -> Proposal:
    machine = place.machine()
    budget = machine.budget if place.budget is None else min(place.budget, machine.budget)
    (proposal,) = propose([found], machine, plan.storage, taken, budget=budget)
    return proposal


def enter(file: Path, proposed: str, entry: Mapping[str, Any], name: str | None) -> str:
    """Write an ``entry`` that was made on another machine, where its model is called ``proposed``.

    Returns the name that it has got, or that models.json has the same file under already. ``name``:
    what it is to be called. Raises as :func:`check` does.
    """
    model = entry["params"]["model"]
    for _ in range(_TRIES):
        before, catalog = _catalog(file)
        for known, spec in catalog.models.items():
            if spec.file == model:
                return known
        taken = {*catalog.models, *catalog.aliases}
        if name is not None and name in taken:
            raise _taken(name)
        chosen, number = name or proposed, 1
        while chosen in taken:
            chosen = f"{proposed}-{(number := number + 1)}"
        try:
            _write(file, before, {chosen: entry})
        except editing.ChangedMeanwhile:
            continue
        return chosen
    raise editing.ChangedMeanwhile(f"{file.name} is changed all the time")


def _taken(name: str) -> BadRequest:
    return BadRequest(f"there is a model {name!r} already: choose another name", param="name")


def _found(plan: PullPlan) -> Found:
    found = look_at(plan.place(plan.variant.files[0]), plan.storage)
    if found.problem is not None:
        raise Unprocessable(f"{found.reference} is here, and cannot be used: {found.problem}")
    if found.task in (None, Task.PROJECTOR, Task.ADAPTER):
        what = found.task.value if found.task is not None else "no model"
        raise Unprocessable(
            f"{found.reference} is here, and is no model of its own ({what}): it belongs into the "
            "entry of one"
        )
    if plan.projector is None or found.task not in (Task.CHAT, Task.COMPLETION):
        return found
    projector = look_at(plan.place(plan.projector), plan.storage)
    theirs, ours = projector.embedding_length, found.embedding_length
    if (
        projector.problem
        or projector.task is not Task.PROJECTOR
        or (theirs and ours and theirs % ours)
    ):
        return found
    return replace(
        found, projector=projector.reference, vision=projector.vision, audio=projector.audio
    )


def _named(catalog: Catalog, file: Path, storage: Path) -> str | None:
    """Return the model that serves ``file`` already."""
    for name, spec in catalog.models.items():
        if spec.file:
            try:
                if resolve_model_path(spec.file, storage).samefile(file):
                    return name
            except (LoadFailed, OSError):
                continue
    return None


def _catalog(file: Path) -> tuple[bytes, Catalog]:
    try:
        before = editing.read(file)
    except OSError as error:
        raise editing.not_written(file, error) from None
    if not before.strip():
        return before, EMPTY
    return before, parse_catalog(_text(before, file), file=str(file))


def _write(file: Path, before: bytes, entries: Mapping[str, Any]) -> None:
    text = editing.with_entries(_text(before, file), entries, file=str(file))
    parse_catalog(text, file=str(file))
    try:
        editing.write(file, text, before=before)
    except OSError as error:
        raise editing.not_written(file, error) from None


def _text(content: bytes, file: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidFiles([Problem(str(file), "", None, encoding_problem(error))]) from None
