"""The web page at ``/``: its TypeScript in ``src``, and what serves the built files."""
