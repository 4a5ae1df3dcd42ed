"""Measures how much work a grammar makes, by its text, before llama-server reads it. Pure.

llama-server follows every way in which a grammar can go on, at once, and for each character that
fits compares all that come of one with all that come of the others. ``("a"|"a")?`` four hundred
times is 3.6 KB and minutes. What counts is therefore how many ways are open at a place, summed over
what is open behind each of them: :attr:`Measure.choices`. It is at most a few hundred in grammars
that people write (llama.cpp's own ``grammars``, conversions of JSON Schema), and grows with the
square of the parts that may be left out where one can be taken for another.

What a grammar makes of its *own* recursion (``s ::= "a" s "b" | "a" s "c" | "a"``) cannot be told
from the text in general: whether a context-free grammar is ambiguous is undecidable.

The same holds for the patterns of JSON Schema, which llama-server makes grammars of.
Sources: llama.cpp, ``grammars/README.md``, ``src/llama-grammar.cpp``,
``common/json-schema-to-grammar.cpp``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

_MOST: Final = 10**12  # larger counts are cut down to this
_PASSES: Final = 4  # over rules that name each other

_GBNF: Final = re.compile(
    r"""
    (?P<rule>[A-Za-z0-9_-]+)\s*::=
  | (?P<space>\s+|\#[^\n]*)
  | (?P<text>"(?:[^"\\]|\\.)*"?)
  | (?P<one>\[(?:[^\]\\]|\\.)*+\]?|!?<[^>\n]{0,256}+>|\.)
  | (?P<name>[A-Za-z0-9_-]+)
  | (?P<times>\{[\s\d,]*\}|[*+?])
  | (?P<mark>[()|])
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_REGEX: Final = re.compile(
    r"""
    (?P<space>\^|\$|\\[bB])
  | (?P<one>\\.|\[(?:[^\]\\]|\\.)*\]?)
  | (?P<times>(?:\{[\s\d,]*\}|[*+?])[?+]?)
  | (?P<mark>\((?:\?(?:[:=!]|<[=!]|P?<\w+>))?|[)|])
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_CHARACTER: Final = re.compile(r"\\(?:x..|u....|U........|.)|.", re.DOTALL)


class _Ways(NamedTuple):
    """The ways in which a part may begin: how many there are, and what remains open after each.

    ``inside``: the ways that are open behind the first character, within the part, over all of
    its ``first`` ways; ``ends``: how many of those may then be at the part's end.
    """

    empty: bool
    first: int
    inside: int
    ends: int


_NOTHING: Final = _Ways(True, 0, 0, 0)
_CHARACTER_ALONE: Final = _Ways(False, 1, 0, 1)
_TEXT: Final = _Ways(False, 1, 1, 0)
_UNKNOWN: Final = _Ways(False, 0, 0, 0)  # a rule that is being looked at, or isn't there


@dataclass(slots=True)
class Measure:
    """The measure of a grammar. ``choices``: see the module. ``depth``: of parentheses. ``size``:
    parts, when all that is repeated is written out. ``backwards``: a ``{m,n}`` whose m is above n,
    which llama-server (b11549) never finishes to write out, until it has all memory.
    """

    choices: int = 0
    depth: int = 0
    size: int = 0
    backwards: bool = False


#: One part of a sequence: its content, or the number of the rule that it names, and its
#: repetitions.
_Part = tuple["_Ways | int", int, "int | None"]


class _GrammarRules:
    """The rules of a grammar as lists of alternatives, groups being rules of their own."""

    def __init__(self) -> None:
        self.bodies: list[list[list[_Part]]] = []
        self.sizes: list[int] = []
        self.backwards = False
        self.by_name: set[int] = set()
        self._numbers: dict[str, int] = {}

    def new(self) -> int:
        self.bodies.append([[]])
        self.sizes.append(0)
        return len(self.bodies) - 1

    def named(self, name: str) -> int:
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = self.new()
            self.by_name.add(number)
        return number


def measure_grammar(text: str, max_depth: int) -> Measure:
    """Measure a GBNF grammar. What is deeper than ``max_depth`` isn't read on."""
    return _measure(_GBNF.finditer(text), max_depth)


def measure_pattern(text: str, max_depth: int) -> Measure:
    """Return the same for a regular expression."""
    return _measure(_REGEX.finditer(text), max_depth)


def _measure(tokens: Iterator[re.Match[str]], max_depth: int) -> Measure:
    found = Measure()
    rules = _GrammarRules()
    top = rules.new()
    open_groups = [top]
    for token in tokens:
        kind, text = token.lastgroup, token[0]
        alternatives = rules.bodies[open_groups[-1]]
        match kind:
            case "space":
                continue
            case "rule":
                open_groups = [rules.named(token["rule"])]
            case "text":
                length = sum(1 for _ in _CHARACTER.finditer(text[1:].removesuffix('"')[:9]))
                ways = _NOTHING if not length else _CHARACTER_ALONE if length == 1 else _TEXT
                _add(rules, open_groups[-1], (ways, 1, 1))
            case "name":
                _add(rules, open_groups[-1], (rules.named(text), 1, 1))
            case "times":
                _repeat(rules, open_groups[-1], text)
            case "mark" if text == "|":
                alternatives.append([])
            case "mark" if text == ")":
                if len(open_groups) > 1:
                    group = open_groups.pop()
                    _add(rules, open_groups[-1], (group, 1, 1), rules.sizes[group])
            case "mark":
                open_groups.append(rules.new())
                found.depth = max(found.depth, len(open_groups) - 1)
                if found.depth > max_depth:
                    return found
            case _:
                _add(rules, open_groups[-1], (_CHARACTER_ALONE, 1, 1))
    found.size = min(sum(rules.sizes), _MOST)
    found.choices = _choices(rules.bodies)
    found.backwards = rules.backwards
    return found


def _add(rules: _GrammarRules, number: int, part: _Part, size: int = 1) -> None:
    rules.bodies[number][-1].append(part)
    rules.sizes[number] = min(rules.sizes[number] + size, _MOST)


def _repeat(rules: _GrammarRules, number: int, text: str) -> None:
    """Give the last part of a sequence its ``*``, ``+``, ``?`` or ``{m,n}``."""
    sequence = rules.bodies[number][-1]
    if not sequence:
        return
    least, most = _times(text)
    rules.backwards |= most is not None and most < least
    what, before_least, before_most = sequence[-1]
    times = max(least, most or 0, 1)
    written = rules.sizes[what] if isinstance(what, int) and what not in rules.by_name else 1
    rules.sizes[number] = min(rules.sizes[number] + (times - 1) * max(written, 1), _MOST)
    if (before_least, before_most) == (1, 1):
        sequence[-1] = (what, least, most)
        return
    inner = rules.new()  # it is repeated already
    rules.bodies[inner][-1].append(sequence[-1])
    sequence[-1] = (inner, least, most)


def _times(text: str) -> tuple[int, int | None]:
    text = text.rstrip("?+") or text[:1] if text[0] == "{" else text[:1]
    match text[0]:
        case "*":
            return 0, None
        case "+":
            return 1, None
        case "?":
            return 0, 1
    least, comma, most = text.strip("{}").replace(" ", "").partition(",")
    low = _number(least)
    return low, (_number(most) if most.strip() else None) if comma else low


def _number(text: str) -> int:
    digits = re.sub(r"\D", "", text)[:12]
    return int(digits) if digits else 0


# --- how many ways are open ------------------------------------------------------------------


def _choices(bodies: list[list[list[_Part]]]) -> int:
    """Return the most choices that are open after one place: see the module."""
    ways = [_UNKNOWN] * len(bodies)
    most = 0
    order = list(_inner_first(bodies))
    for _ in range(_PASSES):
        before, most = list(ways), 0
        for number in order:
            total = _UNKNOWN
            for alternative in bodies[number]:
                behind = _NOTHING
                for part in reversed(alternative):
                    behind = _followed(_repeated(part, ways), behind)
                    most = max(most, behind.inside, behind.first)
                total = _Ways(
                    total.empty or behind.empty,
                    min(total.first + behind.first, _MOST),
                    min(total.inside + behind.inside, _MOST),
                    min(total.ends + behind.ends, _MOST),
                )
            most = max(most, total.inside, total.first)
            ways[number] = total
        if ways == before or most >= _MOST:
            break
    return most


def _inner_first(bodies: list[list[list[_Part]]]) -> Iterator[int]:
    """Yield the rules, those that a rule names before it, as far as they don't name each other."""
    seen: set[int] = set()
    for start in range(len(bodies)):
        path: list[tuple[int, Iterator[int]]] = []
        following: int | None = start
        while True:
            if following is not None and following not in seen:
                seen.add(following)
                path.append((following, _names(bodies[following])))
            elif not path:
                break
            number, names = path[-1]
            following = next(names, None)
            if following is None:
                yield number
                path.pop()


def _names(alternatives: list[list[_Part]]) -> Iterator[int]:
    for alternative in alternatives:
        for what, _, _ in alternative:
            if isinstance(what, int):
                yield what


def _followed(part: _Ways, behind: _Ways) -> _Ways:
    """Return ``part`` followed by ``behind``."""
    inside = part.inside + part.ends * behind.first
    if not part.empty:
        return _Ways(False, part.first, min(inside, _MOST), part.ends if behind.empty else 0)
    return _Ways(
        behind.empty,
        min(part.first + behind.first, _MOST),
        min(inside + behind.inside, _MOST),
        min((part.ends if behind.empty else 0) + behind.ends, _MOST),
    )


def _repeated(part: _Part, ways: list[_Ways]) -> _Ways:
    what, least, most = part
    one = ways[what] if isinstance(what, int) else what
    if (least, most) == (1, 1):
        return one
    if most == 0:
        return _NOTHING
    if not one.empty:  # written as S(S(S)?)?: the next one comes only behind this one
        again = one.first if most is None or most > 1 else 0
        return _Ways(
            least == 0,
            one.first,
            min(one.inside + one.ends * again, _MOST),
            one.ends if least <= 1 else 0,
        )
    times = 2 if most is None else most
    return _Ways(
        True,
        min(times * one.first, _MOST),
        min(times * one.inside + one.ends * one.first * times * (times - 1) // 2, _MOST),
        min(times * one.ends, _MOST),
    )
