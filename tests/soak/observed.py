"""``python -m tests.soak.observed serve ...``: llm-gateway, which tells its tasks on SIGUSR2.

They are written, one name a line, to the file that ``SOAK_TASKS`` names. Nothing else differs from
``llm-gateway``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from gateway.cli import main

#: The variable that names the file.
TASKS = "SOAK_TASKS"


def _tell(_number: int, _frame: object) -> None:
    file = Path(os.environ[TASKS])
    names = sorted(task.get_name() for task in asyncio.all_tasks())
    unfinished = file.with_suffix(".new")
    unfinished.write_text("\n".join(names))
    unfinished.replace(file)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, _tell)
    sys.exit(main())
