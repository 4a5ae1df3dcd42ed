"""The schema of an entry of models.json, for both kinds of models.

One schema has the keys of all kinds, so that every value is checked. Which kind an entry is, and so
which of the keys may stand there together, is said by one of them (``url``): see :func:`model_of`
and :func:`misplaced`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic.alias_generators import to_camel

from gateway.models.endpoints import KEYS, URLS, check_key, parse_endpoint
from gateway.models.llama_options import (
    RESERVED_ARGUMENTS,
    RESERVED_VARIABLES,
    TEMPLATE_ALIASES,
    TEMPLATES,
)
from gateway.models.local_model import LocalModel, Params
from gateway.models.model import Meta, Model
from gateway.models.personality_schema import (
    ONE_OR_MORE,
    PERSONALITIES,
    SET_PARAMS,
    STRIP_PARAMS,
    SetParams,
    Strict,
    StripParams,
    as_tuple,
    is_json,
)
from gateway.models.remote_model import RemoteModel, RemoteParams
from gateway.names import parse_node
from gateway.spelling import did_you_mean
from gateway.validation import Duration, Size, key, made_of, schema_of, schema_of_all


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
#: An integer as llama.cpp keeps it, in 32 bits.
_Int = Annotated[int, Field(le=2**31 - 1)]
_Seed = Annotated[int, Field(le=2**32 - 1)]
# Strict, because false (which OpenAI's API takes for "never") would silently become 0.
LogitBiasMap = dict[
    Annotated[str, Field(pattern=r"^\d+$")],
    Annotated[float, Field(strict=True, allow_inf_nan=False)],
]


def _each_once(what: str) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    def check(value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"names a {what} twice")
        return value

    return check


def _known_template(value: str | None) -> str | None:
    if value is None or value == "":
        return None
    name = TEMPLATE_ALIASES.get(value, value)
    if name not in TEMPLATES:
        known = ", ".join(sorted(TEMPLATES | TEMPLATE_ALIASES.keys()))
        meant = did_you_mean(value, TEMPLATES | TEMPLATE_ALIASES.keys())
        raise ValueError(f"is not a chat template of llama.cpp{meant or ';'} known are: {known}")
    return name


PARAMS: Final = schema_of(
    Params,
    Strict,
    model=key(
        str | None,
        "a GGUF file: a path below llm_storage, an absolute path, or "
        "package:NAME/FILE for one inside an installed Python package",
        min_length=1,
    ),
    instruct=key(bool | None, "true or false"),
    interactive=key(bool | None, "true or false"),
    interactive_first=key(bool | None, "true or false"),
    ctx_size=key(_Int | None, "tokens, 0 for the size the model was trained with", ge=0),
    temperature=key(float | None, "a number of 0 or more", ge=0, allow_inf_nan=False),
    repeat_penalty=key(
        float | None, "a number of 0 or more, 1 for none", ge=0, allow_inf_nan=False
    ),
    prompt_file=key(str | None, "a file name"),
    threads=key(_Int | None, "a number of threads, -1 for automatic", ge=-1),
    threads_batch=key(_Int | None, "a number of threads, -1 for automatic", ge=-1),
    prompt_cache=key(str | None, "a file name"),
    keep_prompt=key(
        bool | _Int | None, "true for the whole prompt, or a number of tokens (-1 for all)"
    ),
    gpu_layers=key(_Int | None, "a number of layers, -1 for automatic", ge=-1),
    grammar=key(str | None, "a GBNF grammar"),
    grammar_file=key(str | None, "a file with a GBNF grammar"),
    n_predict=key(_Int | None, "tokens, -1 for no limit, -2 until the context is full", ge=-2),
    reverse_prompt=key(OneOrMore | None, "a text, or a list of texts"),
    in_prefix=key(str | None, "a text"),
    in_suffix=key(str | None, "a text"),
    top_k=key(_Int | None, "a whole number, 0 to switch it off", ge=0),
    top_p=key(float | None, "a number from 0 to 1", ge=0, le=1),
    ignore_eos=key(bool | None, "true or false", alias="ignoreEOS"),
    random_prompt=key(bool | None, "true or false"),
    logit_bias=key(
        LogitBiases | LogitBiasMap | None,
        '"TOKEN_ID(+/-)BIAS", a list of those, or {"TOKEN_ID": BIAS}',
    ),
    seed=key(_Seed | None, "a whole number, -1 for a random one", ge=-1),
    mlock=key(bool | None, "true or false"),
    no_mmap=key(bool | None, "true or false"),
    numa=key(
        bool | Literal["distribute", "isolate", "numactl"] | None,
        "true, false, distribute, isolate or numactl",
    ),
    batch_size=key(_Int | None, "a number of tokens of 1 or more", ge=1),
)

META: Final = schema_of(
    Meta,
    Strict,
    display_name=key(str | None, "a name for people", min_length=1),
    unlisted=key(bool, "true or false"),
    capabilities=key(
        tuple[str, ...] | None,
        "a list like chat, completion, embeddings, rerank, vision, audio, tools",
    ),
)

#: The schema of an entry. Where the kinds have different defaults, it shows those of local models.
ENTRY: Final = schema_of_all(
    (LocalModel, RemoteModel),
    Strict,
    name=key(str, None),
    params=key(PARAMS, "an object of llama.cpp options"),
    template=key(
        str | None, "a llama.cpp chat-template name, or absent for the model's own", _known_template
    ),
    personalities=key(
        PERSONALITIES, "an object: name of the personality -> system prompt, or an object with one"
    ),
    aliases=key(
        Annotated[tuple[Annotated[str, AfterValidator(_printable)], ...], ONE_OR_MORE],
        "a list of other names for this model",
    ),
    preload=key(bool, "true or false"),
    pinned=key(bool, "true or false"),
    ttl=key(Duration | None, "a duration like 10m, or null"),
    memory=key(Size | None, "a size like 6GiB, or null"),
    env=key(
        dict[Annotated[str, AfterValidator(_allowed_variable)], str],
        "an object: environment variable -> text",
    ),
    extra_args=key(Arguments, "a list of llama-server arguments"),
    mmproj=key(str | None, "a multimodal projector file"),
    draft_model=key(str | None, "a GGUF file for speculative decoding"),
    embeddings=key(bool, "true or false"),
    reranking=key(bool, "true or false"),
    parallel=key(int, "a number of slots from 1 to 256", ge=1, le=256),
    require_gpu=key(bool, "true or false"),
    nodes=key(
        Annotated[tuple[Annotated[str, AfterValidator(parse_node)], ...], ONE_OR_MORE],
        "a list of names of nodes, like attic, and here for the gateway's own machine",
        _each_once("node"),
    ),
    replicas=key(int, "a whole number from 1 to 64", ge=1, le=64),
    machines=key(int, "a whole number from 1 to 16", ge=1, le=16),
    description=key(str | None, "a text"),
    meta=key(META, "an object: displayName, unlisted, capabilities"),
    set_params=key(SetParams, SET_PARAMS, is_json),
    strip_params=key(StripParams, STRIP_PARAMS),
    url=key(Annotated[tuple[Url, ...], ONE_OR_MORE], URLS, _each_once("server")),
    key=key(Annotated[SecretStr, AfterValidator(_checked_key)] | None, KEYS),
    model_name=key(
        Annotated[str, AfterValidator(_printable)] | None, "what the servers at url call the model"
    ),
    ca_file=key(
        str | None,
        "a PEM file (absolute, or from ~) with CAs to trust beside the system's",
        pattern=r"^[/~]",
    ),
    timeout=key(Duration, "a duration like 10m, until an answer has begun", gt=0),
)


# --- which kind it is, and what may stand in it ----------------------------------------------

_LOCAL: Final = frozenset(field.name for field in fields(LocalModel))
_REMOTE: Final = frozenset(field.name for field in fields(RemoteModel))
#: The keys of a llama-server process, which have no meaning beside ``url``.
OF_A_PROCESS: Final = tuple(name for name in ENTRY.model_fields if name in _LOCAL - _REMOTE)
#: The params that do have a meaning beside ``url``.
PARAMS_OF_REMOTE: Final = tuple(field.name for field in fields(RemoteParams))
#: The keys that have no meaning without ``url``.
ONLY_REMOTE: Final = tuple(
    name for name in ENTRY.model_fields if name in _REMOTE - _LOCAL - {"url"}
)


#: What divides a model among devices, as flags and as variables of llama-server.
_DIVIDING: Final = frozenset(
    """-dev --device -ts --tensor-split -sm --split-mode -mg --main-gpu -ngl --gpu-layers
    --n-gpu-layers -ot --override-tensor -cmoe --cpu-moe -ncmoe --n-cpu-moe --rpc -fit --fit
    LLAMA_ARG_DEVICE LLAMA_ARG_TENSOR_SPLIT LLAMA_ARG_SPLIT_MODE LLAMA_ARG_MAIN_GPU
    LLAMA_ARG_N_GPU_LAYERS LLAMA_ARG_OVERRIDE_TENSOR LLAMA_ARG_CPU_MOE LLAMA_ARG_N_CPU_MOE
    LLAMA_ARG_RPC LLAMA_ARG_FIT""".split()
)


def model_of(entry: Any) -> Model:
    """Return the model that a validated ``entry`` is, of what its kind has."""
    given = {name: made_of(getattr(entry, name)) for name in entry.model_fields_set}
    if not entry.url:
        return LocalModel(**{name: given[name] for name in given.keys() & _LOCAL})
    given["params"] = RemoteParams(
        **{name: getattr(entry.params, name) for name in PARAMS_OF_REMOTE}
    )
    return RemoteModel(**{name: given[name] for name in given.keys() & _REMOTE})


def misplaced(entry: Any) -> Iterator[tuple[str, str, str | None]]:
    """Yield the keys that cannot stand in such an ``entry``, or are missing, with the reason and
    the alternatives.
    """
    return _misplaced_if_remote(entry) if entry.url else _misplaced_if_local(entry)


def _misplaced_if_remote(entry: Any) -> Iterator[tuple[str, str, str | None]]:
    for name in OF_A_PROCESS:
        if _says(entry, name):
            yield to_camel(name), "cannot stand beside url: no llama-server is started", None
    allowed = ", ".join(map(to_camel, PARAMS_OF_REMOTE))
    given = entry.params.model_fields_set if isinstance(entry.params, Strict) else ()
    for name, field in PARAMS.model_fields.items():
        if name not in given or name in PARAMS_OF_REMOTE:
            continue
        what = "cannot stand beside url: fields of requests go into setParams"
        if name == "model":
            what = "cannot stand beside url: it is one or the other"
        yield f"params.{field.alias or name}", what, allowed


def _misplaced_if_local(entry: Any) -> Iterator[tuple[str, str, str | None]]:
    if entry.machines > 1:
        yield from _misplaced_if_spanning(entry)
    if entry.params.model is None:
        yield "params.model", "is missing (or url, for a model that other servers have)", None
    for name in ONLY_REMOTE:
        if _says(entry, name):
            yield to_camel(name), "is only for models with url", None


def _misplaced_if_spanning(entry: Any) -> Iterator[tuple[str, str, str | None]]:
    """The gateway itself says what goes to which machine."""
    if entry.replicas > 1:
        yield "replicas", "cannot stand beside machines: it is one or the other", None
    named = [arg.partition("=")[0].replace("_", "-") for arg in entry.extra_args]
    flags = [name for name in named if name in _DIVIDING]
    variables = [name for name in entry.env if name in _DIVIDING]
    for where, names in (("extraArgs", flags), ("env", variables)):
        if names:
            what = f"cannot have {names[0]} beside machines: the gateway divides the model"
            yield where, what, None


def _says(entry: Any, name: str) -> bool:
    return name in entry.model_fields_set and getattr(entry, name) is not None
