"""Entries of models.json, and the commands they become."""

import json
from pathlib import Path
from typing import Any

from gateway.models.catalog import ModelSpec, parse_catalog

STORAGE = Path("/models")


def spec_of(params: dict[str, Any] | None = None, **beside: object) -> ModelSpec:
    entry = {"params": {"model": "some.gguf", **(params or {})}, **beside}
    return parse_catalog(json.dumps({"demo": entry})).models["demo"]
