"""data/models.json -> :class:`ModelSpec` and personalities. Pure: text in, frozen values out.

The format is the one of the Node wrapper this project replaces, with Windows-style
backslashes in paths, plus the optional keys beside ``params`` that are ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from gateway.models.endpoints import KEYS, URLS, Endpoint, check_key, key_variable, parse_endpoint
from gateway.models.llama_options import (
    RESERVED_ARGUMENTS,
    RESERVED_VARIABLES,
    TEMPLATE_ALIASES,
    TEMPLATES,
)
from gateway.models.personalities import (
    ONE_OR_MORE,
    AnyPersonality,
    Meta,
    SetParams,
    Strict,
    StripParams,
    as_tuple,
)
from gateway.problems import InvalidFiles, Problem, reject_duplicates
from gateway.spelling import did_you_mean
from gateway.syntax import json_problem
from gateway.validation import Duration, Size, problems_of, validate_partly


def _allowed_argument(value: str) -> str:
    # llama.cpp reads --api_key as --api-key.
    name = value.partition("=")[0].replace("_", "-")
    for pattern, reason in RESERVED_ARGUMENTS.items():
        if re.fullmatch(pattern, name):
            raise ValueError(f"{name} cannot be set here: {reason}")
    return value


def _allowed_variable(value: str) -> str:
    if not re.fullmatch(r"[^=\0]+", value):
        raise ValueError("is not the name of an environment variable")
    if RESERVED_VARIABLES.fullmatch(value):
        raise ValueError(f"{value} cannot be set here: the gateway decides this")
    return value


def _printable(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be a printable name")
    return value


def _checked_key(value: SecretStr) -> SecretStr:
    check_key(value.get_secret_value())
    return value


OneOrMore = Annotated[tuple[str, ...], ONE_OR_MORE]
Url = Annotated[str, AfterValidator(lambda value: parse_endpoint(value).url)]
Arguments = Annotated[tuple[Annotated[str, AfterValidator(_allowed_argument)], ...], ONE_OR_MORE]
_BIAS = r"^\d+[+-](\d+(\.\d*)?|\.\d+)$"
_Bias = Annotated[str, Field(pattern=_BIAS)]
LogitBiases = Annotated[
    tuple[_Bias, ...],
    BeforeValidator(as_tuple, json_schema_input_type=_Bias | list[_Bias]),
]
#: llama.cpp keeps numbers in 32 bits; JSON answers, of which they are a part, in 64.
_Int = Annotated[int, Field(le=2**31 - 1)]
_Seed = Annotated[int, Field(le=2**32 - 1)]
# Strict, because false (which OpenAI's API takes for "never") would silently become 0.
LogitBiasMap = dict[
    Annotated[str, Field(pattern=r"^\d+$")],
    Annotated[float, Field(strict=True, allow_inf_nan=False)],
]


class Params(Strict):
    """The ``params`` object: llama.cpp options under the names the old system gave them.

    ``None`` means "not set": llama-server's own default then holds.
    """

    model: str | None = Field(
        None,
        min_length=1,
        description="a GGUF file: a path below llm_storage, an absolute path, or "
        "package:NAME/FILE for one inside an installed Python package",
    )
    instruct: bool | None = Field(None, description="true or false")
    interactive: bool | None = Field(None, description="true or false")
    interactive_first: bool | None = Field(None, description="true or false")
    ctx_size: _Int | None = Field(
        None, ge=0, description="tokens, 0 for the size the model was trained with"
    )
    temperature: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="a number of 0 or more"
    )
    repeat_penalty: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="a number of 0 or more, 1 for none"
    )
    prompt_file: str | None = Field(None, description="a file name")
    threads: _Int | None = Field(None, ge=-1, description="a number of threads, -1 for automatic")
    threads_batch: _Int | None = Field(
        None, ge=-1, description="a number of threads, -1 for automatic"
    )
    prompt_cache: str | None = Field(None, description="a file name")
    keep_prompt: bool | _Int | None = Field(
        None, description="true for the whole prompt, or a number of tokens (-1 for all)"
    )
    gpu_layers: _Int | None = Field(None, ge=-1, description="a number of layers, -1 for automatic")
    grammar: str | None = Field(None, description="a GBNF grammar")
    grammar_file: str | None = Field(None, description="a file with a GBNF grammar")
    n_predict: _Int | None = Field(
        None, ge=-2, description="tokens, -1 for no limit, -2 until the context is full"
    )
    reverse_prompt: OneOrMore | None = Field(None, description="a text, or a list of texts")
    in_prefix: str | None = Field(None, description="a text")
    in_suffix: str | None = Field(None, description="a text")
    top_k: _Int | None = Field(None, ge=0, description="a whole number, 0 to switch it off")
    top_p: float | None = Field(None, ge=0, le=1, description="a number from 0 to 1")
    ignore_eos: bool | None = Field(None, alias="ignoreEOS", description="true or false")
    random_prompt: bool | None = Field(None, description="true or false")
    logit_bias: LogitBiases | LogitBiasMap | None = Field(
        None, description='"TOKEN_ID(+/-)BIAS", a list of those, or {"TOKEN_ID": BIAS}'
    )
    seed: _Seed | None = Field(None, ge=-1, description="a whole number, -1 for a random one")
    mlock: bool | None = Field(None, description="true or false")
    no_mmap: bool | None = Field(None, description="true or false")
    numa: bool | Literal["distribute", "isolate", "numactl"] | None = Field(
        None, description="true, false, distribute, isolate or numactl"
    )
    batch_size: _Int | None = Field(None, ge=1, description="a number of tokens of 1 or more")


#: Slots of a model elsewhere, where ``parallel`` doesn't say: such servers have queues too.
REMOTE_PARALLEL = 64


class ModelSpec(Strict):
    """One entry of models.json. ``name`` is its key; the rest is what stands under it.

    With ``url`` it is a model that other servers have, and nothing is started for it here.
    """

    name: str = ""
    params: Params = Field(Params(), description="an object of llama.cpp options")
    template: str | None = Field(
        None, description="a llama.cpp chat-template name, or absent for the model's own"
    )
    personalities: dict[str, AnyPersonality] = Field(
        default_factory=dict,
        description="an object: name of the personality -> system prompt, or an object with one",
    )
    aliases: Annotated[tuple[Annotated[str, AfterValidator(_printable)], ...], ONE_OR_MORE] = Field(
        (), description="a list of other names for this model"
    )
    preload: bool = Field(False, description="true or false")
    pinned: bool = Field(False, description="true or false")
    ttl: Duration | None = Field(None, description="a duration like 10m, or null")
    memory: Size | None = Field(None, description="a size like 6GiB, or null")
    env: dict[Annotated[str, AfterValidator(_allowed_variable)], str] = Field(
        default_factory=dict, description="an object: environment variable -> text"
    )
    extra_args: Arguments = Field((), description="a list of llama-server arguments")
    mmproj: str | None = Field(None, description="a multimodal projector file")
    draft_model: str | None = Field(None, description="a GGUF file for speculative decoding")
    embeddings: bool = Field(False, description="true or false")
    reranking: bool = Field(False, description="true or false")
    parallel: int = Field(1, ge=1, le=256, description="a number of slots from 1 to 256")
    require_gpu: bool = Field(False, description="true or false")
    description: str | None = Field(None, description="a text")
    meta: Meta = Field(Meta(), description="an object: displayName, unlisted, capabilities")
    set_params: SetParams = Field(
        default_factory=dict, description="an object of body fields, put over what clients send"
    )
    strip_params: StripParams = Field(
        (), description="a list of body fields that clients may not set"
    )
    url: Annotated[tuple[Url, ...], ONE_OR_MORE] = Field((), description=URLS)
    key: Annotated[SecretStr, AfterValidator(_checked_key)] | None = Field(None, description=KEYS)
    model_name: Annotated[str, AfterValidator(_printable)] | None = Field(
        None, description="what the servers at url call the model"
    )
    ca_file: str | None = Field(
        None,
        pattern=r"^[/~]",
        description="a PEM file (absolute, or from ~) with CAs to trust beside the system's",
    )
    timeout: Duration = Field(
        600.0, gt=0, description="a duration like 10m, until an answer has begun"
    )

    @model_validator(mode="before")
    @classmethod
    def _slots_elsewhere(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("url") and "parallel" not in data:
            return {**data, "parallel": REMOTE_PARALLEL}
        return data

    @field_validator("url")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("names a server twice")
        return value

    @field_validator("template")
    @classmethod
    def _known_template(cls, value: str | None) -> str | None:
        if value is None or value == "":
            return None
        name = TEMPLATE_ALIASES.get(value, value)
        if name not in TEMPLATES:
            known = ", ".join(sorted(TEMPLATES | TEMPLATE_ALIASES.keys()))
            meant = did_you_mean(value, TEMPLATES | TEMPLATE_ALIASES.keys())
            raise ValueError(
                f"is not a chat template of llama.cpp{meant or ';'} known are: {known}"
            )
        return name

    def process_identity(self) -> tuple[object, ...]:
        """What the llama-server process is made from: if it changes, the process must too."""
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
            self.url,
            self.key,
            self.ca_file,
            self.timeout,
        )

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The servers that have the model; none for one of our own."""
        return tuple(map(parse_endpoint, self.url))

    @property
    def sent_as(self) -> str | None:
        """What requests to the servers at ``url`` call it; ``None`` for a model of our own."""
        return (self.model_name or self.name) if self.url else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each thing that is accepted and should perhaps be otherwise."""
        unencrypted = [e.url for e in self.endpoints if not (e.tls or e.is_loopback)]
        return (
            *(
                f"{self.name}: {to_camel(field)} has no effect: {reason}"
                for field, reason in _WITHOUT_EFFECT.items()
                if getattr(self.params, field) not in (None, False, "")
            ),
            *(f"{self.name}: the key goes to {url} unencrypted" for url in unencrypted if self.key),
            *(
                f"{self.name}: tools of the personality {name!r} don't work with a named template"
                for name, one in self.personalities.items()
                if one.tools and self.template
            ),
        )


#: Options of the old llama.cpp ``main`` program that a server has no use for, and why.
_WITHOUT_EFFECT: Mapping[str, str] = MappingProxyType(
    {
        "instruct": "the chat template of the model does this",
        "interactive": "a server is always asked, never typed into",
        "interactive_first": "a server is always asked, never typed into",
        "prompt_file": "use a personality for a text that opens every conversation",
        "prompt_cache": "llama-server keeps the prompt cache in memory by itself",
        "in_prefix": "the chat template of the model does this",
        "in_suffix": "the chat template of the model does this",
        "random_prompt": "llama.cpp no longer has it",
    }
)


#: What makes a llama-server, so that it has no meaning beside ``url``.
OF_A_PROCESS = (
    "template",
    "memory",
    "env",
    "extra_args",
    "mmproj",
    "draft_model",
    "require_gpu",
)
#: The params that have one: for requests that don't set them, and for lists of models.
PARAMS_ELSEWHERE = ("temperature", "top_p", "ctx_size")
#: What has no meaning without ``url``.
ELSEWHERE = ("key", "model_name", "ca_file", "timeout")


#: What stands beside the models: which JSON Schema an editor is to check the file by.
SCHEMA_KEY: Final = "$schema"


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every model of one models.json, in the order of the file."""

    models: Mapping[str, ModelSpec]
    aliases: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """Names as ``GET /models`` lists them."""
        return list(self.models)

    @property
    def key_variables(self) -> frozenset[str]:
        """Environment variables that hold keys of servers elsewhere."""
        keys = (spec.key.get_secret_value() for spec in self.models.values() if spec.key)
        return frozenset(name for key in keys if (name := key_variable(key)) is not None)

    @property
    def warnings(self) -> list[str]:
        """What every model warns about, for the log and for ``check``."""
        return [warning for spec in self.models.values() for warning in spec.warnings]


