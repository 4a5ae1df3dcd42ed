"""xllamacpp's C++ server behind the flags of llama-server: a program, started like one.

For people who have no llama.cpp: the extra ``demo`` brings xllamacpp, which has the same server
inside. Knows the flags that ``command.py`` gives and those that people often add, with the
spelling, the variables (``LLAMA_ARG_*``, which flags override) and the error texts of
llama-server (llama.cpp, ``tools/server/README.md``). Imports nothing of the gateway: it is run
by its path. Not argparse, because llama.cpp takes whatever follows a flag for its value
(``-r --end``).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

#: Sets one value, given as text, in ``CommonParams``. Given xllamacpp for its enumerations.
Apply = Callable[[Any, Any, str], None]
#: An enumeration of xllamacpp, with words of the command line -> its members.
Words = tuple[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Flag:
    """One setting: ``names`` set it, ``off`` are its opposites (then neither takes a value).

    ``env`` is what follows ``LLAMA_ARG_`` in the variable that sets it too, where there is one.
    """

    names: tuple[str, ...]
    apply: Apply
    env: str | None = None
    off: tuple[str, ...] = ()
    takes_value: bool = True


class UsageError(Exception):
    """The command line cannot be used; the text is what llama-server would print."""


# --- what a flag may do --------------------------------------------------------------------


def _value(names: str, to: str, convert: Callable[[str], Any], env: str | None = None) -> Flag:
    """Return a flag whose value goes to the field ``to`` (dotted) of ``CommonParams``."""
    return Flag(tuple(names.split()), lambda x, p, text: _put(p, to, convert(text)), env)


def _sampling(
    names: str, to: str, convert: Callable[[str], Any], bit: str, env: str | None = None
) -> Flag:
    """Return a flag as ``_value`` does, marked as the user's wish, which wins over the GGUF's."""

    def apply(x: Any, p: Any, text: str) -> None:
        _put(p.sampling, to, convert(text))
        member = f"COMMON_PARAMS_SAMPLING_CONFIG_{bit}"
        p.sampling.user_sampling_config |= x.common_params_sampling_config[member].value

    return Flag(tuple(names.split()), apply, env=f"{bit}")


def _choice(names: str, to: str, words: Words, env: str | None = None) -> Flag:
    """Return a flag that takes one of some words."""
    enumeration, members = words

    def apply(x: Any, p: Any, text: str) -> None:
        if text not in members:
            raise ValueError(f"unknown value {text!r}, known are: {', '.join(members)}")
        _put(p, to, getattr(x, enumeration)[members[text]])

    return Flag(tuple(names.split()), apply, env)


def _switch(names: str, to: str, off: str = "", env: str | None = None) -> Flag:
    """Return a flag without a value. ``to`` with a leading ``!`` is set to the opposite."""

    def apply(x: Any, p: Any, text: str) -> None:
        _put(p, to.removeprefix("!"), _is_true(text) != to.startswith("!"))

    return Flag(tuple(names.split()), apply, env, tuple(off.split()), takes_value=False)


def _put(target: Any, dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    for name in path:
        target = getattr(target, name)
    setattr(target, last, value)


def _is_true(text: str) -> bool:
    for meaning, words in ((True, "1 true on enabled"), (False, "0 false off disabled")):
        if text.lower() in words.split():
            return meaning
    raise ValueError(f"{text!r} is neither true nor false")


def _layers(text: str) -> int:
    return {"auto": -1, "all": -2}.get(text) or int(text)


def _unescaped(text: str) -> str:
    """Return ``text`` with llama.cpp's escapes resolved; unknown ones stay as they are."""
    known = {"n": "\n", "r": "\r", "t": "\t", "'": "'", '"': '"', "\\": "\\"}

    def plain(match: re.Match[str]) -> str:
        return known[match[1]] if match[1] in known else chr(int(match[1][1:], 16))

    return re.sub(r"\\([nrt'\"\\]|x[0-9A-Fa-f]{2})", plain, text)


