"""The common part of both kinds of models, and the properties that each kind defines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from gateway.models.personalities import Personality
from gateway.spelling import did_you_mean

#: Capabilities that lists, and those who read them, know.
CAPABILITIES: Final = (
    *("chat", "completion", "embeddings", "rerank", "infill"),
    *("vision", "audio", "tools", "reasoning"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What lists say of a model. ``capabilities``: any texts, like :data:`CAPABILITIES`."""

    display_name: str | None = None
    unlisted: bool = False
    capabilities: tuple[str, ...] | None = None

    def can(self, capability: str) -> bool:
        """Return whether the entry itself says that the model can do this."""
        return self.capabilities is not None and capability in self.capabilities

    def warnings(self, model: str) -> Iterator[str]:
        """Yield a sentence for each capability that is nearly one of those that are known."""
        for said in self.capabilities or ():
            if said not in CAPABILITIES and (meant := did_you_mean(said, CAPABILITIES, alike=0.7)):
                yield f"{model}: meta.capabilities has {said!r}, which nobody reads{meant}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(ABC):
    """One entry of models.json. ``name`` is its key; the rest is what stands under it.

    What differs between the kinds are methods and properties, so that nobody else has to ask which
    kind it is: :mod:`gateway.models.local_model`, :mod:`gateway.models.remote_model`.
    """

    #: Whether a llama-server of our own serves it: then its routes are known, and requests cost
    #: nothing.
    ours: ClassVar[bool]
    #: Whether its server takes memory of this machine.
    takes_memory: ClassVar[bool]

    name: str = ""
    personalities: Mapping[str, Personality] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    preload: bool = False
    pinned: bool = False
    ttl: float | None = None
    embeddings: bool = False
    reranking: bool = False
    parallel: int = 1
    description: str | None = None
    meta: Meta = Meta()
    set_params: Mapping[str, Any] = field(default_factory=dict)
    strip_params: tuple[str, ...] = ()

    def lists(self, personality: str | None) -> bool:
        """Return whether it, or with a name that ``personality`` of it, is in lists."""
        if self.meta.unlisted:
            return False
        return personality is None or not self.personalities[personality].unlisted

    @property
    def virtual_models(self) -> list[dict[str, Any]]:
        """Its personalities as the models that they are to clients, for administrators: ``id``,
        ``personality``, ``description``, and ``unlisted``.
        """
        return [
            {
                "id": f"{self.name}:{label}",
                "personality": label,
                "description": personality.description,
                "unlisted": personality.unlisted,
            }
            for label, personality in self.personalities.items()
        ]

    @abstractmethod
    def process_identity(self) -> tuple[object, ...]:
        """Return what its backend is made from: if it changes, the backend must be started anew."""

    @abstractmethod
    def request_defaults(self) -> dict[str, object]:
        """Return the body fields for requests that don't set them."""

    @property
    @abstractmethod
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each accepted setting that is probably a mistake."""

    @property
    @abstractmethod
    def ctx_size(self) -> int | None:
        """The tokens of context, as the entry says."""

    @property
    def sent_as(self) -> str | None:
        """The model's name in requests to its servers; ``None``: the same as clients use."""
        return None

    @property
    def key_variable(self) -> str | None:
        """The environment variable with the key of its servers, if any."""
        return None

    @property
    def servers(self) -> tuple[str, ...]:
        """The URLs of its servers, if it is remote."""
        return ()

    @property
    def copies(self) -> int:
        """How many llama-servers of ours it is to have."""
        return 1

    @property
    def file(self) -> str | None:
        """Its GGUF file, as the entry names it; ``None`` for a remote model."""
        return None

    @property
    def files(self) -> tuple[str, ...]:
        """Every GGUF file that the entry names."""
        return ()

    @property
    def limits_answers(self) -> bool:
        """Whether its server ends long answers by itself."""
        return False

    @property
    def names_template(self) -> bool:
        """Whether it uses a chat template of llama.cpp's by name, not the model's own."""
        return False

    @property
    def modalities(self) -> list[str]:
        """The kinds of input: text, and images if the entry has a projector."""
        return ["text"]

    @property
    def tags(self) -> list[str]:
        """Its tags for lists, sorted."""
        return []
