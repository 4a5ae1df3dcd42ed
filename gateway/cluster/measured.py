"""What models took of the memory of a node, remembered in a file of it."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

from gateway.errors import GatewayError
from gateway.private_files import write_private

_log = logging.getLogger(__name__)


class Measured:
    """Bytes by the key of a model, in ``file``."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> dict[str, int]:
        """Return all that is known. Blocks."""
        try:
            found = json.loads(self._file.read_bytes())
            return {str(key): int(size) for key, size in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            _log.warning("what models took before is not known: %s", error)
            return {}

    async def remember(self, key: str, size: int) -> None:
        """Write down what one took. Raises :class:`GatewayError`."""
        await asyncio.to_thread(self._write, key, size)

    def _write(self, key: str, size: int) -> None:
        try:
            write_private(self._file, json.dumps(self.read() | {key: size}))
        except OSError as error:
            raise GatewayError(f"cannot write {self._file}: {error.strerror}") from error
