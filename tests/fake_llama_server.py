#!/usr/bin/env -S python3 -I -S
"""A llama-server that misbehaves on demand, for faults the real one won't produce.

Takes llama-server's arguments, serves a few of its routes on the Unix socket in ``--host``, and
is told by environment variables (a model's ``env`` in models.json) what to do wrong:

FAKE_EXIT=N              exit at once with status N, after a line on stderr
FAKE_EXIT_ONCE=FILE      the first start exits with status 1 (FILE remembers that it happened)
FAKE_SIGNAL=N            be ended by signal N at once
FAKE_START_DELAY=S       /health answers 503 for S seconds
FAKE_NEVER_HEALTHY=1     /health answers 503 for ever
FAKE_HEALTH=N            /health answers with status N for ever; "garbage": with what is no HTTP
FAKE_DOTS=S              write a dot, and no line end, every S seconds until it is healthy
FAKE_READS=S             read two megabytes, silently, every S seconds until it is healthy
FAKE_GROWS=S             take two megabytes of memory, silently, every S seconds likewise
FAKE_OOM=1               end at once with a CUDA error, for want of memory
FAKE_OOM=beside          the same if an earlier start (FAKE_STARTS) still runs
FAKE_IGNORE_TERM=1       SIGTERM does nothing
FAKE_HANG=1              chat requests are accepted and never answered
FAKE_BUSY=1              the same, but the CPU is kept busy, as by a long prompt
FAKE_READS_ON=N          GET /slots says that N tokens more were read of their prompts
FAKE_TAKES=N             every chat request makes it take N MiB more, for good
FAKE_DIE_ONCE=FILE       the first chat request kills it (FILE remembers that it happened)
FAKE_DIE=1               every chat request kills it
FAKE_LINGER=S, FAKE_LINGERED=FILE   the first chat request is its last: no connection is taken
                         from then on, and S seconds later it dies (FILE remembers it)
FAKE_CRASH=NAME          a request with such a field ends it, with SIGSEGV
FAKE_CRASH_AT=N, FAKE_CRASHED=FILE   that one waits until N requests run, and the others wait for
                         it (FILE remembers that it has happened: then they are answered)
FAKE_DIE_AFTER=N         it dies after N streamed chunks
FAKE_LOOK=FIFO           GET /slots is answered when FIFO is opened for writing
FAKE_SAVES_NONE=TEXT     slots are not saved: 501, and TEXT says why
FAKE_GARBAGE=1           chat requests are answered with something that is not HTTP
FAKE_REFUSES=N           chat requests are answered with status N, and FAKE_SAYS
FAKE_GRANDCHILD=FILE     starts a child of its own, its pid in FILE
FAKE_DETACHED=FILE       the same in a session of its own, holding on to the output
FAKE_CHUNKS=N, FAKE_PAUSE=S   a streamed answer has N chunks, S seconds apart
FAKE_GATE=FIFO           after the first of them it waits until FIFO is opened for writing
FAKE_GATE_AT=N           after the Nth instead
FAKE_SPLIT=N             each streamed chunk comes in two, of N bytes and the rest, FAKE_PAUSE
                         apart; it dies (FAKE_DIE_AFTER) between them
FAKE_HELP=TEXT           a part of what --help shows
FAKE_GPUS=FILE           --list-devices shows the GPUs in FILE, less what is taken of them: a JSON
                         {"CUDA0": ["NVIDIA X", total MiB, MiB that others hold]}; for the
                         gateway's own environment
FAKE_VRAM=N              takes N MiB of those that --device names, or an equal part of each, as
                         long as it runs, or ends for want of memory
FAKE_SAYS=TEXT           writes TEXT as a line of its log when it starts
FAKE_RECORD=FILE         every request body is appended to FILE, one JSON a line
FAKE_STARTS=FILE         every start is appended to FILE, one JSON a line: its pid, its model, and
                         the pids of the starts before it that still run

Threads and no asyncio, because it starts in half the time without.
"""

# ruff: noqa: E402
import os
import sys

env = os.environ.get
# As builds do that don't know it. Every gateway asks, before models load: that has to be quick.
if "--list-devices" in sys.argv and not env("FAKE_GPUS"):
    sys.exit(1)

import json
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any


def option(name: str, default: str) -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def spin() -> None:
    while True:
        sum(range(10_000))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def once(file: str) -> bool:
    """Whether this is the first time (it's the second when ``file`` exists)."""
    try:
        Path(file).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


def note_start(file: Path) -> list[int]:
    earlier = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    beside = [start["pid"] for start in earlier if runs(start["pid"])]
    start = {"pid": os.getpid(), "model": option("--alias", "fake"), "beside": beside}
    start["argv"] = sys.argv[1:]
    start["fit"] = {k: v for k, v in os.environ.items() if k.startswith("LLAMA_ARG_FIT")}
    with file.open("a") as stream:
        stream.write(json.dumps(start) + "\n")
    return beside


