"""Reads examples/: the group of each operation, its description, and an example.

A file is a group. Its operations stand in the order in which people read: ``request`` and
``answer`` as they are sent, ``query``, ``path`` and ``headers`` by the name of a parameter,
``events`` in place of an answer that is a stream, ``text`` of one that is neither. ``about`` is
Markdown. ``endless``: a stream that ends only when its client leaves. A route that is missing
has no example, and tests/test_openapi.py says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_FOLDER: Final = Path(__file__).with_name("examples")
#: The files of the folder, in the order of their groups.
_GROUPS: Final = (
    "chat",
    "ollama",
    "embeddings",
    "text",
    "models",
    "admin_models",
    "admin_keys",
    "admin_box",
    "documents",
)
_PARAMETER: Final = re.compile(r"\{(\w+)(?::[^}]*)?\}")

#: The groups that come last, with operations that follow from the route tables.
SHORT: Final = "Other addresses"
REFUSED: Final = "Refused"
_LAST: Final = (
    {
        "name": SHORT,
        "description": "The same operations with or without `/v1`, for clients whose base URL "
        "ends otherwise.",
    },
    {
        "name": REFUSED,
        "description": "What llama-server has, and nobody gets here: it would run programs, reach "
        "into the network of this machine, or replay the answers of other clients.",
    },
)


@dataclass(frozen=True, slots=True)
class OperationExample:
    """One operation as the document shows it. ``same_as``: the path that it is a twin of."""

    tag: str
    summary: str = ""
    about: str = ""
    query: Mapping[str, Any] = field(default_factory=dict)
    path: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    request: Any = None
    answer: Any = None
    events: str = ""
    text: str = ""
    endless: bool = False
    same_as: str = ""


class Examples:
    """The descriptions and examples of all operations. Blocking: reads files."""

    def __init__(self) -> None:
        import yaml

        texts = ((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8") for name in _GROUPS)
        groups = [yaml.safe_load(text) for text in texts]
        #: The groups as OpenAPI's tags: ``name`` and ``description``.
        self.tags = [
            *({"name": group["tag"], "description": group["about"]} for group in groups),
            *_LAST,
        ]
        self._told: dict[tuple[str, str], OperationExample] = {}
        for group in groups:
            for line, told in group["operations"].items():
                *methods, path = line.split(" ")
                for method in methods:
                    self._told[method, path] = OperationExample(group["tag"], **told)
        self._order = {known: place for place, known in enumerate(self._told)}

    def of(self, method: str, path: str) -> OperationExample | None:
        """Return what the file says of an operation, if anything; ``path`` as in a document."""
        if (told := self._told.get((method, path))) is not None:
            return told
        twin = path.removeprefix("/v1") if path.startswith("/v1/") else f"/v1{path}"
        if (told := self._told.get((method, twin))) is None:
            return None
        return OperationExample(
            SHORT,
            f"The same as {twin}",
            query=told.query,
            path=told.path,
            request=told.request,
            answer=told.answer,
            events=told.events,
            same_as=twin,
        )

    def place(self, method: str, path: str) -> int:
        """Return the sort key of an operation: those that the file does not have come last."""
        return self._order.get((method, path), len(self._order))


def plain(path: str) -> str:
    """Return a path of the route table as a document has it: ``{name:.+}`` is ``{name}``."""
    return _PARAMETER.sub(r"{\1}", path)
