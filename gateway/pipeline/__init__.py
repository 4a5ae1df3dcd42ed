"""The pipeline around every handler, and what handlers are given of a request."""
