"""``llm-gateway unload``."""

from __future__ import annotations

from gateway.cli.load import add_unload_options as add_options

__all__ = ["add_options"]
