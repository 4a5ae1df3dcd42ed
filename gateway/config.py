"""conf/gateway.yaml and ``LLM_GATEWAY_*`` variables -> validated, frozen :class:`Settings`.

Relative paths in the file are relative to its project root: the folder above ``conf/``, or the
folder of the file if it isn't in a folder called ``conf``.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from gateway.listen_on import HOSTS, is_loopback, parse_hosts
from gateway.names import parse_name
from gateway.validation import (
    UNKNOWN_KEY,
    Duration,
    InvalidFiles,
    Problem,
    Size,
    key_paths,
    problems_of,
    shown,
    validate_partly,
)
from gateway.yaml_file import read_yaml

ENV_PREFIX = "LLM_GATEWAY_"
LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
#: Read by commands and clients that talk to a gateway, not by the gateway.
_NOT_SETTINGS = frozenset(
    f"{ENV_PREFIX}{name}" for name in ("KEY", "URL", "API_KEY", "CA", "PROFILE")
)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AuthSettings(_Section):
    """Who may come in."""

    enabled: bool = Field(True, description="true or false")
    allow_query_key: bool = Field(True, description="true or false")
    open_to_network: bool = Field(False, description="true or false")


class AdminSettings(_Section):
    """What administration over HTTP may do; the files themselves say anything."""

    process_settings: bool = Field(False, description="true or false")


class AcmeSettings(_Section):
    """Certificates that the gateway gets and renews by itself (RFC 8555)."""

    domains: tuple[str, ...] = Field(
        description="a list of host names (or public addresses) that lead to this machine"
    )
    email: str | None = Field(None, description="an e-mail address, or null")
    directory: str = Field(LETS_ENCRYPT, description="the https URL of an ACME directory")
    agree_tos: bool = Field(
        description="true: I have read the authority's terms of service and agree to them"
    )
    challenge: Literal["http-01", "tls-alpn-01"] = Field(
        "http-01", description="http-01 (port 80) or tls-alpn-01 (port 443)"
    )
    profile: str | None = Field(None, min_length=1, description="a profile the authority offers")
    ca_file: Path | None = Field(
        None, description="a PEM file: who vouches for the ACME server itself, or null"
    )

    @field_validator("domains")
    @classmethod
    def _names(cls, domains: tuple[str, ...]) -> tuple[str, ...]:
        if not domains:
            raise ValueError("must name at least one host")
        names = dict.fromkeys(str(parse_name(domain.strip())) for domain in domains)
        if wild := next((name for name in names if name.startswith("*.")), None):
            raise ValueError(f"{wild}: wildcards need dns-01, which is not built in")
        return tuple(names)

    @field_validator("email")
    @classmethod
    def _one_address(cls, email: str | None) -> str | None:
        if email is not None and not re.fullmatch(r"[^@\s,]+@[^@\s,]+", email):
            raise ValueError("is not one e-mail address")
        return email

    @field_validator("directory")
    @classmethod
    def _secure(cls, directory: str) -> str:
        if not re.fullmatch(r"https://[^/\s]+(/\S*)?", directory):
            raise ValueError("must be an https URL")
        return directory

    @field_validator("agree_tos")
    @classmethod
    def _agreed(cls, agreed: bool) -> bool:
        if not agreed:
            raise ValueError("must be true: no authority gives certificates otherwise")
        return agreed


class TlsSettings(_Section):
    """The gateway's own certificate. Paths are PEM files."""

    enabled: bool = Field(False, description="true or false")
    private_key: Path | None = Field(None, description="a PEM file")
    certificate: Path | None = Field(None, description="a PEM file")
    ca_chain: Path | None = Field(None, description="a PEM file, or null")
    passphrase: SecretStr | None = Field(None, description="the private key's passphrase, or null")
    redirect_port: int | None = Field(
        None, ge=0, le=65535, description="a port from 1 to 65535, or null"
    )
    public_port: int | None = Field(
        None, ge=1, le=65535, description="a port from 1 to 65535, or null"
    )
    acme: AcmeSettings | None = Field(None, description="an object, or null")

    @field_validator("acme")
    @classmethod
    def _one_source(cls, acme: AcmeSettings | None, info: ValidationInfo) -> AcmeSettings | None:
        files = ("private_key", "certificate", "ca_chain", "passphrase")
        given = [key for key in files if info.data.get(key) is not None]
        if acme is not None and given:
            raise ValueError(
                f"makes its own key and certificate: remove {' and '.join(given)}, or acme"
            )
        return acme


