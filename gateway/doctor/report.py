"""Makes a bug report: the installation, the results of the checks, and the errors.

Everything in it goes through a :class:`~gateway.doctor.redaction.Redactor`.
"""

from __future__ import annotations

import contextlib
import os
import platform
import pwd
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from gateway import __version__
from gateway.config.settings import Settings
from gateway.doctor.checks import Finding, Subject
from gateway.doctor.redaction import HIDDEN, Redactor
from gateway.models.catalog import Catalog
from gateway.models.endpoints import read_key
from gateway.models.local_model import LocalModel
from gateway.models.model import Model
from gateway.models.remote_model import RemoteModel
from gateway.plurals import counted
from gateway.secret import Secret

_PACKAGES: Final = (
    "aiohttp httptools uvloop orjson pydantic SQLAlchemy cryptography xllamacpp nvidia-ml-py acme"
).split()
#: Lines of a model's log about errors; other lines may be from conversations.
_ERRORS: Final = re.compile(
    r"error|fail|cannot|can't|unable|invalid|abort|assert|terminat|out of memory|exception|killed",
    re.IGNORECASE,
)
#: Words in log lines about requests.
_REQUESTS: Final = re.compile(r"prompt|content|messages|\brole\b|[{}]", re.IGNORECASE)
_MOST_LINES: Final = 10
_SECRET_NAME: Final = re.compile(r"KEY|TOKEN|SECRET|PASS|AUTH|CREDENTIAL", re.IGNORECASE)


def report(
    subject: Subject,
    findings: Iterable[Finding],
    *,
    root: Path,
    redactor: Redactor,
    logs: Mapping[str, Sequence[str]],
) -> Iterator[str]:
    """Return its lines. ``root``: the folder of relative settings; ``logs``: lines by model."""
    now = datetime.now(UTC)
    yield f"LLM-API Gateway {__version__}, {now:%Y-%m-%d %H:%M} UTC"
    yield redactor.line(f"system: {_system()}")
    yield f"packages: {', '.join(_packages())}"
    yield ""
    yield "settings that are not the defaults:"
    given = list(_changed(subject.settings, Settings(), root))
    for name, value in given:
        yield redactor.line(f"- {name}: {value}")
    if not given:
        yield "- none"
    yield ""
    yield "checks:"
    for finding in findings:
        yield redactor.line(f"- {finding.level.value}: {sentence(finding)}")
    yield from _of_models(subject, redactor, logs)


def sentence(finding: Finding) -> str:
    """Return a finding as one line, like ``model Mistral-7b: needs ... : what to do``."""
    name = f"{finding.name} {finding.subject}" if finding.subject else finding.name
    return f"{name}: {finding.what}" + (f" -> {finding.do}" if finding.do else "")


def _system() -> str:
    name = platform.system()
    with contextlib.suppress(OSError, LookupError):
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    python = f"{platform.python_implementation()} {platform.python_version()}"
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    return f"{name}, {kernel}, {counted(os.cpu_count() or 1, 'processor')}, {python}"


def _packages() -> Iterator[str]:
    for name in _PACKAGES:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue


