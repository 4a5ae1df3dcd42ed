"""The schema of gateway.yaml, by which pydantic validates the file.

Types, defaults and what each section is for are those of :mod:`gateway.config.settings`. Here
stands what may be written under each key, in words for people and as bounds.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import ConfigDict, PlainValidator, SecretStr, ValidationInfo

from gateway.config.head_address import parse_head
from gateway.config.settings import (
    AccountingSettings,
    AcmeSettings,
    AdminSettings,
    AuthSettings,
    CacheSettings,
    ClusterSettings,
    CorsSettings,
    LimitSettings,
    LogSettings,
    MetricsSettings,
    RequestSettings,
    ResponseSettings,
    SchedulerSettings,
    Settings,
    StoreSettings,
    StreamSettings,
    TlsSettings,
)
from gateway.listen_on import HOSTS, parse_hosts
from gateway.names import parse_name
from gateway.validation import Duration, Schema, Size, key, schema_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class _Section(Schema):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _section(made: type[DataclassInstance], **keys: Any) -> type[_Section]:
    return schema_of(made, _Section, **keys)


# --- what bounds cannot say ------------------------------------------------------------------


def _acme_domains(domains: tuple[str, ...]) -> tuple[str, ...]:
    if not domains:
        raise ValueError("must name at least one host")
    names = dict.fromkeys(str(parse_name(domain.strip())) for domain in domains)
    if wild := next((name for name in names if name.startswith("*.")), None):
        raise ValueError(f"{wild}: wildcards need dns-01, which is not built in")
    return tuple(names)


def _email(email: str | None) -> str | None:
    if email is not None and not re.fullmatch(r"[^@\s,]+@[^@\s,]+", email):
        raise ValueError("is not one e-mail address")
    return email


def _https_url(directory: str) -> str:
    if not re.fullmatch(r"https://[^/\s]+(/\S*)?", directory):
        raise ValueError("must be an https URL")
    return directory


def _postgres_url(url: SecretStr | None) -> SecretStr | None:
    if url is not None and not re.match(r"postgres(ql)?://", url.get_secret_value()):
        raise ValueError("must begin with postgresql://")
    return url


def _agreed(agreed: bool) -> bool:
    if not agreed:
        raise ValueError("must be true: no authority gives certificates otherwise")
    return agreed


def _one_source(acme: Any, info: ValidationInfo) -> Any:
    files = ("private_key", "certificate", "ca_chain", "passphrase")
    given = [key for key in files if info.data.get(key) is not None]
    if acme is not None and given:
        raise ValueError(
            f"makes its own key and certificate: remove {' and '.join(given)}, or acme"
        )
    return acme


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_origin(origin) for origin in origins)


def _allowed_hosts(hosts: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if hosts is None:
        return None
    return tuple("*" if host.strip() == "*" else str(parse_name(host.strip())) for host in hosts)


def _networks(proxies: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(ipaddress.ip_network(text.strip(), strict=False)) for text in proxies)


def _open_to(networks: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(_network(text.strip())) for text in networks)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return the network that ``text`` means; an address is one by itself."""
    network = ipaddress.ip_network(text, strict=False)
    address = ipaddress.ip_address(text.partition("/")[0])
    if network.network_address != address:
        raise ValueError(f"{text!r} is {address} within {network}: say which one is meant")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        raise ValueError(f"{text!r}: write it as IPv4, {address.ipv4_mapped}")
    return network


_ORIGIN = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://"  # also capacitor:// and the like
    r"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9-]*\*?[A-Za-z0-9-]*\.)*[A-Za-z0-9-]+)"
    r"(?::(?:[0-9]{1,5}|\*))?"
)


def _origin(text: str) -> str:
    """Return a web page's origin (RFC 6454), with ``*`` where :mod:`gateway.http.cors` knows it."""
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


_Host = Annotated[
    str | tuple[str, ...], PlainValidator(parse_hosts, json_schema_input_type=str | list[str])
]

# --- the sections ----------------------------------------------------------------------------

_AUTH = _section(
    AuthSettings,
    enabled=key(bool, "true or false"),
    allow_query_key=key(bool, "true or false"),
    open_to_network=key(bool, "true or false"),
    ollama_open_to=key(
        tuple[str, ...], "a list of addresses and networks like 192.168.1.0/24", _open_to
    ),
)

_ADMIN = _section(
    AdminSettings,
    process_settings=key(bool, "true or false"),
)

