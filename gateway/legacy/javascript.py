"""A configuration written in JavaScript -> the values that it exports. Pure: nothing is run.

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

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from gateway.legacy.tokens import Kind, Lines, NotUnderstood, Token, tokens

_MOST_NESTED: Final = 50
_LONGEST_NAME: Final = 60

_OPENING: Final = {"(": ")", "[": "]", "{": "}"}
_CLOSING: Final = frozenset(_OPENING.values())
#: Statements that end with a block.
_BLOCKS: Final = frozenset("if for while do try switch function class async with".split())
_GO_ON: Final = frozenset({"else", "catch", "finally", "while"})
_WORDS: Final = {
    "function": "a function",
    "async": "a function",
    "class": "a class",
    "new": "a new object",
    "await": "something to wait for",
    "typeof": "an expression with typeof",
    "delete": "an expression with delete",
    "void": "an expression with void",
    "yield": "an expression with yield",
    "this": "the word this",
    "super": "the word super",
}
_PATH_MODULES: Final = frozenset({"path", "node:path", "path/posix", "node:path/posix"})
_URL_MODULES: Final = frozenset({"url", "node:url"})


class Known(NamedTuple):
    """A value: text, number, bool, ``None``, list of them, or dict of names to :class:`Known`.

    ``note`` says what was assumed: that a variable of the environment isn't set.
    """

    value: Any
    at: int
    note: str = ""


class Setting(NamedTuple):
    """One value that is exported, where it stands (from 1), and what was assumed."""

    value: Any
    line: int
    column: int
    note: str = ""


class Unread(NamedTuple):
    """What wasn't understood, and where (from 1). ``name`` is the setting's, if it is one's."""

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


class _Variable(NamedTuple):
    """A variable of the environment."""

    name: str


class _Builtin(NamedTuple):
    """A function or object of Node.js, by the name that it has there."""

    name: str


class _Unknown(NamedTuple):
    """What a name stands for that wasn't understood."""

    what: str


_UNDEFINED: Final = _Builtin("undefined")
_GLOBALS: Final = {
    "undefined": _UNDEFINED,
    "true": True,
    "false": False,
    "null": None,
    **{name: _Builtin(name) for name in "process require Object Number parseInt String".split()},
}
#: Called with one understood value they give it back, or its number or text.
_CONVERSIONS: Final = frozenset({"Number", "parseInt", "String", "Object.freeze"})
_MEMBERS: Final = {
    "process.env": _Builtin("process.env"),
    "Object.freeze": _Builtin("Object.freeze"),
    "path.join": _Builtin("path.join"),
    "path.resolve": _Builtin("path.resolve"),
    "path.dirname": _Builtin("path.dirname"),
    "dotenv.config": _Builtin("dotenv.config"),
    "import.meta": _Builtin("import.meta"),
    "import.meta.url": _Builtin("import.meta.url"),
    "import.meta.dirname": _Builtin("import.meta.dirname"),
    "url.fileURLToPath": _Builtin("url.fileURLToPath"),
}


def read_script(text: str, folder: str) -> Script:
    """What ``text``, of a file in ``folder`` (an absolute path), exports, and what is unclear."""
    lines = Lines(text)
    try:
        found = tokens(text)
        _check_depth(found)
    except NotUnderstood as error:
        return Script(None, (Unread(*lines.position(error.at), error.what),), ())
    reader = _Reader(found, folder)
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


def _check_depth(found: Sequence[Token]) -> None:
    depth = 0
    for token in found:
        if token.kind is Kind.PUNCTUATION:
            depth += (token.text in _OPENING) - (token.text in _CLOSING)
        if depth > _MOST_NESTED:
            raise NotUnderstood(token.at, f"more than {_MOST_NESTED} levels of brackets")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(known.value) for name, known in value.items()}
    if isinstance(value, list):
        return [_plain(known.value) for known in value]
    return value


