"""Measures how much work a JSON Schema makes, of which llama-server makes a grammar. Pure.

Of the schemas of tools as well, in every request that has tools. Counted is what makes the
grammar grow beyond the schema: ``maxItems: 1000000000`` in 40 bytes takes all the memory there is
(b11549), the properties of an object that may be left out cost their square (b10434), and a
``pattern`` is a grammar of its own. Source: llama.cpp, ``common/json-schema-to-grammar.cpp``.

Names are looked at wherever they stand: which of them a converter reads where is its own affair.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from gateway.config.settings import RequestSettings
from gateway.proxy.grammar import measure_pattern

#: Numbers by which llama-server repeats a rule. Numbers of properties, and numbers of characters
#: beyond 2000, aren't repeated (b11549), and many tools give Java's greatest there.
_COUNTS: Final = frozenset({"minItems", "maxItems"})
#: Keys whose value is a name.
_NAMING: Final = frozenset({"$ref", "name"})
_LENGTHS: Final = frozenset({"minLength", "maxLength"})
#: Pairs of a minimum and a maximum. If the minimum is above the maximum, llama-server writes rules
#: until memory runs out (b11549).
_RANGES: Final = (("minItems", "maxItems"), ("minLength", "maxLength"), ("minimum", "maximum"))
#: Lists of values rather than schemas, and collections of schemas that cost only what they hold.
_PLAIN: Final = frozenset(
    {"", "enum", "required", "examples", "const", "default", "$defs", "definitions"}
)
#: Types for which nothing below a schema is read; JSON Schema has seven types in all.
_SCALARS: Final = ("null", "boolean", "integer", "number", "string")
_TYPES: Final = 7
#: Characters of a name, which becomes the name of a rule. A regular expression of llama-server
#: (b10434) takes stack for each character, and 300,000 kill it.
_LONGEST_NAME: Final = 1024
#: The least number of bytes that a copied value takes.
_VALUE: Final = 64
#: How many objects may have the greatest number of properties.
_WIDE: Final = 4


class Excess(Exception):
    """Too much of something: what it is, how much is allowed, and which setting says so.

    ``setting`` is "" where none would allow it.
    """

    def __init__(self, what: str, allowed: object, setting: str) -> None:
        super().__init__(what, allowed, setting)
        self.what = what
        self.allowed = allowed
        self.setting = setting


def check_schema(schema: Any, limits: RequestSettings) -> None:
    """Raise :class:`Excess` if there is too much in ``schema``, or in a list of tools."""
    repeated = squares = copied = 0
    for name, value, times in _values(schema, limits.schema_depth):
        kind = value.__class__
        if len(name) > _LONGEST_NAME or (
            kind is str and name in _NAMING and len(value) > _LONGEST_NAME
        ):
            raise Excess("a name in it is too long", _LONGEST_NAME, "schema_bytes")
        if times > 1:
            copied += (times - 1) * (_VALUE + (len(value) if kind is str else 0))
            if copied > limits.schema_bytes:
                raise Excess("its lists of types write it out too often", "", "schema_bytes")
        if kind is dict or kind is list:
            if kind is dict:
                _check_ranges(value)
            if name not in _PLAIN and len(value) > 1:
                if len(value) > limits.schema_properties:
                    raise Excess(
                        f"`{name[:60]}` has {len(value)} entries",
                        limits.schema_properties,
                        "schema_properties",
                    )
                squares += len(value) ** 2
        elif (kind is int or kind is float) and name in _COUNTS:
            repeated += abs(int(value)) * times
            if repeated > limits.grammar_parts:
                raise Excess(f"`{name}` is too much", limits.grammar_parts, "grammar_parts")
        elif (kind is int or kind is float) and name in _LENGTHS:
            if abs(value) > limits.schema_length:
                raise Excess(f"`{name}` is {value}", limits.schema_length, "schema_length")
        elif kind is str and name == "pattern":
            check_grammar(value, limits, measure_pattern, "a `pattern`")
    if squares > _WIDE * limits.schema_properties**2:
        raise Excess("it has too many objects with many properties", "", "schema_properties")


def _check_ranges(schema: dict[str, Any]) -> None:
    for least, most in _RANGES:
        low, high = _number(schema, least), _number(schema, most)
        if least == "minimum":
            # For whole numbers, the next one is meant.
            step = 1 if schema.get("type") == "integer" else 0
            above, below = _number(schema, "exclusiveMinimum"), _number(schema, "exclusiveMaximum")
            low = low if above is None else max(above + step, above if low is None else low)
            high = high if below is None else min(below - step, below if high is None else high)
        if low is not None and high is not None and low > high:
            raise Excess(f"`{least}` is above `{most}`", "", "")


def _number(schema: dict[str, Any], name: str) -> float | None:
    value = schema.get(name)
    return value if value.__class__ in (int, float) else None


def _values(schema: Any, max_depth: int) -> Iterator[tuple[str, Any, int]]:
    """Yield every value within ``schema`` with the name it has, or that of its list. No recursion.

    The third item is how often a converter reads it: once for each type that an enclosing schema
    lists.
    """
    level = [("", schema, 1)]
    for _ in range(max_depth + 1):
        below: list[tuple[str, Any, int]] = []
        for found in level:
            yield found
            name, value, times = found
            if value.__class__ is dict:
                if (types := value.get("type")).__class__ is list:
                    times *= _ways(types, value)
                below += [(key, inner, times) for key, inner in value.items()]
            elif value.__class__ is list:
                below += [(name, item, times) for item in value if item.__class__ in (dict, list)]
        if not below:
            return
        level = below
    raise Excess("it is nested too deeply", max_depth, "schema_depth")


def _ways(types: list[Any], schema: dict[str, Any]) -> int:
    """Return for how many of its ``types`` a converter reads what is below ``schema`` (b10434,
    b11549).

    The converter copies the schema for each type, and reads ``allOf`` for texts as well.
    """
    if len(types) > _TYPES or any(kind.__class__ in (dict, list) for kind in types):
        raise Excess("a list of types in it has too many", _TYPES, "schema_properties")
    scalars = _SCALARS[:-1] if "allOf" in schema else _SCALARS
    return max(1, sum(kind not in scalars for kind in types))


def check_grammar(text: str, limits: RequestSettings, measure: Any, what: str) -> None:
    """Raise :class:`Excess` if ``text``, of a grammar or a pattern, makes too much work."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    if size > limits.grammar_bytes:
        raise Excess(f"{what} has {size} bytes", limits.grammar_bytes, "grammar_bytes")
    found = measure(text, limits.grammar_depth)
    if found.depth > limits.grammar_depth:
        raise Excess(
            f"{what} has too many parentheses in each other", limits.grammar_depth, "grammar_depth"
        )
    if found.backwards:
        raise Excess(f"{what} has a {{m,n}} whose m is above n", "", "")
    if found.size > limits.grammar_parts:
        raise Excess(f"{what} repeats too much", limits.grammar_parts, "grammar_parts")
    if found.choices > limits.grammar_choices:
        raise Excess(
            f"{what} leaves too many ways open at one place",
            limits.grammar_choices,
            "grammar_choices",
        )
