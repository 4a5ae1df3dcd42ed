"""A process of its own that asks ``/health`` all the time, and says when an answer was late.

``python -m tests.fuzz.prober PORT PID [CA]``: one line of JSON on stdout for each late answer.
What the machine itself took is not the gateway's doing: the time in which this process or a thread
of the gateway stood in the kernel's queue for a CPU (``schedstat``), or the hypervisor ran somebody
else (``steal``), is subtracted.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import sys
import time
from pathlib import Path

#: Seconds between two questions; and how late (less the machine's part) an answer may be.
PAUSE, LATE = 0.02, 0.1
_QUESTION = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def _waited(pid: int) -> dict[str, float]:
    """Thread -> seconds that it has stood in the queue for a CPU."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            found[task.name] = int((task / "schedstat").read_text().split()[1]) / 1e9
    return found


def _stolen() -> float:
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(words[8]) / os.sysconf("SC_CLK_TCK")


def _connect(port: int, authority: str | None) -> socket.socket:
    connected = socket.create_connection(("127.0.0.1", port), timeout=30)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if authority is None:
        return connected
    context = ssl.create_default_context(cafile=authority)
    return context.wrap_socket(connected, server_hostname="127.0.0.1")


def probe(port: int, pid: int, authority: str | None) -> None:
    """Ask until the parent has gone."""
    parent = os.getppid()
    connected = _connect(port, authority)
    while os.getppid() == parent:
        theirs, ours, stolen = _waited(pid), _waited(os.getpid()), _stolen()
        began = time.monotonic()
        problem = ""
        try:
            connected.sendall(_QUESTION)
            if not connected.recv(65536).startswith(b"HTTP/1.1 200"):
                problem = "not 200"
        except OSError as error:
            problem = type(error).__name__
        took = time.monotonic() - began
        if took > LATE or problem:
            after = _waited(pid)
            queued = max((after[t] - theirs.get(t, 0.0) for t in after), default=0.0)
            here = sum(_waited(os.getpid()).values()) - sum(ours.values())
            own = took - queued - here - (_stolen() - stolen)
            line = {"at": began, "took": took, "own": own, "problem": problem}
            print(json.dumps(line), flush=True)
        if problem:
            connected.close()
            time.sleep(0.2)
            with contextlib.suppress(OSError):
                connected = _connect(port, authority)
        time.sleep(PAUSE)


if __name__ == "__main__":
    probe(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
