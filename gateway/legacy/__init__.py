"""Reads the folder of LLM-API, the Node wrapper that this gateway replaces."""