_ACME = _section(
    AcmeSettings,
    domains=key(
        tuple[str, ...],
        "a list of host names (or public addresses) that lead to this machine",
        _acme_domains,
    ),
    email=key(str | None, "an e-mail address, or null", _email),
    directory=key(str, "the https URL of an ACME directory", _https_url),
    agree_tos=key(
        bool, "true: I have read the authority's terms of service and agree to them", _agreed
    ),
    challenge=key(Literal["http-01", "tls-alpn-01"], "http-01 (port 80) or tls-alpn-01 (port 443)"),
    profile=key(str | None, "a profile the authority offers", min_length=1),
    ca_file=key(Path | None, "a PEM file: who vouches for the ACME server itself, or null"),
)

_TLS = _section(
    TlsSettings,
    enabled=key(bool, "true or false"),
    private_key=key(Path | None, "a PEM file"),
    certificate=key(Path | None, "a PEM file"),
    ca_chain=key(Path | None, "a PEM file, or null"),
    passphrase=key(SecretStr | None, "the private key's passphrase, or null"),
    redirect_port=key(int | None, "a port from 1 to 65535, or null", ge=0, le=65535),
    public_port=key(int | None, "a port from 1 to 65535, or null", ge=1, le=65535),
    acme=key(_ACME | None, "an object, or null", _one_source),
)

_CORS = _section(
    CorsSettings,
    origins=key(
        tuple[str, ...], 'a list of origins like https://app.example.com, or ["*"]', _origins
    ),
)

_REQUEST = _section(
    RequestSettings,
    time=key(Duration | None, "a duration like 4h, over 0, or null for no limit", gt=0),
    max_tokens=key(int | None, "a whole number of 1 or more, or null for no limit", ge=1),
    answers=key(int, "a whole number of 1 or more", ge=1),
    logprobs=key(int, "a whole number of 0 or more", ge=0),
    last_n=key(int, "a whole number of 0 or more", ge=0),
    logit_bias=key(int, "a whole number of 0 or more", ge=0),
    list_items=key(int, "a whole number of 1 or more", ge=1),
    list_bytes=key(Size, "a size like 16KiB", ge=1),
    messages=key(int, "a whole number of 1 or more", ge=1),
    parts=key(int, "a whole number of 1 or more", ge=1),
    prompts=key(int, "a whole number of 1 or more", ge=1),
    inputs=key(int, "a whole number of 1 or more", ge=1),
    tools=key(int, "a whole number of 1 or more", ge=1),
    grammar_bytes=key(Size, "a size like 64KiB", ge=0),
    grammar_depth=key(int, "a whole number from 1 to 1000", ge=1, le=1000),
    grammar_parts=key(int, "a whole number of 1 or more", ge=1),
    grammar_choices=key(int, "a whole number of 1 or more", ge=1),
    schema_bytes=key(Size, "a size like 1MiB", ge=0),
    schema_depth=key(int, "a whole number from 1 to 250", ge=1, le=250),
    schema_properties=key(int, "a whole number of 1 or more", ge=1),
    schema_length=key(int, "a whole number of 1 or more", ge=1),
    text_bytes=key(Size, "a size like 4MiB", ge=1024),
    values=key(int, "a whole number of 1024 or more", ge=1024),
)

_LIMITS = _section(
    LimitSettings,
    max_body=key(Size, "a size of 1KiB or more, like 64MiB", ge=1024),
    body_memory=key(Size, "a size of 1MiB or more", ge=2**20),
    max_url=key(Size, "a size of 1KiB or more, like 32KiB", ge=1024),
    max_header=key(Size, "a size of 1KiB or more, like 32KiB", ge=1024),
    max_head=key(Size, "a size of 8KiB or more, like 64KiB", ge=8192),
    max_header_count=key(int, "a whole number of 16 or more", ge=16),
    queue_size=key(int, "a whole number of 0 or more", ge=0),
    queue_timeout=key(Duration, "a duration like 300s"),
    load_timeout=key(Duration, "a duration like 300s, over 0", gt=0),
    heartbeat=key(Duration, "a duration like 10s, over 0", gt=0),
    connections=key(int, "a whole number of 1 or more", ge=1),
    connections_per_address=key(int, "a whole number of 1 or more", ge=1),
    streams_per_key=key(int, "a whole number of 1 or more", ge=1),
    handshake_timeout=key(Duration, "a duration like 10s, over 0", gt=0),
    header_timeout=key(Duration, "a duration like 20s, over 0", gt=0),
    body_timeout=key(Duration, "a duration like 30s, over 0", gt=0),
    send_timeout=key(Duration, "a duration like 60s, over 0", gt=0),
    keepalive=key(Duration, "a duration like 75s, over 0", gt=0),
    request=key(_REQUEST, "an object"),
)

