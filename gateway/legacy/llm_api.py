"""Plans the migration of LLM-API's folder. It reads there, and writes nothing.

LLM-API (Node.js) has in its folder ``config.js``, ``data/models.json``, ``data/authKeys.json`` and
``ssl/``. It joins the paths of key and certificates to ``src/``, where its program is, so that
they are written ``../ssl/...``; other relative paths begin at the folder that it is started in,
which is this one.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final

from gateway.legacy.javascript import Script, Setting, Unread, read_script
from gateway.listen_on import is_loopback, parse_hosts
from gateway.problems import shown
from gateway.spelling import did_you_mean
from gateway.syntax import encoding_problem
from gateway.tls import pem

CONFIGS: Final = ("config.js", "config.cjs", "config.mjs", "config.json")
_LARGEST: Final = 2**18  # bytes of a config.js
_LARGEST_PEM: Final = 2**20
_BY_HAND: Final = "not understood, left out: set it by hand"

#: Key of ``config.js`` for a file of TLS -> our setting.
_TLS: Final = {
    "privateKeyPath": "private_key",
    "certificatePath": "certificate",
    "caChainPath": "ca_chain",
}
_KNOWN: Final = ("host", "port", "useSSL", "llamaMain", "llmStorage", *_TLS, "passphrase")
#: The files in the folder that belong to the old program.
_PROGRAM: Final = frozenset(
    "src node_modules package.json package-lock.json yarn.lock .git .gitignore README.md LICENSE "
    "config.js.template .npmrc .nvmrc models.json.template".split()
)


class StepOutcome(Enum):
    """The outcome of a step."""

    TAKEN = "taken"  # set, copied, imported
    LEFT = "left"  # not needed here
    TO_DO = "to do"  # somebody must look at it


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the migration. ``line`` and ``column`` (from 1) in ``config.js``, if it has one.

    ``target``: the setting or file that it became.
    """

    what: str
    outcome: StepOutcome
    became: str
    target: str | None = None
    line: int | None = None
    column: int | None = None


@dataclass(slots=True)
class MigrationPlan:
    """A plan. ``settings``: of gateway.yaml, by dotted names. ``copies``: file there
    -> file here.
    """

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    copies: dict[Path, str] = field(default_factory=dict)
    models: Path | None = None
    keys: Path | None = None
    steps: list[Step] = field(default_factory=list)
    rest: list[Step] = field(default_factory=list)  # of what is neither settings, models nor keys

    @property
    def empty(self) -> bool:
        """Whether nothing of LLM-API is there."""
        return not (self.settings or self.models or self.keys or self.steps)


def plan(folder: Path) -> MigrationPlan:
    """Return what becomes of the things in ``folder``, which is absolute. Blocking. Raises
    ``OSError``.
    """
    made = MigrationPlan(folder)
    config = _first(folder, CONFIGS)
    if config is not None:
        _read_config(made, config)
    made.models = _first(folder, ("data/models.json", "models.json"))
    made.keys = _first(folder, ("data/authKeys.json", "authKeys.json"))
    if config is None and made.models is None and made.keys is None:
        return made
    if config is None:
        made.steps.insert(
            0, Step("config.js", StepOutcome.TO_DO, "is not there: settings are defaults")
        )
    made.rest += _rest(made, {path for path in (config, made.models, made.keys) if path})
    return made


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


# --- config.js -------------------------------------------------------------------------------


def _read_config(made: MigrationPlan, file: Path) -> None:
    if file.stat().st_size > _LARGEST:
        made.steps.append(_to_do(file.name, "is too large for a configuration: not read"))
        return
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        made.steps.append(_to_do(file.name, f"{encoding_problem(error)}: not read"))
        return
    if file.suffix == ".json":
        text = f"module.exports ={text}"
    script = read_script(text, str(file.parent))
    made.steps += [_unread(file.name, one) for one in script.unread if not _is_setting(one)]
    if script.settings is None:
        made.steps.append(_to_do(file.name, "exports no settings that are understood"))
    else:
        _take_settings(made, script, script.settings)
    if script.environment:
        names = ", ".join(script.environment)
        before = f"{names} came from the environment, or .env, which are not read"
        made.steps.append(_to_do(file.name, f"{before}: what was set there, set by hand"))


def _take_settings(made: MigrationPlan, script: Script, settings: Mapping[str, Setting]) -> None:
    unread = {one.name: one for one in script.unread if _is_setting(one)}
    uses_tls = settings["useSSL"].value if "useSSL" in settings else False
    for name in _KNOWN:
        if name in settings:
            made.steps += _setting(made, name, settings[name], uses_tls=bool(uses_tls))
        elif name in unread:
            made.steps.append(_unread("", unread.pop(name)))
        else:
            made.steps += _missing(made, name, uses_tls=bool(uses_tls))
    for one in unread.values():
        made.steps.append(_unread("", one))
    for name, setting in settings.items():
        if name not in _KNOWN and name not in unread:
            where = f"LLM-API has no such setting{did_you_mean(name, _KNOWN)}"
            made.steps.append(_step(name, setting, StepOutcome.TO_DO, f"{where}: left out"))


