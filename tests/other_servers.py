"""Servers on other HTTP libraries than llama.cpp's, as a model's llama-server: strict ones.

Go's net/http, nginx and Node.js answer 400 to a request without ``Host`` (RFC 9112, 3.2), where
cpp-httplib doesn't mind. Each listens on the Unix socket in ``--host``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_ANSWER = json.dumps(
    {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "from elsewhere"}}],
    }
)

_GO = """
package main

import (
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	socket := ""
	for number, argument := range os.Args {
		if argument == "--list-devices" {
			os.Exit(1)
		}
		if argument == "--host" {
			socket = os.Args[number+1]
		}
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) {})
	http.HandleFunc("/v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`%s`))
	})
	log.Fatal(http.Serve(listener, nil))
}
"""

_NODE = """#!%s
const argv = process.argv;
if (argv.includes("--list-devices")) process.exit(1);
require("node:http").createServer((request, response) => {
  request.resume().on("end", () => {
    response.setHeader("Content-Type", "application/json");
    response.end(request.url === "/health" ? "{}" : %s);
  });
}).listen(argv[argv.indexOf("--host") + 1]);
"""

_NGINX = """#!%s
import os, sys
from pathlib import Path

if "--list-devices" in sys.argv:
    sys.exit(1)
config = %r
text = Path(config).read_text().replace("SOCKET", sys.argv[sys.argv.index("--host") + 1])
Path(config).write_text(text)
os.execv(%r, ["nginx", "-e", "stderr", "-c", config])
"""

_NGINX_CONFIG = """
daemon off; master_process off; pid off; error_log stderr;
events { worker_connections 64; }
http {
  access_log off; client_body_temp_path T; proxy_temp_path T; fastcgi_temp_path T;
  uwsgi_temp_path T; scgi_temp_path T; default_type application/json;
  server {
    listen unix:SOCKET;
    location = /health { return 200 "{}"; }
    location / { return 200 '%s'; }
  }
}
"""


def make(kind: str, folder: Path) -> Path:
    """The program of ``kind`` ("go", "nginx" or "node"); skips the test where it can't be had."""
    program = shutil.which(kind, path=f"{os.environ['PATH']}:/usr/local/go/bin:/usr/sbin:/sbin")
    if program is None:
        pytest.skip(f"needs {kind}")
    made = folder / f"{kind}-llama-server"
    if kind == "go":
        source = folder / "source"
        source.mkdir()
        (source / "main.go").write_text(_GO % _ANSWER)
        (source / "go.mod").write_text("module server\n\ngo 1.21\n")
        subprocess.run(
            [program, "build", "-o", str(made), "."],
            cwd=source,
            env={**os.environ, "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": ""},
            check=True,
            timeout=110,
        )
        return made
    if kind == "node":
        made.write_text(_NODE % (program, json.dumps(_ANSWER)))
    else:
        config = folder / "nginx.conf"
        config.write_text((_NGINX_CONFIG % _ANSWER).replace(" T;", f" {folder / 'nginx'};"))
        made.write_text(_NGINX % (sys.executable, str(config), program))
    made.chmod(0o755)
    return made
