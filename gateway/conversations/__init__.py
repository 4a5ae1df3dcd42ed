"""Prompt caches that outlive a swap: which conversation is in which slot, and what is saved."""
