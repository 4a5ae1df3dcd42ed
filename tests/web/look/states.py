"""Every state of the page, in the order in which a person comes upon them."""

from __future__ import annotations

import importlib

from tests.web.look.state import STATES, State

for _module in ("on_the_way_in", "in_chat", "at_models", "on_the_box"):
    importlib.import_module(f"tests.web.look.{_module}")  # each adds its own

__all__ = ["STATES", "State"]
