"""The results of expressions in a script: values, and known parts of Node.js."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

_LONGEST_NAME: Final = 60


class Value(NamedTuple):
    """A value: text, number, bool, ``None``, list of them, or dict of names to :class:`Value`.

    ``note`` says what was assumed: that a variable of the environment isn't set.
    """

    value: Any
    at: int
    note: str = ""


class EnvironmentVariable(NamedTuple):
    """A variable of the environment."""

    name: str


class NodeBuiltin(NamedTuple):
    """A function or object of Node.js, by the name that it has there."""

    name: str


class Opaque(NamedTuple):
    """The value of a name that wasn't understood."""

    what: str


UNDEFINED: Final = NodeBuiltin("undefined")
GLOBALS: Final = {
    "undefined": UNDEFINED,
    "true": True,
    "false": False,
    "null": None,
    **{name: NodeBuiltin(name) for name in "process require Object Number parseInt String".split()},
}
#: Functions that return their argument, or its number or text.
CONVERSIONS: Final = frozenset({"Number", "parseInt", "String", "Object.freeze"})
MEMBERS: Final = {
    "process.env": NodeBuiltin("process.env"),
    "Object.freeze": NodeBuiltin("Object.freeze"),
    "path.join": NodeBuiltin("path.join"),
    "path.resolve": NodeBuiltin("path.resolve"),
    "path.dirname": NodeBuiltin("path.dirname"),
    "dotenv.config": NodeBuiltin("dotenv.config"),
    "import.meta": NodeBuiltin("import.meta"),
    "import.meta.url": NodeBuiltin("import.meta.url"),
    "import.meta.dirname": NodeBuiltin("import.meta.dirname"),
    "url.fileURLToPath": NodeBuiltin("url.fileURLToPath"),
}


def joined_name(name: str, key: str) -> str:
    return f"{name}.{short_name(key)}" if name else short_name(key)


def short_name(name: str) -> str:
    shown = "".join(char if char.isprintable() else "?" for char in name[:_LONGEST_NAME])
    return shown if len(name) <= _LONGEST_NAME else f"{shown}..."