def _changed(
    section: Any, defaults: Any, root: Path, prefix: str = ""
) -> Iterator[tuple[str, str]]:
    for name in (field.name for field in fields(section)):
        value, default = getattr(section, name), getattr(defaults, name)
        if is_dataclass(value) and is_dataclass(default):
            yield from _changed(value, default, root, f"{prefix}{name}.")
            continue
        if isinstance(default, Path):
            default = root / default.expanduser()
        if value != default:
            yield f"{prefix}{name}", _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, Secret):
        return HIDDEN
    if is_dataclass(value):
        given = ((field.name, getattr(value, field.name)) for field in fields(value))
        return ", ".join(f"{name} {_shown(one)}" for name, one in given if one is not None)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _of_models(
    subject: Subject, redactor: Redactor, logs: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    running = subject.running
    for one in running.status.get("models", ()) if running is not None else ():
        name, error = one.get("name", ""), one.get("last_error")
        lines = [line for line in logs.get(name, ()) if _is_error(line)][-_MOST_LINES:]
        if not error and not lines:
            continue
        yield ""
        yield redactor.line(f"model {name}, {one.get('state')}, deaths: {one.get('deaths')}")
        for line in (str(error).splitlines() if error else [])[-_MOST_LINES:]:
            if not _REQUESTS.search(line):
                yield f"- last error: {redactor.line(line)}"
        for line in lines:
            yield f"- log: {redactor.line(line)}"


def _is_error(line: str) -> bool:
    return _ERRORS.search(line) is not None and _REQUESTS.search(line) is None


# --- what is secret here ---------------------------------------------------------------------


def redactor_for(settings: Settings, catalog: Catalog, environ: Mapping[str, str]) -> Redactor:
    """Return a redactor that knows the secrets of this installation. Blocks."""
    specs = list(catalog.models.values())
    return Redactor(
        secrets=[
            *_of_settings(settings),
            *(value for name, value in environ.items() if _SECRET_NAME.search(name)),
            *(text for spec in specs for text in _keys_of(spec, environ)),
        ],
        prompts=[text for spec in specs for text in _prompts_of(spec)],
        homes=_homes(environ),
        hosts=_hosts(settings, specs),
        users=_users(),
    )


def _of_settings(settings: Settings) -> Iterator[str]:
    if settings.tls.passphrase is not None:
        yield settings.tls.passphrase.reveal()
    if settings.store.url is not None:
        yield from _of_url(settings.store.url.reveal())


def _of_url(url: str) -> Iterator[str]:
    """Yield a database's URL, and the passwords in it, as they stand there and as they are."""
    yield url
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        found = [parts.netloc.rpartition("@")[0].partition(":")[2]]
        given = (one.partition("=") for one in parts.query.split("&"))
        found += [value for name, _, value in given if "password" in name]
        for password in filter(None, found):
            yield from {password, unquote(password)}


def _keys_of(spec: Model, environ: Mapping[str, str]) -> Iterator[str]:
    if isinstance(spec, RemoteModel) and spec.key is not None:
        key = spec.key.reveal()
        yield key
        with contextlib.suppress(ValueError):
            yield read_key(key, environ)
    if isinstance(spec, LocalModel):
        yield from _in_arguments(spec)


def _in_arguments(spec: LocalModel) -> Iterator[str]:
    yield from (value for value in spec.env.values() if len(value) > 5)
    before = ""
    for argument in spec.extra_args:
        name, equals, value = argument.partition("=")
        if equals and _SECRET_NAME.search(name):
            yield value
        if _SECRET_NAME.search(before) or before in ("-hft",):
            yield argument
        before = argument


def _prompts_of(spec: Model) -> Iterator[str]:
    """Yield texts that tell what somebody uses a model for."""
    yield spec.description or ""
    yield from _texts(spec.set_params)
    for one in spec.personalities.values():
        yield one.prompt or ""
        yield one.description or ""
        yield from _texts([one.set_params, one.template_args, list(one.tools)])
    if not isinstance(spec, LocalModel):
        return
    params = spec.params
    for value in (params.grammar, params.in_prefix, params.in_suffix, params.reverse_prompt):
        yield from _texts(value)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _homes(environ: Mapping[str, str]) -> Iterator[str]:
    yield from (home for home in (environ.get("HOME"), str(Path.home())) if home)
    for user in pwd.getpwall():  # people's, as a rule from 1000 on
        if user.pw_uid >= 1000 and user.pw_dir.count("/") > 1:
            yield user.pw_dir


def _hosts(settings: Settings, specs: Iterable[Model]) -> Iterator[str]:
    names = [*(settings.allowed_hosts or ()), *settings.hosts]
    if settings.tls.acme is not None:
        names += settings.tls.acme.domains
    names += [urlsplit(origin).hostname or "" for origin in settings.cors.origins]
    names += [urlsplit(url).hostname or "" for spec in specs for url in spec.servers]
    if settings.cluster is not None:
        names.append(settings.cluster.address.rpartition("/")[2].rpartition(":")[0])
    # The files of a certificate are called as its host.
    for file in (settings.tls.private_key, settings.tls.certificate, settings.tls.ca_chain):
        if file is not None:
            names.append(re.sub(r"-(key|crt|chain)$", "", file.stem))
    for name in dict.fromkeys(names):
        host = name.removeprefix("*.")
        if "." in host and not re.fullmatch(r"[\d.]+", host):
            yield host
    if (host := socket.gethostname()) not in ("localhost", "") and len(host) > 2:
        yield host


def _users() -> Iterator[str]:
    with contextlib.suppress(KeyError):
        yield pwd.getpwuid(os.geteuid()).pw_name
    yield from (name for name in (os.environ.get("SUDO_USER"),) if name)
