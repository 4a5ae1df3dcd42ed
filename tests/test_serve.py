"""`llm-gateway serve` as a process: how it starts, what it refuses, how it ends."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import openai
import pytest

from gateway.tls.selfsigned import self_signed
from tests.harness import (
    COMMAND,
    DEMO,
    DEMO_GGUF,
    FAKE,
    Served,
    alive,
    fake_model,
    project,
    wait_until,
)
from tests.test_demo import get

Serve = Callable[..., Served]
STORY = [{"role": "user", "content": "Tell me a long story."}]


def backend_pids(served: Served) -> list[int]:
    _, answer = get(served, "/admin/models")
    return [model["pid"] for model in answer["models"] if model["pid"]]


def real_project(root: Path) -> Path:
    return project(root, {DEMO: {"params": {"model": DEMO_GGUF, "ctxSize": 4096}}})


def test_sigterm_lets_a_stream_finish(serve: Serve, tmp_path: Path) -> None:
    served = serve("--config", str(real_project(tmp_path)))
    with served.client() as client:
        stream = client.chat.completions.create(
            model=DEMO, messages=STORY, max_tokens=60, stream=True, extra_body={"ignore_eos": True}
        )
        first = next(iter(stream))
        assert first.choices
        pids = backend_pids(served)
        assert pids
        served.process.send_signal(signal.SIGTERM)
        served.wait_for(r"(shutting down); 1 running", served.log)
        with pytest.raises(openai.APIConnectionError):
            served.client().models.list()  # nobody new is let in
        rest = list(stream)
    assert rest[-1].choices[0].finish_reason == "length"
    assert served.stop() == 0
    assert not [pid for pid in pids if alive(pid)]


def test_sigkill_leaves_no_llama_server(serve: Serve, tmp_path: Path) -> None:
    served = serve("--config", str(real_project(tmp_path)))
    with served.client() as client:
        client.chat.completions.create(model=DEMO, messages=STORY, max_tokens=1)
    pids = backend_pids(served)
    assert pids
    served.stop(signal.SIGKILL)
    wait_until(lambda: not [pid for pid in pids if alive(pid)], 5, "the backend is gone too")


def test_a_second_signal_hurries(serve: Serve, tmp_path: Path) -> None:
    model = fake_model(tmp_path, chunks=10_000, pause=0.05)
    config = project(tmp_path / "p", {"slow": model}, llama_server=str(FAKE))
    served = serve("--config", str(config))
    with served.client() as client:
        stream = client.chat.completions.create(
            model="slow", messages=[{"role": "user", "content": "x"}], stream=True
        )
        next(iter(stream))
        pids = backend_pids(served)
        served.process.send_signal(signal.SIGTERM)
        served.wait_for(r"(shutting down); 1 running", served.log)
        assert served.stop(signal.SIGTERM, 10) == 0
    assert not [pid for pid in pids if alive(pid)]


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
    assert served.process.wait(20) == 1
    served.stop()
    text = "".join(served.log)
    assert "m.params.model" in text
    assert "m.params.ctx" in text
    assert "Traceback" not in text


def test_one_gateway_for_one_data_folder(serve: Serve, tmp_path: Path) -> None:
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    first = serve("--config", str(config))
    assert first.url
    second = serve("--config", str(config))
    assert second.process.wait(20) == 1
    second.stop()
    assert f"in use by another gateway (process {first.process.pid})" in "".join(second.log)
    port = first.url.rpartition(":")[2]
    other = project(tmp_path / "q", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    third = serve("--config", str(other), "--port", port)
    assert third.process.wait(20) == 1
    third.stop()
    assert (
        f"error: cannot listen on 127.0.0.1 port {port}: another program uses it already, perhaps "
        "a gateway that still runs: end that, or choose another port (`port:` in gateway.yaml, or "
        "--port)\n"
    ) in third.log


def test_an_address_that_the_machine_does_not_have(serve: Serve, tmp_path: Path) -> None:
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    for host, why in (
        ("192.0.2.1", "this machine has no such address"),  # RFC 5737: nobody has it
        ("nobody.invalid", "there is no machine of that name"),
    ):
        served = serve("--config", str(config), "--host", host)
        assert served.process.wait(20) == 1
        served.stop()
        assert re.search(
            f"^error: cannot listen on {host} port .*: {why}", "".join(served.log), re.M
        )


def test_several_addresses(serve: Serve, tmp_path: Path) -> None:
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
    other = serve("--config", str(config), "--host", "127.0.0.1,192.0.2.1")
    assert other.process.wait(20) == 1
    other.stop()
    assert re.search("^error: cannot listen on 192.0.2.1 port .*: this machine", "".join(other.log))


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


def test_notify_and_reload(serve: Serve, tmp_path: Path) -> None:
    address = str(tmp_path / "notify.sock")
    models = {"m": fake_model(tmp_path)}
    config = project(tmp_path / "p", models, llama_server=str(FAKE))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(address)
        notify.settimeout(20)
        served = serve("--config", str(config), env={"NOTIFY_SOCKET": address})
        assert "READY=1" in notify.recv(4096).decode()
        assert get(served, "/health", key="-")[0] == 200
        (tmp_path / "p/data/models.json").write_text(json.dumps({**models, "n": models["m"]}))
        served.process.send_signal(signal.SIGHUP)
        assert "RELOADING=1" in notify.recv(4096).decode()
        assert "READY=1" in notify.recv(4096).decode()
        served.process.send_signal(signal.SIGTERM)
        assert "STOPPING=1" in notify.recv(4096).decode()
    served.stop()
    assert "models.json has changed: m, n" in "".join(served.log)


def llm_gateway(*arguments: str, cwd: Path, seconds: float = 30) -> tuple[int, str, str]:
    done = subprocess.run(
        [COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=seconds
    )
    return done.returncode, done.stdout, done.stderr


def test_check(tmp_path: Path) -> None:
    models = {
        "lost": {"params": {"model": "a\\b.gguf"}},
        "odd": {"params": {"model": "package:nothing/x.gguf", "instruct": True}},
    }
    config = project(tmp_path / "p", models, llama_server="/nowhere/llama-server")
    code, out, err = llm_gateway("check", "--config", str(config), cwd=tmp_path)
    assert code == 1
    assert "llama_server" in out
    assert "lost.params.model" in out
    assert "a/b.gguf" in out
    assert "odd.params.model" in out
    assert "instruct has no effect" in err
    config.write_text("port: many\nhots: x\ntls: {enabled: maybe}\n")
    code, out, err = llm_gateway("check", "--config", str(config), cwd=tmp_path)
    assert code == 1
    for key in ("port", "hots", "tls.enabled", "lost.params.model"):
        assert key in out
    assert "Traceback" not in err


def test_init_makes_a_project_that_checks_and_serves(serve: Serve, tmp_path: Path) -> None:
    code, _, err = llm_gateway("init", "new", cwd=tmp_path)
    assert code == 0, err
    config = str(tmp_path / "new/conf/gateway.yaml")
    code, out, _ = llm_gateway("check", "--config", config, cwd=tmp_path)
    assert code == 0, out
    served = serve("--config", config)
    assert get(served, "/models") == (200, [DEMO])
    code, out, _ = llm_gateway("models", "--config", config, cwd=tmp_path)
    assert code == 0
    assert DEMO in out
    assert "stopped" in out
    assert "pirate" in out
    code, out, _ = llm_gateway("status", "--config", config, cwd=tmp_path)
    assert code == 0
    assert "in flight: 0" in out
    served.stop()
    code, _, err = llm_gateway("status", "--config", config, cwd=tmp_path)
    assert code == 1
    assert "no gateway is running" in err


def test_commands_say_that_models_json_is_broken(serve: Serve, tmp_path: Path) -> None:
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    served = serve("--config", str(config))
    assert get(served, "/models") == (200, ["m"])
    file = tmp_path / "p/data/models.json"
    file.write_text('{"m": {')
    served.wait_for(r"(models.json is broken: the last good one stays in use)", served.log)
    code, out, err = llm_gateway("models", "--config", str(config), cwd=tmp_path)
    assert (code, [line.split()[:2] for line in out.splitlines()][1:]) == (0, [["m", "stopped"]])
    assert "is not valid JSON" in err
    assert "the models that the running gateway goes on with" in err
    code, out, _ = llm_gateway("status", "--once", "--config", str(config), cwd=tmp_path)
    assert code == 0
    assert "models.json is broken, the last good one stays in use" in out
    assert str(file) in out
    served.stop()
    code, out, err = llm_gateway("models", "--config", str(config), cwd=tmp_path)
    assert (code, out) == (1, "")
    assert "is not valid JSON" in err


def test_keys_made_beside_a_running_gateway_work_at_once(serve: Serve, tmp_path: Path) -> None:
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    served = serve("--config", str(config))
    assert served.key
    wait_until(lambda: get(served, "/ready", key="-")[0] == 200, 10, "ready")
    code, out, _ = llm_gateway("keys", "create", "app", "--config", str(config), cwd=tmp_path)
    assert code == 0
    key = out.splitlines()[-1]
    assert get(served, "/models", key=key) == (200, ["m"])
    assert get(served, "/chat/errors", key=key)[0] == 403
    old = tmp_path / "authKeys.json"
    old.write_text(json.dumps({"an-old-plaintext-key": {"name": "old app"}}))
    code, _, err = llm_gateway("keys", "import", str(old), "--config", str(config), cwd=tmp_path)
    assert code == 0, err
    assert get(served, "/models", key="an-old-plaintext-key") == (200, ["m"])
    code, out, _ = llm_gateway("keys", "list", "--config", str(config), cwd=tmp_path)
    assert key not in out
    identity = next(line.split()[0] for line in out.splitlines() if " app " in line)
    code, _, err = llm_gateway("keys", "revoke", identity, "--config", str(config), cwd=tmp_path)
    assert code == 0, err
    assert get(served, "/models", key=key)[0] == 401


def open_files(pid: int) -> tuple[int, int]:
    """The soft and the hard limit of a process."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    soft, hard = line.split()[3:5]
    return int(soft), int(hard)


