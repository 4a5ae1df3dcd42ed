"""What `llm-gateway serve` imports and reads to start, and on which loop it runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import (
    FAKE,
    fake_model,
    project,
)
from tests.serve.processes import STORY, Serve, backend_pids

#: What is imported until it listens, of what others wrote: each is there for every request.
NEEDED = set(
    "aiohappyeyeballs aiohttp aiohttp_sse aiosignal annotated_types attr frozenlist httptools idna "
    "multidict orjson propcache pydantic pydantic_core typing_extensions typing_inspection uvloop "
    "yaml yarl "
    # aiohttp's own, for packed bodies, where they are installed.
    "backports brotli".split()
)
#: What takes long to import, and is needed by few: by TLS, by its renewal, by other commands.
FOR_OTHERS = set(
    "cryptography acme josepy requests OpenSSL pynvml xllamacpp hypothesis pytest".split()
)
#: What of ours is not needed to listen without TLS, nor as long as nobody asks for it.
OURS_FOR_LATER = {
    "gateway.api.openapi.answers",
    "gateway.clients.report",
    "gateway.api.openapi.document",
    "gateway.api.openapi.page",
    "gateway.api.openapi.shapes",
    "gateway.clients.samples",
    "gateway.backends.bundled",
    "gateway.backends.estimate",
    "gateway.backends.fleet",
    "gateway.backends.memory",
    "gateway.backends.remote",
    "gateway.clients",
    "gateway.models.storage",
    "gateway.redirect",
    "gateway.access.store",
    "gateway.tls",
    "gateway.http.tls_port",
}


def test_nothing_is_imported_in_vain(serve: Serve, tmp_path: Path) -> None:
    """`python -X importtime`, from the start to an answer."""
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    served = serve("--config", str(config), env={"PYTHONPROFILEIMPORTTIME": "1"})
    with served.client() as client:
        client.chat.completions.create(model="m", messages=STORY)
    assert served.stop() == 0
    log = "".join(served.log)
    imported = set(re.findall(r"^import time: +\d+ \| +\d+ \| *(\w+)", log, re.MULTILINE))
    assert "aiohttp" in imported
    assert not imported & FOR_OTHERS


def test_only_what_listening_needs_is_imported_before_it() -> None:
    """What is slow and not needed for /health comes later: the store above all."""
    code = (
        "import sys; import gateway.cli.serve as s, gateway.library, gateway.http.listeners, "
        "gateway.server; s.loop_factory(); "
        "print(*{n.partition('.')[0] for n, m in list(sys.modules.items()) "
        "if 'site-packages' in (getattr(m, '__file__', None) or '')}); "
        "print(*(n for n in sys.modules if n.startswith('gateway.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    of_others, ours = (set(line.split()) for line in done.stdout.splitlines())
    found = {name for name in of_others if not name.startswith("_")}
    assert "aiohttp" in found
    assert found <= NEEDED
    assert "gateway.http.fast_json" in ours
    assert not ours & OURS_FOR_LATER


def test_the_authorities_are_not_read_to_start(serve: Serve, tmp_path: Path) -> None:
    """Whoever opens a pipe that nobody writes to waits for ever."""
    pipe = tmp_path / "authorities.pem"
    os.mkfifo(pipe)
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    served = serve("--config", str(config), env={"SSL_CERT_FILE": str(pipe)})
    with served.client() as client:
        client.chat.completions.create(model="m", messages=STORY)
    (backend,) = backend_pids(served)
    environment = Path(f"/proc/{backend}/environ").read_bytes().split(b"\0")
    assert f"SSL_CERT_FILE={pipe}".encode() in environment  # as it was given
    assert not [line for line in environment if line.startswith(b"PYDANTIC_")]
    assert served.stop() == 0


def test_plugins_of_pydantic_are_not_looked_for() -> None:
    """It would read the metadata of every package that is installed."""
    code = (
        "import sys; sys.addaudithook(lambda event, args: "
        "event == 'open' and str(args[0]).endswith('entry_points.txt') and print(args[0])); "
        "from gateway.cli import main; main(['check', '--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "usage:" in done.stdout
    assert "entry_points.txt" not in done.stdout


def test_gateway_serves_without_uvloop(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without/uvloop.py").write_text("raise ImportError('there is none here')\n")
    path = os.pathsep.join((str(tmp_path / "without"), os.environ.get("PYTHONPATH", "")))
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    served = serve("--config", str(config), env={"PYTHONPATH": path})
    with served.client() as client:
        answer = client.chat.completions.create(model="m", messages=STORY)
        assert answer.choices[0].message.content == "fake answer"
        stream = client.chat.completions.create(model="m", messages=STORY, stream=True)
        assert list(stream)[-1].choices[0].finish_reason == "stop"
    loaded = Path(f"/proc/{served.process.pid}/maps").read_text()
    assert "httptools" in loaded
    assert "/uvloop/loop." not in loaded
    assert served.stop() == 0


def test_gateway_uses_uvloop(serve: Serve, tmp_path: Path) -> None:
    pytest.importorskip("uvloop")
    served = serve("--config", str(project(tmp_path / "p", {})))
    assert served.url
    assert "/uvloop/loop." in Path(f"/proc/{served.process.pid}/maps").read_text()
    assert served.stop() == 0
