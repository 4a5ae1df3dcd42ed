"""Reads the values that a configuration in JavaScript exports. Pure: nothing is run.

It is read as data: the forms in which people write configurations are understood, and whatever
else stands there is told with its line and column, and never guessed. Understood are

- ``module.exports =``, ``exports.NAME =``, ``export default``, ``export const``, and ``const``,
  ``let``, ``var`` and assignments before them;
- objects, lists, texts in any quotes, numbers, true, false, null, names of what stands above, and
  ``...`` of objects;
- ``process.env.NAME || default`` (and ``??``), which is its default, and says so;
- ``__dirname``, ``path.join()`` and ``path.resolve()`` of such texts, ``+`` between texts, and
  ``${}`` of all of this in templates;
- ``Number()``, ``parseInt()``, ``String()`` and ``Object.freeze()`` around a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from gateway.legacy.statements import StatementReader
from gateway.legacy.token_reader import check_depth
from gateway.legacy.tokens import Lines, NotUnderstood, tokens


class Setting(NamedTuple):
    """An exported value, where it stands (from 1), and what was assumed."""

    value: Any
    line: int
    column: int
    note: str = ""


class Unread(NamedTuple):
    """A part that wasn't understood, and where (from 1). ``name`` is the setting's, if it is
    one's.
    """

    line: int
    column: int
    what: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Script:
    """``settings``: what is exported, ``None`` if nothing is; ``environment``: its variables."""

    settings: dict[str, Setting] | None
    unread: tuple[Unread, ...]
    environment: tuple[str, ...]


def read_script(text: str, folder: str) -> Script:
    """Return what ``text`` exports, and what is unclear; ``folder``: its file's, absolute."""
    lines = Lines(text)
    try:
        found = tokens(text)
        check_depth(found)
    except NotUnderstood as error:
        return Script(None, (Unread(*lines.position(error.at), error.what),), ())
    reader = StatementReader(found, folder)
    reader.run()
    unread = tuple(
        Unread(*lines.position(at), what, name) for at, what, name in sorted(reader.unread)
    )
    exported = reader.exported
    settings = None
    if exported is not None:
        settings = {
            name: Setting(_plain(known.value), *lines.position(known.at), known.note)
            for name, known in exported.items()
        }
    return Script(settings, unread, tuple(dict.fromkeys(reader.variables)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(known.value) for name, known in value.items()}
    if isinstance(value, list):
        return [_plain(known.value) for known in value]
    return value
