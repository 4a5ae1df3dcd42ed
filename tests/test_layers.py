"""Imports point one way: a module may use what stands before it in this list, never after."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from harness import REPOSITORY

PACKAGE = REPOSITORY / "gateway"

#: From the ground up. Modules of one layer may use each other.
LAYERS = (
    (
        "gateway.errors",
        "gateway.log_bound",
        "gateway.log_format",
        "gateway.log_tail",
        "gateway.logs",
        "gateway.nesting",
        "gateway.open_files",
        "gateway.own_addresses",
        "gateway.access.past_requests",
        "gateway.private_files",
        "gateway.samples",
        "gateway.sized_head",
        "gateway.tasks",
    ),
    ("gateway.spelling", "gateway.syntax", "gateway.worker_process", "gateway.workers"),
    (
        "gateway.clients",
        "gateway.models.endpoints",
        "gateway.models.llama_options",
        "gateway.names",
        "gateway.validation",
    ),
    ("gateway.listen_on",),
    ("gateway.yaml_file",),
    ("gateway.config",),
    ("gateway.without_keys",),
    ("gateway.models.personalities",),
    ("gateway.models.catalog", "gateway.key_docs"),
    ("gateway.json_schemas",),
    ("gateway.models",),
    ("gateway.sdnotify", "gateway.access.schema", "gateway.runtime"),
    ("gateway.upstream",),
    ("gateway.backends",),
    ("gateway.proxy",),
    ("gateway.access.database",),
    ("gateway.choices", "gateway.access.store", "gateway.access.stored_requests", "gateway.tls"),
    ("gateway.legacy", "gateway.library"),
    ("gateway.entries",),
    ("gateway.doctor",),
    ("gateway.api",),
    ("gateway.web",),
    ("gateway.app",),
    (
        "gateway.http.listeners",
        "gateway.redirect",
        "gateway.http.tls_port",
        "gateway.http.plain_http",
    ),
    ("gateway.greeting",),
    ("gateway.first_key",),
    ("gateway.server",),
    ("gateway.cli",),
)


def layer(module: str) -> int:
    for index, names in enumerate(LAYERS):
        if any(module == name or module.startswith(f"{name}.") for name in names):
            return index
    raise AssertionError(f"{module} stands in no layer")


def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "gateway":
                found |= {f"gateway.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("gateway.") and name != "gateway.__version__"}


#: Ours: not what npm installs beside the page, some of which is in Python.
MODULES = sorted(file for file in PACKAGE.rglob("*.py") if "node_modules" not in file.parts)


@pytest.mark.parametrize("file", MODULES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_down(file: Path) -> None:
    module = ".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
    if module == "gateway":
        assert not imports(file)
        return
    above = {name for name in imports(file) if layer(name) > layer(module)}
    assert not above, f"{module} must not import {above}"


def test_backends_know_nothing_of_the_web_server() -> None:
    for file in (PACKAGE / "backends").rglob("*.py"):
        assert "aiohttp" not in file.read_text(), file


def test_errors_imports_nothing_of_ours() -> None:
    assert not imports(PACKAGE / "errors.py")


def test_nobody_writes_to_a_transport_by_writelines() -> None:
    """asyncio's own, in 3.12.0 to 3.12.8 and 3.13.0 to 3.13.1, bounds nothing (CVE-2024-12254)."""
    for file in MODULES:
        used = {
            node.attr for node in ast.walk(ast.parse(file.read_text())) if hasattr(node, "attr")
        }
        assert "writelines" not in used, file
