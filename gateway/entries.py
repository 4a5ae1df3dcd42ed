"""One entry of models.json, read and changed over HTTP while the gateway runs.

A change is checked as ``llm-gateway check`` does, written at once, and in use when it is answered.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.config.settings import Settings
from gateway.errors import BadRequest, Forbidden, ModelNotFound, Unprocessable
from gateway.library import Library
from gateway.models import editing
from gateway.models.catalog import EMPTY, SCHEMA_KEY, Catalog, parse_partly
from gateway.models.hidden import HIDDEN, left_hidden, with_secrets, without_secrets
from gateway.models.local_model import LocalModel
from gateway.models.model import Model
from gateway.models.process_settings import SETTING, refusals
from gateway.problems import InvalidFiles, Problem, reject_duplicates
from gateway.spelling import did_you_mean
from gateway.syntax import encoding_problem, is_javascript
from gateway.tasks import spawn

if TYPE_CHECKING:
    from gateway.backends.entry_check import EntryCheck

_log = logging.getLogger(__name__)

_OF_THE_DEMO: Final = (
    "This models.json is the one of the demonstration, and belongs to the program: "
    "`llm-gateway init DIR` makes one of yours."
)
#: How often a change is repeated because another process has written the file meanwhile.
_TRIES: Final = 5


class Wrong(Unprocessable):
    """422: the entry could not be served; it carries every problem of the entry."""

    default_code = "invalid_entry"

    def __init__(self, name: str, problems: list[Problem]) -> None:
        count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        said = "; ".join(str(replace(problem, file="")) for problem in problems)
        super().__init__(f"{count} with the entry {name[:200]!r}: {said}", param=problems[0].key)
        self.problems = problems

    def body(self) -> dict[str, Any]:
        """Return the body with ``problems``: a list of ``{"key", "value", "message",
        "allowed"}``.
        """
        body = super().body()
        body["error"]["problems"] = [_as_json(problem) for problem in self.problems]
        return body


class ModelsFileBroken(BadRequest):
    """409: another part of models.json is broken already."""

    status = 409
    default_code = "models_file_broken"

    def __init__(self, problems: list[Problem]) -> None:
        said = "; ".join(map(str, problems))
        super().__init__(
            f"models.json is broken, and was left as it is: it has to be mended first. {said}"
        )


class ProcessSetting(Forbidden):
    """403: the change would choose programs, or files outside ``llm_storage``."""

    default_code = "process_setting"


class Stored(NamedTuple):
    """An ``entry`` without its secrets. ``etag``: an opaque text that differs after each change."""

    entry: dict[str, Any]
    etag: str
    created: bool = False


class Editable(NamedTuple):
    """Whether entries can be changed over HTTP, told before somebody tries it.

    ``reason``: why not. ``process_settings``: whether also what chooses programs can be changed.
    """

    path: str
    writable: bool
    reason: str | None
    process_settings: bool


class Conditions(NamedTuple):
    """What must hold of an entry before it is changed (RFC 9110, 13.1).

    ``None``: no condition; ``"*"``: that there is an entry, or that there is none.
    """

    match: tuple[str, ...] | None = None
    none_match: tuple[str, ...] | None = None

    def check(self, etag: str | None) -> None:
        """Raise :class:`editing.ChangedMeanwhile`. ``etag``: that of the entry, if there is one."""
        if self.match is not None and not _among(self.match, etag):
            raise editing.ChangedMeanwhile(
                "the entry is not the one that If-Match names: somebody else has changed it "
                "meanwhile, or it is gone"
            )
        if self.none_match is not None and _among(self.none_match, etag):
            raise editing.ChangedMeanwhile("there is such an entry already (If-None-Match)")


def _among(tags: tuple[str, ...], etag: str | None) -> bool:
    return etag is not None and ("*" in tags or etag in tags)


ANY: Final = Conditions()

#: Makes the new entry from the present one, if any; ``None`` removes it.
Make = Callable[[dict[str, Any] | None], dict[str, Any] | None]


class _Read(NamedTuple):
    """models.json at one moment: its text, all that is in it, and what is wrong with it."""

    before: bytes
    text: str
    data: Mapping[str, Any]
    catalog: Catalog
    problems: list[Problem]

    def entry(self, name: str) -> dict[str, Any] | None:
        found = self.data.get(name) if name != SCHEMA_KEY else None
        return found if isinstance(found, dict) else None


class Entries:
    """The entries of the file that ``library`` reads."""

    def __init__(self, settings: Settings, library: Library) -> None:
        self._settings = settings
        self._library = library
        self._all = settings.admin.process_settings
        self._lock = asyncio.Lock()
        # A hash alone would let guesses of what is hidden be tried out.
        self._secret = secrets.token_bytes(32)

    @cached_property
    def _check(self) -> EntryCheck:
        from gateway.backends.entry_check import EntryCheck  # no start needs what comes with it

        return EntryCheck(self._settings, os.environ)

    async def editable(self) -> Editable:
        """Return whether the file may be written, as far as can be told without doing so."""
        reason = await asyncio.to_thread(self._why_read_only)
        return Editable(str(self._library.file), reason is None, reason, self._all)

    async def get(self, name: str) -> Stored:
        """Return one entry. Raises :class:`ModelNotFound`, :class:`ModelsFileBroken`."""
        return await asyncio.to_thread(self._get, name)

    async def change(
        self, name: str, make: Make, conditions: Conditions = ANY, *, by: str
    ) -> Stored | None:
        """Write what ``make`` makes of the entry ``name``, and return when it is in use.

        ``by``: who asks for it, for the log. ``None``: it is gone. Whoever asks may leave: it is
        written and in use, or neither. Raises :class:`Wrong`, :class:`ProcessSetting`,
        :class:`ModelsFileBroken`, :class:`ModelNotFound`, :class:`editing.NotWritten`,
        :class:`editing.ChangedMeanwhile`.
        """
        outcome: asyncio.Future[Stored | None] = asyncio.get_running_loop().create_future()
        spawn(self._to(outcome, name, make, conditions, by), name=f"change the entry {name}")
        return await asyncio.shield(outcome)

    async def _to(
        self,
        outcome: asyncio.Future[Stored | None],
        name: str,
        make: Make,
        conditions: Conditions,
        by: str,
    ) -> None:
        try:
            stored = await self._change_and_take(name, make, conditions, by)
        except Exception as error:
            outcome.set_exception(error)
            outcome.exception()  # the client may have left
        else:
            outcome.set_result(stored)

    async def _change_and_take(
        self, name: str, make: Make, conditions: Conditions, by: str
    ) -> Stored | None:
        async with self._lock:
            stored, written = await asyncio.to_thread(self._change, name, make, conditions)
            if written:
                what = "removed" if stored is None else "made" if stored.created else "changed"
                _log.info("the entry %r of models.json was %s by %s", name, what, by)
            await self._library.refresh()
            if written and (broken := self._library.broken) is not None:
                raise ModelsFileBroken([Problem("", "", None, broken)])  # by somebody, just now
            return stored

    def why_not(self, name: str, entry: dict[str, Any]) -> str | None:
        """Return in a sentence why a new entry would be refused; ``None`` if it wouldn't.
        Blocks.
        """
        if self._library.shipped:
            return _OF_THE_DEMO
        try:
            catalog, problems = parse_partly(json.dumps({name: entry}), file="")
            if (spec := catalog.models.get(name)) is not None:
                if not self._all:
                    self._refuse(LocalModel(name=name), spec)
                problems += self._faults(LocalModel(name=name), spec)
        except InvalidFiles as error:
            problems = list(error.problems)
        except ProcessSetting as error:
            return error.message
        return str(Wrong(name, problems)) if problems else None

    # --- in a thread -------------------------------------------------------------------------

    def _why_read_only(self) -> str | None:
        if self._library.shipped:
            return _OF_THE_DEMO
        if is_javascript(self._library.file):
            return "It is JavaScript: the gateway changes JSON only."
        file = self._library.file.resolve()
        if file.exists() and not os.access(file, os.W_OK):
            return f"The gateway may not write {file}."
        folder = file.parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        # A change writes a new file beside it, which takes its place.
        if os.access(folder, os.W_OK | os.X_OK):
            return None
        return f"The gateway may not write into the folder {folder}."

    def _get(self, name: str) -> Stored:
        read = self._read()
        if (entry := read.entry(name)) is None:
            raise _unknown(name, read)
        return self._stored(entry)

    def _change(self, name: str, make: Make, conditions: Conditions) -> tuple[Stored | None, bool]:
        """Return what is there afterwards, and whether anything was written."""
        for last in (*[False] * (_TRIES - 1), True):
            read = self._read()
            old = read.entry(name)
            conditions.check(self._etag(old) if old is not None else None)
            new = make(old)
            if new is None:
                if old is None:
                    raise _unknown(name, read)
                text = editing.without_entry(read.text, name)
            else:
                new = with_secrets(new, old or {})
                if old is not None and json.dumps(old) == json.dumps(new):
                    return self._stored(old), False
                text = _with_entry(read.text, name, new)
            self._judge(name, new, read, text)
            try:
                self._write(text, read.before)
            except editing.ChangedMeanwhile:
                if last:
                    raise
                continue
            if new is None:
                return None, True
            return self._stored(new, created=old is None), True
        raise AssertionError

    def _judge(self, name: str, new: dict[str, Any] | None, read: _Read, text: str) -> None:
        """Raise what is wrong with ``text``, in which ``name`` is ``new``."""
        catalog, problems = parse_partly(text, file="")
        ours = [p for p in problems if p not in read.problems or _is_of(p, name)]
        if new is not None:
            what = f"{HIDDEN!r} stands for a value that is hidden, and there is none here"
            ours += [Problem("", f"{name}.{key}", None, what) for key in left_hidden(new)]
        before = read.catalog.models.get(name, LocalModel(name=name))
        after = catalog.models.get(name)
        if after is not None:
            if not self._all:
                self._refuse(before, after)
            ours += self._faults(before, after)
        if ours:
            raise Wrong(name, ours)
        if problems:
            raise ModelsFileBroken(problems)

    def _refuse(self, before: Model, after: Model) -> None:
        found = list(refusals(before, after, self._settings.llm_storage))
        if found:
            said = "; ".join(f"{field} ({reason})" for field, reason in found)
            raise ProcessSetting(
                f"not over HTTP: {said}. Write it into models.json itself, or set {SETTING}: true "
                "in gateway.yaml",
                param=found[0].field,
            )

    def _faults(self, before: Model, after: Model) -> list[Problem]:
        """Yield why a load of ``after`` would surely fail, where one of ``before`` would not."""
        found = [problem for problem, sure in self._check.problems(after) if sure]
        if not found:
            return []
        known = {problem for problem, _ in self._check.problems(before)}
        return [problem for problem in found if problem not in known]

    def _read(self) -> _Read:
        file = self._library.file
        if is_javascript(file):
            what = "is JavaScript: models stand in a JSON file"
            raise ModelsFileBroken([Problem(str(file), "", None, what)])
        try:
            before = editing.read(file)
            text = before.decode("utf-8-sig")
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
            raise ModelsFileBroken([Problem(str(file), "", None, what)]) from None
        except UnicodeDecodeError as error:
            raise ModelsFileBroken(
                [Problem(str(file), "", None, encoding_problem(error))]
            ) from None
        if not text.strip():
            return _Read(before, text, {}, EMPTY, [])
        catalog, problems = parse_partly(text, file="")
        try:
            editing.members(text, file="")
            data = json.loads(text, object_pairs_hook=reject_duplicates)
        except (InvalidFiles, ValueError):
            raise ModelsFileBroken(problems) from None
        return _Read(before, text, data, catalog, problems)

    def _write(self, text: str, before: bytes) -> None:
        if self._library.shipped:
            raise Forbidden(_OF_THE_DEMO, code="not_writable")
        editing.replace(self._library.file, text, before=before)

    def _stored(self, entry: dict[str, Any], *, created: bool = False) -> Stored:
        return Stored(without_secrets(entry, env=self._all), self._etag(entry), created)

    def _etag(self, entry: dict[str, Any]) -> str:
        return hmac.new(self._secret, json.dumps(entry).encode(), hashlib.sha256).hexdigest()[:32]


def _with_entry(text: str, name: str, entry: dict[str, Any]) -> str:
    try:
        changed = editing.with_entry(text, name, entry)
        changed.encode()
    except UnicodeEncodeError:
        raise BadRequest("half a character (a lone surrogate) stands in it") from None
    except RecursionError:
        raise BadRequest("it is nested too deeply") from None
    return changed


def _unknown(name: str, read: _Read) -> ModelNotFound:
    if (real := read.catalog.aliases.get(name)) is not None:
        hint = f": that is an alias of {real!r}"
    else:
        hint = did_you_mean(name, read.catalog.names) or ""
    return ModelNotFound(f"there is no entry {name[:200]!r} in models.json{hint}", param="name")


def _is_of(problem: Problem, name: str) -> bool:
    return problem.key in (name, repr(name)) or problem.key.startswith(f"{name}.")


def _as_json(problem: Problem) -> dict[str, Any]:
    return {
        "key": problem.key,
        "value": problem.value,
        "message": problem.message,
        "allowed": problem.allowed,
    }
