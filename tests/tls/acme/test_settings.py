"""What is wrong with tls.acme is told before anybody is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.config.load import load_settings
from gateway.config.settings import AcmeSettings, TlsSettings
from gateway.problems import InvalidFiles
from gateway.tls.acme import AcmeCertificate
from tests.harness import FAKE, project
from tests.tls.acme.gateways import NAME


async def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "josepy", None)
    tls = TlsSettings(enabled=True, acme=AcmeSettings(domains=(NAME,), agree_tos=True))
    assert tls.acme is not None
    with pytest.raises(InvalidFiles, match=r"josepy: pip install josepy$"):
        await AcmeCertificate.open(tls.acme, tmp_path, {})


def test_a_gateway_without_acme_never_imports_it() -> None:
    import subprocess
    import sys

    program = (
        "import sys, gateway.tls.acme, gateway.http.listeners\n"
        "heavy = {'acme', 'josepy', 'requests', 'cryptography', 'OpenSSL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


@pytest.mark.parametrize(
    ("changed", "key", "said"),
    [
        ({"agree_tos": False}, "tls.acme.agree_tos", "must be true"),
        ({"agree_tos": None}, "tls.acme.agree_tos", "I have read"),
        ({"domains": []}, "tls.acme.domains", "at least one"),
        ({"domains": ["*.example.com"]}, "tls.acme.domains", "wildcards need dns-01"),
        ({"domains": ["https://example.com"]}, "tls.acme.domains", "without scheme"),
        ({"challenge": "dns-01"}, "tls.acme.challenge", "tls-alpn-01"),
        ({"directory": "http://ca.example.com/dir"}, "tls.acme.directory", "https URL"),
        ({"email": "a@x.de,b@x.de"}, "tls.acme.email", "one e-mail address"),
        ({"mail": "a@x.de"}, "tls.acme.mail", "allowed: agree_tos, ca_file"),
    ],
)
def test_check_says_what_is_wrong_with_the_settings(
    tmp_path: Path, changed: dict[str, Any], key: str, said: str
) -> None:
    acme = {"domains": [NAME], "agree_tos": True, **changed}
    with pytest.raises(InvalidFiles) as caught:
        load_settings(project(tmp_path / "p", {}, tls={"acme": acme}), environ={})
    (problem,) = [p for p in caught.value.problems if p.key == key]
    assert said in str(problem)


def test_two_sources_of_one_certificate_are_refused(tmp_path: Path) -> None:
    tls = {"certificate": "ssl/x.pem", "acme": {"domains": [NAME], "agree_tos": True}}
    with pytest.raises(InvalidFiles, match=r"tls\.acme: .*remove certificate, or acme"):
        load_settings(project(tmp_path / "p", {}, tls=tls), environ={})


def test_check_tells_what_acme_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gateway.cli import main

    acme = {"domains": [NAME], "agree_tos": True, "ca_file": "ssl/none.pem"}
    config = project(
        tmp_path / "p", {}, llama_server=str(FAKE), tls={"enabled": True, "acme": acme}
    )
    assert main(["check", "--config", str(config)]) == 1
    printed = capsys.readouterr()
    assert "tls.acme.ca_file: is not a file" in printed.out
    assert "tls.redirect_port: is not set, and http-01 comes to port 80" in printed.err
    del acme["ca_file"]
    config.write_text(
        json.dumps(
            {
                "llama_server": str(FAKE),
                "tls": {"enabled": True, "redirect_port": 8081, "acme": acme},
            }
        )
    )
    assert main(["check", "--config", str(config)]) == 0
    assert capsys.readouterr().err == ""
