"""What a process has used so far, from /proc (proc(5)). Linux only."""

from __future__ import annotations

import os
import time
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads, in seconds.

    From the process's CPU clock, which counts nanoseconds (clock_getcpuclockid(3): the number is
    made from the pid); else from /proc/PID/stat, which counts 10 ms ticks.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        user, system = cpu_split(pid)
        return user + system


def cpu_split(pid: int) -> tuple[float, float]:
    """User and system time, in seconds, to 10 ms."""
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[11]) * _TICK, int(fields[12]) * _TICK


def memory(pid: int) -> tuple[float, float]:
    """Resident memory now, and the most it ever was, in MB (10^6 bytes)."""
    values = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            values[name] = int(value.split()[0]) * 1024 / 1e6
    return values["VmRSS"], values["VmHWM"]
