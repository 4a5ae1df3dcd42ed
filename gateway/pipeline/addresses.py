"""Guesses which route was meant by a request for one that does not exist.

Clients are given base URLs with too much in them, or too little: the error names the right
address.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.errors import MethodNotAllowed, NotFound

#: Characters of a path that are shown, and that are compared with the routes.
_SHOWN, _LONGEST = 200, 100
#: How alike two paths are that differ by a typing error: two letters of ten at most.
_ALIKE = 0.8
_BASE_URL = "the base URL of OpenAI's clients is the address of this server and /v1"
_ANTHROPIC = "the base URL of Anthropic's clients is the address of this server, without /v1"


class _KnownPaths(NamedTuple):
    method: str
    path: str
    pattern: re.Pattern[str]


class Addresses:
    """The addresses of the application, and the errors for all others."""

    def __init__(self) -> None:
        self._known: list[_KnownPaths] = []
        #: The beginnings of routes: if such a part were cut off, another route than the one meant
        #: would be left.
        self._beginnings: set[str] = set()
        self._page = False

    def learn(self, routes: Iterable[tuple[str, str]]) -> None:
        """Take note of routes, ``(method, path)`` as aiohttp writes them."""
        self._known += [_KnownPaths(method, path, _pattern(path)) for method, path in routes]
        self._beginnings = {known.path.split("/")[1].lower() for known in self._known} - {
            "v1",
            "api",
        }
        self._page = any(known.path == "/" for known in self._known)

    def no_route(self, method: str, path: str) -> NotFound:
        """Return the error of a request for a route that does not exist."""
        return NotFound(self.explain(method, path), code="route_not_found")

    def not_for(self, method: str, path: str, allowed: str) -> MethodNotAllowed:
        """Return the error of a request for a route that takes only the methods ``allowed``."""
        message = f"{_shown(path)} does not take {method}; allowed: {allowed}"
        if (hint := self.other_route(method, path)) is not None:
            message += f". {_sentence(hint)}"
        return MethodNotAllowed(message, headers={"Allow": allowed})

    def explain(self, method: str, path: str) -> str:
        """Return the message for a request for ``path``, which no route has."""
        if self._page and _plain(path) == "/":
            ui = ", llama.cpp's own page is /ui/" if "ui" in self._beginnings else ""
            routes = f"/docs lists all routes{ui}"
            return f"{path} is the page, for who asks for HTML; {_BASE_URL}, {routes}"
        hint = self._hint(method, path)
        return f"there is no route {method} {_shown(path)}" + (f": {hint}" if hint else "")

    def _hint(self, method: str, path: str) -> str | None:
        plain = _plain(path)
        if plain == "/":
            page = "a page for browsers is /ui/, " if "ui" in self._beginnings else ""
            return f"{page}{_BASE_URL}, and /docs lists all routes"
        if plain.endswith("/v1"):  # a base URL, looked at in a browser
            return f"{_BASE_URL}, and GET /v1/models lists the models"
        return self._meant(method, path, self._known)

    def other_route(self, method: str, path: str) -> str | None:
        """Return what was meant by ``method`` and ``path``, if only a route for other methods fits.

        ``None`` where ``path`` is a route as it stands, and not only a name that one takes.
        """
        if any(known.path == path for known in self._known):
            return None
        taking = [
            known
            for known in self._known
            if known.method in (method, "*")
            and not ("{" in known.path and known.pattern.fullmatch(path))
        ]
        return self._meant(method, path, taking)

    def _meant(self, method: str, path: str, among: Sequence[_KnownPaths]) -> str | None:
        plain = _plain(path)
        if (found := self._within(method, plain, among)) is None:
            if (meant := self._behind_a_route(method, plain, among)) is not None:
                return f"{meant} {_sentence(_BASE_URL)}"
            return _alike(method, plain, among)
        known, rest = found
        meant = f"did you mean {_method(known, method)} {rest}?"
        if len(rest) < len(plain):
            return f"{meant} {_why(plain.removesuffix(rest), rest)}"
        if rest != plain:
            return f"{meant} Upper and lower case count"
        if path.endswith("/"):
            return f"{meant} There is no slash at the end"
        return meant

    def _behind_a_route(self, method: str, plain: str, among: Sequence[_KnownPaths]) -> str | None:
        """Return what was meant where a route's whole address was taken for the base URL."""
        parts = plain.split("/")[1:]
        literal = {known.path.lower() for known in self._known}
        for cut in range(len(parts) - 1, 0, -1):
            before = "/" + "/".join(parts[:cut])
            if before.lower() not in literal:
                continue
            rest = "/" + "/".join(parts[cut:])
            for path in (f"/v1{rest}", rest):
                found = [known for known in among if known.path.lower() == path.lower()]
                found.sort(key=lambda known: known.method not in (method, "*"))
                if found:
                    return f"did you mean {_method(found[0], method)} {found[0].path}?"
        return None

    def _within(
        self, method: str, plain: str, among: Sequence[_KnownPaths]
    ) -> tuple[_KnownPaths, str] | None:
        """Return the route that a path ends with, and the path as that route writes it.

        As little as possible is cut off at the front; a route that takes ``method`` comes first.
        """
        parts = plain.split("/")[1:]
        for start in range(min(len(parts), 10)):
            rest = "/" + "/".join(parts[start:])
            before = {part.lower() for part in parts[:start]}
            if not rest.startswith("/v1/") and before & self._beginnings:
                continue
            found = [known for known in among if known.pattern.fullmatch(rest)]
            found.sort(key=lambda known: (known.method not in (method, "*"), "{" in known.path))
            if found:
                known = found[0]
                return known, rest if "{" in known.path else known.path
        return None


def _alike(method: str, plain: str, among: Sequence[_KnownPaths]) -> str | None:
    if len(plain) > _LONGEST:
        return None
    plainly = [known for known in among if "{" not in known.path]
    plainly.sort(key=lambda known: known.method == method)  # the last one stays
    paths = {known.path.lower(): known for known in plainly}
    close = difflib.get_close_matches(plain.lower(), paths, n=1, cutoff=_ALIKE)
    if not close:
        return None
    known = paths[close[0]]
    return f"did you mean {_method(known, method)} {known.path}?"


def _shown(path: str) -> str:
    return path if len(path) <= _SHOWN else f"{path[:_SHOWN]}..."


def _plain(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part)


def _why(before: str, rest: str) -> str:
    """Return the mistake that puts ``before`` in front of a route."""
    if "/messages" in rest:
        return _sentence(_ANTHROPIC)
    if before == "/v1" and not rest.startswith("/v1/"):
        return "It stands beside /v1, not below it"
    return _sentence(_BASE_URL)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _method(known: _KnownPaths, asked: str) -> str:
    return asked if known.method == "*" else known.method


def _pattern(path: str) -> re.Pattern[str]:
    """Return a pattern, which ignores case, for a path like ``/models/{model:.+}``."""
    text, end = "", 0
    for variable in re.finditer(r"\{\w+(?::([^{}]+))?\}", path):
        text += re.escape(path[end : variable.start()]) + f"(?:{variable[1] or '[^/]+'})"
        end = variable.end()
    return re.compile(text + re.escape(path[end:]), re.IGNORECASE)