def test_open_files(serve: Serve, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = 256
    config = project(
        tmp_path / "p",
        {"m": fake_model(tmp_path)},
        llama_server=str(FAKE),
        limits={"connections": hard},
    )
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        served = serve("--config", str(config))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with served.client() as client:
        client.chat.completions.create(model="m", messages=STORY)
    (backend,) = backend_pids(served)
    assert open_files(served.process.pid) == (hard, hard)
    assert open_files(backend) == (few, hard)
    assert served.wait_for(rf"only ({hard}) files may be open at once", served.log)


# --- what it imports, and where it runs ----------------------------------------------------

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
    "gateway.api.openapi_answers",
    "gateway.api.client_lines",
    "gateway.api.openapi_document",
    "gateway.api.openapi_page",
    "gateway.api.openapi_shapes",
    "gateway.api.openapi_samples",
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


def test_what_is_imported_until_it_listens() -> None:
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


def test_without_uvloop(serve: Serve, tmp_path: Path) -> None:
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


def test_with_uvloop(serve: Serve, tmp_path: Path) -> None:
    pytest.importorskip("uvloop")
    served = serve("--config", str(project(tmp_path / "p", {})))
    assert served.url
    assert "/uvloop/loop." in Path(f"/proc/{served.process.pid}/maps").read_text()
    assert served.stop() == 0
