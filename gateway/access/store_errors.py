"""Errors of the store."""

from __future__ import annotations

from gateway.errors import GatewayError


class StoreError(GatewayError):
    """500: the database cannot be opened, read or written."""

    default_code = "store_error"


class StoreBusy(StoreError):
    """503: another program has locked the database."""

    status = 503
    type = "overloaded_error"
    default_code = "store_busy"
    retry_after = "5"


class StoreUnreachable(StoreError):
    """503: the database server doesn't answer, or refuses the connection."""

    status = 503
    type = "overloaded_error"
    default_code = "store_unreachable"
    retry_after = "5"
