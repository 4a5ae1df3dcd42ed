"""Reads schemas.yaml and answers.yaml as JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gateway.access.key_schema import answer_schema

Schema = dict[str, Any]

_FOLDER: Final = Path(__file__).parent
_WORDS: Final[Mapping[str, Schema]] = {
    "text": {"type": "string"},
    "int": {"type": "integer"},
    "number": {"type": "number"},
    "flag": {"type": "boolean"},
    "object": {"type": "object"},
    "time": {"type": "string", "format": "date-time"},
}


class Answers:
    """The answers of all operations. Blocking: reads two files."""

    def __init__(self) -> None:
        schemas, answers = _read("schemas.yaml"), _read("answers.yaml")
        #: The schemas by name.
        self.schemas = {
            **{name: schema_of(schema) for name, schema in schemas["schemas"].items()},
            **_of_keys(),
        }
        self._answers = {line: schema_of(answer) for line, answer in answers.items()}

    def of(self, method: str, path: str) -> Schema | None:
        """Return the schema of an operation's JSON answer, if any; ``path`` as in a document."""
        twin = path.removeprefix("/v1") if path.startswith("/v1/") else f"/v1{path}"
        return self._answers.get(f"{method} {path}", self._answers.get(f"{method} {twin}"))


def _read(name: str) -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = yaml.safe_load((_FOLDER / name).read_text(encoding="utf-8"))
    return found


def _of_keys() -> dict[str, Schema]:
    """Return the schemas of a key as it is shown, and of a new one, whose text is shown once."""
    key = answer_schema()
    text = {"type": "string", "description": "here and never again"}
    new = {
        **key,
        "properties": {**key["properties"], "key": text},
        "required": [*key["required"], "key"],
    }
    return {"Key": key, "NewKey": new}


def schema_of(told: Any) -> Schema:
    """Return the JSON Schema of what the file says of one value."""
    if isinstance(told, list):
        return {"type": "array", "items": schema_of(told[0])}
    if isinstance(told, dict):
        return _object(told)
    words, _, about = told.partition(" -- ")
    schema = _worded(words)
    return {**schema, "description": about} if about else schema


def _object(told: Mapping[str, Any]) -> Schema:
    fields = {name: schema_of(value) for name, value in told.items() if name not in ("*", "...")}
    schema: Schema = {"type": "object"}
    if fields:
        schema["properties"] = {name.removesuffix("?"): field for name, field in fields.items()}
    if required := [name for name in fields if not name.endswith("?")]:
        schema["required"] = required
    if (others := told.get("*", told.get("..."))) is not None:
        schema["additionalProperties"] = schema_of(others) or True
    return schema


def _worded(words: str) -> Schema:
    if " | " in words:
        return {"anyOf": [_worded(each) for each in words.split(" | ")]}
    if words.endswith("?"):
        return _or_null(_worded(words.removesuffix("?")))
    kind, *values = words.split()
    if kind == "enum":
        return {"type": "string", "enum": values}
    if kind == "enum?":
        return {"type": ["string", "null"], "enum": [*values, None]}
    if words.startswith("["):
        return {"type": "array", "items": _worded(words[1:-1])}
    if words == "any":
        return {}
    known = _WORDS.get(words)
    return {"$ref": f"#/components/schemas/{words}"} if known is None else dict(known)


def _or_null(schema: Schema) -> Schema:
    if "type" in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}