@dataclass
class _Reader:
    _tokens: Sequence[Token]
    _folder: str
    unread: list[tuple[int, str, str]] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)
    _names: dict[str, Any] = field(default_factory=dict)
    _exports: Any = None  # what module.exports is
    _at: int = 0
    _depth: int = 0

    def __post_init__(self) -> None:
        self._names = dict(_GLOBALS)
        self._exports = {}

    @property
    def exported(self) -> dict[str, Known] | None:
        """The object that is exported, unless nothing is."""
        return self._exports if isinstance(self._exports, dict) and self._exports else None

    # --- statements --------------------------------------------------------------------------

    def run(self) -> None:
        """Read every statement; note those that aren't understood."""
        while self._next.kind is not Kind.END:
            start = self._at
            try:
                if not self._statement():
                    self._end_of_statement()
            except NotUnderstood as error:
                self.unread.append((error.at, error.what, ""))
                self._at = start
                self._skip_statement()

    def _statement(self) -> bool:
        """Read one; whether it needs no end of its own."""
        token = self._next
        if self._take(";"):
            return True
        if token.kind is Kind.TEXT:  # "use strict"
            self._at += 1
        elif token.text in ("const", "let", "var"):
            self._at += 1
            self._declarations()
        elif token.text in ("function", "class", "async"):
            self._declared_unknown()
            return True
        elif token.text == "import" and self._peek(1).text not in ("(", "."):
            self._import()
        elif token.text == "export":
            self._export()
        elif token.text in _BLOCKS or token.text in ("throw", "return", "debugger"):
            raise NotUnderstood(token.at, f"a statement with {token.text}")
        else:
            self._assignment()
        return False

    def _end_of_statement(self) -> None:
        token = self._next
        if not (self._take(";") or token.new_line or token.kind is Kind.END):
            raise self._wrong(token)

    def _declarations(self, *, exported: bool = False) -> None:
        while True:
            if self._next.text in ("{", "["):
                self._destructured()
            else:
                name = self._name()
                self._names[name] = _Unknown("what has no value yet")
                if self._take("="):
                    self._define(name)
                value = self._names[name]
                if exported and isinstance(value, Known) and not isinstance(value.value, _Builtin):
                    self._exports[name] = value
            if not self._take(","):
                return

    def _define(self, name: str) -> None:
        """``name`` is what stands here; unknown, and told, if that isn't understood."""
        start = self._at
        try:
            known = self._expression("")
            if self._next.text not in (",", ";") and not self._next.new_line:
                raise self._wrong(self._next)
        except NotUnderstood as error:
            if name != "__dirname":  # of ES modules, whose own it isn't: it is what it always is
                self.unread.append((error.at, error.what, name))
            self._names[name] = _Unknown("not understood above")
            self._at = start
            self._skip_value(statement=True)
        else:
            self._names[name] = known

    def _destructured(self) -> None:
        """``const { join } = require('path')``; of anything else its names are unknown."""
        start = self._next
        if start.text == "[":
            raise NotUnderstood(start.at, "a list of names that get values at once")
        self._at += 1
        names: list[tuple[str, str]] = []
        while not self._take("}"):
            inner = self._name()
            names.append((inner, self._name() if self._take(":") else inner))
            if self._next.text != "}":
                self._expect(",")
        self._expect("=")
        known = self._expression("")
        for inner, outer in names:
            self._names[outer] = self._member(known.value, inner, start)

    def _declared_unknown(self) -> None:
        """A function or class: it does nothing until somebody uses it, and that is told then."""
        while self._next.text in ("async", "function", "class", "*"):
            self._at += 1
        if self._next.kind is Kind.NAME:
            self._names[self._next.text] = _Unknown("a function or class of the file's own")
        while self._next.text != "{" and self._next.kind is not Kind.END:
            self._skip_one()
        self._skip_one()

    def _import(self) -> None:
        start = self._take_any()
        names: dict[str, str | None] = {}
        if self._next.kind is not Kind.TEXT:
            while self._next.text != "from":
                if self._next.kind is Kind.END:
                    raise NotUnderstood(start.at, "an import that isn't understood")
                if self._take("{"):
                    while not self._take("}"):
                        inner = self._name()
                        names[self._name() if self._take("as") else inner] = inner
                        self._take(",")
                elif self._take("*"):
                    self._expect("as")
                    names[self._name()] = None
                elif not self._take(","):
                    names[self._name()] = None
            self._expect("from")
        module = self._module(self._take_any())
        for name, member in names.items():
            self._names[name] = module if member is None else self._member(module, member, start)

    def _export(self) -> None:
        start = self._take_any()
        if self._take("default"):
            known = self._expression("")
            self._exports = known.value
        elif self._next.text in ("const", "let", "var"):
            self._at += 1
            self._declarations(exported=True)
        elif self._take("{"):
            while not self._take("}"):
                token = self._next
                inner = self._name()
                outer = self._name() if self._take("as") else inner
                value = self._lookup(inner, token)
                if outer == "default":
                    self._exports = value.value
                else:
                    self._exports[outer] = value
                if self._next.text != "}":
                    self._expect(",")
        else:
            raise NotUnderstood(start.at, "an export that isn't understood")

    def _assignment(self) -> None:
        """``config.port = 80``, ``module.exports = config``, or a call that changes nothing."""
        start, first = self._at, self._next
        path: list[str] = []
        while self._next.kind is Kind.NAME:
            path.append(self._take_any().text)
            if not self._take("."):
                break
        if not (path and self._take("=")):
            self._at = start
            known = self._expression("")
            if not isinstance(known.value, _Builtin):
                raise NotUnderstood(first.at, "an expression that stands by itself")
            return
        if path[:2] == ["module", "exports"]:
            path = ["exports", *path[2:]]
        name = path[-1] if len(path) > 1 else ""
        if path == ["exports"] or (len(path) == 1 and path[0] in self._names):
            if self._next.text == "exports" and self._peek(1).text == "=":
                self._at += 2  # module.exports = exports = {...}
            known = self._expression("")
            if path == ["exports"]:
                self._exports = known.value
            else:
                self._names[path[0]] = known
            return
        target: Any = self._exports if path[0] == "exports" else None
        if target is None:
            target = self._lookup(path[0], first).value
        for part in path[1:-1]:
            target = target.get(part) if isinstance(target, dict) else None
            target = target.value if isinstance(target, Known) else target
        if not isinstance(target, dict):
            raise NotUnderstood(first.at, "a value given to something that isn't known here")
        value_start = self._at
        try:
            known = self._expression(name)
            if self._next.text != ";" and not self._next.new_line:
                raise self._wrong(self._next)
            if known.value is _UNDEFINED:
                target.pop(name, None)
            else:
                target[name] = self._data(known)
        except NotUnderstood as error:
            target.pop(name, None)
            self.unread.append((error.at, error.what, ".".join(path[1:])))
            self._at = value_start
            self._skip_value(statement=True)

    # --- expressions -------------------------------------------------------------------------

    def _expression(self, name: str) -> Known:
        """The value that stands here; ``name``: whose it is. Raises :class:`NotUnderstood`."""
        self._depth += 1
        try:
            if self._depth > _MOST_NESTED:
                raise NotUnderstood(self._next.at, f"more than {_MOST_NESTED} levels of brackets")
            left = self._operand(name)
            while self._next.text in ("||", "??", "+") and self._next.kind is Kind.PUNCTUATION:
                left = self._operator(left, self._take_any(), name)
            if isinstance(left.value, _Variable):
                self.variables.append(left.value.name)
                what = f"the environment variable {left.value.name}, which has no default here"
                raise NotUnderstood(left.at, what)
            return left
        finally:
            self._depth -= 1

    def _operator(self, left: Known, operator: Token, name: str) -> Known:
        right = self._operand(name)
        if operator.text == "+":
            for known in (left, right):
                if not isinstance(known.value, str):
                    raise NotUnderstood(operator.at, "a sum")
            return Known(left.value + right.value, left.at, left.note or right.note)
        if isinstance(left.value, _Variable):
            if isinstance(right.value, _Variable):
                self.variables.append(left.value.name)
                return Known(right.value, left.at)
            self.variables.append(left.value.name)
            return Known(right.value, right.at, f"unless {left.value.name} is set")
        nothing = left.value is None or left.value is _UNDEFINED
        if operator.text == "||":
            nothing = nothing or (
                left.value in (False, 0, "") and not isinstance(left.value, _Builtin)
            )
        return right if nothing else left

    def _operand(self, name: str) -> Known:
        known = self._primary(name)
        while self._next.kind in (Kind.PUNCTUATION, Kind.TEMPLATE):
            token = self._next
            if token.text in (".", "?."):
                self._at += 1
                known = Known(self._member(known.value, self._name(), token), known.at, known.note)
            elif token.text == "[" and not token.new_line:
                self._at += 1
                inner = self._expression("")
                self._expect("]")
                member = self._member(known.value, str(inner.value), token)
                known = Known(member, known.at, known.note)
            elif token.text == "(" and not token.new_line:
                known = self._call(known, token)
            else:
                break
        if isinstance(known.value, Known):
            inner = known.value
            return Known(inner.value, known.at, inner.note)
        return known

    def _primary(self, name: str) -> Known:
        token = self._take_any()
        if token.kind in (Kind.TEXT, Kind.NUMBER):
            return Known(token.value, token.at)
        if token.kind is Kind.TEMPLATE:
            return Known(self._template(token), token.at)
        if token.text in ("-", "+") and self._next.kind is Kind.NUMBER:
            number = self._take_any().value
            assert isinstance(number, int | float)
            return Known(-number if token.text == "-" else number, token.at)
        if token.text == "{":
            return Known(self._object(name, token), token.at)
        if token.text == "[":
            return Known(self._list(), token.at)
        if token.text == "(":
            if self._next.text == ")":
                raise NotUnderstood(token.at, "a function")
            inner = self._expression(name)
            self._expect(")")
            if self._next.text == "=>":
                raise NotUnderstood(token.at, "a function")
            return inner
        if token.text in _WORDS:
            raise NotUnderstood(token.at, _WORDS[token.text])
        if token.kind is Kind.NAME and self._next.text == "=>":
            raise NotUnderstood(token.at, "a function")
        if token.text == "import":
            return Known(_Builtin("import"), token.at)
        if token.kind is Kind.NAME:
            return self._lookup(token.text, token)
        if token.kind is Kind.REGEXP:
            raise NotUnderstood(token.at, "a regular expression")
        raise self._wrong(token)

    def _lookup(self, name: str, token: Token) -> Known:
        if name in ("__dirname", "import.meta.dirname"):
            return Known(self._folder, token.at)
        if name not in self._names:
            raise NotUnderstood(token.at, f"the name {_short(name)}, which isn't known here")
        found = self._names[name]
        if isinstance(found, _Unknown):
            raise NotUnderstood(token.at, f"the name {_short(name)}, which is {found.what}")
        if isinstance(found, Known):
            return Known(found.value, token.at, found.note)
        return Known(found, token.at)

    def _member(self, value: Any, name: str, token: Token) -> Any:
        if isinstance(value, _Unknown):
            return value
        if value == _MEMBERS["process.env"]:
            return _Variable(_short(name))
        if isinstance(value, _Builtin):
            if value.name in ("import", "import.meta") or f"{value.name}.{name}" in _MEMBERS:
                full = f"{value.name}.{name}"
                if full == "import.meta.dirname":
                    return self._folder
                return _MEMBERS.get(full, _Unknown(f"{full} of Node.js"))
            if name in ("default", "posix"):
                return value
            raise NotUnderstood(token.at, f"{_short(value.name)}.{_short(name)} of Node.js")
        if isinstance(value, dict) and name in value:
            return value[name]
        raise NotUnderstood(token.at, f"the member {_short(name)} of something")

    def _call(self, function: Known, token: Token) -> Known:
        if not isinstance(function.value, _Builtin):
            raise NotUnderstood(token.at, "a function call")
        called = function.value.name
        if called == "require":
            self._at += 1
            module = self._module(self._take_any())
            self._expect(")")
            return Known(module, function.at)
        if called == "dotenv.config":
            self._skip_one()
            return function
        if called not in _MEMBERS and called not in _CONVERSIONS:
            raise NotUnderstood(token.at, f"a call of {_short(called)}()")
        given = self._arguments()
        if called == "url.fileURLToPath" and [g.value for g in given] == [
            _MEMBERS["import.meta.url"]
        ]:
            return Known(posixpath.join(self._folder, "config.js"), function.at)
        note = next((known.note for known in given if known.note), "")
        if called in _CONVERSIONS:
            return self._converted(called, given, function.at, note)
        texts = [known.value for known in given]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise NotUnderstood(token.at, f"a call of {called}() with something else than texts")
        if called == "path.dirname":
            return Known(posixpath.dirname(texts[0]), function.at, note)
        parts = [text.replace("\\", "/") for text in texts]
        if called == "path.resolve":
            joined = posixpath.join(self._folder, *parts)
        else:
            joined = "/".join(part for part in parts if part)
        return Known(posixpath.normpath(re.sub("^/+", "/", joined)), function.at, note)

    def _converted(self, called: str, given: list[Known], at: int, note: str) -> Known:
        value = given[0].value if given else _UNDEFINED
        radix = given[1].value if len(given) > 1 else 10
        if isinstance(value, _Variable) or called == "Object.freeze":
            return Known(value, at, note)
        if called == "String" and isinstance(value, str | int):
            return Known(str(value), at, note)
        if called in ("Number", "parseInt") and radix == 10:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return Known(int(value) if called == "parseInt" else value, at, note)
            if isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,20}\s*", value):
                return Known(int(value), at, note)
        raise NotUnderstood(at, f"a call of {called}() with something else than a number")

    def _arguments(self) -> list[Known]:
        self._expect("(")
        given: list[Known] = []
        while not self._take(")"):
            known = self._operand("")
            while self._next.text in ("||", "??", "+"):
                known = self._operator(known, self._take_any(), "")
            given.append(known)
            if self._next.text != ")":
                self._expect(",")
        return given

    def _module(self, token: Token) -> _Builtin:
        module = token.value
        if token.kind is not Kind.TEXT or not isinstance(module, str):
            raise NotUnderstood(token.at, "a module that is chosen while the program runs")
        if module in _PATH_MODULES:
            return _Builtin("path")
        if module in _URL_MODULES:
            return _Builtin("url")
        if module in ("dotenv", "dotenv/config"):
            return _Builtin("dotenv")
        if re.match(r"\.{0,2}/|[A-Za-z]:", module):
            raise NotUnderstood(token.at, f"another file, {_short(module)}, which isn't read")
        return _Builtin(module)

    def _template(self, token: Token) -> str:
        found = ""
        for part in token.parts:
            if isinstance(part, str):
                found += part
                continue
            inner = _Reader(part, self._folder, self.unread, self.variables)
            inner._names, inner._depth = self._names, self._depth + 1
            known = inner._expression("")
            value = known.value
            if inner._next.kind is not Kind.END or not isinstance(value, str | int):
                raise NotUnderstood(token.at, "a template with something else than texts in it")
            found += str(value).lower() if isinstance(value, bool) else str(value)
        return found

    def _list(self) -> list[Known]:
        found: list[Known] = []
        while not self._take("]"):
            known = self._expression("")
            found.append(known._replace(value=None) if known.value is _UNDEFINED else known)
            self._data(found[-1])
            if self._next.text != "]":
                self._expect(",")
        return found

    def _object(self, name: str, brace: Token) -> dict[str, Known]:
        """The members of an object; those that aren't understood are told, and left out."""
        found: dict[str, Known] = {}
        while not self._take("}"):
            start, token, key = self._at, self._next, ""
            if token.kind is Kind.END:
                raise NotUnderstood(brace.at, "an object without its closing brace")
            try:
                if self._take("..."):
                    inner = self._expression("")
                    if not isinstance(inner.value, dict):
                        raise NotUnderstood(token.at, "... of something that is no object")
                    found.update(inner.value)
                else:
                    key = self._key()
                    if self._take(":"):
                        found[key] = self._expression(_joined(name, key))
                    elif self._next.text in (",", "}") and token.kind is Kind.NAME:
                        found[key] = self._lookup(key, token)
                    else:
                        raise NotUnderstood(token.at, "a function")
                if self._next.text not in (",", "}"):
                    raise self._wrong(self._next)
                if key and found[key].value is _UNDEFINED:
                    del found[key]
                elif key:
                    self._data(found[key])
            except NotUnderstood as error:
                found.pop(key, None)
                self.unread.append((error.at, error.what, _joined(name, key) if key else ""))
                self._at = start
                self._skip_value()
            self._take(",")
        return found

    def _data(self, known: Known) -> Known:
        if isinstance(known.value, _Builtin | _Unknown | _Variable):
            raise NotUnderstood(known.at, "something of Node.js")
        return known

    def _key(self) -> str:
        token = self._take_any()
        if token.kind is Kind.NUMBER:
            return str(token.value)
        if token.kind is Kind.TEXT:
            return str(token.value)
        if token.kind is not Kind.NAME:
            raise NotUnderstood(token.at, "a name that is computed")
        if token.text in ("get", "set", "async") and self._next.text not in (":", ",", "}", "("):
            raise NotUnderstood(token.at, "a function")
        return token.text

    # --- tokens ------------------------------------------------------------------------------

    @property
    def _next(self) -> Token:
        return self._tokens[min(self._at, len(self._tokens) - 1)]

    def _peek(self, ahead: int) -> Token:
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)]

    def _take_any(self) -> Token:
        token = self._next
        self._at += 1
        return token

    def _take(self, text: str) -> bool:
        token = self._next
        if token.text == text and token.kind in (Kind.PUNCTUATION, Kind.NAME):
            self._at += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise self._wrong(self._next)

    def _name(self) -> str:
        token = self._take_any()
        if token.kind is not Kind.NAME:
            raise self._wrong(token)
        return token.text

    def _skip_one(self) -> None:
        """Go past one token, or past all that is in its brackets."""
        closing: list[str] = []
        while self._next.kind is not Kind.END:
            token = self._take_any()
            if token.kind is Kind.PUNCTUATION and token.text in _OPENING:
                closing.append(_OPENING[token.text])
            elif closing and token.text == closing[-1]:
                closing.pop()
            if not closing:
                return

    def _skip_value(self, *, statement: bool = False) -> None:
        """Go to the comma or bracket behind a value (``statement``: or to the end of the line)."""
        before: Token | None = None
        while self._next.kind is not Kind.END:
            token = self._next
            if token.kind is Kind.PUNCTUATION and token.text in (",", ";", *_CLOSING):
                return
            if statement and before is not None and token.new_line and _ends(before, token):
                return
            self._skip_one()
            before = self._tokens[self._at - 1]

    def _skip_statement(self) -> None:
        first = self._next
        block = first.text in _BLOCKS
        while self._next.kind is not Kind.END:
            token = self._next
            self._skip_one()
            last = self._tokens[self._at - 1]
            if token.text == ";":
                return
            if block and last.text == "}" and self._next.text not in _GO_ON:
                return
            if not block and self._next.new_line and _ends(last, self._next):
                return

    def _wrong(self, token: Token) -> NotUnderstood:
        if token.kind is Kind.END:
            return NotUnderstood(token.at, "the end of the file, too soon")
        if token.kind is not Kind.PUNCTUATION:
            return NotUnderstood(token.at, f"a {token.kind.value} where none was expected")
        what = {
            "?": "a condition (a ? b : c)",
            "&&": "a condition (a && b)",
            "!": "a condition (!a)",
            "=>": "a function",
            "(": "a function call",
            **dict.fromkeys(("==", "===", "!=", "!==", "<", ">", "<=", ">="), "a comparison"),
        }.get(token.text, f"an expression with {token.text}")
        return NotUnderstood(token.at, what)


def _ends(last: Token, following: Token) -> bool:
    """Whether a line break between these two ends a statement."""
    goes_on = following.kind is Kind.PUNCTUATION and following.text not in ("{", "++", "--", "!")
    open_ended = last.kind is Kind.PUNCTUATION and last.text not in (*_CLOSING, "++", "--")
    return not goes_on and not open_ended


def _joined(name: str, key: str) -> str:
    return f"{name}.{_short(key)}" if name else _short(key)


def _short(name: str) -> str:
    shown = "".join(char if char.isprintable() else "?" for char in name[:_LONGEST_NAME])
    return shown if len(name) <= _LONGEST_NAME else f"{shown}..."
