"""The migrations of the database, which Alembic runs: one file in ``versions`` for each schema.

The first ones were statements of our own, and ``PRAGMA user_version`` had the number of the last;
revision ``0002`` is what version 2 was. An SQLite file still has that number, so that a program
from before Alembic sees when it is too old for the file.

Importing Alembic takes more than half as long as the rest of the store. Only a database with an
older schema does it: a new one is made by :func:`gateway.access.schema.make_tables`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from gateway.access.schema import SCHEMA_VERSION, revision

#: Where Alembic finds ``env.py`` and the versions.
FOLDER: Final = Path(__file__).parent
# It tells of each step at the level of our own news, and nobody is to do anything about it.
logging.getLogger("alembic").setLevel(logging.WARNING)
_log = logging.getLogger(__name__)


def upgrade(connection: Connection, version: int) -> None:
    """Bring the tables from the schema ``version`` (0: there are none) to this program's, in the
    transaction of ``connection``.
    """
    config = Config()
    # A folder's name may have a % in it, which means something in Alembic's files.
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    # In case that Alembic doesn't know it yet.
    command.stamp(config, revision(version) if version else "base")
    command.upgrade(config, revision(SCHEMA_VERSION))
    _log.info("the database was brought from schema %d to %d", version, SCHEMA_VERSION)
