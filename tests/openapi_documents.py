"""The OpenAPI document of a gateway."""

from __future__ import annotations

from gateway.api.openapi_document import document
from gateway.app import ROUTES

DOCUMENT = document(ROUTES, query_key=True)
