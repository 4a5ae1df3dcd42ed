"""Streams that can be read again: see docs/http-api.md, "Streams that go on"."""