def _text_of(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _add_tags(x: Any, p: Any, text: str) -> None:
    p.model_tags = p.model_tags | {tag.strip() for tag in text.split(",")} - {""}


def _set_host(x: Any, p: Any, text: str) -> None:
    p.hostnames = [text] if text.endswith(".sock") else text.split(",")


def _set_threads(field: str) -> Apply:
    def apply(x: Any, p: Any, text: str) -> None:
        if (threads := int(text)) > 0:  # else the default, which is one for each core
            getattr(p, field).n_threads = threads

    return apply


def _set_grammar(x: Any, p: Any, text: str) -> None:
    user = x.common_grammar_type.COMMON_GRAMMAR_TYPE_USER
    p.sampling.grammar = x.CommonGrammar(user, text)


def _ignore_logit_bias(x: Any, p: Any, text: str) -> None:
    # xllamacpp has no way to make one, and older builds of llama.cpp forget them anyway.
    print("warning: --logit-bias has no effect here, send logit_bias in requests", file=sys.stderr)


def _set_fit_target(x: Any, p: Any, text: str) -> None:
    margins = [int(part) * 2**20 for part in re.split(r"[,/]+", text)]
    before = list(p.fit_params_target)  # one for each device there may be
    alike = margins * len(before) if len(margins) == 1 else margins
    p.fit_params_target = [*alike, *before[len(alike) :]][: len(before)]


def _set_draft_model(x: Any, p: Any, text: str) -> None:
    p.speculative.draft.mparams.path = text
    p.speculative.types = [x.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]


def _set_reranking(x: Any, p: Any, text: str) -> None:
    if _is_true(text):
        p.embedding = True
        p.pooling_type = x.llama_pooling_type.LLAMA_POOLING_TYPE_RANK


def _set_template_arguments(x: Any, p: Any, text: str) -> None:
    if not isinstance(given := json.loads(text), dict):
        raise ValueError("must be a JSON object")
    p.default_template_kwargs = {key: json.dumps(value) for key, value in given.items()}


def _set_timeout(x: Any, p: Any, text: str) -> None:
    p.timeout_read = p.timeout_write = int(text)


def _words(enumeration: str, prefix: str, words: str, **others: str) -> Words:
    same = {word: word.upper().replace("-", "_") for word in words.split()}
    return enumeration, {word: f"{prefix}_{name}" for word, name in (same | others).items()}


_POOLING = _words("llama_pooling_type", "LLAMA_POOLING_TYPE", "none mean cls last rank")
_CACHE_TYPES = _words("ggml_type", "GGML_TYPE", "f32 f16 bf16 q8_0 q4_0 q4_1 iq4_nl q5_0 q5_1")
_LOAD_MODES = _words(
    "llama_load_mode",
    "LLAMA_LOAD_MODE",
    "auto none mmap mlock",
    **{"mmap+mlock": "MMAP_MLOCK", "dio": "DIRECT_IO"},
)
_FLASH_ATTENTION = _words(
    "llama_flash_attn_type", "LLAMA_FLASH_ATTN_TYPE", "auto", on="ENABLED", off="DISABLED"
)
_REASONING = _words(
    "common_reasoning_format", "COMMON_REASONING_FORMAT", "none auto deepseek deepseek-legacy"
)
_NUMA = _words("ggml_numa_strategy", "GGML_NUMA_STRATEGY", "distribute isolate numactl")

FLAGS: tuple[Flag, ...] = (
    # model and address
    _value("--model -m", "model.path", str, "MODEL"),
    Flag(("--alias", "-a"), lambda x, p, text: _put(p, "model_alias", {text}), "ALIAS"),
    Flag(("--tags",), _add_tags, "TAGS"),
    Flag(("--host",), _set_host, "HOST"),
    _value("--port", "port", int, "PORT"),
    Flag(("--timeout", "-to"), _set_timeout, "TIMEOUT"),
    _value("--sse-ping-interval", "sse_ping_interval", int, "SSE_PING_INTERVAL"),
    _value("--threads-http", "n_threads_http", int, "THREADS_HTTP"),
    _value("--mmproj -mm", "mmproj.path", str, "MMPROJ"),
    _switch("--mmproj-offload", "mmproj_use_gpu", "--no-mmproj-offload"),
    Flag(("--model-draft", "-md", "--spec-draft-model"), _set_draft_model),
    _value("--spec-draft-n-max", "speculative.draft.n_max", int),
    _value("--spec-draft-n-min", "speculative.draft.n_min", int),
    _value("--spec-draft-p-min --draft-p-min", "speculative.draft.p_min", float),
    # context, processor, memory
    _value("--ctx-size -c", "n_ctx", int, "CTX_SIZE"),
    _value("--parallel -np", "n_parallel", int, "N_PARALLEL"),
    _value("--batch-size -b", "n_batch", int, "BATCH"),
    _value("--ubatch-size -ub", "n_ubatch", int, "UBATCH"),
    _value("--keep", "n_keep", int),
    _switch("--context-shift", "ctx_shift", "--no-context-shift", "CONTEXT_SHIFT"),
    _switch("--swa-full", "swa_full", env="SWA_FULL"),
    Flag(("--threads", "-t"), _set_threads("cpuparams"), "THREADS"),
    Flag(("--threads-batch", "-tb"), _set_threads("cpuparams_batch")),
    _choice("--numa", "numa", _NUMA, "NUMA"),
    _value("--n-gpu-layers --gpu-layers -ngl", "n_gpu_layers", _layers, "N_GPU_LAYERS"),
    _value("--main-gpu -mg", "main_gpu", int, "MAIN_GPU"),
    _choice("--load-mode -lm", "load_mode", _LOAD_MODES, "LOAD_MODE"),
    _choice("--flash-attn -fa", "flash_attn_type", _FLASH_ATTENTION, "FLASH_ATTN"),
    _choice("--cache-type-k -ctk", "cache_type_k", _CACHE_TYPES, "CACHE_TYPE_K"),
    _choice("--cache-type-v -ctv", "cache_type_v", _CACHE_TYPES, "CACHE_TYPE_V"),
    _switch("--kv-offload -kvo", "!no_kv_offload", "--no-kv-offload -nkvo", "KV_OFFLOAD"),
    _switch("--kv-unified -kvu", "kv_unified", "--no-kv-unified -no-kvu", "KV_UNIFIED"),
    _switch("--warmup", "warmup", "--no-warmup"),
    _value("--fit -fit", "fit_params", _is_true, "FIT"),
    Flag(("--fit-target", "-fitt"), _set_fit_target, "FIT_TARGET"),
    _value("--fit-ctx -fitc", "fit_params_min_ctx", int, "FIT_CTX"),
    # prompt cache
    _switch("--cache-prompt", "cache_prompt", "--no-cache-prompt", "CACHE_PROMPT"),
    _value("--cache-reuse", "n_cache_reuse", int, "CACHE_REUSE"),
    _value("--cache-ram -cram", "cache_ram_mib", int, "CACHE_RAM"),
    _switch("--cache-idle-slots", "cache_idle_slots", "--no-cache-idle-slots", "CACHE_IDLE_SLOTS"),
    _value("--ctx-checkpoints -ctxcp", "n_ctx_checkpoints", int, "CTX_CHECKPOINTS"),
    # llama.cpp appends the name of a file as is.
    _value("--slot-save-path", "slot_save_path", lambda s: s.rstrip("/") + "/", "SLOT_SAVE_PATH"),
    _value("--slot-prompt-similarity -sps", "slot_prompt_similarity", float),
    _value("--sleep-idle-seconds", "sleep_idle_seconds", int),
    # sampling
    _sampling("--temp --temperature", "temp", float, "TEMP", "TEMPERATURE"),
    _sampling("--top-k", "top_k", int, "TOP_K", "TOP_K"),
    _sampling("--top-p", "top_p", float, "TOP_P", "TOP_P"),
    _sampling("--min-p", "min_p", float, "MIN_P", "MIN_P"),
    _sampling("--repeat-penalty", "penalty_repeat", float, "PENALTY_REPEAT", "REPEAT_PENALTY"),
    _sampling("--repeat-last-n", "penalty_last_n", int, "PENALTY_LAST_N"),
    _value("--presence-penalty", "sampling.penalty_present", float),
    _value("--frequency-penalty", "sampling.penalty_freq", float),
    _value("--seed -s", "sampling.seed", lambda text: int(text) % 2**32),
    _value("--n-predict --predict -n", "n_predict", int, "N_PREDICT"),
    Flag(
        ("--ignore-eos",), lambda x, p, _: _put(p, "sampling.ignore_eos", True), takes_value=False
    ),
    Flag(("--logit-bias", "-l"), _ignore_logit_bias),
    Flag(
        ("--reverse-prompt", "-r"),
        lambda x, p, text: _put(p, "antiprompt", [*p.antiprompt, _unescaped(text)]),
    ),
    Flag(("--grammar",), _set_grammar),
    Flag(("--grammar-file",), lambda x, p, path: _set_grammar(x, p, _text_of(path))),
    # chat template
    _value("--chat-template", "chat_template", str, "CHAT_TEMPLATE"),
    _value("--chat-template-file", "chat_template", _text_of, "CHAT_TEMPLATE_FILE"),
    Flag(("--chat-template-kwargs",), _set_template_arguments, "CHAT_TEMPLATE_KWARGS"),
    _switch("--jinja", "use_jinja", "--no-jinja", "JINJA"),
    _choice("--reasoning-format", "reasoning_format", _REASONING, "THINK"),
    _switch("--prefill-assistant", "prefill_assistant", "--no-prefill-assistant"),
    # what it serves
    _switch("--embeddings --embedding", "embedding", env="EMBEDDINGS"),
    Flag(("--reranking", "--rerank"), _set_reranking, "RERANKING", takes_value=False),
    _choice("--pooling", "pooling_type", _POOLING, "POOLING"),
    _switch("--slots", "endpoint_slots", "--no-slots", "ENDPOINT_SLOTS"),
    _switch("--metrics", "endpoint_metrics", env="ENDPOINT_METRICS"),
    _switch("--props", "endpoint_props", env="ENDPOINT_PROPS"),
    _switch("--ui --webui", "ui", "--no-ui --no-webui", "UI"),
    _value("--verbosity --log-verbosity -lv", "verbosity", int, "LOG_VERBOSITY"),
)


# --- the program ---------------------------------------------------------------------------


def parse(
    arguments: Sequence[str], environ: Mapping[str, str]
) -> list[tuple[str, Callable[[Any, Any], None]]]:
    """Return the changes of ``CommonParams``: (flag or variable, function of xllamacpp and it).

    Raises :class:`UsageError` for an argument that is unknown or lacks its value.
    """
    steps: list[tuple[str, Callable[[Any, Any], None]]] = []

    def add(name: str, apply: Apply, text: str) -> None:
        steps.append((name, lambda x, p: apply(x, p, text)))

    for flag in FLAGS:
        variable = f"LLAMA_ARG_{flag.env}"
        if flag.env and variable in environ:
            add(variable, flag.apply, environ[variable])
    by_name = {name: flag for flag in FLAGS for name in (*flag.names, *flag.off)}
    rest = iter(arguments)
    for argument in rest:
        name = argument.replace("_", "-") if argument.startswith("--") else argument
        found = by_name.get(name)
        if found is None:
            raise UsageError(f"error: invalid argument: {argument}")
        text: str | None = "0" if name in found.off else "1"
        if found.takes_value and (text := next(rest, None)) is None:
            raise UsageError(f"error: expected value for argument {argument}")
        add(name, found.apply, text or "")
    return steps


def _apply(x: Any, steps: Sequence[tuple[str, Callable[[Any, Any], None]]]) -> Any:
    params = x.CommonParams()
    params.port = 8080
    for name, step in steps:
        try:
            step(x, params)
        except (ValueError, KeyError, OSError, OverflowError, AttributeError) as error:
            raise UsageError(f'error while handling argument "{name}": {error}') from error
    if not params.model.path:
        raise UsageError("error: --model is required")
    draft = params.speculative.draft.mparams.path
    for path in filter(None, (params.model.path, params.mmproj.path, draft)):
        _check_gguf(path)
    return params


def _check_gguf(path: str) -> None:
    """Raise what is wrong with a model's file: xllamacpp loses llama.cpp's own message."""
    try:
        with Path(path).open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise UsageError(f"error: failed to open GGUF file {path}: {error.strerror}") from None
    if magic != b"GGUF":
        raise UsageError(f"error: {path} is not a GGUF file")


def _remove_socket(path: str) -> None:
    """Remove what an earlier process left at ``path``: the server cannot bind over it."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            Path(path).unlink()


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Serve until SIGTERM or SIGINT. A failure is in the last lines on stderr, with status 1."""
    try:
        steps = parse(arguments, environ)
        import xllamacpp as x  # late, so that wrong arguments are reported at once

        params = _apply(x, steps)
    except UsageError as error:
        sys.exit(str(error))
    except ImportError as error:
        sys.exit(f"error: {error} (pip install xllamacpp; libgomp.so.1 is in Debian's libgomp1)")
    sockets = [host for host in params.hostnames if host.endswith(".sock")]
    for path in sockets:
        _remove_socket(path)
    # Loading holds the interpreter's lock, so that no handler written in Python would run
    # before its end: the kernel ends the process then.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        server = x.Server(params)
    except Exception as error:
        sys.exit(f"error: failed to load the model {params.model.path}: {error}")
    _wait_for_signal()
    _leave(sockets, server)


def _wait_for_signal() -> None:
    # A pipe, because a signal that came just before signal.pause() would never be seen.
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    for number in (signal.SIGTERM, signal.SIGINT):  # in the place of xllamacpp's own
        signal.signal(number, lambda *_: None)
    os.read(read, 1)


def _leave(sockets: Sequence[str], _server: object) -> NoReturn:
    # The server is still referenced here: collecting it would wait for its clients, and gives
    # nothing back that the end of the process doesn't.
    for path in sockets:
        _remove_socket(path)
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
