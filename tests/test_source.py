"""What no module may use; layers and cycles are contracts in pyproject.toml (import-linter)."""

from __future__ import annotations

import ast

from tests.harness import REPOSITORY

#: Ours: not what npm installs beside the page, some of which is in Python.
MODULES = sorted(
    file for file in (REPOSITORY / "gateway").rglob("*.py") if "node_modules" not in file.parts
)


def test_nobody_writes_to_a_transport_by_writelines() -> None:
    """asyncio's own, in 3.12.0 to 3.12.8 and 3.13.0 to 3.13.1, bounds nothing (CVE-2024-12254)."""
    for file in MODULES:
        used = {
            node.attr for node in ast.walk(ast.parse(file.read_text())) if hasattr(node, "attr")
        }
        assert "writelines" not in used, file
