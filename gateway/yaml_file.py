"""conf/gateway.yaml as a mapping. What is wrong with its text is a problem, not an exception."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from gateway.problems import Problem
from gateway.syntax import is_javascript, yaml_problem


class _Loader(yaml.SafeLoader):
    """A SafeLoader that refuses a key given twice: YAML would silently keep the last."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(
                None, None, "a key must be a plain word", key_node.start_mark
            )
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is given twice", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


_JAVASCRIPT = (
    "is JavaScript, like the configuration of LLM-API: here it is conf/gateway.yaml, which "
    "`llm-gateway init DIR` makes; data/models.json and the keys (`llm-gateway keys import`) can "
    "be taken over"
)


def read_yaml(file: Path) -> tuple[dict[str, Any], list[Problem]]:
    """Return the keys of the configuration ``file``, or what is wrong with it. Blocks."""
    label, text = str(file), ""
    if is_javascript(file):
        return {}, [Problem(label, "", None, _JAVASCRIPT)]
    try:
        text = file.read_text(encoding="utf-8-sig")
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        what = "there is no such file; `llm-gateway init DIR` makes one, in DIR/conf"
        return {}, [Problem(label, "", None, what)]
    except OSError as error:
        denied = isinstance(error, PermissionError)
        hint = ": it is for its owner (of a service: root, by sudo)" if denied else ""
        return {}, [Problem(label, "", None, f"cannot be read: {error.strerror}{hint}")]
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        return {}, [Problem(label, "", None, yaml_problem(text, error))]
    if data is None:
        return {}, []
    if not isinstance(data, dict):
        return {}, [Problem(label, "", None, "must hold keys with values, like `port: 8080`")]
    # `tls:` with nothing under it means "as by default", as in most programs.
    return {str(key): value for key, value in data.items() if value is not None}, []


def with_settings(text: str, settings: Mapping[str, Any]) -> str:
    """Return ``text``, a commented configuration, with these settings, by dotted names, in it.

    Each replaces the line that is there for it, commented out or not, and the comment after that
    stays; one without such a line is put at the end of its section, or of the text. Values are
    texts, numbers, booleans and tuples of texts; at most one dot in a name.
    """
    lines = text.splitlines()
    for name, value in settings.items():
        section, dot, key = name.rpartition(".")
        start, end, indent = 0, len(lines), ""
        if dot:
            if f"{section}:" not in lines:
                lines += ["", f"{section}:"]
            start = lines.index(f"{section}:") + 1
            inside = takewhile(lambda line: line.startswith((" ", "  #")), lines[start:])
            end, indent = start + len(list(inside)), "  "
        there = re.compile(
            rf"(?:# ?)?{indent}{re.escape(key)}:(?: +(?P<old>[^#\s][^#]*?))?(?P<said> +#.*)?"
        )
        for number in range(start, end):
            if (match := there.fullmatch(lines[number])) is not None:
                written = f"{indent}{key}: {_scalar(value)}"
                if (said := match["said"]) is not None:
                    column = match.end("said") - len(said.lstrip())
                    written = f"{written.ljust(column - 1)} {said.lstrip()}"
                lines[number] = written
                break
        else:
            lines.insert(end, f"{indent}{key}: {_scalar(value)}")
    return "\n".join(lines) + "\n"


def _scalar(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z/][\w./-]*|\d+(\.\d+){3}", value):
        return yaml.safe_dump(value, default_style='"', width=10**9).rstrip("\n")
    if isinstance(value, str) and value.lower() not in _WORDS:
        return value
    return json.dumps(value)


#: Texts that YAML takes for other values unless they are quoted.
_WORDS = frozenset("y n yes no on off true false null".split())
