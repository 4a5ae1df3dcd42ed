"""``llm-gateway keys`` in this process, and its table."""

import re
from collections.abc import Callable

Keys = Callable[..., tuple[int, str, str]]


def rows(table: str) -> list[list[str]]:
    """The cells of a printed table, without its header."""
    return [re.split(r" {2,}", line) for line in table.splitlines()[1:]]
