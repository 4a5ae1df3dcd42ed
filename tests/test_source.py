"""What no module may use, and how long a file may be; layers are contracts in pyproject.toml."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.harness import REPOSITORY

#: Ours: not what npm installs beside the page, some of which is in Python.
MODULES = sorted(
    file for file in (REPOSITORY / "gateway").rglob("*.py") if "node_modules" not in file.parts
)

#: Lines that a file may have; what is longer has more than one subject.
LONGEST = 400


def sources() -> dict[str, Path]:
    """What people write: no file that npm installs or that is built."""
    places = {"gateway": ("py",), "tests": ("py",), "gateway/web/src": ("ts", "tsx", "css")}
    return {
        file.relative_to(REPOSITORY).as_posix(): file
        for folder, endings in places.items()
        for ending in endings
        for file in (REPOSITORY / folder).rglob(f"*.{ending}")
        if not {"node_modules", "dist"} & set(file.parts)
    }


def test_no_file_is_longer_than_400_lines() -> None:
    found = sources()
    assert len(found) > 500
    long = {name for name, file in found.items() if len(file.read_text().splitlines()) > LONGEST}
    assert long == set(), "to be split by subject"


def test_nobody_writes_to_a_transport_by_writelines() -> None:
    """asyncio's own, in 3.12.0 to 3.12.8 and 3.13.0 to 3.13.1, bounds nothing (CVE-2024-12254)."""
    for file in MODULES:
        used = {
            node.attr for node in ast.walk(ast.parse(file.read_text())) if hasattr(node, "attr")
        }
        assert "writelines" not in used, file
