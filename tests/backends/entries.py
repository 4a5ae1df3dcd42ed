"""Entries of models.json, and the commands they become."""

import json
from pathlib import Path
from typing import Any

from gateway.models.catalog import parse_catalog
from gateway.models.local_model import LocalModel

STORAGE = Path("/models")


def spec_of(params: dict[str, Any] | None = None, **beside: object) -> LocalModel:
    entry = {"params": {"model": "some.gguf", **(params or {})}, **beside}
    spec = parse_catalog(json.dumps({"demo": entry})).models["demo"]
    assert isinstance(spec, LocalModel)
    return spec
