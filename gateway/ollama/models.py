"""Models as Ollama's lists have them. Pure.

Ollama's documentation: docs/api.md, "List Local Models", "Show Model Information" and "List Running
Models"; the names of fields are those of its ``api/types.go``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from gateway.models.gguf_header import Header
from gateway.models.local_model import LocalModel
from gateway.models.model import Model
from gateway.proxy.ability import TOOLS
from gateway.proxy.body import JsonObject

_LATEST: Final = ":latest"
#: Our word for an ability -> Ollama's.
_ABILITIES: Final = {
    "chat": "completion",
    "completion": "completion",
    "embeddings": "embedding",
    "vision": "vision",
    "audio": "audio",
    "tools": "tools",
    "thinking": "thinking",
    "insert": "insert",
}
#: What a chat template holds that knows of thoughts.
_THOUGHTS: Final = ("enable_thinking", "reasoning_content", "<think>", "reasoning_effort")
#: Without any of these it surely doesn't.
_PERHAPS: Final = re.compile(r"think|reason|inner_prefix", re.IGNORECASE)
_INSERTS: Final = ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id")
_TEMPLATE: Final = "tokenizer.chat_template"
#: Our name of a parameter -> Ollama's.
_PARAMETERS: Final = {
    "ctx_size": "num_ctx",
    "n_predict": "num_predict",
    "repeat_penalty": "repeat_penalty",
    "seed": "seed",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
}
#: Metadata that isn't shown: Ollama leaves these out, too.
_LEFT_OUT: Final = frozenset({"general.name", _TEMPLATE})
#: The longest list that is shown.
_FEW: Final = 5
#: Years for "for ever": what Go's longest duration is.
_FOREVER: Final = timedelta(days=106_751)


@dataclass(frozen=True, slots=True)
class Shown:
    """What is known of a model that is shown.

    ``name``: as clients call it. ``header``: of its file; ``size``: bytes of that. ``abilities``:
    ours, ``reads_only``: that it writes nothing; ``context``: the tokens that one request gets.
    """

    name: str
    spec: Model
    header: Header | None
    size: int
    modified: float
    quantisation: str | None
    abilities: tuple[str, ...]
    context: int | None
    lacks: frozenset[str] = frozenset()
    reads_only: bool = False

    @property
    def values(self) -> Mapping[str, Any]:
        """The metadata of its file."""
        return self.header.values if self.header is not None else {}

    @property
    def family(self) -> str:
        """Its architecture."""
        return str(self.values.get("general.architecture") or "")

    @property
    def digest(self) -> str:
        """A value that changes when its file does, or it is another model."""
        said = f"{self.name}\n{self.spec.file}\n{self.size}\n{self.modified}"
        return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()


def tagged(name: str) -> str:
    """Return a model's name with a tag, without which no client of Ollama's has seen one."""
    return name if ":" in name else name + _LATEST


def listed(model: Shown) -> JsonObject:
    """Return an entry of /api/tags."""
    name = tagged(model.name)
    return {
        "name": name,
        "model": name,
        "modified_at": when(model.modified),
        "size": model.size,
        "digest": model.digest,
        "details": details(model),
        "capabilities": capabilities(model),
    }


def details(model: Shown) -> JsonObject:
    """Return the ``details`` of a model."""
    values, family = model.values, model.family
    made: JsonObject = {
        "parent_model": "",
        "format": "gguf" if model.spec.file else "",
        "family": family,
        "families": [family] if family else None,
        "parameter_size": _parameters(values),
        "quantization_level": model.quantisation or "",
    }
    if model.context:
        made["context_length"] = model.context
    if isinstance(width := values.get(f"{family}.embedding_length"), int):
        made["embedding_length"] = width
    return made


def capabilities(model: Shown) -> list[str]:
    """Return what a model can do, in Ollama's words."""
    found = dict.fromkeys(_ABILITIES[word] for word in model.abilities if word in _ABILITIES)
    if model.reads_only:
        found.pop("completion", None)
    if model.spec.meta.capabilities is None and "completion" in found:
        template = str(model.values.get(_TEMPLATE) or "")
        if TOOLS not in model.lacks and "tools" in template:
            found["tools"] = "tools"
        if any(word in template for word in _THOUGHTS):
            found["thinking"] = "thinking"
        if any(key in model.values for key in _INSERTS):
            found["insert"] = "insert"
    return list(found)


