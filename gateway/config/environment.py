"""``LLM_GATEWAY_*`` variables as settings, and a service's file of variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import yaml

from gateway.problems import Problem, shown

ENV_PREFIX: Final = "LLM_GATEWAY_"
#: Variables that are no settings: commands and clients read them.
_NOT_SETTINGS: Final = frozenset(
    f"{ENV_PREFIX}{name}" for name in ("KEY", "URL", "API_KEY", "CA", "PROFILE")
)


def from_environment(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[Problem]]:
    """Return variables as settings: ``LLM_GATEWAY_TLS__ENABLED=true`` -> ``{"tls": {"enabled":
    "true"}}``.

    Values stay text (pydantic reads numbers and booleans from it), but for lists and objects,
    which are written as in YAML: ``LLM_GATEWAY_CORS__ORIGINS='["https://a.example"]'``.
    """
    data: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, text in sorted(environ.items()):
        if not name.startswith(ENV_PREFIX) or name in _NOT_SETTINGS:
            continue
        value: Any = text
        if text[:1] in ("[", "{"):
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError:
                problems.append(
                    Problem("environment", name, shown(name, text), "is not a valid list or object")
                )
                continue
        elif text in ("", "null"):
            value = None
        *parents, last = name.removeprefix(ENV_PREFIX).lower().split("__")
        target: Any = data
        for part in parents:
            target = target.setdefault(part, {}) if isinstance(target, dict) else {}
        if isinstance(target, dict):
            target[last] = value
    return data, problems


def variables_in(text: str) -> dict[str, str]:
    """Return the variables in ``text`` as ``EnvironmentFile=`` reads them (systemd.exec(5)).

    A value may stand in quotes; continued lines are not understood.
    """
    found = {}
    for line in map(str.strip, text.splitlines()):
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            value = value.strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            found[name.strip()] = value[1:-1] if quoted else value
    return found
