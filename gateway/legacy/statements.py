"""Reads the statements of a script: the values of its names, and its exports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.legacy.expressions import ExpressionReader
from gateway.legacy.script_values import UNDEFINED, NodeBuiltin, Opaque, Value
from gateway.legacy.token_reader import BLOCKS
from gateway.legacy.tokens import NotUnderstood, Token, TokenKind


class StatementReader(ExpressionReader):
    """Reads a whole script of a file in ``folder``."""

    def __init__(self, tokens: Sequence[Token], folder: str) -> None:
        super().__init__(tokens, folder)
        self._exports: Any = {}  # what module.exports is

    @property
    def exported(self) -> dict[str, Value] | None:
        """The object that is exported, unless nothing is."""
        return self._exports if isinstance(self._exports, dict) and self._exports else None

    def run(self) -> None:
        """Read every statement; note those that aren't understood."""
        while self._next.kind is not TokenKind.END:
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
        if token.kind is TokenKind.TEXT:  # "use strict"
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
        elif token.text in BLOCKS or token.text in ("throw", "return", "debugger"):
            raise NotUnderstood(token.at, f"a statement with {token.text}")
        else:
            self._assignment()
        return False

    def _end_of_statement(self) -> None:
        token = self._next
        if not (self._take(";") or token.new_line or token.kind is TokenKind.END):
            raise self._wrong(token)

    def _declarations(self, *, exported: bool = False) -> None:
        while True:
            if self._next.text in ("{", "["):
                self._destructured()
            else:
                name = self._name()
                self._names[name] = Opaque("what has no value yet")
                if self._take("="):
                    self._define(name)
                value = self._names[name]
                if (
                    exported
                    and isinstance(value, Value)
                    and not isinstance(value.value, NodeBuiltin)
                ):
                    self._exports[name] = value
            if not self._take(","):
                return

    def _define(self, name: str) -> None:
        """Define ``name`` as the value that follows; if that isn't understood, it is unknown, and
        reported.
        """
        start = self._at
        try:
            known = self._expression("")
            if self._next.text not in (",", ";") and not self._next.new_line:
                raise self._wrong(self._next)
        except NotUnderstood as error:
            if name != "__dirname":  # of ES modules, whose own it isn't: it is what it always is
                self.unread.append((error.at, error.what, name))
            self._names[name] = Opaque("not understood above")
            self._at = start
            self._skip_value(statement=True)
        else:
            self._names[name] = known

    def _destructured(self) -> None:
        """Read ``const { join } = require('path')``; names taken from anything else are unknown."""
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
        """Skip a function or class: only its use is reported."""
        while self._next.text in ("async", "function", "class", "*"):
            self._at += 1
        if self._next.kind is TokenKind.NAME:
            self._names[self._next.text] = Opaque("a function or class of the file's own")
        while self._next.text != "{" and self._next.kind is not TokenKind.END:
            self._skip_one()
        self._skip_one()

    def _import(self) -> None:
        start = self._take_any()
        names: dict[str, str | None] = {}
        if self._next.kind is not TokenKind.TEXT:
            while self._next.text != "from":
                if self._next.kind is TokenKind.END:
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
        """Read ``config.port = 80``, ``module.exports = config``, or a call that changes
        nothing.
        """
        start, first = self._at, self._next
        path: list[str] = []
        while self._next.kind is TokenKind.NAME:
            path.append(self._take_any().text)
            if not self._take("."):
                break
        if not (path and self._take("=")):
            self._at = start
            known = self._expression("")
            if not isinstance(known.value, NodeBuiltin):
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
            target = target.value if isinstance(target, Value) else target
        if not isinstance(target, dict):
            raise NotUnderstood(first.at, "a value given to something that isn't known here")
        value_start = self._at
        try:
            known = self._expression(name)
            if self._next.text != ";" and not self._next.new_line:
                raise self._wrong(self._next)
            if known.value is UNDEFINED:
                target.pop(name, None)
            else:
                target[name] = self._data(known)
        except NotUnderstood as error:
            target.pop(name, None)
            self.unread.append((error.at, error.what, ".".join(path[1:])))
            self._at = value_start
            self._skip_value(statement=True)
