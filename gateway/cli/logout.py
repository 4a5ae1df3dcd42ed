"""``llm-gateway logout``."""

from __future__ import annotations

from gateway.cli.login import add_logout_options as add_options

__all__ = ["add_options"]
