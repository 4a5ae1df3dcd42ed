"""The checks of ``llm-gateway doctor``: what is right and what is wrong on this machine.

Each check is a function of a :class:`~gateway.doctor.checks.Subject` that yields findings. Checks
look and change nothing, and may block: each runs in a thread of its own.
"""
