"""Splits JavaScript into tokens, as far as configurations need it. Pure."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple


class NotUnderstood(Exception):
    """``what`` stands at offset ``at``: in words for a person, with no text of the file in it."""

    def __init__(self, at: int, what: str) -> None:
        super().__init__(what)
        self.at = at
        self.what = what


class TokenKind(Enum):
    """The kind of a token."""

    NAME = "name"
    NUMBER = "number"
    TEXT = "text"
    TEMPLATE = "template"
    PUNCTUATION = "punctuation"
    REGEXP = "regular expression"
    END = "end"


class Token(NamedTuple):
    """One token. ``new_line``: a line break stands before it, which may end a statement."""

    kind: TokenKind
    text: str
    at: int
    new_line: bool = False
    value: int | float | str | None = None  # of numbers and texts
    parts: tuple[str | tuple[Token, ...], ...] = ()  # of templates: texts, and ${substitutions}


_SPACE: Final = re.compile(r"(?:[\s\ufeff]|//[^\n\r\u2028\u2029]*|/\*.*?\*/)+", re.DOTALL)
_NAME: Final = re.compile(r"#?[^\W\d][\w$]*|\$[\w$]*")
_NUMBER: Final = re.compile(
    r"0[xX][\da-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?"
)
_PUNCTUATION: Final = re.compile(
    r"\.\.\.|=>|\*\*=?|\?\?=?|\?\.(?!\d)|&&=?|\|\|=?|[=!]==?|<<=?|>>>?=?|\+\+|--"
    r"|[-+*/%&|^<>]=?|[{}()\[\];,.:?~!=@#\\]"
)
_REGEXP: Final = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\[\n])+/\w*")
_PLAIN: Final = re.compile(r"[^\\\n\r'\"`$]+")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}
#: Tokens after which a slash divides; elsewhere it begins a regular expression.
_OPERANDS: Final = frozenset({")", "]", "}"})
_MOST_NESTED: Final = 20  # templates in templates


class Lines:
    """A map from offsets of a text to lines and columns for people."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer(r"\r\n|\n|\r", text))]

    def position(self, at: int) -> tuple[int, int]:
        """Return line and column, counted from 1."""
        line = bisect_right(self._starts, at)
        return line, at - self._starts[line - 1] + 1


