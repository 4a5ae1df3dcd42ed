"""Where the gateway's microseconds go: py-spy if it is installed, else cProfile.

py-spy looks from outside and slows nothing down; cProfile counts every call and makes calls look
dearer than they are: use it for what is called how often, and py-spy for shares.
"""

from __future__ import annotations

import io
import pstats
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.load import Job
from tests.bench.proxies import GatewayProxy

_SECONDS = 8.0
_TOP = 40


def profile(gateway: GatewayProxy, measure: Callable[..., Any], folder: Path) -> str:
    """The top functions under keep-alive requests, and under 200 streams."""
    spy = shutil.which("py-spy")
    texts = []
    for kind, clients, rate in (("requests", 16, None), ("streams", 200, 50.0)):
        job = Job(kind, gateway.port, clients, _SECONDS, rate, gateway.models, gateway.key)
        text = (
            _sampled(spy, gateway, measure, job, folder)
            if spy is not None
            else _counted(gateway, measure, job, folder)
        )
        texts.append(f"=== {kind}, {clients} clients ===\n{text}")
    return "\n".join(texts)


def _sampled(
    spy: str, gateway: GatewayProxy, measure: Callable[..., Any], job: Job, folder: Path
) -> str:
    file = folder / "stacks.txt"
    gateway.start()
    try:
        warm = Job("requests", gateway.port, 1, 0.2, 20.0, gateway.models, gateway.key)
        measure(gateway, warm)
        record = [spy, "record", "--format", "raw", "--rate", "500", "--function"]
        record += ["--duration", str(int(_SECONDS)), "--output", str(file)]
        watcher = subprocess.Popen(
            [*record, "--pid", str(gateway.pid)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        measure(gateway, job)
        watcher.wait(60)
    finally:
        gateway.end()
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    total = 0
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        total += int(count)
        own[frames[-1]] += int(count)
        for frame in set(frames):
            within[frame] += int(count)
    lines = [f"{total} samples (py-spy)", "  own  within  function"]
    for frame, times in own.most_common(_TOP):
        lines.append(f"{times / total:5.1%}  {within[frame] / total:6.1%}  {frame}")
    lines.append("-- by what is within --")
    lines += [f"{count / total:6.1%}  {frame}" for frame, count in within.most_common(_TOP)]
    return "\n".join(lines)


def _counted(gateway: GatewayProxy, measure: Callable[..., Any], job: Job, folder: Path) -> str:
    gateway.profile_to = folder / "profile.out"
    gateway.start()
    try:
        measure(gateway, job)
    finally:
        gateway.end()
    text = io.StringIO()
    stats = pstats.Stats(str(gateway.profile_to), stream=text)
    stats.sort_stats("tottime").print_stats(_TOP)
    lines = text.getvalue().splitlines()
    shown = [line.replace(str(Path(__file__).parents[2]) + "/", "") for line in lines if line]
    return "\n".join(["(cProfile; py-spy is not installed)", *shown[2:]])
