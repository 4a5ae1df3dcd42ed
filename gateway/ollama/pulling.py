"""The progress of a pull, in the lines of Ollama's. Pure.

Ollama's documentation: docs/api.md, "Pull a Model".
"""

from __future__ import annotations

from typing import Any, Final

from gateway.errors import BadRequest
from gateway.proxy.body import JsonObject

#: What programs of Ollama's put before a repository of the hub (docs/import.mdx).
_HUBS: Final = ("hf.co/", "huggingface.co/", "https://hf.co/", "https://huggingface.co/")
MANIFEST: Final[JsonObject] = {"status": "pulling manifest"}
SUCCESS: Final[JsonObject] = {"status": "success"}


def repository(model: str) -> str:
    """Return the repository of the hub that a name like ``hf.co/OWNER/REPO:QUANT`` means.

    Raises :class:`BadRequest` for a name of Ollama's library.
    """
    name = next((model.removeprefix(hub) for hub in _HUBS if model.lower().startswith(hub)), model)
    name = name.removesuffix(":latest")
    if "/" not in name:
        raise BadRequest(
            f"pull model manifest: {model[:200]!r} is a name of Ollama's library, which isn't had "
            "here: name a repository of the hub, like hf.co/unsloth/Qwen3-4B-GGUF:Q4_K_M",
            param="model",
        )
    return name


def lines_of(pull: Any) -> list[JsonObject]:
    """Return what is to be said of a pull (:class:`gateway.backends.pulls.Pull`) as it is now."""
    match pull.stage:
        case "downloading":
            file = pull.file or pull.model
            told: JsonObject = {"status": f"pulling {file}", "digest": file}
            if pull.total:
                told |= {"total": pull.total, "completed": min(pull.bytes, pull.total)}
            return [told]
        case "checking":
            return [{"status": "verifying sha256 digest"}]
        case "done":
            return [{"status": "writing manifest"}, SUCCESS]
        case "failed" | "ended":
            return [{"error": why(pull)}]
        case _:
            return [{"status": pull.note}] if pull.note else [MANIFEST]


def why(pull: Any) -> str:
    """Return why a pull came to nothing."""
    if pull.error is None:
        return "the pull was ended"
    return str(pull.error.get("message") or "the pull has failed")
