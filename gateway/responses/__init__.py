"""Responses of models that are kept: OpenAI's Responses with a memory."""