class CorsSettings(_Section):
    """Which web pages may call from a browser."""

    origins: tuple[str, ...] = Field(
        ("*",), description='a list of origins like https://app.example.com, or ["*"]'
    )

    @field_validator("origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_origin(origin) for origin in origins)


_ORIGIN = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://"  # also capacitor:// and the like
    r"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9-]*\*?[A-Za-z0-9-]*\.)*[A-Za-z0-9-]+)"
    r"(?::(?:[0-9]{1,5}|\*))?"
)


def _origin(text: str) -> str:
    """A web page's origin (RFC 6454), with ``*`` where :mod:`gateway.http.cors` knows it."""
    origin = text.strip().removesuffix("/")
    if origin == "*":
        return origin
    if "://" not in origin:
        raise ValueError(f"{text!r}: an origin begins with a scheme, like https://")
    if "/" in origin.partition("://")[2]:
        raise ValueError(f"{text!r}: an origin has no path")
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(
            f"{text!r} is no origin: scheme, host and perhaps port; a * may stand for labels of "
            "the host but the last, as in https://*.web.app, or for the port"
        )
    if re.search(r"(?:[^./]\*|\*[^.:])[^.]*\.[^.]+$", origin.partition("://")[2]):
        raise ValueError(f"{text!r} lets in hosts of others: https://*.DOMAIN is meant, it seems")
    return origin


class RequestSettings(_Section):
    """How much work one request may make at a model: see :mod:`gateway.proxy.bounds`.

    Sizes in bytes, times in seconds.
    """

    time: Duration | None = Field(
        4 * 3600.0, gt=0, description="a duration like 4h, over 0, or null for no limit"
    )
    max_tokens: int | None = Field(
        None, ge=1, description="a whole number of 1 or more, or null for no limit"
    )
    answers: int = Field(16, ge=1, description="a whole number of 1 or more")
    logprobs: int = Field(100, ge=0, description="a whole number of 0 or more")
    last_n: int = Field(262_144, ge=0, description="a whole number of 0 or more")
    logit_bias: int = Field(4096, ge=0, description="a whole number of 0 or more")
    list_items: int = Field(128, ge=1, description="a whole number of 1 or more")
    list_bytes: Size = Field(16 * 2**10, ge=1, description="a size like 16KiB")
    messages: int = Field(4096, ge=1, description="a whole number of 1 or more")
    parts: int = Field(4096, ge=1, description="a whole number of 1 or more")
    prompts: int = Field(256, ge=1, description="a whole number of 1 or more")
    inputs: int = Field(2048, ge=1, description="a whole number of 1 or more")
    tools: int = Field(512, ge=1, description="a whole number of 1 or more")
    grammar_bytes: Size = Field(64 * 2**10, ge=0, description="a size like 64KiB")
    grammar_depth: int = Field(64, ge=1, le=1000, description="a whole number from 1 to 1000")
    grammar_parts: int = Field(70_000, ge=1, description="a whole number of 1 or more")
    grammar_choices: int = Field(10_000, ge=1, description="a whole number of 1 or more")
    schema_bytes: Size = Field(2**20, ge=0, description="a size like 1MiB")
    schema_depth: int = Field(100, ge=1, le=250, description="a whole number from 1 to 250")
    schema_properties: int = Field(512, ge=1, description="a whole number of 1 or more")
    schema_length: int = Field(2**31 - 1, ge=1, description="a whole number of 1 or more")
    text_bytes: Size = Field(4 * 2**20, ge=1024, description="a size like 4MiB")
    values: int = Field(2**20, ge=1024, description="a whole number of 1024 or more")


