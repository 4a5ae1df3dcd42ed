"""The media types of streams that are kept."""

from __future__ import annotations

from typing import Final

EVENTS: Final = "text/event-stream"
#: A JSON text on each line, https://github.com/ndjson/ndjson-spec
LINES: Final = "application/x-ndjson"
