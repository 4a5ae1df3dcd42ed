"""``python -m tests.fuzz``: the whole surface, with what nobody should send. See README.md here."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

from tests.fuzz.box import started
from tests.fuzz.sending import Request, Sender
from tests.fuzz.verdict import RIGHT, wrong
from tests.fuzz.watch import Watch
from tests.harness import REPOSITORY


class Findings:
    """Each kind once, in a file of its own, with what was under way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts = Counter[str]()
        self._lock = threading.Lock()
        self.under_way: dict[int, Any] = {}
        self.recent: deque[Any] = deque(maxlen=60)

    def report(self, fault: str, **details: Any) -> None:
        with self._lock:
            self.counts[fault] += 1
            if self.counts[fault] > 1:
                return
            print(f"FOUND {fault}", flush=True)
            beside = {"under_way": list(self.under_way.values()), "before": list(self.recent)[-15:]}
            file = self.folder / f"{len(self.counts):03}.json"
            file.write_text(json.dumps({"fault": fault, **details, **beside}, indent=1))

    def follow(self, number: int, worker: subprocess.Popen[str], answers: Counter[str]) -> None:
        assert worker.stdout
        for line in worker.stdout:
            said = json.loads(line)
            match said.pop("what"):
                case "begin":
                    self.under_way[number] = {"worker": number, "at": time.monotonic(), **said}
                case "end":
                    self.recent.append({**self.under_way.pop(number), **said})
                case "found":
                    self.report(**said)
                case "counts":
                    answers.update(said["counts"])


def fuzz(minutes: float, seed: int, clients: int, kinds: list[str], folder: Path) -> int:
    """Run it; the status to exit with."""
    findings = Findings(folder)
    answers = Counter[str]()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place, started(Path(place)) as box:
        watch = Watch(box, findings.report)
        deadline = time.time() + minutes * 60
        job = {"target": vars(box.target), "deadline": deadline, "kinds": kinds}
        workers, threads = [], []
        for number in range(clients):
            worker = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.worker"],
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert worker.stdin
            worker.stdin.write(json.dumps({**job, "number": number, "seed": seed + number}))
            worker.stdin.close()
            workers.append(worker)
            thread = threading.Thread(target=findings.follow, args=(number, worker, answers))
            thread.start()
            threads.append(thread)
        for worker, thread in zip(workers, threads, strict=True):
            try:
                status = worker.wait(max(0, deadline - time.time()) + 60)
            except subprocess.TimeoutExpired:
                worker.kill()
                status = worker.wait()
            thread.join()
            if status:
                findings.report("a client of the fuzz itself failed", status=status)
        watch.end()
        logs = {name: served.log for name, served in box.served.items()}
        memory = watch.memory()
    for name, lines in logs.items():
        (folder / f"{name}.log").write_text("".join(lines))
    _summary(answers, findings, watch, memory)
    return 1 if findings.counts else 0


def _summary(answers: Counter[str], findings: Findings, watch: Watch, memory: list[str]) -> None:
    print(f"{sum(answers.values())} requests")
    for name, count in sorted(answers.items()):
        print(f"  {count:6} {name}")
    print("memory:", *memory, sep="\n  ")
    own = max((late["own"] for late in watch.late), default=0.0)
    print(f"/health: {len(watch.late)} late answers, {own * 1000:.0f} ms at most the gateway's own")
    print("right though 5xx:", *(f"{s} {c}: {why}" for (s, c), why in RIGHT.items()), sep="\n  ")
    for fault, count in findings.counts.items():
        print(f"FOUND {fault} ({count} times)")
    print(f"files: {findings.folder}" if findings.counts else "nothing found")


def replay(file: Path) -> int:
    """Send what a finding's file holds again, to a gateway of its own."""
    request = Request.from_json(json.loads(file.read_text())["request"])
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place, started(Path(place)) as box:
        answer = Sender(box.target).send(request)
        print(request, answer.status, answer.body[:2000].decode("utf-8", "replace"), answer.end)
        print("".join(line for line in box.plain.log + box.tls.log if " INFO " not in line))
        return 1 if wrong(request, answer) else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0, help="another one finds other things")
    parser.add_argument("--clients", type=int, default=4, help="at once")
    parser.add_argument("--kinds", nargs="*", default=[], help="only these: dialect, wire, ...")
    parser.add_argument("--folder", type=Path, help="for findings and logs (default: a new one)")
    parser.add_argument(
        "--replay", type=Path, metavar="FILE", help="send a finding's request again"
    )
    given = parser.parse_args()
    if given.replay:
        return replay(given.replay)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="fuzz-findings-"))
    folder.mkdir(parents=True, exist_ok=True)
    return fuzz(given.minutes, given.seed, given.clients, given.kinds, folder)


if __name__ == "__main__":
    sys.exit(main())
