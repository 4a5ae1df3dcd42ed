"""Llama-servers on other machines: nodes, and how a gateway places models on them.

Ray knows which machines there are, starts what runs on them and tells when one is gone. It is
never imported by the gateway itself: its driver is a process of its own (:mod:`.driver`), since Ray
ends the process that it runs in when its head is away for too long. On each node one actor
(:mod:`.actors`) holds a :class:`.node.Node`, which owns the llama-servers of that machine, run by
the same code as those of the gateway's own. Requests go straight from the gateway to a node,
over TLS; Ray carries only what is said about them.
"""