def gpus() -> dict[str, list[Any]]:
    """Name -> [description, total, free]. What each one has taken stands in a file by its pid."""
    file = Path(env("FAKE_GPUS"))
    found = {name: [what, total, total - held] for name, (what, total, held) in read(file).items()}
    for taken in file.parent.glob("vram-*"):
        if runs(int(taken.name.removeprefix("vram-"))):
            for name, size in read(taken).items():
                found[name][2] -= size
    return found


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())


def list_devices() -> None:
    print("Available devices:")
    for name, (what, total, free) in gpus().items():
        print(f"  {name}: {what} ({total} MiB, {free} MiB free)")
    sys.exit(0)


def take_vram(size: int) -> None:
    there = gpus()
    names = option("--device", ",".join(there)).split(",")
    part = {name: size // len(names) for name in names}
    Path(env("FAKE_GPUS")).with_name(f"vram-{os.getpid()}").write_text(json.dumps(part))
    if any(there[name][2] < size for name, size in part.items()):
        say("ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory")
        sys.exit(1)


def start_child(file: str, *, detached: bool) -> None:
    pid = os.fork()
    if pid == 0:
        if detached:
            os.setsid()
        os.execvp("sleep", ["sleep", "600"])
    Path(file).write_text(str(pid))


def response(status: str, body: object) -> bytes:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nServer: llama.cpp\r\nAccess-Control-Allow-Origin: *\r\n"
    head += f"Content-Type: application/json; charset=utf-8\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(**delta: object) -> bytes:
    body = {"object": "chat.completion.chunk", "choices": [{"index": 0, **delta}]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


class Server:
    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.healthy_at = time.monotonic() + float(env("FAKE_START_DELAY", "0"))
        self.alias = option("--alias", "fake")
        self.lock = threading.Lock()
        self.running = 0
        self.read = 0
        self.taken: list[bytes] = []
        self.lingers = False

    @property
    def healthy(self) -> bool:
        return not env("FAKE_NEVER_HEALTHY") and time.monotonic() >= self.healthy_at

    def serve(self) -> None:
        while not self.lingers:
            try:
                client, _ = self.listener.accept()
            except OSError:
                continue  # it is to take nobody any more
            threading.Thread(target=self.connection, args=[client], daemon=True).start()
        time.sleep(float(env("FAKE_LINGER", "0")))
        die()

    def connection(self, client: socket.socket) -> None:
        try:
            with client, client.makefile("rb") as reader:
                while self.request(reader, client):
                    pass
        except OSError:
            pass

    def request(self, reader: Any, client: socket.socket) -> bool:
        line = reader.readline().decode()
        headers = {}
        while (field := reader.readline().decode()) not in ("\r\n", ""):
            name, _, value = field.partition(":")
            headers[name.lower()] = value.strip()
        if not field:
            return False
        body = reader.read(int(headers.get("content-length", "0")))
        path = line.split(" ")[1]
        if "transfer-encoding" in headers:  # an upload is read, and never answered
            while client.recv(65536):
                pass
            return False
        if path == "/health":
            if (health := env("FAKE_HEALTH")) == "garbage":
                client.sendall(b"\x15\x03\x03\x00\x02\x02\x46")  # a TLS alert
            elif health:
                client.sendall(response(f"{health} X", {"error": f"no\n health of {health}"}))
            elif self.healthy:
                client.sendall(response("200 OK", {"status": "ok"}))
            else:
                client.sendall(response("503 Service Unavailable", {"error": {"code": 503}}))
        elif path.startswith("/slots/") and (why := env("FAKE_SAVES_NONE")):
            error = {"code": 501, "message": why, "type": "not_supported_error"}
            client.sendall(response("501 Not Implemented", {"error": error}))
        elif path.partition("?")[0] == "/slots":
            if gate := env("FAKE_LOOK"):
                Path(gate).open().close()
            slot: dict[str, Any] = {"is_processing": bool(self.running)}
            if step := int(env("FAKE_READS_ON", "0")):
                self.read += step
                read = {"n_prompt_tokens": self.read, "n_prompt_tokens_processed": self.read}
                slot |= {"id_task": 1, **read, "next_token": [{"n_decoded": 0}]}
            client.sendall(response("200 OK", [slot]))
        elif path.endswith(("completions", "/responses", "/messages", "/tokenize")):
            with self.lock:
                self.running += 1
            try:
                self.chat(json.loads(body), client)
            finally:
                with self.lock:
                    self.running -= 1
        else:
            client.sendall(response("404 Not Found", {"error": {"message": "File Not Found"}}))
        return True

    def chat(self, body: dict[str, object], client: socket.socket) -> None:
        if record := env("FAKE_RECORD"):
            with Path(record).open("a") as file:
                file.write(json.dumps(body) + "\n")
        if env("FAKE_DIE") or ((marker := env("FAKE_DIE_ONCE")) and once(marker)):
            die()
        if size := env("FAKE_TAKES"):
            self.taken.append(b"x" * (int(size) * 2**20))
        if field := env("FAKE_CRASH"):
            self.crash(field in body)
        if env("FAKE_BUSY"):
            threading.Thread(target=spin, daemon=True).start()
        if env("FAKE_HANG") or env("FAKE_BUSY"):
            client.recv(1, socket.MSG_PEEK)  # until the client hangs up
            raise ConnectionAbortedError
        if status := env("FAKE_REFUSES"):
            said = env("FAKE_SAYS", "not now")
            client.sendall(response(f"{status} X", {"error": {"message": said}}))
            return
        if env("FAKE_GARBAGE"):
            client.sendall(b"this is not HTTP\r\n\r\n")
            return
        if not body.get("stream"):
            message = {"role": "assistant", "content": "fake answer"}
            usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
            answer = {"choices": [{"index": 0, "message": message}], "usage": usage}
            client.sendall(response("200 OK", {**answer, "model": self.alias}))
            if (marker := env("FAKE_LINGERED")) and once(marker):
                self.lingers = True
                for each in (self.listener, client):
                    each.shutdown(socket.SHUT_RDWR)
            return
        client.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(int(env("FAKE_CHUNKS", "5"))):
            data = event(delta={"content": f"word{number} "})
            if split := int(env("FAKE_SPLIT", "0")):
                client.sendall(chunk(data[:split]))
                data = data[split:]
                time.sleep(float(env("FAKE_PAUSE", "0")))
            if number == int(env("FAKE_DIE_AFTER", "-1")):
                die()
            client.sendall(chunk(data))
            if (gate := env("FAKE_GATE")) and number + 1 == int(env("FAKE_GATE_AT", "1")):
                Path(gate).open().close()
            time.sleep(float(env("FAKE_PAUSE", "0")))
        client.sendall(chunk(event(delta={}, finish_reason="stop")))
        client.sendall(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    def crash(self, culprit: bool) -> None:
        crashed = env("FAKE_CRASHED")
        if not culprit and (crashed is None or Path(crashed).exists()):
            return
        while self.running < int(env("FAKE_CRASH_AT", "1")) or not culprit:
            time.sleep(0.01)
        if crashed:
            Path(crashed).touch()
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(60)

    def dots(self, pause: float) -> None:
        while not self.healthy:
            sys.stderr.write(".")
            sys.stderr.flush()
            time.sleep(pause)

    def reads(self, pause: float) -> None:
        with Path("/dev/zero").open("rb", buffering=0) as file:
            while not self.healthy:
                file.read(2 * 2**20)
                time.sleep(pause)

    def grows(self, pause: float) -> None:
        taken = []
        while not self.healthy:
            taken.append(b"x" * (2 * 2**20))
            time.sleep(pause)


def main() -> None:
    if "--help" in sys.argv:
        print(f"usage: llama-server [options]\n\n{os.environ.get('FAKE_HELP', '')}")
        return
    if "--list-devices" in sys.argv:
        list_devices()
    if "--version" in sys.argv:
        say("version: 1 (fake)")
        sys.exit(0)
    if status := env("FAKE_EXIT"):
        say("error: this fake does not want to start")
        sys.exit(int(status))
    if (marker := env("FAKE_EXIT_ONCE")) and once(marker):
        say("error: this fake does not want to start yet")
        sys.exit(1)
    if number := env("FAKE_SIGNAL"):
        os.kill(os.getpid(), int(number))
    if env("FAKE_IGNORE_TERM"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    beside = note_start(Path(file)) if (file := env("FAKE_STARTS")) else []
    if env("FAKE_OOM") == "1" or (env("FAKE_OOM") == "beside" and beside):
        say("ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory")
        sys.exit(1)
    if size := env("FAKE_VRAM"):
        take_vram(int(size))
    if text := env("FAKE_SAYS"):
        say(text)
    if file := env("FAKE_GRANDCHILD"):
        start_child(file, detached=False)
    if file := env("FAKE_DETACHED"):
        start_child(file, detached=True)
    with socket.socket(socket.AF_UNIX) as listener:
        server = Server(listener)
        listener.bind(option("--host", ""))
        listener.listen(5)  # as cpp-httplib does
        say("fake llama-server starts")
        for work in (server.dots, server.reads, server.grows):
            if pause := env(f"FAKE_{work.__name__.upper()}"):
                threading.Thread(target=work, args=[float(pause)], daemon=True).start()
        server.serve()


if __name__ == "__main__":
    main()
