"""A copy of the database, made before another version of the program uses it.

A newer version may change the schema at its first start, and the one before refuses such a file.
So that one can only run again with the file as it was. Everything blocks.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

from gateway.backup import give_to_owner_of, snapshot


class DatabaseBefore:
    """The copy of ``database``, beside it."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._copy = database.with_name(f"{database.name}.before-upgrade")

    def save(self) -> None:
        """Copy it, if there is one; the service may run meanwhile. Raises ``BackupError``."""
        self.forget()
        if self._database.exists():
            snapshot(self._database, self._copy)

    def put_back(self) -> bool:
        """Put the copy in place if the schema has changed, and return whether it has. The service
        must not run.
        """
        if not self._copy.exists() or _schema(self._copy) == _schema(self._database):
            return False
        give_to_owner_of(self._database.parent, self._copy)
        for rest in ("-wal", "-shm"):  # of the changed one
            self._database.with_name(f"{self._database.name}{rest}").unlink(missing_ok=True)
        shutil.move(self._copy, self._database)
        return True

    def forget(self) -> None:
        """Remove the copy."""
        self._copy.unlink(missing_ok=True)


def _schema(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
