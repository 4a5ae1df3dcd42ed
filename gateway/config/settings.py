"""The settings: frozen dataclasses with the names of gateway.yaml.

Nothing is validated here: :mod:`gateway.config.schema` says what may stand in the file, and
:mod:`gateway.config.load` makes :class:`Settings` of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from gateway.listen_on import is_loopback
from gateway.secret import Secret

LETS_ENCRYPT: Final = "https://acme-v02.api.letsencrypt.org/directory"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """Who may use the gateway."""

    enabled: bool = True
    allow_query_key: bool = True
    open_to_network: bool = False
    ollama_open_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSettings:
    """What administrators may do over HTTP; the files themselves may say anything."""

    process_settings: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmeSettings:
    """Certificates that the gateway gets and renews by itself (RFC 8555)."""

    domains: tuple[str, ...]
    email: str | None = None
    directory: str = LETS_ENCRYPT
    agree_tos: bool
    challenge: Literal["http-01", "tls-alpn-01"] = "http-01"
    profile: str | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """The gateway's own certificate. Paths are PEM files."""

    enabled: bool = False
    private_key: Path | None = None
    certificate: Path | None = None
    ca_chain: Path | None = None
    passphrase: Secret | None = None
    redirect_port: int | None = None
    public_port: int | None = None
    acme: AcmeSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsSettings:
    """Which web pages may call from a browser."""

    origins: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSettings:
    """How much work one request may make at a model: see :mod:`gateway.proxy.bounds`.

    Sizes in bytes, times in seconds.
    """

    time: float | None = 4 * 3600.0
    max_tokens: int | None = None
    answers: int = 16
    logprobs: int = 100
    last_n: int = 262_144
    logit_bias: int = 4096
    list_items: int = 128
    list_bytes: int = 16 * 2**10
    messages: int = 4096
    parts: int = 4096
    prompts: int = 256
    inputs: int = 2048
    tools: int = 512
    grammar_bytes: int = 64 * 2**10
    grammar_depth: int = 64
    grammar_parts: int = 70_000
    grammar_choices: int = 10_000
    schema_bytes: int = 2**20
    schema_depth: int = 100
    schema_properties: int = 512
    schema_length: int = 2**31 - 1
    text_bytes: int = 4 * 2**20
    values: int = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """Limits on what a client may ask for, and on its waits. Sizes in bytes, times in seconds."""

    max_body: int = 64 * 2**20
    body_memory: int = 512 * 2**20
    max_url: int = 32 * 2**10
    max_header: int = 32 * 2**10
    max_head: int = 64 * 2**10
    max_header_count: int = 128
    queue_size: int = 512
    queue_timeout: float = 300.0
    load_timeout: float = 300.0
    heartbeat: float = 10.0
    connections: int = 4096
    connections_per_address: int = 256
    streams_per_key: int = 64
    handshake_timeout: float = 10.0
    header_timeout: float = 20.0
    body_timeout: float = 30.0
    send_timeout: float = 60.0
    keepalive: float = 75.0
    request: RequestSettings = RequestSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSettings:
    """How many models may be in memory. Sizes in bytes, times in seconds."""

    max_loaded: int | None = None
    memory_budget: Literal["auto"] | int = "auto"
    idle_unload: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Other machines that run models, too. ``address``: of Ray's head, ``HOST:PORT`` or
    ``ray://HOST:PORT``; ``auto``: this machine is a part of its cluster.
    """

    engine: Literal["ray"] = "ray"
    address: str = "auto"
    placement: Literal["pack", "spread"] = "pack"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountingSettings:
    """What is remembered of requests that have ended. Times in seconds."""

    keep_requests: float | None = 30 * 86_400.0
    max_requests: int = 200_000
    max_size: int | None = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """Who may read ``/metrics``, and what is in it."""

    enabled: bool = True
    without_key: bool = True
    backends: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Where keys, usage and requests are kept. ``url``: of a PostgreSQL database."""

    url: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """The saved conversations. ``dir``: by default within the data folder. Seconds, bytes."""

    enabled: bool = True
    dir: Path | None = None
    max_size: int | Literal["auto"] = "auto"
    max_age: float = 30 * 86_400.0
    min_tokens: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """Streams that can be read again. ``keep``: seconds after their end; ``None``: not at all."""

    keep: float | None = 120.0
    max_size: int = 32 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseSettings:
    """Responses that are kept. ``max_age``: seconds after their last use; ``max_size``: bytes."""

    store: bool = False
    max_age: float = 30 * 86_400.0
    max_size: int = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What is written to stderr, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json", "journal"] = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the gateway can be told. Times in seconds, sizes in bytes, paths absolute."""

    host: str | tuple[str, ...] = "127.0.0.1"
    port: int = 8080
    data_dir: Path = Path("data")
    models_file: Path = Path("data/models.json")
    llama_server: str = "auto"
    llm_storage: Path = Path("~/LLMs")
    allowed_hosts: tuple[str, ...] | None = None
    trusted_proxies: tuple[str, ...] = ()
    remote_media: bool = False
    auth: AuthSettings = AuthSettings()
    admin: AdminSettings = AdminSettings()
    tls: TlsSettings = TlsSettings()
    cors: CorsSettings = CorsSettings()
    limits: LimitSettings = LimitSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    cluster: ClusterSettings | None = None
    accounting: AccountingSettings = AccountingSettings()
    metrics: MetricsSettings = MetricsSettings()
    store: StoreSettings = StoreSettings()
    cache: CacheSettings = CacheSettings()
    streams: StreamSettings = StreamSettings()
    responses: ResponseSettings = ResponseSettings()
    log: LogSettings = LogSettings()
    page: bool = True
    ui: bool = True
    shutdown_timeout: float = 30.0
    public_dir: Path = Path("public")

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every address or name of :attr:`host`."""
        return (self.host,) if isinstance(self.host, str) else self.host

    @property
    def others_reach(self) -> str | None:
        """The :attr:`hosts` that other machines may reach, in words; ``None``: none."""
        return " and ".join(host for host in self.hosts if not is_loopback(host)) or None

    @property
    def cache_dir(self) -> Path:
        """The folder of saved conversations."""
        return self.cache.dir or self.data_dir / "cache"

    @property
    def database(self) -> Path:
        """The file of the store, where that is in one: see :attr:`store_at`."""
        return self.data_dir / "gateway.db"

    @property
    def store_at(self) -> Path | Secret:
        """Where the store is: in a file, or at the URL of a database."""
        return self.store.url or self.database

    @property
    def store_shown(self) -> str:
        """:attr:`store_at` for people, without a password."""
        return str(self.database) if self.store.url is None else "the database of store.url"
