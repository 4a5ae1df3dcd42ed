"""The page at ``/``: its TypeScript in ``src``, and what serves the files it is built into."""
