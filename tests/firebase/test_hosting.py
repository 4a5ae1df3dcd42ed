"""The page on Firebase's own hosting emulator, in Chromium, with a gateway elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from gateway.tls.selfsigned import self_signed
from tests.chromium import PATIENCE, chromium, needs_certutil, needs_chromium, trust
from tests.harness import DEMO, DEMO_GGUF, Served, project, tied, wait_until
from tests.web.built import WEB, ensure_built

TOOLS = Path(__file__).parent / "node_modules/firebase-tools/lib/bin/firebase.js"
NODE = shutil.which("node")
pytestmark = [
    needs_chromium,
    needs_certutil,
    pytest.mark.skipif(
        NODE is None or not TOOLS.is_file(),
        reason="no firebase-tools: npm --prefix tests/firebase ci --ignore-scripts",
    ),
]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the page, hosted as firebase.json says."""
    ensure_built()
    folder = tmp_path_factory.mktemp("firebase")
    shutil.copytree(WEB / "dist", folder / "dist")
    about = json.loads((WEB / "firebase.json").read_text())
    hosting, hub, logging = free_ports(3)
    about["emulators"] = {
        "hosting": {"host": "127.0.0.1", "port": hosting},
        "hub": {"host": "127.0.0.1", "port": hub},
        "logging": {"host": "127.0.0.1", "port": logging},
        "ui": {"enabled": False},
    }
    (folder / "firebase.json").write_text(json.dumps(about))
    assert NODE is not None
    command = (NODE, TOOLS, "emulators:start", "--only", "hosting", "--project", "demo-gateway")
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            tied(*command),
            cwd=folder,
            env={**os.environ, "HOME": str(folder), "CI": "true"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(
                lambda: process.poll() is not None or "emulators ready" in log.read_text(),
                60,
                "Firebase's emulator",
            )
            assert process.poll() is None, log.read_text()
            yield f"http://localhost:{hosting}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_hosted_files_have_their_headers_and_caching(hosted: str) -> None:
    with urllib.request.urlopen(hosted, timeout=20) as answer:
        assert answer.headers["Cache-Control"] == "no-cache"
        assert "script-src 'self';" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Frame-Options"] == "DENY"
        text = answer.read().decode()
    assert 'name="llm-gateway"' not in text
    script = text.partition('src="')[2].partition('"')[0]
    with urllib.request.urlopen(hosted + script, timeout=20) as answer:
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert "javascript" in answer.headers["Content-Type"]
    with urllib.request.urlopen(f"{hosted}/sw.js", timeout=20) as answer:
        assert answer.headers["Cache-Control"] == "no-cache"
    with urllib.request.urlopen(f"{hosted}/any/where", timeout=20) as answer:
        assert answer.read().decode() == text
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{hosted}/assets/none.js", timeout=20)


def test_hosted_page_chats_with_a_box_elsewhere(hosted: str, tmp_path: Path) -> None:
    made = self_signed(["box.lan"], tmp_path / "p/ssl")
    tls = {
        "enabled": True,
        "private_key": str(made.private_key),
        "certificate": str(made.certificate),
        "ca_chain": str(made.chain),
    }
    config = project(
        tmp_path / "p",
        {DEMO: {"params": {"model": DEMO_GGUF, "nPredict": 24, "threads": 2}}},
        tls=tls,
        cors={"origins": [hosted]},
        allowed_hosts=["box.lan"],
    )
    home = tmp_path / "home"
    home.mkdir()
    trust(home, made.chain)
    served = Served(tmp_path, "--config", str(config))
    try:
        box = f"https://box.lan:{served.url.rpartition(':')[2]}"
        with chromium(home) as browser:
            context = browser.new_context()
            context.grant_permissions(["local-network-access"], origin=hosted)
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            complaints: list[str] = []
            page.on("console", lambda said: complaints.append(said.text))
            page.goto(hosted)
            page.get_by_label("Address of the box").fill(box)
            page.get_by_label("API key", exact=True).fill(served.key)
            page.get_by_role("button", name="Sign in").click()
            question = page.get_by_role("textbox", name="Message")
            question.fill("Where is the Nile?")
            with page.expect_response(f"{box}/v1/chat/completions") as asked:
                question.press("Enter")
            assert asked.value.status == 200
            served.wait_for(r"(POST /v1/chat/completions 200)", served.log, 60)
            answer = page.get_by_role("article", name="Answer")
            expect(answer.locator(".facts")).to_be_visible()
            assert answer.locator(".markdown").inner_text().strip()
            assert not [text for text in complaints if "Content Security Policy" in text]
            page.screenshot(path=tmp_path / "chat.png")
    finally:
        served.stop()
