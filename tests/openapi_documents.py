"""The OpenAPI document of a gateway."""

from __future__ import annotations

from tests.route_table import openapi

DOCUMENT = openapi()