def cannot_think(spec: Model, header: Header | None) -> bool:
    """Return whether it is certain that a model has no thoughts: by its entry, or by the template
    in its file where that is in use.
    """
    if (said := spec.meta.capabilities) is not None:
        return "thinking" not in said
    template = header.values.get(_TEMPLATE) if header is not None else None
    own = not spec.names_template and not any("chat-template" in arg for arg in _extra(spec))
    if not template or not own:
        return False
    return _PERHAPS.search(str(template)) is None


def _extra(spec: Model) -> tuple[str, ...]:
    return spec.extra_args if isinstance(spec, LocalModel) else ()


def shown(model: Shown) -> JsonObject:
    """Return the answer of /api/show."""
    values, name = model.values, tagged(model.name)
    made: JsonObject = {}
    if licence := values.get("general.license"):
        made["license"] = str(licence)
    parameters = "\n".join(_parameter_lines(model.spec))
    lines = [f"PARAMETER {line}" for line in parameters.splitlines()]
    made["modelfile"] = "\n".join(
        [
            "# A model of LLM-API Gateway: its entry stands in models.json",
            f"FROM {name}",
            *lines,
            "",
        ]
    )
    if parameters:
        made["parameters"] = parameters
    if not model.spec.names_template and isinstance(template := values.get(_TEMPLATE), str):
        made["template"] = template
    return {
        **made,
        "details": details(model),
        "model_info": _info(model),
        "capabilities": capabilities(model),
        "modified_at": when(model.modified),
    }


def _info(model: Shown) -> JsonObject:
    made = {
        key: [] if isinstance(value, tuple) and len(value) > _FEW else value
        for key, value in model.values.items()
        if key not in _LEFT_OUT
    }
    if model.context and model.family:
        # Not what it was trained with: that is what a client wants to know it for.
        made[f"{model.family}.context_length"] = model.context
    return made


def running(model: Shown, *, size: int | None, on_gpus: int, unload_in: float | None) -> JsonObject:
    """Return an entry of /api/ps. ``unload_in``: seconds, None: never."""
    name = tagged(model.name)
    stays = _FOREVER if unload_in is None else timedelta(seconds=min(unload_in, 1e9))
    return {
        "name": name,
        "model": name,
        "size": model.size if size is None else size,
        "digest": model.digest,
        "details": details(model),
        "expires_at": _text(datetime.now(UTC) + stays),
        "size_vram": on_gpus,
        "context_length": model.context or 0,
    }


def when(seconds: float) -> str:
    """Return a time, given in seconds since 1970, as Ollama writes it."""
    return _text(datetime.fromtimestamp(max(0.0, min(seconds, 2.0**37)), UTC))


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _parameters(values: Mapping[str, Any]) -> str:
    """Return the number of a model's parameters, like ``8.0B``."""
    count = values.get("general.parameter_count")
    if isinstance(count, int) and count > 0:
        for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
            if count >= size:
                number = count / size
                return f"{number:.1f}{unit}" if unit in "BT" else f"{number:.2f}{unit}"
        return str(count)
    return str(values.get("general.size_label") or "")


def _parameter_lines(spec: Model) -> Iterable[str]:
    """Yield what models.json sets, as lines of a Modelfile."""
    if not isinstance(spec, LocalModel):
        return
    for field, name in _PARAMETERS.items():
        if (value := getattr(spec.params, field)) is not None:
            yield f"{name:<30} {value}"
    for stop in spec.params.reverse_prompt or ():
        yield f"{'stop':<30} {json.dumps(stop)}"
