"""What is measured: each proxy as a process of its own, before the same scripted llama-server."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_REPOSITORY = _HERE.parent.parent

#: The models of the gateway's models.json. One has 256 slots at most, so 1,000 streams need four.
MODELS = ("bench1", "bench2", "bench3", "bench4")
_SLOTS = 256
_PERSONALITY = (
    "You will introduce yourself as a geography teacher. You explain countries, rivers and "
    "mountains in short, friendly sentences that a school child understands."
)


class Missing(Exception):
    """Something is not installed; the message says what, and what it would be good for."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Process:
    """A child of the benchmark, ended by its pid, its output in a file of the work folder."""

    def __init__(self, argv: list[str], folder: Path, name: str, **env: str) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("LLM_GATEWAY_")}
        clean.pop("JOURNAL_STREAM", None)
        # What is installed is compiled; a checkout is by its first start, where that may write.
        clean.pop("PYTHONDONTWRITEBYTECODE", None)
        self.log = folder / f"{name}.log"
        self.name = name
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                argv,
                cwd=_REPOSITORY,
                env={**clean, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = self.process.pid

    def end(self) -> None:
        """SIGTERM, and SIGKILL if that isn't enough."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def until_healthy(self, port: int, *, tls: bool = False, seconds: float = 15.0) -> None:
        """Return with the first 200 of GET /health."""
        deadline = time.monotonic() + seconds
        context = ssl.create_default_context() if tls else None
        if context is not None:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            connection = (
                http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=context)
                if tls
                else http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            )
            try:
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
            time.sleep(0.002)
        tail = self.log.read_text(errors="replace")[-1500:]
        raise RuntimeError(f"{self.name} did not answer /health within {seconds} s:\n{tail}")


class Upstream(Process):
    """The scripted llama-server, on a Unix socket and on a TCP port."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.socket = str(folder / "upstream.sock")
        super().__init__(
            [sys.executable, str(_HERE / "upstream.py"), "--host", self.socket],
            folder,
            "upstream",
            BENCH_PORT=str(self.port),
        )
        self.until_healthy(self.port)


class Proxy:
    """One row of the table. ``address``: of the upstream, a socket's path or a TCP port."""

    name = ""
    models: tuple[str, ...] = MODELS[:1]
    all_models: tuple[str, ...] = MODELS[:1]
    key: str | None = None
    #: Whether it takes a thousand streams at once.
    opens_many = True
    tls = False
    entrance: str | None = None
    process: Process | None = None

    def __init__(self, folder: Path, upstream: Upstream, *, tcp: bool) -> None:
        self.folder = folder
        self.address = str(upstream.port) if tcp else upstream.socket
        self.tcp = tcp
        self.upstream_port = upstream.port
        self.port = free_port()

    def prepare(self) -> None:
        """Whatever is to be done once. Raises :class:`Missing`."""

    def argv(self) -> list[str]:
        """The command that runs it."""
        raise NotImplementedError

    def start(self) -> float:
        """Start it; seconds from exec to the first 200 of GET /health."""
        started = time.monotonic()
        self.process = Process(self.argv(), self.folder, self.name.replace(" ", "-"))
        try:
            self.process.until_healthy(self.port, tls=self.tls)
        except BaseException:
            self.end()
            raise
        return time.monotonic() - started

    def last_words(self) -> str:
        """The end of what it logged."""
        return "" if self.process is None else self.process.log.read_text(errors="replace")[-800:]

    def end(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.end()
            self.process = None

    @property
    def pid(self) -> int:
        """The one process whose work is counted."""
        assert self.process is not None
        return self.process.pid


class Direct(Proxy):
    """No proxy at all: what latencies are compared with."""

    name = "direct"

    def __init__(self, folder: Path, upstream: Upstream, *, tcp: bool) -> None:
        super().__init__(folder, upstream, tcp=tcp)
        self.port = upstream.port

    def start(self) -> float:
        """It runs already."""
        return 0.0


_NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/nginx-body; proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-1; uwsgi_temp_path {folder}/nginx-2;
    scgi_temp_path {folder}/nginx-3;
    upstream llama {{ server {server}; keepalive 2048; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://llama;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


class Nginx(Proxy):
    """nginx: one worker (which is the one process), buffering off, keep-alive to the upstream."""

    name = "nginx"

    def prepare(self) -> None:
        self.program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")
        if self.program is None:
            raise Missing("nginx is not installed (on Debian: apt-get install nginx-light)")
        server = f"127.0.0.1:{self.address}" if self.tcp else f"unix:{self.address}"
        self.config = self.folder / "nginx.conf"
        self.config.write_text(_NGINX.format(folder=self.folder, port=self.port, server=server))

    def argv(self) -> list[str]:
        assert self.program is not None
        return [self.program, "-e", "stderr", "-p", str(self.folder), "-c", str(self.config)]


class GoReverseProxy(Proxy):
    """net/http/httputil.ReverseProxy with FlushInterval -1, what Go gateways are built on."""

    name = "go"

    def prepare(self) -> None:
        go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
        if go is None:
            raise Missing("there is no Go toolchain (https://go.dev/dl): no row for ReverseProxy")
        source = self.folder / "go"
        source.mkdir()
        shutil.copy(_HERE / "reverse_proxy.go", source / "main.go")
        (source / "go.mod").write_text("module bench\n\ngo 1.21\n")
        self.program = str(source / "reverse-proxy")
        built = subprocess.run(
            [go, "build", "-o", self.program, "."],
            cwd=source,
            env={**os.environ, "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": ""},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if built.returncode != 0:
            raise Missing(f"go build failed: {built.stderr[-500:]}")

    def argv(self) -> list[str]:
        upstream = ["tcp", f"127.0.0.1:{self.address}"] if self.tcp else ["unix", self.address]
        return [self.program, f"127.0.0.1:{self.port}", *upstream]


class AiohttpProxy(Proxy):
    """aiohttp server and aiohttp client."""

    name = "aiohttp"

    def argv(self) -> list[str]:
        script = str(_HERE / "aiohttp_proxy.py")
        return [sys.executable, script, str(self.port), self.address]


_RUN_PROFILED = """
import cProfile, sys
from gateway.cli import main
profile = cProfile.Profile()
try:
    profile.runcall(main)
finally:
    profile.dump_stats({file!r})
"""


class GatewayProxy(Proxy):
    """The gateway with everything on, which starts scripted llama-servers of its own.

    Its backends are always behind Unix sockets, as with the real llama-server.
    """

    name = "gateway"
    names: tuple[str, ...] = MODELS
    models: tuple[str, ...] = (f"{MODELS[0]}:teacher",)
    all_models = tuple(f"{name}:teacher" for name in MODELS)
    slots = _SLOTS
    code = "import sys; from gateway.cli import main; sys.exit(main())"
    profile_to: Path | None = None

    def prepare(self) -> None:
        root = self.root = self.folder / self.name.replace(" ", "-")
        (root / "conf").mkdir(parents=True)
        (root / "data").mkdir()
        (root / "storage").mkdir()
        (root / "storage" / "bench.gguf").write_bytes(b"")
        server = root / "llama-server"
        server.write_text(
            f"#!{sys.executable}\nimport runpy\n"
            f"runpy.run_path({str(_HERE / 'upstream.py')!r}, run_name='__main__')\n"
        )
        server.chmod(0o755)
        entries = dict.fromkeys(self.names, self.entry())
        (root / "data" / "models.json").write_text(json.dumps(entries))
        self.settings = root / "conf" / "gateway.yaml"
        # JSON is YAML. What isn't named here is as in the shipped configuration.
        self.settings.write_text(json.dumps(self.configuration()))
        self.start()  # the first start makes the store and the first key
        assert self.process is not None
        try:
            self.key = self.read_key(self.process.log)
        finally:
            self.end()

    def entry(self) -> dict[str, Any]:
        """Each model's in models.json."""
        return {
            "params": {"model": "bench.gguf", "temperature": 0.7},
            "personalities": {"teacher": _PERSONALITY},
            "parallel": self.slots,
            "memory": "1MiB",
        }

    def configuration(self) -> Mapping[str, object]:
        """conf/gateway.yaml."""
        return {
            "port": self.port,
            "llama_server": "./llama-server",
            "llm_storage": "storage",
            "scheduler": {"max_loaded": len(MODELS)},
            "limits": {"request": {"text_bytes": "64MiB"}},  # bodies of any size are measured
        }

    @staticmethod
    def read_key(log: Path) -> str:
        """The admin key that the first start prints once."""
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            if found := re.search(r"Admin key.*?\n\s+(\S+)\n", log.read_text(), re.DOTALL):
                return found[1]
            time.sleep(0.02)
        raise RuntimeError(f"the gateway printed no key:\n{log.read_text()[-1500:]}")

    def argv(self) -> list[str]:
        code = self.code
        if self.profile_to is not None:
            code = _RUN_PROFILED.format(file=str(self.profile_to))
        return [sys.executable, "-c", code, "serve", "--config", str(self.settings)]


class GatewayTls(GatewayProxy):
    """The same with TLS of its own."""

    name = "gateway tls"
    tls = True

    def prepare(self) -> None:
        if importlib.util.find_spec("cryptography") is None:
            raise Missing("the Python package cryptography is not installed: no rows with TLS")
        from gateway.tls import self_signed

        self.made = self_signed(["localhost"], self.folder / "tls", days=2)
        try:
            super().prepare()
        except RuntimeError as error:
            if "did not answer" in str(error):
                raise Missing("TLS: not yet (the gateway's listener speaks none)") from error
            raise

    def configuration(self) -> Mapping[str, object]:
        tls = {
            "enabled": True,
            "private_key": str(self.made.private_key),
            "certificate": str(self.made.certificate),
            "ca_chain": str(self.made.chain),
        }
        return {**super().configuration(), "tls": tls}


#: In the order of the table.
PROXIES: tuple[type[Proxy], ...] = (
    Direct,
    Nginx,
    GoReverseProxy,
    AiohttpProxy,
    GatewayProxy,
    GatewayTls,
)
