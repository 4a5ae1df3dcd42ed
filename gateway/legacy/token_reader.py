"""A reader of the tokens of a script, which can skip what isn't understood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.legacy.tokens import NotUnderstood, Token, TokenKind

#: The most levels of nested brackets.
MOST_NESTED: Final = 50
OPENING: Final = {"(": ")", "[": "]", "{": "}"}
CLOSING: Final = frozenset(OPENING.values())
#: Statements that end with a block.
BLOCKS: Final = frozenset("if for while do try switch function class async with".split())
_GO_ON: Final = frozenset({"else", "catch", "finally", "while"})


def check_depth(found: Sequence[Token]) -> None:
    """Raise :class:`NotUnderstood` where brackets are nested too deeply."""
    depth = 0
    for token in found:
        if token.kind is TokenKind.PUNCTUATION:
            depth += (token.text in OPENING) - (token.text in CLOSING)
        if depth > MOST_NESTED:
            raise NotUnderstood(token.at, f"more than {MOST_NESTED} levels of brackets")


class TokenReader:
    """A position in ``tokens``, of which the last one is the end."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._at = 0

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
        if token.text == text and token.kind in (TokenKind.PUNCTUATION, TokenKind.NAME):
            self._at += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise self._wrong(self._next)

    def _name(self) -> str:
        token = self._take_any()
        if token.kind is not TokenKind.NAME:
            raise self._wrong(token)
        return token.text

    def _skip_one(self) -> None:
        """Go past one token, or past all that is in its brackets."""
        closing: list[str] = []
        while self._next.kind is not TokenKind.END:
            token = self._take_any()
            if token.kind is TokenKind.PUNCTUATION and token.text in OPENING:
                closing.append(OPENING[token.text])
            elif closing and token.text == closing[-1]:
                closing.pop()
            if not closing:
                return

    def _skip_value(self, *, statement: bool = False) -> None:
        """Go to the comma or bracket behind a value (``statement``: or to the end of the line)."""
        before: Token | None = None
        while self._next.kind is not TokenKind.END:
            token = self._next
            if token.kind is TokenKind.PUNCTUATION and token.text in (",", ";", *CLOSING):
                return
            if statement and before is not None and token.new_line and _ends(before, token):
                return
            self._skip_one()
            before = self._tokens[self._at - 1]

    def _skip_statement(self) -> None:
        first = self._next
        block = first.text in BLOCKS
        while self._next.kind is not TokenKind.END:
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
        if token.kind is TokenKind.END:
            return NotUnderstood(token.at, "the end of the file, too soon")
        if token.kind is not TokenKind.PUNCTUATION:
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
    """Return whether a line break between these two ends a statement."""
    goes_on = following.kind is TokenKind.PUNCTUATION and following.text not in (
        "{",
        "++",
        "--",
        "!",
    )
    open_ended = last.kind is TokenKind.PUNCTUATION and last.text not in (*CLOSING, "++", "--")
    return not goes_on and not open_ended
