"""What is watched while requests are sent: the gateways' loops, memory and logs, and the models."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

from tests.fuzz.box import ASKED, Box, ask, children, resident
from tests.fuzz.prober import LATE

#: Bytes that a gateway and a llama-server may hold more at the end than after warming up.
_GROWTH: Final = {"gateway": 96 * 2**20, "llama-server": 160 * 2**20, "child": 96 * 2**20}
#: Bytes that a child may take at once.
_LEAP: Final = 200 * 2**20
#: Seconds between two looks; and between two questions to a model.
_LOOK, _ASK = 1.0, 10.0
_BAD_LINE: Final = re.compile(r"^Traceback|\s(?:ERROR|CRITICAL)\s")

Report = Callable[..., None]


class Watch:
    """Threads that call ``report(fault, **details)`` with what they find."""

    def __init__(self, box: Box, report: Report) -> None:
        self._box = box
        self._report = report
        self._over = threading.Event()
        self._memory: dict[tuple[str, str, int], list[tuple[float, int]]] = defaultdict(list)
        self._read = dict.fromkeys(box.served, 0)
        self.late: list[dict[str, Any]] = []
        self._probers = [self._prober(name) for name in box.served]
        work: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
            *((self._stalls, (n, p)) for n, p in zip(box.served, self._probers, strict=True)),
            *((self._models, (n,)) for n in box.served),
            (self._look, ()),
        ]
        self._threads = [
            threading.Thread(target=target, args=arguments, daemon=True)
            for target, arguments in work
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop, and judge what can be judged only now."""
        self._over.set()
        for prober in self._probers:
            prober.terminate()
            prober.wait()
        for thread in self._threads:
            thread.join(5)
        self._look_once()
        for (name, kind, pid), samples in self._memory.items():
            self._grown(name, kind, pid, samples)

    def _prober(self, name: str) -> subprocess.Popen[str]:
        port = getattr(self._box.target, name)
        words = [sys.executable, "-m", "tests.fuzz.prober", str(port)]
        words.append(str(self._box.served[name].process.pid))
        if name == "tls":
            words.append(self._box.target.authority)
        return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    def _stalls(self, name: str, prober: subprocess.Popen[str]) -> None:
        assert prober.stdout
        for line in prober.stdout:
            if self._over.is_set():
                return
            late = {"door": name, **json.loads(line)}
            self.late.append(late)
            if late["own"] > LATE or late["problem"]:
                fault = (
                    f"/health at {name}: {late['problem']}"
                    if late["problem"]
                    else f"a stall at {name}"
                )
                self._report(fault, **late)

    def _models(self, name: str) -> None:
        """Whether each model still answers those who ask for nothing strange."""
        while not self._over.wait(_ASK):
            for model, path, body in ASKED:
                began = time.monotonic()
                try:
                    status, text = ask(self._box.target, name, path, {"model": model, **body})
                except OSError as error:
                    status, text = 0, repr(error)
                if status != 200 and not self._over.is_set():
                    took = round(time.monotonic() - began, 1)
                    self._report(
                        f"{model} at {name} is not served ({status})", took=took, answer=text[:500]
                    )

    def _look(self) -> None:
        while not self._over.wait(_LOOK):
            self._look_once()

    def _look_once(self) -> None:
        now = time.monotonic()
        for name, served in self._box.served.items():
            pid = served.process.pid
            if (status := served.process.poll()) is not None:
                self._report(f"the gateway at {name} died", status=status, log=served.log[-30:])
                continue
            self._memory[name, "gateway", pid].append((now, resident(pid)))
            for child, kind in children(pid).items():
                samples, size = self._memory[name, kind, child], resident(child)
                if len(samples) > 5 and size - samples[-1][1] > _LEAP:
                    leap = f"{samples[-1][1] >> 20} -> {size >> 20} MiB in a second"
                    self._report(f"memory of the {kind} at {name} leaps", pid=child, leap=leap)
                samples.append((now, size))
            lines = list(served.log)
            new, self._read[name] = lines[self._read[name] :], len(lines)
            for at, line in enumerate(new):
                if _BAD_LINE.search(line):
                    words = re.sub(r"\d+", "#", line.partition(": ")[2] or line).strip()
                    self._report(f"in the log of {name}: {words[:100]}", lines=new[at : at + 25])

    def _grown(self, name: str, kind: str, pid: int, samples: list[tuple[float, int]]) -> None:
        if len(samples) < 40:
            return
        quarter = len(samples) // 4
        before, after = (
            statistics.quantiles([size for _, size in part], n=4)[0]
            for part in (samples[quarter : 2 * quarter], samples[-quarter:])
        )
        if after - before > _GROWTH[kind]:
            grown = f"{before / 2**20:.0f} -> {after / 2**20:.0f} MiB"
            self._report(f"memory of the {kind} at {name} grows", pid=pid, grown=grown)

    def memory(self) -> list[str]:
        """A line for each process: MiB at first, at most and at last."""
        return [
            f"{name} {kind} {pid}: {samples[0][1] >> 20}, at most "
            f"{max(size for _, size in samples) >> 20}, at last {samples[-1][1] >> 20} MiB"
            for (name, kind, pid), samples in self._memory.items()
            if len(samples) > 5
        ]
