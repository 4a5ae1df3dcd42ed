"""Gateways that get certificates from pebble, and what they present."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.config.load import load_settings
from gateway.config.settings import Settings
from tests.harness import FAKE, project
from tests.pebble import MISSING, Pebble

NAME = "box.example.com"
DOMAINS = [NAME, "127.0.0.1"]
DAY = timedelta(days=1)
needs_pebble = pytest.mark.skipif(
    MISSING is not None, reason=f"{MISSING} is not installed (Debian, Ubuntu: apt install pebble)"
)


def acme_of(pebble: Pebble, **changed: Any) -> dict[str, Any]:
    acme = {
        "domains": DOMAINS,
        "directory": pebble.directory,
        "agree_tos": True,
        "ca_file": str(pebble.ca_file),
    }
    return {**acme, **changed}


def settings_of(root: Path, pebble: Pebble, models: Any = None, **acme: Any) -> Settings:
    """A project that listens where pebble looks for proofs."""
    config = project(
        root,
        models or {},
        port=pebble.tls_port,
        llama_server=str(FAKE),
        tls={
            "enabled": True,
            "redirect_port": pebble.http_port,
            "acme": acme_of(pebble, **acme),
        },
    )
    return load_settings(config, environ={}).settings


def store(forge: Any, settings: Settings, *, age: float, directory: str | None = None) -> Any:
    """Put a certificate of 90 days into the data folder that is ``age`` days old."""
    start = datetime.now(UTC) - age * DAY
    ca = forge.issue(name="Old CA", authority=True, start=start, end=start + 90 * DAY)
    pair = forge.issue(ca, name=NAME, start=start, end=start + 90 * DAY)
    folder = settings.data_dir / "acme" / NAME
    folder.mkdir(parents=True)
    assert settings.tls.acme is not None
    line = f"Key and certificate, by ACME from {directory or settings.tls.acme.directory}\n"
    pem = line.encode() + pair.key_pem() + pair.pem + ca.pem
    (folder / "certificate.pem").write_bytes(pem)
    (folder / "certificate.pem").chmod(0o600)
    return pair
