"""Ollama's API in the words of OpenAI's, which llama-server speaks, and back."""
