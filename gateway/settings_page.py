"""Every setting as a page of the documentation, made from the schema of conf/gateway.yaml.

``python -m gateway.json_schemas`` writes it, together with the schemas.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml

from gateway.config.environment import ENV_PREFIX
from gateway.config.places import skeleton

Schema = Mapping[str, Any]

#: The page in a checkout; an installed package has no documentation.
PAGE: Final = Path(__file__).parent.parent / "docs/configuration.md"
#: The settings that are also options of ``llm-gateway serve``.
OPTIONS: Final[Mapping[str, str]] = MappingProxyType({"host": "--host", "port": "--port"})
#: Separates, in a description of the schema, the purpose of a key from its allowed values.
_ALLOWED: Final = "\n\nAllowed: "
_HEAD: Final = """\
<!-- Made from the schema of gateway.yaml: `python -m gateway.json_schemas` writes it anew. -->

# Configuration

The gateway reads one file, `gateway.yaml`. It takes the first of these that exists:

1. the file given with `--config FILE`,
2. `./conf/gateway.yaml`,
3. `~/.config/llm-gateway/gateway.yaml` (or the same below `$XDG_CONFIG_HOME`),
4. `/etc/llm-gateway/gateway.yaml`.

Without any of them the defaults below apply. `llm-gateway init DIR` writes a file that has every
setting with its default and a comment: [conf/gateway.yaml](../conf/gateway.yaml). Every setting is
optional. An unknown key, a wrong type or a missing file is an error that names the key, the value
and what is allowed; `llm-gateway check` lists all of them at once.

**Precedence.** An option of the command line wins over an environment variable, which wins over
the file. The tables name the variable of each setting, and its option where it has one.

**Changes.** The file and the environment are read when `serve` starts, so restart it after a
change. [models.json](models-json.md), certificates and keys are read again while it runs.

**Values.** A size is a number of bytes, or has a unit: `64KiB`, `1.5GiB`, `20GB`. A duration is a
number of seconds, or has a unit: `500ms`, `30s`, `5m`, `12h`, `30d`, `2w`. A relative path starts
at the folder above `conf/`, or at the file's own folder if that isn't called `conf`. In an
environment variable, lists and objects are written as in YAML, and an empty value is null:

```sh
export LLM_GATEWAY_PORT=9000 LLM_GATEWAY_TLS__ENABLED=true
export LLM_GATEWAY_CORS__ORIGINS='["https://app.example.com"]'
```

Some variables are no settings: `LLM_GATEWAY_URL`, `LLM_GATEWAY_API_KEY`, `LLM_GATEWAY_CA` and
`LLM_GATEWAY_PROFILE` tell the commands which gateway to talk to (see
[Operations](operations.md#commands)).
"""


def page(schema: Schema) -> str:
    """Return the page, in Markdown, made from the ``schema`` of gateway.yaml."""
    written = yaml.load(skeleton("conf/gateway.yaml").read_bytes(), yaml.BaseLoader)  # noqa: S506
    lines = [_HEAD, "## At the top", *_table(schema, schema, "", written)]
    for name, inner in _sections(schema, schema):
        lines += ["", f"## {name}", "", inner["description"], *_table(schema, inner, name, written)]
    return "\n".join(lines) + "\n"


def _sections(top: Schema, section: Schema, prefix: str = "") -> Iterator[tuple[str, Schema]]:
    """Yield the sections within ``section``, each with its path."""
    for key, schema in section["properties"].items():
        if (inner := _section_of(top, schema)) is not None:
            yield prefix + key, {**inner, "description": schema["description"].split(_ALLOWED)[0]}
            yield from _sections(top, inner, f"{prefix}{key}.")


def _section_of(top: Schema, schema: Schema) -> Schema | None:
    """Return the object that a key holds, if it holds one."""
    for branch in (schema, *schema.get("anyOf", ())):
        if "$ref" in branch:
            section: Schema = top["$defs"][branch["$ref"].rpartition("/")[2]]
            return section
    return None


def _table(top: Schema, section: Schema, name: str, written: Any) -> Iterator[str]:
    yield from ("", "| setting | value | default | what it does |", "|---|---|---|---|")
    for key, schema in section["properties"].items():
        if _section_of(top, schema) is not None:
            continue
        path = f"{name}.{key}" if name else key
        does, _, allowed = schema["description"].partition(_ALLOWED)
        default = _default(path, schema, key in section.get("required", ()), written)
        cells = (_names(path), (allowed or _kind(schema)).removesuffix("."), default, does)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _names(path: str) -> str:
    """Return all names of a setting: in the file, in the environment, on the command line."""
    variable = ENV_PREFIX + path.replace(".", "__").upper()
    names = (path, variable, OPTIONS.get(path))
    return "<br>".join(f"`{name}`" for name in names if name is not None)


def _default(path: str, schema: Schema, required: bool, written: Any) -> str:
    """Return the default as conf/gateway.yaml writes it, with units."""
    if required:
        return "none: it must be set"
    value: Any = written
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        value = schema.get("default", "null")
    if isinstance(value, list):
        value = json.dumps(value)
    return f"`{value}`"


def _kind(schema: Schema) -> str:
    return {"boolean": "true or false"}.get(schema.get("type", ""), "text")
