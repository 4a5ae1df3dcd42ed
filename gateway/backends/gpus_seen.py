"""Remembers, in a file in ``data_dir``, which GPUs there were the last time. So a GPU is missed
that is gone after a suspend or a driver update, when llama-server would silently use the CPU.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from gateway.backends.device_options import VISIBLE
from gateway.backends.machine import Machine
from gateway.private_files import write_private

_log = logging.getLogger(__name__)


class GpusSeen:
    """A record, in ``file``, of the GPUs that the llama-server ``program`` could use.

    So may the same one with other variables in ``environ``: who hides a GPU does not miss it.
    """

    def __init__(
        self,
        file: Path,
        program: Sequence[str],
        environ: Mapping[str, str] = MappingProxyType({}),
        *,
        remember: bool = True,
    ) -> None:
        self._file = file
        hidden = (f"{name}={environ[name]}" for name in VISIBLE if name in environ)
        self._program = [*hidden, *program]
        self._remember = remember

    def compare(self, machine: Machine) -> str | None:
        """Return what is missing of what there was, in a sentence; ``None`` if nothing is.

        Then what there is now is remembered. One card instead of another is not missed. Blocks.
        """
        now = [device.description for device in machine.devices] if machine.gpu else []
        before = self._read()
        if before is not None and len(now) < len(before):
            missing = Counter(before) - Counter(now)
            return self._in_words(sorted(missing.elements()), some_left=bool(now))
        if self._remember and now != before and (now or before is not None):
            self._write(now)
        return None

    def _in_words(self, missing: Sequence[str], *, some_left: bool) -> str:
        what = ", ".join(missing)
        gone = f"the GPU {what} is gone" if len(missing) == 1 else f"GPUs are gone: {what}"
        then = "models have the others" if some_left else "models load into RAM and use the CPU"
        return (
            f"{gone} since an earlier start (a suspend, a driver update?): {then}. "
            f"If it was taken out, delete {self._file.name} in data_dir"
        )

    def _read(self) -> list[str] | None:
        try:
            data = json.loads(self._file.read_bytes())
            if data["program"] != self._program:
                return None
            return [str(gpu) for gpu in data["gpus"]]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            _log.warning("%s cannot be read: %s", self._file, error)
            return None

    def _write(self, gpus: Sequence[str]) -> None:
        try:
            seen = {"program": self._program, "gpus": list(gpus)}
            write_private(self._file, json.dumps(seen, indent=1))
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._file, error)
