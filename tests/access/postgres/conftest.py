"""One server of PostgreSQL for all tests of a worker, and for each of them a database."""

from collections.abc import Iterator

import pytest

from tests.postgres import MISSING, PostgresServer


@pytest.fixture(scope="session")
def running_server() -> Iterator[PostgresServer]:
    if MISSING is not None:
        pytest.skip(f"PostgreSQL's {MISSING} is not installed (Debian: postgresql)")
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def server(running_server: PostgresServer) -> Iterator[PostgresServer]:
    """The server, which runs again after a test that stopped it."""
    yield running_server
    running_server.stop()
    running_server.start()


@pytest.fixture
def url(running_server: PostgresServer) -> str:
    """The URL of an empty database."""
    return running_server.new_database()
