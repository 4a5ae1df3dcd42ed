"""Reading what LLM-API, the Node wrapper that this gateway replaces, has left in its folder."""
