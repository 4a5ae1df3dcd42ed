"""Asks a model's tokenizer, so that texts for embeddings can be cut where they are too long."""

from __future__ import annotations

from typing import Final

from gateway.backends.scheduler import Scheduler
from gateway.ollama.cutting import cut, long_texts, most_tokens, question, tokens_in, with_tokens
from gateway.proxy.call import Call
from gateway.proxy.unqueued import ask_unqueued
from gateway.workers import WORKERS

_JSON: Final = b"Content-Type: application/json\r\n"


async def cut_to_fit(
    scheduler: Scheduler, refused: Call, body: bytes, refusal: bytes
) -> bytes | None:
    """Return ``body`` with the texts cut that are too long for the model that ``refused`` is for,
    as its server said in ``refusal``; ``None`` if it isn't known how.

    Their beginnings stand in it as tokens: cut anywhere, a text may have other ones.
    """
    most = most_tokens(refusal)
    if most is None or refused.renamed is not None:  # a server elsewhere may tell tokens otherwise
        return None
    places = {}
    texts, _ = await WORKERS.run(long_texts, body, most)
    for at, text in texts.items():
        told: list[list[int]] = []
        for around in (True, False):
            call = Call(refused.model, "POST", "/tokenize", _JSON, question(text, whole=around))
            fetched = await ask_unqueued(scheduler, call)
            if fetched.status != 200:
                return None
            tokens, _ = await WORKERS.run(tokens_in, fetched.body)
            told.append(tokens)
        whole, plain = told
        places[at] = cut(whole, plain, most)
    _, made = await WORKERS.run(with_tokens, body, places)
    return made
