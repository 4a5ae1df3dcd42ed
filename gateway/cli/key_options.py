"""The options of ``keys create``, made from the schema of a key, and the JSON they make."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, Final

from gateway.access.key_schema import FIELDS as SCHEMA
from gateway.access.key_schema import WRITTEN
from gateway.access.key_values import LimitsOrNull, NamesOrAll, TimeToCome, TrueOrFalse
from gateway.access.rate_limits import LIMIT_NAMES, KeyLimits

#: The fields of a key as JSON, as `/admin/keys` shows it too, and what they are.
FIELDS: Final[Mapping[str, str]] = MappingProxyType({field.name: field.about for field in SCHEMA})


def add_key_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for a new key: a name, a description, and one for every other field.

    The schema checks the values, as it does over HTTP.
    """
    for field in WRITTEN.values():
        option = "--" + field.kept_as.replace("_", "-")
        match field.kind:
            case TrueOrFalse():
                parser.add_argument(option, action="store_true", help=field.option)
            case LimitsOrNull():
                _add_limits(parser)
            case _ if field.option:
                parser.add_argument(option, metavar=field.metavar, help=field.option)
            case _:
                optional: dict[str, Any] = {"nargs": "?", "default": ""}
                parser.add_argument(
                    field.kept_as,
                    metavar=field.metavar,
                    help=field.about,
                    **({} if field.name == "name" else optional),
                )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    of_key = parser.add_argument_group("limits", "a request over one of them is answered with 429")
    of_each = parser.add_argument_group("limits of each request")
    for limit in fields(KeyLimits):
        group = of_each if limit.metadata["of_each"] else of_key
        option = "--" + limit.name.replace("_", "-")
        group.add_argument(option, metavar="N", type=int, help=limit.metadata["about"])


def body_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the body of ``POST /admin/keys`` for the key that ``args`` describe.

    Raises :class:`ValueError` if the time is no duration.
    """
    body: dict[str, Any] = {}
    for name, field in WRITTEN.items():
        if isinstance(field.kind, LimitsOrNull):
            given = {limit: getattr(args, limit) for limit in LIMIT_NAMES}
            value: Any = {limit: most for limit, most in given.items() if most is not None} or None
        else:
            value = getattr(args, field.kept_as)
        if value is None:
            continue
        if isinstance(field.kind, NamesOrAll):
            value = [one for part in value.split(",") if (one := part.strip())]
        if isinstance(field.kind, TimeToCome):
            from gateway.quantities import parse_duration

            parse_duration(value)
        body[name] = value
    return body
