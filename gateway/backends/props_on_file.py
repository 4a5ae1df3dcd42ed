"""Makes the answer of ``GET /props`` for a model that isn't loaded, from its file and its entry."""

from __future__ import annotations

import posixpath
import re
from typing import Any

from gateway.backends.backend import Backend
from gateway.backends.facts import Headers, context_of
from gateway.backends.model_details import status_of
from gateway.models.local_model import LocalModel
from gateway.models.model import Model


async def props(
    spec: Model, headers: Headers, backend: Backend | None, *, shows_path: bool
) -> dict[str, Any] | None:
    """Return what llama-server would answer (its README), as far as that is known before it runs.

    ``status`` says that it does not run. ``None`` if the file can't be read. ``shows_path``: with
    the folder of the file.
    """
    if not isinstance(spec, LocalModel):
        return None
    await headers.refresh((spec,))
    if (facts := headers.of(spec)) is None:
        return None
    context = context_of(spec, facts.trained)
    path = str(facts.stamp.path)
    found: dict[str, Any] = {
        "status": {"value": status_of(backend)},
        "default_generation_settings": {
            "params": {},
            **({} if context is None else {"n_ctx": context}),
        },
        "total_slots": spec.parallel,
        "model_alias": spec.name,
        "model_path": path if shows_path else posixpath.basename(path),
    }
    if (modalities := await _modalities(headers, spec)) is not None:
        found["modalities"] = modalities
    if (template := await _chat_template(headers, spec)) is not None:
        found["chat_template"] = template
    return found


async def _modalities(headers: Headers, spec: LocalModel) -> dict[str, bool] | None:
    """Return what a model takes beside text, from its projector."""
    if _mentions(spec, "mmproj"):
        return None
    if spec.mmproj is None:
        return {"vision": False, "audio": False}
    projector = await headers.whole(spec.mmproj)
    if projector is None:
        return None
    return {
        kind: projector.values.get(f"clip.has_{kind}_encoder") is True
        for kind in ("vision", "audio")
    }


async def _chat_template(headers: Headers, spec: LocalModel) -> str | None:
    if spec.template or spec.params.model is None or _mentions(spec, "chat.template|override.kv"):
        return None
    header = await headers.whole(spec.params.model)
    template = header.values.get("tokenizer.chat_template") if header is not None else None
    return template if isinstance(template, str) else None


def _mentions(spec: LocalModel, what: str) -> bool:
    """Return whether ``extraArgs`` or ``env`` have something that the pattern ``what`` matches."""
    return any(re.search(what, text, re.IGNORECASE) for text in (*spec.extra_args, *spec.env))