_SCHEDULER = _section(
    SchedulerSettings,
    max_loaded=key(int | None, "a whole number of 1 or more, or null", ge=1),
    memory_budget=key(Literal["auto"] | Size, "auto, or a size like 20GiB"),
    idle_unload=key(Duration | None, "a duration like 30m, or null"),
)

_CLUSTER = _section(
    ClusterSettings,
    engine=key(Literal["ray"], "ray"),
    address=key(
        str,
        "auto, or where Ray's head is: a host with or without a port, like 192.168.1.5:6379 "
        "(or ray://192.168.1.5:10001, for Ray Client)",
        parse_head,
    ),
    placement=key(Literal["pack", "spread"], "pack or spread"),
)

_ACCOUNTING = _section(
    AccountingSettings,
    keep_requests=key(Duration | None, "a duration like 30d, over 0, or null for none", gt=0),
    max_requests=key(int, "a whole number of 1 or more", ge=1),
    max_size=key(Size | None, "a size like 64MiB, of 64KiB or more, or null", ge=2**16),
)

_METRICS = _section(
    MetricsSettings,
    enabled=key(bool, "true or false"),
    without_key=key(bool, "true or false"),
    backends=key(bool, "true or false"),
)

_STORE = _section(
    StoreSettings,
    url=key(
        SecretStr | None,
        "a URL like postgresql://USER:PASSWORD@HOST/DATABASE, or null",
        _postgres_url,
    ),
)

_CACHE = _section(
    CacheSettings,
    enabled=key(bool, "true or false"),
    dir=key(Path | None, "a folder, or null"),
    max_size=key(Literal["auto"] | Size, "auto, or a size like 20GiB"),
    max_age=key(Duration, "a duration like 30d, over 0", gt=0),
    min_tokens=key(int, "a whole number of 1 or more", ge=1),
)

_STREAMS = _section(
    StreamSettings,
    keep=key(Duration | None, "a duration like 2m, over 0, or null for none", gt=0),
    max_size=key(Size, "a size like 64MiB"),
)

_RESPONSES = _section(
    ResponseSettings,
    store=key(bool, "true or false"),
    max_age=key(Duration, "a duration like 30d, over 0", gt=0),
    max_size=key(Size, "a size like 1GiB"),
)

_LOG = _section(
    LogSettings,
    level=key(Literal["debug", "info", "warning", "error"], "debug, info, warning or error"),
    format=key(Literal["text", "json", "journal"], "text, json or journal"),
)

#: The schema of the whole file.
SETTINGS: Final = _section(
    Settings,
    host=key(_Host, HOSTS),
    port=key(int, "a port from 0 (any free one) to 65535", ge=0, le=65535),
    data_dir=key(Path, "a folder"),
    models_file=key(Path, "a file"),
    llama_server=key(str, "auto, or a path to llama-server", min_length=1),
    llm_storage=key(Path, "a folder"),
    allowed_hosts=key(
        tuple[str, ...] | None,
        'a list of host names like box.example.com or *.example.com, ["*"], or null',
        _allowed_hosts,
    ),
    trusted_proxies=key(
        tuple[str, ...], "a list of addresses and networks like 10.0.0.0/8", _networks
    ),
    remote_media=key(bool, "true or false"),
    auth=key(_AUTH, "an object"),
    admin=key(_ADMIN, "an object"),
    tls=key(_TLS, "an object"),
    cors=key(_CORS, "an object"),
    limits=key(_LIMITS, "an object"),
    scheduler=key(_SCHEDULER, "an object"),
    cluster=key(_CLUSTER | None, "an object, or null"),
    accounting=key(_ACCOUNTING, "an object"),
    metrics=key(_METRICS, "an object"),
    store=key(_STORE, "an object"),
    cache=key(_CACHE, "an object"),
    streams=key(_STREAMS, "an object"),
    responses=key(_RESPONSES, "an object"),
    log=key(_LOG, "an object"),
    page=key(bool, "true or false"),
    ui=key(bool, "true or false"),
    shutdown_timeout=key(Duration, "a duration like 30s"),
    public_dir=key(Path, "a folder"),
)
