"""The metrics of requests."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Self

from prometheus_client import Metric

from gateway.access.accounting import Accounting
from gateway.access.measures import OTHER, ModelTimes, Requests
from gateway.backends.model_status import ModelStatus
from gateway.metrics import described
from gateway.metrics.families import Labelled, family, histogram, single

_PATTERN: Final = re.compile(r"\{(\w+):[^{}]+\}")
#: The path of the row that takes what has no route.
_NOWHERE: Final = "/{path:.*}"


class Taken(NamedTuple):
    """What accounting knows at one moment: copied, because text is made of it in a thread."""

    requests: Sequence[Requests]
    late_tokens: Mapping[tuple[str, str], int]
    times: Sequence[tuple[str, ModelTimes]]
    streams: int

    @classmethod
    def of(cls, accounting: Accounting) -> Self:
        """Take it. For the event loop."""
        measures = accounting.measures
        return cls(
            [*measures.requests()],
            dict(measures.late_tokens),
            [*measures.times()],
            sum(one.streamed for one in accounting.under_way),
        )


def of_answers(answers: Mapping[tuple[str, str], Mapping[int, int]]) -> Metric:
    """Return the family of all answers; ``answers``: see :class:`gateway.pipeline.services`."""
    return family(
        described.HTTP_REQUESTS,
        (
            (("any" if method == "*" else method, _template(path), str(status)), count)
            for (method, path), statuses in answers.items()
            for status, count in statuses.items()
        ),
    )


def _template(path: str) -> str:
    """Return a route as people write it: ``/models/{model}``, not ``/models/{model:.+}``."""
    return OTHER if path == _NOWHERE else _PATTERN.sub(r"{\1}", path)


def of_requests(taken: Taken, models: list[ModelStatus]) -> Iterator[Metric]:
    """Yield the families of requests to models."""
    ended = Counter[tuple[str, str, str]]()
    prompt, cached, generated = (Counter[tuple[str, str]]() for _ in range(3))
    for one in taken.requests:
        ended[one.model, one.route, str(one.status)] += one.requests
        who = one.model, one.key_id
        prompt[who] += one.prompt
        cached[who] += one.cached
        generated[who] += one.generated
    for (key_id, model), tokens in taken.late_tokens.items():
        generated[model, key_id] += tokens
    yield family(described.REQUESTS, ended.items())
    yield family(described.PROMPT_TOKENS, prompt.items())
    yield family(described.CACHED_TOKENS, cached.items())
    yield family(described.GENERATED_TOKENS, generated.items())
    for of, name in (
        (described.QUEUE, "queue"),
        (described.LOAD, "load"),
        (described.FIRST_TOKEN, "first_token"),
        (described.GAP, "gap"),
        (described.DURATION, "total"),
    ):
        yield histogram(of, [((model,), getattr(times, name)) for model, times in taken.times])
    yield family(described.IN_FLIGHT, _by_model(models, "in_flight"))
    yield family(described.WAITING, _by_model(models, "queued"))
    yield single(described.STREAMS, taken.streams)


def _by_model(models: list[ModelStatus], name: str) -> Iterator[Labelled]:
    return (((one.name,), getattr(one, name)) for one in models)
