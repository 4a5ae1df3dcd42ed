"""Hides the secrets of an entry of models.json, and puts them back. Pure.

Over HTTP, the key of another server, tokens among the arguments, and the values of ``env`` (where
tokens stand too) are :data:`HIDDEN`. Who sends that back means what stands there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

#: Stands for a hidden value, and in an edit for one that stays.
HIDDEN: Final = "***"
#: Both spellings of the field: see ``gateway.models.catalog``.
_ARGUMENTS: Final = ("extraArgs", "extra_args")
_TOKEN: Final = re.compile(r"(-hft|--hf[-_]token)(=.*)?", re.DOTALL)


def without_secrets(entry: Mapping[str, Any], *, env: bool) -> dict[str, Any]:
    """Return ``entry`` with its secrets hidden. ``env``: with the values of variables."""
    shown = dict(entry)
    key = shown.get("key")
    if key is not None and not (isinstance(key, str) and key.startswith(("env:", "file:"))):
        shown["key"] = HIDDEN
    variables = shown.get("env")
    if isinstance(variables, dict):
        if not env:
            shown["env"] = dict.fromkeys(variables, HIDDEN)
    elif variables is not None:  # written by hand, and nothing that could be served
        shown["env"] = HIDDEN
    for name in _ARGUMENTS:
        if shown.get(name) is not None:
            shown[name] = _arguments_without_tokens(shown[name])
    return shown


def _arguments_without_tokens(arguments: Any) -> Any:
    """Return the arguments with tokens hidden. A single argument needs no list."""
    if isinstance(arguments, list):
        return list(_without_tokens(arguments))
    return next(_without_tokens([arguments]))


def _without_tokens(arguments: list[Any]) -> Iterator[Any]:
    secret = False
    for argument in arguments:
        found = _TOKEN.fullmatch(argument) if isinstance(argument, str) else None
        if secret or isinstance(argument, list | dict):
            yield HIDDEN
        elif found is not None and found[2] is not None:
            yield f"{found[1]}={HIDDEN}"
        else:
            yield argument
        secret = not secret and found is not None and found[2] is None


def with_secrets(entry: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``entry`` with the values of ``before`` in place of :data:`HIDDEN`.

    A placeholder without such a value stays, for :func:`left_hidden` to find.
    """
    whole = dict(entry)
    if whole.get("key") == HIDDEN and before.get("key") is not None:
        whole["key"] = before["key"]
    was = before.get("env")
    if whole.get("env") == HIDDEN and was is not None:
        whole["env"] = was
    if isinstance(whole.get("env"), dict) and isinstance(was, dict):
        whole["env"] = {
            name: was.get(name, value) if value == HIDDEN else value
            for name, value in whole["env"].items()
        }
    for name in _ARGUMENTS:
        stood = before.get(name)
        if stood is not None and _arguments_without_tokens(stood) == whole.get(name):
            whole[name] = stood
    return whole


def left_hidden(entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of ``entry`` that are still :data:`HIDDEN`, where nothing was."""
    if entry.get("key") == HIDDEN:
        yield "key"
    if entry.get("env") == HIDDEN:
        yield "env"
    if isinstance(env := entry.get("env"), dict):
        yield from (f"env.{name}" for name, value in env.items() if value == HIDDEN)
    for name in _ARGUMENTS:
        arguments = entry.get(name)
        for argument in arguments if isinstance(arguments, list) else (arguments,):
            if isinstance(argument, str) and argument.rpartition("=")[2] == HIDDEN:
                yield name
