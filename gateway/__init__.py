"""LLM-API Gateway: one asyncio process in front of llama.cpp's ``llama-server``."""

__version__ = "0.2.0"
