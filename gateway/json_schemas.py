"""The JSON Schemas of models.json and conf/gateway.yaml, by which editors complete and check.

They are made from the models that read those files, so that both always know the same keys, and
from :mod:`gateway.key_docs`. They are kept as files beside this one, for the wheel. ``python -m
gateway.json_schemas`` writes them, and docs/configuration.md; tests hold both against the models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, get_args

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from gateway import settings_page
from gateway.config import schema as settings
from gateway.key_docs import ENTRY, SETTINGS
from gateway.models.catalog import SCHEMA_KEY
from gateway.models.entry_schema import (
    ENTRY as MODEL,
)
from gateway.models.entry_schema import (
    OF_A_PROCESS,
    ONLY_REMOTE,
    PARAMS,
    PARAMS_OF_REMOTE,
)
from gateway.models.llama_options import (
    RESERVED_ARGUMENTS,
    RESERVED_VARIABLES,
    TEMPLATE_ALIASES,
    TEMPLATES,
)

Schema = dict[str, Any]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
#: The folder of the generated schemas, with the names of ``GET /schemas/NAME``.
FOLDER: Final = Path(__file__).parent / "schemas"
#: The names under which ``init`` writes them, beside the files that they are for.
FILES: Final[Mapping[str, str]] = MappingProxyType(
    {"models.json": "data/models.schema.json", "gateway.json": "conf/gateway.schema.json"}
)


def read(name: str) -> bytes:
    """Return the schema ``models.json`` or ``gateway.json`` as it was shipped. Blocking."""
    return (FOLDER / name).read_bytes()


def made() -> dict[str, Schema]:
    """Return both schemas, made from the models as they are now."""
    return {"models.json": _models(), "gateway.json": _settings()}


def _models() -> Schema:
    entry = _of(MODEL, ENTRY)
    properties = entry["properties"]
    del properties["name"]  # that is the key of the entry
    properties["template"]["enum"] = [*sorted(TEMPLATES | TEMPLATE_ALIASES.keys()), "", None]
    reserved = f"^({'|'.join(RESERVED_ARGUMENTS)})(=.*)?$"
    argument = {"type": "string", "not": {"pattern": reserved}}
    properties["extraArgs"]["anyOf"] = [argument, {"type": "array", "items": argument}]
    variables = re.sub(r"\s+", "", RESERVED_VARIABLES.pattern)
    properties["env"]["propertyNames"] = {
        "pattern": "^[^=]+$",
        "not": {"pattern": f"^({variables})$"},
    }
    properties["url"]["anyOf"][0]["pattern"] = "^https?://."
    properties["url"]["anyOf"][1]["items"] = {"type": "string", "pattern": "^https?://."}
    nothing = {"const": None}
    entry["if"] = {
        "required": ["url"],
        "properties": {"url": {"minLength": 1, "minItems": 1}},
    }
    params = [
        field.alias for name, field in PARAMS.model_fields.items() if name not in PARAMS_OF_REMOTE
    ]
    entry["then"] = {
        "properties": {
            **dict.fromkeys(map(to_camel, OF_A_PROCESS), nothing),
            "params": {"properties": dict.fromkeys(params, False)},
        }
    }
    entry["else"] = {
        "required": ["params"],
        "properties": {
            "params": {"required": ["model"], "properties": {"model": {"type": "string"}}},
            **dict.fromkeys(map(to_camel, ONLY_REMOTE), nothing),
        },
    }
    definitions = entry.pop("$defs")
    return {
        "$schema": _DIALECT,
        "title": "models.json of LLM-API Gateway",
        "description": "The name of each model, and what is to be known of it.",
        "type": "object",
        "properties": {
            SCHEMA_KEY: {"type": "string", "description": "The JSON Schema of this file."}
        },
        "propertyNames": {"pattern": r"\S"},
        "additionalProperties": {"$ref": "#/$defs/Entry"},
        "$defs": {**definitions, "Entry": entry},
    }


def _settings() -> Schema:
    schema = _of(settings.SETTINGS, SETTINGS)
    return {"$schema": _DIALECT, "title": "conf/gateway.yaml of LLM-API Gateway", **schema}


# --- pydantic's schema, made fit for people ------------------------------------------------


def _of(model: type[BaseModel], docs: Mapping[str, str]) -> Schema:
    schema = model.model_json_schema(by_alias=True)
    del schema["description"]
    for prefix, section in _sections(model):
        own = schema if section is model else schema["$defs"][section.__name__]
        del own["title"]
        if section is not model:
            own["description"] = docs[prefix.removesuffix(".")]
        for name, field in section.model_fields.items():
            key = field.alias or name
            if prefix + key != "name":
                _explain(own["properties"][key], field, docs[prefix + key])
    return schema


def _sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield ``model`` and the models within it, each with the path of its keys."""
    yield prefix, model
    for name, field in model.model_fields.items():
        for inner in _models_in(field.annotation):
            yield from _sections(inner, f"{prefix}{field.alias or name}.")


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


#: The bounds of sizes and durations; pydantic leaves some under its own names.
_BOUNDS: Final = (
    (Ge, "ge", "minimum"),
    (Gt, "gt", "exclusiveMinimum"),
    (Le, "le", "maximum"),
)
#: Descriptions that say no more than the schema itself.
_PLAIN: Final = frozenset({None, "true or false", "an object", "an object, or null", "a text"})


def _explain(schema: Schema, field: FieldInfo, what: str) -> None:
    """Add to ``schema`` what a key does, and what its value may be."""
    schema.pop("title", None)
    if not isinstance(schema.get("default", ""), str | int | float):
        del schema["default"]
    if isinstance(default := schema.get("default"), float) and default.is_integer():
        schema["default"] = int(default)
    allowed = "" if field.description in _PLAIN else f"\n\nAllowed: {field.description}."
    schema["description"] = what + allowed
    bounds = {
        word: getattr(bound, attribute)
        for bound in field.metadata
        for kind, attribute, word in _BOUNDS
        if isinstance(bound, kind)
    }
    if "anyOf" in schema:
        schema["anyOf"] = [*_branches(schema["anyOf"], bounds)]


def _branches(branches: list[Schema], bounds: Mapping[str, Any]) -> Iterator[Schema]:
    """Yield the branches of a union, and of unions within it, with ``bounds`` for its numbers."""
    for branch in branches:
        if "anyOf" in branch:
            inner = {word: branch[name] for _, name, word in _BOUNDS if name in branch}
            yield from _branches(branch["anyOf"], {**bounds, **inner})
        elif branch.get("type") in ("number", "integer"):
            yield {**branch, **bounds}
        else:
            yield branch


def write() -> None:
    """Write both as files, and the page about the settings in a checkout. Blocking."""
    FOLDER.mkdir(exist_ok=True)
    schemas = made()
    for name, schema in schemas.items():
        text = json.dumps(schema, indent=2, ensure_ascii=False)
        (FOLDER / name).write_text(f"{text}\n", encoding="utf-8")
    if settings_page.PAGE.parent.is_dir():
        settings_page.PAGE.write_text(settings_page.page(schemas["gateway.json"]), encoding="utf-8")


if __name__ == "__main__":
    write()
