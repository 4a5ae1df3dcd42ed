"""How `llm-gateway serve` starts, what it says, what it refuses."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest

from gateway.tls.selfsigned import self_signed
from tests.harness import (
    DEMO,
    DEMO_GGUF,
    FAKE,
    fake_model,
    project,
    wait_until,
)
from tests.serve.processes import Serve
from tests.test_demo import get


def test_the_key_is_shown_once(serve: Serve, tmp_path: Path) -> None:
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    first = serve("--config", str(config))
    key = first.key
    assert first.stop() == 0
    assert key not in "".join(first.log)
    second = serve("--config", str(config))
    wait_until(lambda: get(second, "/ready", key="-")[0] == 200, 10, "ready")
    assert get(second, "/models", key=key) == (200, ["m"])
    assert second.stop() == 0
    assert "on this machine" in "".join(second.out)
    assert "Admin key" not in "".join(second.out)


def test_the_key_does_not_go_into_the_journal(serve: Serve, tmp_path: Path) -> None:
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    served = serve("--config", str(config), env={"JOURNAL_STREAM": "8:1"})
    file = Path(served.wait_for(r"first admin key is in (\S+?):", served.log))
    assert file.stat().st_mode & 0o777 == 0o600
    key = file.read_text().split()[0]
    assert get(served, "/models", key=key) == (200, ["m"])
    served.stop()
    assert key not in "".join(served.out + served.log)


def test_it_refuses_to_start_on_what_is_wrong(serve: Serve, tmp_path: Path) -> None:
    config = project(tmp_path / "p", {"m": {"params": {"model": 1, "ctx": 2}}}, port=0)
    served = serve("--config", str(config))
    assert served.ended() == 1
    text = "".join(served.log)
    assert "m.params.model" in text
    assert "m.params.ctx" in text
    assert "Traceback" not in text


def test_second_gateway_on_a_data_folder_is_refused(serve: Serve, tmp_path: Path) -> None:
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    first = serve("--config", str(config))
    assert first.url
    second = serve("--config", str(config))
    assert second.ended() == 1
    assert f"in use by another gateway (process {first.process.pid})" in "".join(second.log)
    port = first.url.rpartition(":")[2]
    other = project(tmp_path / "q", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    third = serve("--config", str(other), "--port", port)
    assert third.ended() == 1
    assert (
        f"error: cannot listen on 127.0.0.1 port {port}: another program uses it already, perhaps "
        "a gateway that still runs: end that, or choose another port (`port:` in gateway.yaml, or "
        "--port)\n"
    ) in third.log


@pytest.mark.parametrize(
    ("host", "named", "why"),
    [
        ("192.0.2.1", "192.0.2.1", "this machine has no such address"),  # RFC 5737: nobody has it
        ("nobody.invalid", "nobody.invalid", "there is no machine of that name"),
        ("127.0.0.1,192.0.2.1", "192.0.2.1", "this machine has no such address"),
    ],
)
def test_address_that_cannot_be_listened_on_is_told(
    serve: Serve, tmp_path: Path, host: str, named: str, why: str
) -> None:
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    served = serve("--config", str(config), "--host", host)
    assert served.ended() == 1
    assert re.search(f"^error: cannot listen on {named} port .*: {why}", "".join(served.log), re.M)


def test_gateway_listens_on_several_addresses(serve: Serve, tmp_path: Path) -> None:
    """All with one port, which may be any; what names the same address twice is no problem."""
    config = project(
        tmp_path / "p",
        {"m": fake_model(tmp_path)},
        llama_server=str(FAKE),
        host=["127.0.0.1", "127.0.0.2", "localhost"],
    )
    served = serve("--config", str(config))
    key = served.key
    line = served.wait_for(r"listening on (http.*)\n", served.log)
    urls = line.split(", ")
    assert len(set(urls)) == len(urls) >= 2
    (port,) = {url.rpartition(":")[2] for url in urls}
    for host in ("127.0.0.1", "127.0.0.2"):
        assert f"http://{host}:{port}" in urls
        asked = urllib.request.Request(f"http://{host}:{port}/models", headers={"X-Api-Key": key})
        with urllib.request.urlopen(asked) as answer:
            assert json.loads(answer.read()) == ["m"]
    assert "can be reached from other machines" not in "".join(served.log)
    assert served.stop() == 0


def test_a_start_beside_a_broken_models_json_goes_on_with_the_last_good_one(
    serve: Serve, tmp_path: Path
) -> None:
    """As after a power cut in the night: nobody is there to mend what was edited before."""
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    models = tmp_path / "p/data/models.json"
    served = serve("--config", str(config))
    key = served.key
    wait_until(models.with_name("models.last-good.json").exists, 20, "a copy")
    served.stop(signal.SIGKILL)
    models.write_text(models.read_text()[:-1])

    served = serve("--config", str(config))

    asked = urllib.request.Request(f"{served.url}/models", headers={"X-Api-Key": key})
    with urllib.request.urlopen(asked) as answer:
        assert json.loads(answer.read()) == ["m"]
    said = "".join(served.log)
    assert f"stays in use until it is mended: {models}: is not valid JSON, line 1" in said


def test_the_log_begins_with_the_files_that_are_used(serve: Serve, tmp_path: Path) -> None:
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    served = serve("--config", str(config))
    assert served.url
    models = tmp_path / "p/data/models.json"
    assert f"settings: {config}; models: {models}\n" in served.log[0]


def test_a_machine_without_llama_server_is_told_of_at_the_start(
    serve: Serve, tmp_path: Path
) -> None:
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server="no-such-server")
    served = serve("--config", str(config))
    served.wait_for(r"WARNING .*: (no model can be loaded: .*no-such-server)", served.log)
    assert get(served, "/models")[0] == 200


@pytest.mark.parametrize("names", [["localhost", "127.0.0.1"], ["box.lan"]])
def test_the_curl_line_trusts_a_certificate_of_our_own(
    serve: Serve, tmp_path: Path, names: list[str]
) -> None:
    made = self_signed(names, tmp_path / "p/a folder")
    tls = {"enabled": True, "private_key": str(made.private_key), "ca_chain": str(made.chain)}
    models = {DEMO: {"params": {"model": DEMO_GGUF, "nPredict": 4}}}
    config = project(tmp_path / "p", models, tls={**tls, "certificate": str(made.certificate)})
    served = serve("--config", str(config))
    served.wait_for(r"  (curl )", served.out)
    line = next(line for line in served.out if line.strip().startswith("curl "))
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["choices"], done.stderr
