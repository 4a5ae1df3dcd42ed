"""Every metric of the gateway, described once: its name, kind, labels, and what it tells.

``docs/metrics.md`` has a table of them, and a test compares it. The names follow Prometheus's
conventions (https://prometheus.io/docs/practices/naming/): base units, ``_total`` for counters.
Pure, and without the library, which only a scrape needs.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

_PREFIX: Final = "llm_gateway_"
Kind = Literal["counter", "gauge", "histogram"]


class Described(NamedTuple):
    """One metric. ``name``: as Prometheus stores it, a histogram without its suffixes."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    about: str

    @property
    def family(self) -> str:
        """The name of its family, by which the library calls it."""
        return self.name.removesuffix("_total") if self.kind == "counter" else self.name


def _counter(name: str, labels: str, about: str) -> Described:
    return Described(f"{_PREFIX}{name}_total", "counter", tuple(labels.split()), about)


def _gauge(name: str, labels: str, about: str) -> Described:
    return Described(f"{_PREFIX}{name}", "gauge", tuple(labels.split()), about)


def _histogram(name: str, labels: str, about: str) -> Described:
    return Described(f"{_PREFIX}{name}", "histogram", tuple(labels.split()), about)


# fmt: off
# --- requests
HTTP_REQUESTS: Final = _counter(
    "http_requests", "method route status",
    "Answers, by the route's template and the status in the head; all routes.")
REQUESTS: Final = _counter(
    "requests", "model route status",
    "Requests to models that have ended, by their path at llama-server and how they ended; 499: "
    "the client went away.")
PROMPT_TOKENS: Final = _counter(
    "prompt_tokens", "model key_id", "Tokens of prompts.")
CACHED_TOKENS: Final = _counter(
    "prompt_tokens_cached", "model key_id",
    "Those of them that llama-server had in its cache, and did not read again.")
GENERATED_TOKENS: Final = _counter(
    "generated_tokens", "model key_id", "Tokens of answers.")
QUEUE: Final = _histogram(
    "request_queue_seconds", "model",
    "How long requests waited for a slot, or for the place of another model.")
LOAD: Final = _histogram(
    "request_load_seconds", "model", "How long requests waited for their model to load.")
FIRST_TOKEN: Final = _histogram(
    "time_to_first_token_seconds", "model",
    "From a request's arrival until its stream began; complete streams only.")
GAP: Final = _histogram(
    "time_per_output_token_seconds", "model",
    "The mean gap between the tokens of an answer, each answer once.")
DURATION: Final = _histogram(
    "request_duration_seconds", "model",
    "From a request's arrival to the end of its answer; successful ones only.")
IN_FLIGHT: Final = _gauge(
    "requests_in_flight", "model", "Requests that have a slot of the model.")
WAITING: Final = _gauge(
    "requests_waiting", "model", "Requests that wait for a slot, or for the model to load.")
STREAMS: Final = _gauge(
    "streams_open", "", "Answers of models that are being streamed.")

# --- models
STATE: Final = _gauge(
    "model_state", "model state", "1 for the state that the model is in, 0 for all others.")
SLOTS: Final = _gauge(
    "model_slots", "model", "How many requests the model works on at the same time.")
MODEL_MEMORY: Final = _gauge(
    "model_memory_bytes", "model device",
    "What a loaded model counts for on the device; one of a node is called `NODE/DEVICE`.")
UNLOADS: Final = _counter(
    "model_unloads", "model reason",
    "Unloads: `asked` for, `idle` for too long, `evicted` because another model needed the place.")
SWAPS: Final = _counter(
    "model_swaps", "model", "Loads for which other models were evicted.")
RESTARTS: Final = _counter(
    "model_restarts", "model reason",
    "How often the model ended unasked, or would not start, and had to be started again: "
    "`crashed`, `killed` (mostly by the system, for want of memory), `hung`, `runaway` (a request "
    "without an end), `out_of_memory`, `not_started`, `unreachable` (remote).")

# --- memory and saved conversations
MEMORY: Final = _gauge(
    "device_memory_bytes", "device", "Memory of the device: RAM, or a GPU.")
MEMORY_USED: Final = _gauge(
    "device_memory_used_bytes", "device",
    "What is used of it, by any program; missing for a GPU that nobody has looked at lately.")
NODE_UP: Final = _gauge(
    "node_up", "node", "Whether a machine of the cluster answers.")
NODE_MEMORY: Final = _gauge(
    "node_memory_for_models_bytes", "node device",
    "What models may take of a device there; missing while the machine is down.")
NODE_FREE: Final = _gauge(
    "node_memory_free_bytes", "node device", "What is free of it; missing where it can't be told.")
CACHE_HITS: Final = _counter(
    "cache_hits", "model source",
    "Requests whose prompts were there: saved on `disk` and read back, or live in a `slot`.")
CACHE_TOKENS: Final = _counter(
    "cache_spared_tokens", "model source", "Tokens that need not be read again because of that.")
CACHE_READ: Final = _counter(
    "cache_read_bytes", "model", "Bytes of saved conversations that llama-server has read back.")
CACHE_WRITTEN: Final = _counter(
    "cache_written_bytes", "model", "Bytes of conversations that it has saved.")
CACHE_CONVERSATIONS: Final = _gauge(
    "cache_conversations", "model", "Saved conversations.")
CACHE_SIZE: Final = _gauge(
    "cache_bytes", "model", "What they take on disk.")
CACHE_BUDGET: Final = _gauge(
    "cache_budget_bytes", "", "What those on the disk of this machine may take there.")

# --- the gateway itself
BUILD: Final = _gauge(
    "build_info", "version python", "Always 1: the versions of the gateway and its Python.")
READY: Final = _gauge(
    "ready", "", "Whether requests are answered: what `/ready` says.")
CONNECTIONS: Final = _gauge(
    "connections_open", "", "Connections of clients.")
LAG: Final = _histogram(
    "event_loop_lag_seconds", "",
    "How late a timer was that is set four times a second, while somebody scrapes.")
UNWRITTEN: Final = _gauge(
    "store_unwritten_requests", "", "Records of requests that are not in the database yet.")
STORE_LAG: Final = _gauge(
    "store_lag_seconds", "", "The age of the oldest one of them.")
LOST: Final = _counter(
    "store_lost_requests", "", "Records that could not be written, and were given up.")
LOST_RESPONSES: Final = _counter(
    "responses_lost", "",
    "Responses to be kept (`responses.store`) that could not be written, and were given up.")
EXPIRY: Final = _gauge(
    "certificate_expiry_timestamp_seconds", "",
    "When the TLS certificate in use expires, in seconds since 1970; only with TLS.")
BACKEND_UP: Final = _gauge(
    "backend_metrics_up", "model",
    "With `?backends=1`: whether the model's llama-server gave its own metrics in time.")
# fmt: on

#: All of them, in the order in which they are told.
ALL: Final = tuple(one for one in globals().values() if isinstance(one, Described))
