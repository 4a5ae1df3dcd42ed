"""A local model: a llama-server is started for it, on this machine or on a node of the cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import ClassVar, Literal

from gateway.models.model import Model
from gateway.names import HERE


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """The ``params`` object: llama.cpp options under the names the old system gave them.

    ``None`` means "not set": llama-server's own default then holds.
    """

    model: str | None = None
    instruct: bool | None = None
    interactive: bool | None = None
    interactive_first: bool | None = None
    ctx_size: int | None = None
    temperature: float | None = None
    repeat_penalty: float | None = None
    prompt_file: str | None = None
    threads: int | None = None
    threads_batch: int | None = None
    prompt_cache: str | None = None
    keep_prompt: bool | int | None = None
    gpu_layers: int | None = None
    grammar: str | None = None
    grammar_file: str | None = None
    n_predict: int | None = None
    reverse_prompt: tuple[str, ...] | None = None
    in_prefix: str | None = None
    in_suffix: str | None = None
    top_k: int | None = None
    top_p: float | None = None
    ignore_eos: bool | None = None
    random_prompt: bool | None = None
    logit_bias: tuple[str, ...] | Mapping[str, float] | None = None
    seed: int | None = None
    mlock: bool | None = None
    no_mmap: bool | None = None
    numa: bool | Literal["distribute", "isolate", "numactl"] | None = None
    batch_size: int | None = None

    def logit_biases(self) -> Iterator[str]:
        """Yield ``TOKEN_ID(+/-)BIAS``, as ``--logit-bias`` reads it."""
        biases = self.logit_bias or ()
        if isinstance(biases, Mapping):
            yield from (f"{token}{bias:+.9g}" for token, bias in biases.items())
        else:
            yield from biases


#: Options of the old llama.cpp ``main`` program that a server has no use for, by their names in
#: models.json, and why.
_WITHOUT_EFFECT: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "instruct": ("instruct", "the chat template of the model does this"),
        "interactive": ("interactive", "a server is always asked, never typed into"),
        "interactive_first": ("interactiveFirst", "a server is always asked, never typed into"),
        "prompt_file": (
            "promptFile",
            "use a personality for a text that opens every conversation",
        ),
        "prompt_cache": (
            "promptCache",
            "llama-server keeps the prompt cache in memory by itself",
        ),
        "in_prefix": ("inPrefix", "the chat template of the model does this"),
        "in_suffix": ("inSuffix", "the chat template of the model does this"),
        "random_prompt": ("randomPrompt", "llama.cpp no longer has it"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel(Model):
    """An entry without ``url``. ``memory`` in bytes. ``nodes``: where it may run, by name; none:
    anywhere. ``machines``: how many of them it may span, if it fits on none.
    """

    ours: ClassVar[bool] = True
    takes_memory: ClassVar[bool] = True

    params: Params = Params()
    template: str | None = None
    memory: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    extra_args: tuple[str, ...] = ()
    mmproj: str | None = None
    draft_model: str | None = None
    require_gpu: bool = False
    nodes: tuple[str, ...] = ()
    replicas: int = 1
    machines: int = 1

    def process_identity(self) -> tuple[object, ...]:
        """Return what the llama-server process is made from."""
        return (
            self.params,
            self.template,
            tuple(sorted(self.env.items())),
            self.extra_args,
            self.mmproj,
            self.draft_model,
            self.embeddings,
            self.reranking,
            self.parallel,
        )

    def request_defaults(self) -> dict[str, object]:
        """Return what a flag is not enough for.

        Older builds of llama-server forget ``--logit-bias`` with the first request (they clear it
        before they read the body's own), and xllamacpp cannot take it at all.
        """
        biases = [re.fullmatch(r"(\d+)(.+)", bias) for bias in self.params.logit_biases()]
        pairs = [[int(found[1]), float(found[2])] for found in biases if found]
        return {"logit_bias": pairs} if pairs else {}

    def may_run_elsewhere(self, *, cluster: bool) -> bool:
        """Return whether another machine may run it, if there is a ``cluster``."""
        return cluster and (not self.nodes or any(name != HERE for name in self.nodes))

    def may_run_here(self, *, cluster: bool) -> bool:
        """Return whether this machine may."""
        return not cluster or not self.nodes or HERE in self.nodes

    @property
    def copies(self) -> int:
        """``replicas``."""
        return self.replicas

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each setting, or combination of settings, without effect."""
        return (
            *self.meta.warnings(self.name),
            *(
                [f"{self.name}: machines has no effect: nodes names too few (here is none of them)"]
                if self.machines > 1 and self.nodes and len({*self.nodes} - {HERE}) < 2
                else []
            ),
            *(
                f"{self.name}: {key} has no effect: {reason}"
                for name, (key, reason) in _WITHOUT_EFFECT.items()
                if getattr(self.params, name) not in (None, False, "")
            ),
            *(
                f"{self.name}: tools of the personality {name!r} don't work with a named template"
                for name, one in self.personalities.items()
                if one.tools and self.template
            ),
        )

    @property
    def ctx_size(self) -> int | None:
        """The tokens of context for all slots together, as ``params`` say."""
        return self.params.ctx_size

    @property
    def file(self) -> str | None:
        """``params.model``."""
        return self.params.model

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the model, its projector and its draft model, if any."""
        references = (self.params.model, self.mmproj, self.draft_model)
        return tuple(reference for reference in references if reference)

    @property
    def limits_answers(self) -> bool:
        """Whether ``nPredict`` limits answers."""
        return (self.params.n_predict or -1) > 0

    @property
    def names_template(self) -> bool:
        """Whether there is a ``template``."""
        return bool(self.template)

    @property
    def modalities(self) -> list[str]:
        """The modalities: text, and images if there is a projector."""
        return ["text", "image"] if self.mmproj else ["text"]

    @property
    def tags(self) -> list[str]:
        """The values of ``--tags``, sorted as llama-server sorts them.

        They mean nothing to llama-server itself.
        """
        given = [self.env.get("LLAMA_ARG_TAGS", "")]
        given += [value for flag, value in pairwise(self.extra_args) if flag == "--tags"]
        return sorted({tag.strip() for tag in ",".join(given).split(",")} - {""})