def _setting(made: MigrationPlan, name: str, one: Setting, *, uses_tls: bool) -> Iterator[Step]:
    """Yield what becomes of one setting that is understood. Values that are secret are not
    repeated.
    """
    value = one.value
    if name == "host":
        yield _host(made, one)
    elif name == "port":
        yield _port(made, one)
    elif name == "useSSL":
        if value in (True, False, 0, 1) and isinstance(value, bool | int):
            yield _set(made, name, one, "tls.enabled", bool(value))
        else:
            wrong = f"{shown(name, value)} is neither true nor false: tls.enabled stays false"
            yield _step(name, one, StepOutcome.TO_DO, wrong)
    elif not isinstance(value, str):
        if value is None or (name == "passphrase" and value is False):
            yield _step(name, one, StepOutcome.LEFT, "is empty: nothing to take over")
        else:
            yield _step(name, one, StepOutcome.TO_DO, "is no text, left out: set it by hand")
    elif not value.strip():
        yield _step(name, one, StepOutcome.LEFT, "is empty: nothing to take over")
    elif re.search(r"<[^<>]+>", value):
        yield _step(name, one, StepOutcome.LEFT, "is still the template's: nothing to take over")
    elif name == "llamaMain":
        yield _program(made, one)
    elif name == "llmStorage":
        yield _storage(made, one)
    elif name == "passphrase":
        yield _passphrase(made, one)
    else:
        yield _tls_file(made, name, one, uses_tls=uses_tls)


def _missing(made: MigrationPlan, name: str, *, uses_tls: bool) -> Iterator[Step]:
    """Yield what it means that LLM-API's setting ``name`` isn't there."""
    if name == "host":
        was = "is not set: LLM-API was open to the network; here it is this machine only"
        yield Step(name, StepOutcome.TO_DO, f"{was} (host: 127.0.0.1)", "host")
    elif name == "port" and not uses_tls:
        made.settings["port"] = 80
        yield Step(name, StepOutcome.TAKEN, "is not set, so it was 80", "port: 80")
    elif name == "llmStorage":
        yield Step(name, StepOutcome.TO_DO, "is not set: llm_storage stays ~/LLMs", "llm_storage")


def _host(made: MigrationPlan, one: Setting) -> Step:
    try:
        host = parse_hosts(one.value)
    except ValueError:
        wrong = f"{shown('host', one.value)} is no host or address, left out: set it by hand"
        return _step("host", one, StepOutcome.TO_DO, wrong)
    step = _set(made, "host", one, "host", host)
    hosts = (host,) if isinstance(host, str) else host
    if all(map(is_loopback, hosts)):
        return step
    return Step(
        *("host", StepOutcome.TAKEN, f"{step.became} (reached by other machines, as before)"),
        *(step.target, one.line, one.column),
    )


def _port(made: MigrationPlan, one: Setting) -> Step:
    value = one.value
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 9:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65535:
        wrong = f"{shown('port', one.value)} is no port, left out: set it by hand"
        return _step("port", one, StepOutcome.TO_DO, wrong)
    return _set(made, "port", one, "port", value or 80)  # as `config.port || 80` is


def _program(made: MigrationPlan, one: Setting) -> Step:
    """Find llama-server: LLM-API uses llama.cpp's interactive program, which may lie beside it."""
    main = Path(one.value)
    if not _is_windows(one.value):
        for name in ("llama-server", main.name):
            program = (made.folder / main).with_name(name)
            if name == "llama-server" and program.is_file():
                step = _set(made, "llamaMain", one, "llama_server", str(program))
                return Step(
                    *(step.what, step.outcome, f"{step.became}, which lies beside {main.name}"),
                    *(step.target, step.line, step.column),
                )
    why = "llama.cpp's interactive program is not used: the gateway starts llama-server"
    return _step("llamaMain", one, StepOutcome.LEFT, f"{why} (llama_server: auto)", "llama_server")


def _storage(made: MigrationPlan, one: Setting) -> Step:
    value: str = one.value
    if _is_windows(value):
        here = Path("/mnt", value[0].lower(), *re.split(r"[\\/]+", value[3:]))
        if value[1:2] != ":" or not here.is_dir():
            wrong = f"{value} is on a Windows drive, and this machine has none: set it by hand"
            return _step("llmStorage", one, StepOutcome.TO_DO, wrong, "llm_storage")
        folder = here  # in WSL
    else:
        folder = made.folder / Path(value.replace("\\", "/"))
    step = _set(made, "llmStorage", one, "llm_storage", str(folder))
    if folder.is_dir():
        return step
    missing = f"{step.became}, but there is no such folder: copy the models, or change it"
    return _step("llmStorage", one, StepOutcome.TO_DO, missing, step.target)


