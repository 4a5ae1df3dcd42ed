#!/usr/bin/env -S python3 -I -S
"""A llama-server that writes down every request and answers each route with something fixed.

Takes llama-server's arguments and serves on the Unix socket in ``--host``. Told by environment
variables (a model's ``env`` in models.json):

FAKE_RECORD=FILE     every request but /health is appended to FILE, one JSON a line:
                     method, target, headers, body (bytes as Latin-1)
FAKE_ANSWERS=JSON    {"PATH": [status, body]}: answers other than the usual
FAKE_SAYS_IN=FILE    what FILE holds now is the answer to everything but looks at its health:
                     {"type": CONTENT_TYPE, "body": TEXT}
FAKE_BREAK=N         streams break off N bytes before their end
FAKE_HOLD=1          chat completions wait until their client hangs up
"""

# ruff: noqa: E402
import os
import sys

env = os.environ.get
if "--host" not in sys.argv:  # asked for its version or its devices: that has to be quick
    sys.exit()

import json
import socket
import threading
from pathlib import Path
from typing import Any

ANTHROPIC_STREAM = [
    ("message_start", {"message": {"usage": {"cache_read_input_tokens": 3, "input_tokens": 28}}}),
    ("content_block_delta", {"delta": {"type": "text_delta", "text": "Hi"}}),
    ("message_delta", {"usage": {"output_tokens": 2}}),
    ("message_stop", {}),
]
RESPONSES_STREAM = [
    ("response.output_text.delta", {"delta": "Hi"}),
    (
        "response.completed",
        {"response": {"usage": {"input_tokens": 5, "output_tokens": 7}}, "timings": {"cache_n": 1}},
    ),
]
CHAT_STREAM = [
    ("message", {"choices": [{"index": 0, "delta": {"content": "Hi"}}]}),
    ("message", {"choices": [], "timings": {"prompt_n": 0, "predicted_n": 0}}),
]
STREAMS = {
    "/v1/messages": ANTHROPIC_STREAM,
    "/v1/responses": RESPONSES_STREAM,
    "/v1/chat/completions": CHAT_STREAM,
}


def option(name: str, default: str) -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


ALIAS = option("--alias", "fake")
META = {"n_ctx": 2048, "n_params": 7}
ANSWERS = {
    "/health": [200, {"status": "ok"}],
    "/props": [
        200,
        {"default_generation_settings": {"n_ctx": 1024}, "model_path": "/secret/folder/m.gguf"},
    ],
    "/v1/models": [
        200,
        {
            "data": [
                {
                    "id": ALIAS,
                    "meta": META,
                    "architecture": {
                        "input_modalities": ["text", "image"],
                        "output_modalities": ["text"],
                    },
                }
            ]
        },
    ],
    "/lora-adapters": [200, [{"id": 0, "path": "/secret/folder/lora.gguf", "scale": 1.0}]],
    "/slots": [200, [{"id": 0, "is_processing": True}]],
    **json.loads(env("FAKE_ANSWERS", "{}")),
}


def response(status: int, body: object, kind: str = "application/json; charset=utf-8") -> bytes:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nServer: llama.cpp\r\nContent-Length: {len(data)}\r\n"
    return f"{head}Content-Type: {kind}\r\n\r\n".encode() + data


def read_body(reader: Any, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return reader.read(int(headers.get("content-length", "0")))
    body = b""
    while size := int(reader.readline(), 16):
        body += reader.read(size)
        reader.readline()
    reader.readline()
    return body


def serve(client: socket.socket) -> None:
    try:
        with client, client.makefile("rb") as reader:
            while request(reader, client):
                pass
    except OSError:
        pass


def request(reader: Any, client: socket.socket) -> bool:
    line = reader.readline().decode()
    headers = {}
    while (field := reader.readline().decode()) not in ("\r\n", ""):
        name, _, value = field.partition(":")
        headers[name.lower()] = value.strip()
    if not field:
        return False
    body = read_body(reader, headers)
    method, target, _ = line.split(" ")
    path = target.partition("?")[0]
    if path != "/health" and (record := env("FAKE_RECORD")):
        entry = {"method": method, "target": target, "headers": headers}
        with Path(record).open("a") as out:
            out.write(json.dumps({**entry, "body": body.decode("latin-1")}) + "\n")
    if path.endswith("/chat/completions") and env("FAKE_HOLD"):
        client.recv(1, socket.MSG_PEEK)
        return False
    if path != "/health" and (file := env("FAKE_SAYS_IN")) and Path(file).exists():
        told = json.loads(Path(file).read_text())
        client.sendall(response(200, told["body"], told["type"]))
    elif path in ANSWERS:
        client.sendall(response(*ANSWERS[path]))
    elif path == "/apply-template":
        said = [f"<{m.get('role')}>{m.get('content')}" for m in json.loads(body)["messages"]]
        client.sendall(response(200, {"prompt": "".join(said)}))
    elif path in STREAMS and json.loads(body).get("stream"):
        events = "".join(
            f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n"
            for name, data in STREAMS[path]
        ).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
        client.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        if missing := int(env("FAKE_BREAK", "0")):
            client.sendall(b"%x\r\n%b\r\n" % (len(events) - missing, events[:-missing]))
            return False
        client.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(events), events))
    else:
        answer = {"path": path, "model": ALIAS}
        if body.startswith(b"{"):  # it tells what it took, so that nobody asks how long it was
            answer["timings"] = {"prompt_n": 0, "predicted_n": 0}
        client.sendall(response(200, answer))
    return True


def main() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(option("--host", ""))
        listener.listen(16)
        while True:
            client, _ = listener.accept()
            threading.Thread(target=serve, args=[client], daemon=True).start()


if __name__ == "__main__":
    main()
