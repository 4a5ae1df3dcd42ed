"""conf/gateway.yaml as a mapping; what is wrong with its text is a problem, not an exception."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gateway.syntax import is_javascript, yaml_problem
from gateway.validation import Problem


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice: YAML would silently keep the last."""


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
    """The keys of the configuration ``file``, or what is wrong with it. Blocks."""
    label, text = str(file), ""
    if is_javascript(file):
        return {}, [Problem(label, "", None, _JAVASCRIPT)]
    try:
        text = file.read_text(encoding="utf-8-sig")
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        return {}, [Problem(label, "", None, f"cannot be read: {error.strerror}")]
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        return {}, [Problem(label, "", None, yaml_problem(text, error))]
    if data is None:
        return {}, []
    if not isinstance(data, dict):
        return {}, [Problem(label, "", None, "must hold keys with values, like `port: 8080`")]
    # `tls:` with nothing under it means "as by default", as in most programs.
    return {str(key): value for key, value in data.items() if value is not None}, []