EMPTY = Catalog(models=MappingProxyType({}), aliases=MappingProxyType({}))


def parse_catalog(text: str, *, file: str = "models.json") -> Catalog:
    """Parse the text of models.json.

    Raises :class:`InvalidFiles` with every problem found, not only the first.
    """
    catalog, problems = parse_partly(text, file=file)
    if problems:
        raise InvalidFiles(problems)
    return catalog


def parse_partly(text: str, *, file: str = "models.json") -> tuple[Catalog, list[Problem]]:
    """What is right in the text of models.json, and every problem. Not to be served."""
    try:
        data = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=reject_duplicates)
    except json.JSONDecodeError as error:
        return EMPTY, [Problem(file, "", None, json_problem(error.doc, error))]
    except ValueError as error:
        return EMPTY, [Problem(file, "", None, f"is not valid JSON: {error}")]
    except RecursionError:
        return EMPTY, [Problem(file, "", None, "is nested too deeply")]
    if not isinstance(data, dict):
        wanted = 'must be an object: {"model name": {"params": ...}}'
        return EMPTY, [Problem(file, "", None, wanted)]
    problems: list[Problem] = []
    models: dict[str, ModelSpec] = {}
    for name, entry in data.items():
        if name == SCHEMA_KEY:
            if not isinstance(entry, str):
                what = "must be the address of a JSON Schema, and is no model"
                problems.append(Problem(file, name, None, what))
            continue
        spec, wrong = _parse_entry(name, entry, file)
        problems += wrong
        if spec is not None:
            models[name] = spec
    aliases = _collect_aliases(models, file, problems)
    return Catalog(MappingProxyType(models), MappingProxyType(aliases)), problems


