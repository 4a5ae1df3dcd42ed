"""Evaluates expressions of a script, as far as their values can be known."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from typing import Any, Final

from gateway.legacy.script_values import (
    CONVERSIONS,
    GLOBALS,
    MEMBERS,
    UNDEFINED,
    EnvironmentVariable,
    NodeBuiltin,
    Opaque,
    Value,
    joined_name,
    short_name,
)
from gateway.legacy.token_reader import MOST_NESTED, TokenReader
from gateway.legacy.tokens import NotUnderstood, Token, TokenKind

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


class ExpressionReader(TokenReader):
    """Reads expressions of a file in ``folder``; :attr:`unread` is what was left out of them.

    ``unread``: where, what, and the name of the setting, if it is one's.
    """

    def __init__(self, tokens: Sequence[Token], folder: str) -> None:
        super().__init__(tokens)
        self._folder = folder
        self.unread: list[tuple[int, str, str]] = []
        #: The environment variables that were read.
        self.variables: list[str] = []
        self._names: dict[str, Any] = dict(GLOBALS)
        self._depth = 0

    def _expression(self, name: str) -> Value:
        """Return the value that stands here; ``name``: whose it is. Raises
        :class:`NotUnderstood`.
        """
        self._depth += 1
        try:
            if self._depth > MOST_NESTED:
                raise NotUnderstood(self._next.at, f"more than {MOST_NESTED} levels of brackets")
            left = self._operand(name)
            while self._next.text in ("||", "??", "+") and self._next.kind is TokenKind.PUNCTUATION:
                left = self._operator(left, self._take_any(), name)
            if isinstance(left.value, EnvironmentVariable):
                self.variables.append(left.value.name)
                what = f"the environment variable {left.value.name}, which has no default here"
                raise NotUnderstood(left.at, what)
            return left
        finally:
            self._depth -= 1

    def _operator(self, left: Value, operator: Token, name: str) -> Value:
        right = self._operand(name)
        if operator.text == "+":
            for known in (left, right):
                if not isinstance(known.value, str):
                    raise NotUnderstood(operator.at, "a sum")
            return Value(left.value + right.value, left.at, left.note or right.note)
        if isinstance(left.value, EnvironmentVariable):
            if isinstance(right.value, EnvironmentVariable):
                self.variables.append(left.value.name)
                return Value(right.value, left.at)
            self.variables.append(left.value.name)
            return Value(right.value, right.at, f"unless {left.value.name} is set")
        nothing = left.value is None or left.value is UNDEFINED
        if operator.text == "||":
            nothing = nothing or (
                left.value in (False, 0, "") and not isinstance(left.value, NodeBuiltin)
            )
        return right if nothing else left

    def _operand(self, name: str) -> Value:
        known = self._primary(name)
        while self._next.kind in (TokenKind.PUNCTUATION, TokenKind.TEMPLATE):
            token = self._next
            if token.text in (".", "?."):
                self._at += 1
                known = Value(self._member(known.value, self._name(), token), known.at, known.note)
            elif token.text == "[" and not token.new_line:
                self._at += 1
                inner = self._expression("")
                self._expect("]")
                member = self._member(known.value, str(inner.value), token)
                known = Value(member, known.at, known.note)
            elif token.text == "(" and not token.new_line:
                known = self._call(known, token)
            else:
                break
        if isinstance(known.value, Value):
            inner = known.value
            return Value(inner.value, known.at, inner.note)
        return known

    def _primary(self, name: str) -> Value:
        token = self._take_any()
        if token.kind in (TokenKind.TEXT, TokenKind.NUMBER):
            return Value(token.value, token.at)
        if token.kind is TokenKind.TEMPLATE:
            return Value(self._template(token), token.at)
        if token.text in ("-", "+") and self._next.kind is TokenKind.NUMBER:
            number = self._take_any().value
            assert isinstance(number, int | float)
            return Value(-number if token.text == "-" else number, token.at)
        if token.text == "{":
            return Value(self._object(name, token), token.at)
        if token.text == "[":
            return Value(self._list(), token.at)
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
        if token.kind is TokenKind.NAME and self._next.text == "=>":
            raise NotUnderstood(token.at, "a function")
        if token.text == "import":
            return Value(NodeBuiltin("import"), token.at)
        if token.kind is TokenKind.NAME:
            return self._lookup(token.text, token)
        if token.kind is TokenKind.REGEXP:
            raise NotUnderstood(token.at, "a regular expression")
        raise self._wrong(token)

    def _lookup(self, name: str, token: Token) -> Value:
        if name in ("__dirname", "import.meta.dirname"):
            return Value(self._folder, token.at)
        if name not in self._names:
            raise NotUnderstood(token.at, f"the name {short_name(name)}, which isn't known here")
        found = self._names[name]
        if isinstance(found, Opaque):
            raise NotUnderstood(token.at, f"the name {short_name(name)}, which is {found.what}")
        if isinstance(found, Value):
            return Value(found.value, token.at, found.note)
        return Value(found, token.at)

    def _member(self, value: Any, name: str, token: Token) -> Any:
        if isinstance(value, Opaque):
            return value
        if value == MEMBERS["process.env"]:
            return EnvironmentVariable(short_name(name))
        if isinstance(value, NodeBuiltin):
            if value.name in ("import", "import.meta") or f"{value.name}.{name}" in MEMBERS:
                full = f"{value.name}.{name}"
                if full == "import.meta.dirname":
                    return self._folder
                return MEMBERS.get(full, Opaque(f"{full} of Node.js"))
            if name in ("default", "posix"):
                return value
            raise NotUnderstood(token.at, f"{short_name(value.name)}.{short_name(name)} of Node.js")
        if isinstance(value, dict) and name in value:
            return value[name]
        raise NotUnderstood(token.at, f"the member {short_name(name)} of something")

    def _call(self, function: Value, token: Token) -> Value:
        if not isinstance(function.value, NodeBuiltin):
            raise NotUnderstood(token.at, "a function call")
        called = function.value.name
        if called == "require":
            self._at += 1
            module = self._module(self._take_any())
            self._expect(")")
            return Value(module, function.at)
        if called == "dotenv.config":
            self._skip_one()
            return function
        if called not in MEMBERS and called not in CONVERSIONS:
            raise NotUnderstood(token.at, f"a call of {short_name(called)}()")
        given = self._arguments()
        if called == "url.fileURLToPath" and [g.value for g in given] == [
            MEMBERS["import.meta.url"]
        ]:
            return Value(posixpath.join(self._folder, "config.js"), function.at)
        note = next((known.note for known in given if known.note), "")
        if called in CONVERSIONS:
            return self._converted(called, given, function.at, note)
        texts = [known.value for known in given]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise NotUnderstood(token.at, f"a call of {called}() with something else than texts")
        if called == "path.dirname":
            return Value(posixpath.dirname(texts[0]), function.at, note)
        parts = [text.replace("\\", "/") for text in texts]
        if called == "path.resolve":
            joined = posixpath.join(self._folder, *parts)
        else:
            joined = "/".join(part for part in parts if part)
        return Value(posixpath.normpath(re.sub("^/+", "/", joined)), function.at, note)

    def _converted(self, called: str, given: list[Value], at: int, note: str) -> Value:
        value = given[0].value if given else UNDEFINED
        radix = given[1].value if len(given) > 1 else 10
        if isinstance(value, EnvironmentVariable) or called == "Object.freeze":
            return Value(value, at, note)
        if called == "String" and isinstance(value, str | int):
            return Value(str(value), at, note)
        if called in ("Number", "parseInt") and radix == 10:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return Value(int(value) if called == "parseInt" else value, at, note)
            if isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,20}\s*", value):
                return Value(int(value), at, note)
        raise NotUnderstood(at, f"a call of {called}() with something else than a number")

    def _arguments(self) -> list[Value]:
        self._expect("(")
        given: list[Value] = []
        while not self._take(")"):
            known = self._operand("")
            while self._next.text in ("||", "??", "+"):
                known = self._operator(known, self._take_any(), "")
            given.append(known)
            if self._next.text != ")":
                self._expect(",")
        return given

    def _module(self, token: Token) -> NodeBuiltin:
        module = token.value
        if token.kind is not TokenKind.TEXT or not isinstance(module, str):
            raise NotUnderstood(token.at, "a module that is chosen while the program runs")
        if module in _PATH_MODULES:
            return NodeBuiltin("path")
        if module in _URL_MODULES:
            return NodeBuiltin("url")
        if module in ("dotenv", "dotenv/config"):
            return NodeBuiltin("dotenv")
        if re.match(r"\.{0,2}/|[A-Za-z]:", module):
            raise NotUnderstood(token.at, f"another file, {short_name(module)}, which isn't read")
        return NodeBuiltin(module)

    def _template(self, token: Token) -> str:
        found = ""
        for part in token.parts:
            if isinstance(part, str):
                found += part
                continue
            inner = self._within(part)
            value = inner._expression("").value
            if inner._next.kind is not TokenKind.END or not isinstance(value, str | int):
                raise NotUnderstood(token.at, "a template with something else than texts in it")
            found += str(value).lower() if isinstance(value, bool) else str(value)
        return found

    def _within(self, part: Sequence[Token]) -> ExpressionReader:
        """Return a reader of what stands in a template, which notes what it finds as its own."""
        inner = ExpressionReader(part, self._folder)
        inner.unread, inner.variables = self.unread, self.variables
        inner._names, inner._depth = self._names, self._depth + 1
        return inner

    def _list(self) -> list[Value]:
        found: list[Value] = []
        while not self._take("]"):
            known = self._expression("")
            found.append(known._replace(value=None) if known.value is UNDEFINED else known)
            self._data(found[-1])
            if self._next.text != "]":
                self._expect(",")
        return found

    def _object(self, name: str, brace: Token) -> dict[str, Value]:
        """Return the members of an object; those that aren't understood are told, and left out."""
        found: dict[str, Value] = {}
        while not self._take("}"):
            start, token, key = self._at, self._next, ""
            if token.kind is TokenKind.END:
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
                        found[key] = self._expression(joined_name(name, key))
                    elif self._next.text in (",", "}") and token.kind is TokenKind.NAME:
                        found[key] = self._lookup(key, token)
                    else:
                        raise NotUnderstood(token.at, "a function")
                if self._next.text not in (",", "}"):
                    raise self._wrong(self._next)
                if key and found[key].value is UNDEFINED:
                    del found[key]
                elif key:
                    self._data(found[key])
            except NotUnderstood as error:
                found.pop(key, None)
                self.unread.append((error.at, error.what, joined_name(name, key) if key else ""))
                self._at = start
                self._skip_value()
            self._take(",")
        return found

    def _data(self, known: Value) -> Value:
        if isinstance(known.value, NodeBuiltin | Opaque | EnvironmentVariable):
            raise NotUnderstood(known.at, "something of Node.js")
        return known

    def _key(self) -> str:
        token = self._take_any()
        if token.kind is TokenKind.NUMBER:
            return str(token.value)
        if token.kind is TokenKind.TEXT:
            return str(token.value)
        if token.kind is not TokenKind.NAME:
            raise NotUnderstood(token.at, "a name that is computed")
        if token.text in ("get", "set", "async") and self._next.text not in (":", ",", "}", "("):
            raise NotUnderstood(token.at, "a function")
        return token.text
