"""A build of llama.cpp's own, from a wheel for machines with Vulkan: not on every machine."""

from __future__ import annotations

import sys
from pathlib import Path

REAL = Path(sys.executable).with_name("llama-server-vulkan")
#: What lends devices to it.
RPC_SERVER = REAL.with_name("ggml-rpc-server-vulkan")
#: It is compiled for processors with these, and asks none whether it has them.
NEEDED = {"avx512f", "avx512_vnni"}
RUNS = REAL.exists() and set(Path("/proc/cpuinfo").read_text().split()) >= NEEDED