def _parse_entry(name: str, entry: Any, file: str) -> tuple[ModelSpec | None, list[Problem]]:
    if not name.strip() or not name.isprintable():
        return None, [Problem(file, repr(name), None, "a model needs a printable name")]
    if not isinstance(entry, dict):
        return None, [Problem(file, name, repr(entry)[:80], 'must be an object with "params"')]
    if "name" in entry:
        return None, [Problem(file, f"{name}.name", None, "unknown key: the name is the entry's")]
    spec, errors = validate_partly(ModelSpec, {**entry, "name": name})
    problems = problems_of(*errors, file=file, model=ModelSpec, prefix=(name,))
    if spec is None:
        return None, problems
    known = {problem.key for problem in problems}
    problems += [
        Problem(file, f"{name}.{key}", None, what, allowed)
        for key, what, allowed in (_misplaced_elsewhere if spec.url else _misplaced_here)(spec)
        if f"{name}.{key}" not in known and not (errors and "is missing" in what)
    ]
    problems += [
        Problem(file, f"{name}.personalities.{label}", None, '"none" switches personalities off')
        for label in spec.personalities
        if label.strip().lower() in ("none", "")
    ]
    return spec, problems


def _misplaced_elsewhere(spec: ModelSpec) -> Iterator[tuple[str, str, str | None]]:
    """Keys that cannot stand beside ``url``, why, and what can."""
    for field in OF_A_PROCESS:
        if field in spec.model_fields_set and getattr(spec, field) is not None:
            yield to_camel(field), "cannot stand beside url: no llama-server is started", None
    allowed = ", ".join(map(to_camel, PARAMS_ELSEWHERE))
    for field in spec.params.model_fields_set.difference(PARAMS_ELSEWHERE):
        alias = Params.model_fields[field].alias or field
        what = "cannot stand beside url: fields of requests go into setParams"
        if field == "model":
            what = "cannot stand beside url: it is one or the other"
        yield f"params.{alias}", what, allowed


def _misplaced_here(spec: ModelSpec) -> Iterator[tuple[str, str, str | None]]:
    """The same for a model of our own."""
    if spec.params.model is None:
        yield "params.model", "is missing (or url, for a model that other servers have)", None
    for field in ELSEWHERE:
        if field in spec.model_fields_set and getattr(spec, field) is not None:
            yield to_camel(field), "is only for models with url", None


def _collect_aliases(
    models: Mapping[str, ModelSpec], file: str, problems: list[Problem]
) -> dict[str, str]:
    aliases: dict[str, str] = {}
    for name, spec in models.items():
        for alias in spec.aliases:
            taken = "is the name of a model" if alias in models else None
            if alias in aliases:
                taken = f"is an alias of {aliases[alias]} already"
            if taken:
                problems.append(Problem(file, f"{name}.aliases", repr(alias), taken))
            aliases.setdefault(alias, name)
    return aliases
