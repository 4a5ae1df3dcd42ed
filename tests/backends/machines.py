"""Trees that look like a machine's /proc and /sys."""

import sys
from pathlib import Path

MIB, GIB = 2**20, 2**30
#: A program that cannot list devices, as llama-server of 2024 couldn't.
OLD = (sys.executable, "-c", "raise SystemExit('error: invalid argument: --list-devices')")


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def meminfo(size: int) -> dict[str, str]:
    text = (
        f"MemTotal:       {size // 1024} kB\nMemFree:         1000 kB\nMemAvailable:    2000 kB\n"
    )
    return {"proc/meminfo": text}


#: What nvidia-ml-py offers, of a machine with two cards (a third has no answer). The real
#: package needs a driver.
NVML = """
class NVMLError(Exception): pass
class Info:
    def __init__(self, **values): self.__dict__.update(values)
calls = []
BROKEN = False
def nvmlInit():
    calls.append("init")
    if BROKEN: raise NVMLError("Driver Not Loaded")
def nvmlShutdown(): calls.append("shutdown")
def nvmlDeviceGetCount(): return 3
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetMemoryInfo(device):
    if device == 2: raise NVMLError("Not Supported")
    return Info(total=(24, 8)[device] * 2**30, free=(20, 1)[device] * 2**30)
def nvmlDeviceGetName(device): return ("NVIDIA RTX 3090", b"NVIDIA T400")[device]
processes = [{}, {}, {}]
def nvmlDeviceGetComputeRunningProcesses(device):
    return [Info(pid=pid, usedGpuMemory=used) for pid, used in processes[device].items()]
def nvmlDeviceGetGraphicsRunningProcesses(device):
    if device == 2: raise NVMLError("Not Supported")
    return nvmlDeviceGetComputeRunningProcesses(device)[:1]
"""
