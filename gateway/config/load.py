"""conf/gateway.yaml, ``LLM_GATEWAY_*`` variables and the command line -> :class:`Settings`.

Relative paths in the file are relative to its project root: the folder above ``conf/``, or the
folder of the file if it isn't in a folder called ``conf``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from gateway.config.environment import ENV_PREFIX, from_environment
from gateway.config.places import default_root, find_config, project_root
from gateway.config.schema import SETTINGS
from gateway.config.settings import Settings
from gateway.problems import InvalidFiles, Problem
from gateway.validation import UNKNOWN_KEY, key_paths, made_of, problems_of, validate_partly
from gateway.yaml_file import read_yaml


class Loaded(NamedTuple):
    """Settings, and where they came from."""

    settings: Settings
    root: Path
    file: Path | None  # None: built-in defaults


def load_settings(
    explicit: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Loaded:
    """Read, merge and validate. Later layers win: file, environment, command line.

    Raises :class:`InvalidFiles` with every problem found.
    """
    loaded, problems = load_partly(explicit, environ=environ, overrides=overrides)
    if problems:
        raise InvalidFiles(problems)
    return loaded


def load_partly(
    explicit: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Loaded, list[Problem]]:
    """Return what is right of it, with the defaults for the rest, and every problem. Not to be
    served.
    """
    file = find_config(explicit)
    data: dict[str, Any] = {}
    problems: list[Problem] = []
    if file is not None:
        data, problems = read_yaml(file)
        root = project_root(file)
    else:
        root = default_root()
    env_data, env_problems = from_environment(os.environ if environ is None else environ)
    problems += env_problems
    merged = _merge(_merge(data, env_data), dict(overrides or {}))
    file_label = str(file) if file else "built-in defaults"
    found, errors = validate_partly(SETTINGS, merged)
    settings = made_of(found) if found is not None else Settings()
    problems += [
        _blame(problem, env_data, overrides or {})
        for problem in problems_of(*errors, file=file_label, model=SETTINGS)
    ]
    problems += [
        _blame(Problem(file_label, key, repr(str(path)), _WINDOWS), env_data, {})
        for key, path in _paths(settings)
        if os.name != "nt" and re.match(r"[A-Za-z]:", str(path))
    ]
    return Loaded(_absolute(settings, root), root, file), problems


_WINDOWS = "is a path on a Windows drive, and this machine has none (in WSL, C:\\ is /mnt/c)"


def _paths(section: Any, prefix: str = "") -> Iterator[tuple[str, Path | str]]:
    """Yield every setting that is a path, by its name."""
    for name in (field.name for field in fields(section)):
        value = getattr(section, name)
        if isinstance(value, Path) or (name == "llama_server" and isinstance(value, str)):
            yield prefix + name, value
        elif is_dataclass(value):
            yield from _paths(value, f"{prefix}{name}.")


def parse_settings(data: Mapping[str, Any], *, file: str = "gateway.yaml") -> Settings:
    """Return the settings of a file's ``data``, with paths as they are written there.

    Raises :class:`InvalidFiles` with every problem found.
    """
    found, errors = validate_partly(SETTINGS, data)
    if found is None or errors:
        raise InvalidFiles(problems_of(*errors, file=file, model=SETTINGS))
    settings: Settings = made_of(found)
    return settings


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _blame(problem: Problem, env_data: dict[str, Any], overrides: Mapping[str, Any]) -> Problem:
    """Name, in place of the file, the option or variable that a wrong value came from."""
    if problem.key in overrides:
        return replace(problem, file="command line", key=f"--{problem.key}")
    value: Any = env_data
    parts = problem.key.split(".")
    for part in parts:
        if not isinstance(value, dict) or part not in value:
            return problem
        value = value[part]
    variable = ENV_PREFIX + "__".join(parts).upper()
    message = problem.message
    if message == UNKNOWN_KEY:  # one underscore where two separate a section from its setting
        joined = {"_".join(path): path for path in key_paths(SETTINGS) if len(path) > 1}
        if (path := joined.get("_".join(parts))) is not None:
            message += f", did you mean {ENV_PREFIX}{'__'.join(path).upper()}?"
    return replace(problem, file="environment", key=variable, message=message)


def _absolute(settings: Settings, root: Path) -> Settings:
    def resolve(path: Path | None) -> Path | None:
        return None if path is None else root / path.expanduser()

    tls = replace(
        settings.tls,
        private_key=resolve(settings.tls.private_key),
        certificate=resolve(settings.tls.certificate),
        ca_chain=resolve(settings.tls.ca_chain),
    )
    if tls.acme is not None:
        tls = replace(tls, acme=replace(tls.acme, ca_file=resolve(tls.acme.ca_file)))
    server = settings.llama_server
    if server != "auto" and ("/" in server or "\\" in server):
        server = str(resolve(Path(server)))
    return replace(
        settings,
        data_dir=root / settings.data_dir.expanduser(),
        models_file=root / settings.models_file.expanduser(),
        llm_storage=root / settings.llm_storage.expanduser(),
        public_dir=root / settings.public_dir.expanduser(),
        llama_server=server,
        cache=replace(settings.cache, dir=resolve(settings.cache.dir)),
        tls=tls,
    )