class LimitSettings(_Section):
    """What one client may ask for, and how long it may wait. Sizes in bytes, times in seconds."""

    max_body: Size = Field(64 * 2**20, ge=1024, description="a size of 1KiB or more, like 64MiB")
    body_memory: Size = Field(512 * 2**20, ge=2**20, description="a size of 1MiB or more")
    max_url: Size = Field(32 * 2**10, ge=1024, description="a size of 1KiB or more, like 32KiB")
    max_header: Size = Field(32 * 2**10, ge=1024, description="a size of 1KiB or more, like 32KiB")
    max_head: Size = Field(64 * 2**10, ge=8192, description="a size of 8KiB or more, like 64KiB")
    max_header_count: int = Field(128, ge=16, description="a whole number of 16 or more")
    queue_size: int = Field(512, ge=0, description="a whole number of 0 or more")
    queue_timeout: Duration = Field(300.0, description="a duration like 300s")
    load_timeout: Duration = Field(300.0, gt=0, description="a duration like 300s, over 0")
    heartbeat: Duration = Field(10.0, gt=0, description="a duration like 10s, over 0")
    connections: int = Field(4096, ge=1, description="a whole number of 1 or more")
    connections_per_address: int = Field(256, ge=1, description="a whole number of 1 or more")
    streams_per_key: int = Field(64, ge=1, description="a whole number of 1 or more")
    handshake_timeout: Duration = Field(10.0, gt=0, description="a duration like 10s, over 0")
    header_timeout: Duration = Field(20.0, gt=0, description="a duration like 20s, over 0")
    body_timeout: Duration = Field(30.0, gt=0, description="a duration like 30s, over 0")
    send_timeout: Duration = Field(60.0, gt=0, description="a duration like 60s, over 0")
    keepalive: Duration = Field(75.0, gt=0, description="a duration like 75s, over 0")
    request: RequestSettings = Field(RequestSettings(), description="an object")


class SchedulerSettings(_Section):
    """How many models may be in memory. Sizes in bytes, times in seconds."""

    max_loaded: int | None = Field(None, ge=1, description="a whole number of 1 or more, or null")
    memory_budget: Literal["auto"] | Size = Field("auto", description="auto, or a size like 20GiB")
    idle_unload: Duration | None = Field(None, description="a duration like 30m, or null")


class AccountingSettings(_Section):
    """What is remembered of requests that have ended. Times in seconds."""

    keep_requests: Duration | None = Field(
        30 * 86_400.0, gt=0, description="a duration like 30d, over 0, or null for none"
    )
    max_requests: int = Field(200_000, ge=1, description="a whole number of 1 or more")


class LogSettings(_Section):
    """What is written to stderr, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="debug, info, warning or error"
    )
    format: Literal["text", "json"] = Field("text", description="text or json")


class Settings(_Section):
    """Everything the gateway can be told. Times in seconds, sizes in bytes, paths absolute."""

    host: Annotated[
        str | tuple[str, ...], PlainValidator(parse_hosts, json_schema_input_type=str | list[str])
    ] = Field("127.0.0.1", description=HOSTS)
    port: int = Field(8080, ge=0, le=65535, description="a port from 0 (any free one) to 65535")
    data_dir: Path = Field(Path("data"), description="a folder")
    models_file: Path = Field(Path("data/models.json"), description="a file")
    llama_server: str = Field("auto", min_length=1, description="auto, or a path to llama-server")
    llm_storage: Path = Field(Path("~/LLMs"), description="a folder")
    allowed_hosts: tuple[str, ...] | None = Field(
        None,
        description='a list of host names like box.example.com or *.example.com, ["*"], or null',
    )
    trusted_proxies: tuple[str, ...] = Field(
        (), description="a list of addresses and networks like 10.0.0.0/8"
    )
    remote_media: bool = Field(False, description="true or false")
    auth: AuthSettings = Field(AuthSettings(), description="an object")
    admin: AdminSettings = Field(AdminSettings(), description="an object")
    tls: TlsSettings = Field(TlsSettings(), description="an object")
    cors: CorsSettings = Field(CorsSettings(), description="an object")
    limits: LimitSettings = Field(LimitSettings(), description="an object")
    scheduler: SchedulerSettings = Field(SchedulerSettings(), description="an object")
    accounting: AccountingSettings = Field(AccountingSettings(), description="an object")
    log: LogSettings = Field(LogSettings(), description="an object")
    page: bool = Field(True, description="true or false")
    ui: bool = Field(True, description="true or false")
    shutdown_timeout: Duration = Field(30.0, description="a duration like 30s")
    public_dir: Path = Field(Path("public"), description="a folder")

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, hosts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if hosts is None:
            return None
        return tuple(
            "*" if host.strip() == "*" else str(parse_name(host.strip())) for host in hosts
        )

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ipaddress.ip_network(text.strip(), strict=False)) for text in proxies)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every address or name of :attr:`host`."""
        return (self.host,) if isinstance(self.host, str) else self.host

    @property
    def others_reach(self) -> str | None:
        """Those of :attr:`hosts` that other machines may reach, in words; ``None``: none."""
        return " and ".join(host for host in self.hosts if not is_loopback(host)) or None

    @property
    def database(self) -> Path:
        """The file of the store."""
        return self.data_dir / "gateway.db"


