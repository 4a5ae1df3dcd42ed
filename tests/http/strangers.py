"""What tests of malformed requests share."""

from __future__ import annotations

from pathlib import Path

RECORDER = Path(__file__).parent.parent / "recording_llama_server.py"