def _passphrase(made: MigrationPlan, one: Setting) -> Step:
    key = made.settings.get("tls.private_key")
    file = next((there for there, here in made.copies.items() if here == key), Path(key or "/"))
    block = pem.private_key(file.read_bytes()) if file.is_file() else None
    if block is not None and not block.encrypted:
        return _step("passphrase", one, StepOutcome.LEFT, "the private key needs none: left out")
    made.settings["tls.passphrase"] = one.value
    became = "taken over, not shown: gateway.yaml is yours alone (0600)"
    return _step("passphrase", one, StepOutcome.TAKEN, became, "tls.passphrase")


def _tls_file(made: MigrationPlan, name: str, one: Setting, *, uses_tls: bool) -> Step:
    key = f"tls.{_TLS[name]}"
    if _is_windows(one.value):
        wrong = "is on a Windows drive, and this machine has none: copy it, and set it by hand"
        return _step(name, one, StepOutcome.TO_DO, wrong, key)
    given = Path(one.value.replace("\\", "/"))
    # Node.js joins paths as texts: there need be no src/ for ../ssl.
    places = [Path(posixpath.normpath(made.folder / base / given)) for base in ("src", "")]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        outcome = StepOutcome.TO_DO if uses_tls else StepOutcome.LEFT
        off = "" if uses_tls else ", and useSSL is off"
        return _step(name, one, outcome, f"there is no file {one.value}{off}: left out", key)
    if file.stat().st_size > _LARGEST_PEM:
        return _step(name, one, StepOutcome.TO_DO, f"{one.value} is no PEM file: left out", key)
    if not file.resolve().is_relative_to(made.folder.resolve()):
        # That of certbot, say, which renews it there.
        step = _set(made, name, one, key, str(file))
        named = f"{step.became}: it stays where it is, and new ones are taken over there"
        return _step(name, one, StepOutcome.TAKEN, named, step.target)
    target = _free_name(made, f"ssl/{file.name}", _TLS[name], file)
    made.copies[file] = target
    step = _set(made, name, one, key, target)
    became = f"{step.became} (a copy, 0600)"
    return _step(name, one, StepOutcome.TAKEN, became, step.target)


def _free_name(made: MigrationPlan, target: str, key: str, file: Path) -> str:
    if made.copies.get(file, target) != target or (
        target in made.copies.values() and file not in made.copies
    ):
        return f"ssl/{key}-{file.name}"
    return target


# --- the rest --------------------------------------------------------------------------------


def _rest(made: MigrationPlan, known: set[Path]) -> Iterator[Step]:
    """Yield steps for everything else in the folder, so that nothing is left out silently."""
    folder = made.folder
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        name = file.name
        if file in known or (name in ("data", "ssl") and file.is_dir()):
            continue
        if name in _PROGRAM or name in CONFIGS or name.endswith(".log"):
            yield Step(name, StepOutcome.LEFT, "the old program's: not needed")
        elif name == "public" and file.is_dir():
            made.settings["public_dir"] = str(file)
            only = "only .well-known/acme-challenge/ is served from it, nothing else in it"
            yield Step(f"{name}/", StepOutcome.TAKEN, f"public_dir: {file}; {only}", "public_dir")
        elif name.startswith(".env"):
            yield Step(name, StepOutcome.LEFT, "not read: it may hold secrets of other programs")
        else:
            yield Step(name, StepOutcome.LEFT, "is not known from LLM-API: left where it is")
    for below in ("data", "ssl"):
        if not (folder / below).is_dir():
            continue
        for file in sorted((folder / below).iterdir(), key=lambda file: file.name):
            if file not in known and file not in made.copies:
                became = "config.js doesn't name it: left where it is"
                if below == "data":
                    became = "is not known from LLM-API: left where it is"
                yield Step(f"{below}/{file.name}", StepOutcome.LEFT, became)


# --- below -----------------------------------------------------------------------------------


def _is_setting(one: Unread) -> bool:
    return one.name in _KNOWN


def _unread(file: str, one: Unread) -> Step:
    what = one.name or file
    return Step(what, StepOutcome.TO_DO, f"{one.what}: {_BY_HAND}", None, one.line, one.column)


def _to_do(what: str, became: str) -> Step:
    return Step(what, StepOutcome.TO_DO, became)


def _step(
    name: str, one: Setting, outcome: StepOutcome, became: str, target: str | None = None
) -> Step:
    return Step(name, outcome, became, target, one.line, one.column)


def _set(made: MigrationPlan, name: str, one: Setting, key: str, value: Any) -> Step:
    made.settings[key] = value
    written = ", ".join(value) if isinstance(value, tuple) else value
    text = f"{key}: {str(written).lower() if isinstance(written, bool) else written}"
    note = f" ({one.note})" if one.note else ""
    return _step(name, one, StepOutcome.TAKEN, text + note, text)


def _is_windows(path: str) -> bool:
    return re.match(r"[A-Za-z]:[\\/]|\\\\", path) is not None