class Loaded(NamedTuple):
    """Settings, and where they came from."""

    settings: Settings
    root: Path
    file: Path | None  # None: built-in defaults


def find_config(explicit: str | os.PathLike[str] | None = None) -> Path | None:
    """The configuration to use: the one asked for, else the first of the usual places."""
    if explicit is not None:
        return Path(explicit)
    config_home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    places = (
        Path("conf/gateway.yaml"),
        config_home / "llm-gateway/gateway.yaml",
        Path("/etc/llm-gateway/gateway.yaml"),
    )
    return next((place for place in places if place.is_file()), None)


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
    """What is right of it, with the defaults for the rest, and every problem. Not to be served."""
    file = find_config(explicit)
    data: dict[str, Any] = {}
    problems: list[Problem] = []
    if file is not None:
        data, problems = read_yaml(file)
        root = project_root(file)
    else:
        root = default_root()
    env_data, env_problems = _from_environment(os.environ if environ is None else environ)
    problems += env_problems
    merged = _merge(_merge(data, env_data), dict(overrides or {}))
    file_label = str(file) if file else "built-in defaults"
    found, errors = validate_partly(Settings, merged)
    settings = found or Settings()
    problems += [
        _blame(problem, env_data, overrides or {})
        for problem in problems_of(*errors, file=file_label, model=Settings)
    ]
    problems += [
        _blame(Problem(file_label, key, repr(str(path)), _WINDOWS), env_data, {})
        for key, path in _paths(settings)
        if os.name != "nt" and re.match(r"[A-Za-z]:", str(path))
    ]
    return Loaded(_absolute(settings, root), root, file), problems


_WINDOWS = "is a path on a Windows drive, and this machine has none (in WSL, C:\\ is /mnt/c)"


def _paths(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Path | str]]:
    """Every setting that is a path, by its name."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Path) or (name == "llama_server" and isinstance(value, str)):
            yield prefix + name, value
        elif isinstance(value, BaseModel):
            yield from _paths(value, f"{prefix}{name}.")


def skeleton(name: str) -> Path:
    """A file shipped with the gateway (``conf/gateway.yaml``, ``data/models.json``, ...).

    In a wheel they lie inside the package, in a checkout at its top.
    """
    package = Path(__file__).parent
    inside = package / "skeleton" / name
    return inside if inside.exists() else package.parent / name


def default_root() -> Path:
    """Where things live without a configuration file.

    The working folder if it has a ``data/models.json``, else the user's data folder (XDG Base
    Directory Specification), so that trying the gateway out litters nobody's home.
    """
    if Path("data/models.json").is_file():
        return Path.cwd()
    data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(data_home) / "llm-gateway"


def project_root(file: Path) -> Path:
    """What relative paths in the configuration ``file`` are relative to."""
    folder = file.expanduser().absolute().parent
    return folder.parent if folder.name == "conf" else folder


def _from_environment(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[Problem]]:
    """``LLM_GATEWAY_TLS__ENABLED=true`` -> ``{"tls": {"enabled": "true"}}``.

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


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _blame(problem: Problem, env_data: dict[str, Any], overrides: Mapping[str, Any]) -> Problem:
    """Name the option or variable instead of the file where the wrong value came from there."""
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
        joined = {"_".join(path): path for path in key_paths(Settings) if len(path) > 1}
        if (path := joined.get("_".join(parts))) is not None:
            message += f", did you mean {ENV_PREFIX}{'__'.join(path).upper()}?"
    return replace(problem, file="environment", key=variable, message=message)


def _absolute(settings: Settings, root: Path) -> Settings:
    def resolve(path: Path | None) -> Path | None:
        return None if path is None else root / path.expanduser()

    tls = settings.tls.model_copy(
        update={
            key: resolve(getattr(settings.tls, key))
            for key in ("private_key", "certificate", "ca_chain")
        }
    )
    if tls.acme is not None:
        acme = tls.acme.model_copy(update={"ca_file": resolve(tls.acme.ca_file)})
        tls = tls.model_copy(update={"acme": acme})
    folders = {
        key: resolve(getattr(settings, key))
        for key in ("data_dir", "models_file", "llm_storage", "public_dir")
    }
    server = settings.llama_server
    if server != "auto" and ("/" in server or "\\" in server):
        server = str(root / Path(server).expanduser())
    return settings.model_copy(update={**folders, "tls": tls, "llama_server": server})
