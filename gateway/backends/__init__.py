"""llama-server children: how one is started, watched, shared and stopped."""
