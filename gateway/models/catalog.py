"""data/models.json -> :class:`Catalog`: models and personalities. Pure: text in, frozen values out.

The format is the one of the Node wrapper this project replaces, with Windows-style
backslashes in paths, plus the optional keys beside ``params`` that are ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from gateway.models.entry_schema import ENTRY, misplaced, model_of
from gateway.models.local_model import LocalModel
from gateway.models.model import Model
from gateway.problems import InvalidFiles, Problem, reject_duplicates
from gateway.syntax import json_problem
from gateway.validation import problems_of, validate_partly

#: The key beside the models that names the JSON Schema for editors.
SCHEMA_KEY: Final = "$schema"


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every model of one models.json, in the order of the file."""

    models: Mapping[str, Model]
    aliases: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """The names as ``GET /models`` lists them."""
        return list(self.models)

    @property
    def ours(self) -> tuple[LocalModel, ...]:
        """The local models, which llama-servers of our own serve."""
        return tuple(spec for spec in self.models.values() if isinstance(spec, LocalModel))

    @property
    def key_variables(self) -> frozenset[str]:
        """The environment variables that hold keys of remote servers."""
        names = (spec.key_variable for spec in self.models.values())
        return frozenset(name for name in names if name is not None)

    @property
    def warnings(self) -> list[str]:
        """The warnings of all models, for the log and for ``check``."""
        return [warning for spec in self.models.values() for warning in spec.warnings]


EMPTY = Catalog(models=MappingProxyType({}), aliases=MappingProxyType({}))


def parse_entry(name: str, entry: Any, *, file: str = "models.json") -> Model:
    """Return the model ``name`` of an ``entry`` alone. Raises :class:`InvalidFiles`."""
    spec, problems = _parse_entry(name, entry, file)
    if spec is None or problems:
        raise InvalidFiles(problems)
    return spec


def parse_catalog(text: str, *, file: str = "models.json") -> Catalog:
    """Parse the text of models.json.

    Raises :class:`InvalidFiles` with every problem found, not only the first.
    """
    catalog, problems = parse_partly(text, file=file)
    if problems:
        raise InvalidFiles(problems)
    return catalog


def parse_partly(text: str, *, file: str = "models.json") -> tuple[Catalog, list[Problem]]:
    """Return what is right in the text of models.json, and every problem. Not to be served."""
    try:
        data = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=reject_duplicates)
    except json.JSONDecodeError as error:
        return EMPTY, [Problem(file, "", None, json_problem(error.doc, error))]
    except ValueError as error:
        return EMPTY, [Problem(file, "", None, f"is not valid JSON: {error}")]
    except RecursionError:
        return EMPTY, [Problem(file, "", None, "is nested too deeply")]
    if not isinstance(data, dict):
        wanted = 'must be an object: {"model name": {"params": ...}}'
        return EMPTY, [Problem(file, "", None, wanted)]
    problems: list[Problem] = []
    models: dict[str, Model] = {}
    for name, entry in data.items():
        if name == SCHEMA_KEY:
            if not isinstance(entry, str):
                what = "must be the address of a JSON Schema, and is no model"
                problems.append(Problem(file, name, None, what))
            continue
        spec, wrong = _parse_entry(name, entry, file)
        problems += wrong
        if spec is not None:
            models[name] = spec
    aliases = _collect_aliases(models, file, problems)
    return Catalog(MappingProxyType(models), MappingProxyType(aliases)), problems


def _parse_entry(name: str, entry: Any, file: str) -> tuple[Model | None, list[Problem]]:
    if not name.strip() or not name.isprintable():
        return None, [Problem(file, repr(name), None, "a model needs a printable name")]
    if not isinstance(entry, dict):
        return None, [Problem(file, name, repr(entry)[:80], 'must be an object with "params"')]
    if "name" in entry:
        return None, [Problem(file, f"{name}.name", None, "unknown key: the name is the entry's")]
    read, errors = validate_partly(ENTRY, {**entry, "name": name})
    problems = problems_of(*errors, file=file, model=ENTRY, prefix=(name,))
    if read is None:
        return None, problems
    spec = model_of(read)
    known = {problem.key for problem in problems}
    problems += [
        Problem(file, f"{name}.{key}", None, what, allowed)
        for key, what, allowed in misplaced(read)
        if f"{name}.{key}" not in known and not (errors and "is missing" in what)
    ]
    problems += [
        Problem(file, f"{name}.personalities.{label}", None, '"none" switches personalities off')
        for label in spec.personalities
        if label.strip().lower() in ("none", "")
    ]
    return spec, problems


def _collect_aliases(
    models: Mapping[str, Model], file: str, problems: list[Problem]
) -> dict[str, str]:
    aliases: dict[str, str] = {}
    for name, spec in models.items():
        for alias in spec.aliases:
            taken = "is the name of a model" if alias in models else None
            if alias in aliases:
                taken = f"is an alias of {aliases[alias]} already"
            if taken:
                problems.append(Problem(file, f"{name}.aliases", repr(alias), taken))
            aliases.setdefault(alias, name)
    return aliases