def tokens(text: str) -> tuple[Token, ...]:
    """Return all tokens, and one for the end. Raises :class:`NotUnderstood`."""
    return tuple(_Scanner(text).run(0))


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def run(self, nested: int) -> Iterator[Token]:
        """Yield the tokens from here: to the end, or (``nested``) to the brace that
        closes ``${``.
        """
        text, depth = self._text, 0
        last: Token | None = None
        while True:
            start = self._at
            if (space := _SPACE.match(text, start)) is not None:
                self._at = space.end()
            fresh = last is None or any(c in "\n\r\u2028\u2029" for c in text[start : self._at])
            if self._at == len(text):
                if nested:
                    raise NotUnderstood(start, "a template text without its end")
                yield Token(TokenKind.END, "", self._at, True)
                return
            if nested and depth == 0 and text[self._at] == "}":
                self._at += 1
                yield Token(TokenKind.END, "", self._at - 1)
                return
            token = self._token(last, nested)._replace(new_line=fresh)
            depth += (
                {"{": 1, "}": -1}.get(token.text, 0) if token.kind is TokenKind.PUNCTUATION else 0
            )
            yield token
            last = token

    def _token(self, last: Token | None, nested: int) -> Token:
        text, at = self._text, self._at
        char = text[at]
        if char in "'\"":
            return Token(TokenKind.TEXT, char, at, value=self._quoted(char))
        if char == "`":
            return Token(TokenKind.TEMPLATE, char, at, parts=tuple(self._template(nested)))
        if (match := _NAME.match(text, at)) is not None:
            self._at = match.end()
            return Token(TokenKind.NAME, match[0], at)
        if char.isdecimal() or (char == "." and text[at + 1 : at + 2].isdecimal()):
            return self._number()
        if text.startswith("/*", at):
            raise NotUnderstood(at, "a comment without its end")
        divides = last is not None and (
            last.text in _OPERANDS or last.kind not in (TokenKind.PUNCTUATION, TokenKind.REGEXP)
        )
        if char == "/" and not divides and (match := _REGEXP.match(text, at)) is not None:
            self._at = match.end()
            return Token(TokenKind.REGEXP, "/", at)
        if (match := _PUNCTUATION.match(text, at)) is not None:
            self._at = match.end()
            return Token(TokenKind.PUNCTUATION, match[0], at)
        raise NotUnderstood(at, "a character that JavaScript has no use for")

    def _number(self) -> Token:
        at = self._at
        match = _NUMBER.match(self._text, at)
        if match is None:  # a digit of another script
            raise NotUnderstood(at, "a number in a form that isn't understood")
        self._at = match.end()
        digits = match[0].replace("_", "")
        value: int | float
        try:
            if re.match(r"0[xob]", digits, re.IGNORECASE):
                value = int(digits, 0)
            elif re.fullmatch(r"0|[1-9]\d{0,20}", digits):
                value = int(digits)
            elif re.fullmatch(r"0\d+", digits):  # octal or not: that depends
                raise ValueError
            else:
                value = float(digits)
        except ValueError:
            raise NotUnderstood(at, "a number in a form that isn't understood") from None
        if (after := self._text[self._at : self._at + 1]) and (after.isalnum() or after in "_$"):
            raise NotUnderstood(at, "a number in a form that isn't understood")
        return Token(TokenKind.NUMBER, "0", at, value=value)

    def _quoted(self, quote: str) -> str:
        text, start = self._text, self._at
        self._at += 1
        found: list[str] = []
        while self._at < len(text):
            char = text[self._at]
            if char == quote:
                self._at += 1
                return _whole("".join(found), start)
            if char in "\n\r":
                break
            found.append(self._characters())
        raise NotUnderstood(start, "a text without its closing quote")

    def _template(self, nested: int) -> Iterator[str | tuple[Token, ...]]:
        text, start = self._text, self._at
        if nested > _MOST_NESTED:
            raise NotUnderstood(start, "too many templates in templates")
        self._at += 1
        found: list[str] = []
        while self._at < len(text):
            if text[self._at] == "`":
                self._at += 1
                yield _whole("".join(found), start)
                return
            if text.startswith("${", self._at):
                yield _whole("".join(found), start)
                found.clear()
                self._at += 2
                yield tuple(self.run(nested + 1))
            elif text.startswith("\r\n", self._at):
                found.append("\n")
                self._at += 2
            else:
                found.append(self._characters())
        raise NotUnderstood(start, "a template text without its end")

    def _characters(self) -> str:
        """Return what the next characters of a text stand for."""
        text, at = self._text, self._at
        if (match := _PLAIN.match(text, at)) is not None:
            self._at = match.end()
            return match[0]
        if text[at] != "\\":
            self._at += 1
            return text[at]
        for pattern in (r"\\x([\da-fA-F]{2})", r"\\u([\da-fA-F]{4})", r"\\u\{([\da-fA-F]{1,6})\}"):
            if (match := re.compile(pattern).match(text, at)) is not None:
                code = int(match[1], 16)
                if code > 0x10FFFF:
                    break
                self._at = match.end()
                return chr(code)
        after = text[at + 1 : at + 2]
        if not after or after in "xu" or (after.isdecimal() and text[at + 1 : at + 3] != "0"):
            known = after == "0" and not text[at + 2 : at + 3].isdecimal()
            if not known:
                raise NotUnderstood(at, "an escape in a text that isn't understood")
        if after in "\n\r\u2028\u2029":  # the text goes on in the next line
            self._at = at + (3 if text.startswith("\r\n", at + 1) else 2)
            return ""
        self._at = at + 2
        return _ESCAPES.get(after, after)


def _whole(text: str, at: int) -> str:
    """Return ``text`` with pairs of surrogates joined to characters."""
    if not re.search("[\ud800-\udfff]", text):
        return text
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise NotUnderstood(at, "half a character in a text") from None
