"""What is asked, whatever the engine: the series an observation is made of, and the queries that fetch them.

An engine's vocabulary is a list of parts: "the running requests of vLLM are this expression". Parts of
one kind are joined into one query, each tagged, so that a tick costs about twelve queries a source,
whatever the number of services and engines. The operator joins pods to services from its own watch.
"""

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from longtail.signals import promql


class Series(enum.StrEnum):
    """What a part of a query tells about a pod."""

    # Levels
    RUNNING = "running"
    WAITING = "waiting"
    KV_USED_RATIO = "kv_used_ratio"
    """0..1 of the rank's capacity."""
    KV_USED = "kv_used"
    """Tokens."""
    KV_CAPACITY = "kv_capacity"
    """Tokens."""
    DECODE_SUM = "decode_sum"
    """Prompt and output tokens of all requests that decode now."""
    MAX_CONCURRENT = "max_concurrent"
    SAMPLE_AGE = "sample_age"
    """Seconds since the pod was scraped."""
    GATEWAY_WAITING = "gateway_waiting"
    """By inference pool, not by pod."""
    GPU_ACTIVE = "gpu_active"
    REASONING_SHARE = "reasoning_share"
    """By model as clients name it, not by pod."""
    CLASS_REQUESTS = "class_requests"
    """By model and class of requests, like all of these. Answered lately."""
    CLASS_ANSWERS = "class_answers"
    """Answered in the time that the next two are of."""
    CLASS_TOKENS = "class_tokens"
    CLASS_REASONING = "class_reasoning"
    # Counters
    GENERATED = "generated"
    FINISHED_TOKENS = "finished_tokens"
    """Output tokens of finished requests: the sum of their length histogram."""
    PROMPT_TOKENS = "prompt_tokens"
    FIRST_TOKENS = "first_tokens"
    ARRIVALS = "arrivals"
    PREEMPTIONS = "preemptions"
    ABORTED = "aborted"
    """Requests that their clients gave up."""
    # Histograms, as cumulative buckets
    OUTPUT_LENGTH = "output_length"
    QUEUE_WAIT = "queue_wait"
    FIRST_TOKEN_WAIT = "first_token_wait"  # noqa: S105  # a token of text


COUNTERS: Final = frozenset(
    {
        Series.GENERATED,
        Series.FINISHED_TOKENS,
        Series.PROMPT_TOKENS,
        Series.FIRST_TOKENS,
        Series.ARRIVALS,
        Series.PREEMPTIONS,
        Series.ABORTED,
        Series.OUTPUT_LENGTH,
        Series.QUEUE_WAIT,
        Series.FIRST_TOKEN_WAIT,
    }
)
HISTOGRAMS: Final = frozenset({Series.OUTPUT_LENGTH, Series.QUEUE_WAIT, Series.FIRST_TOKEN_WAIT})

_QUERIES: Final[Mapping[str, frozenset[Series]]] = {
    "running": frozenset({Series.RUNNING}),
    "waiting": frozenset({Series.WAITING}),
    "kv_used": frozenset({Series.KV_USED_RATIO, Series.KV_USED, Series.DECODE_SUM}),
    "kv_capacity": frozenset({Series.KV_CAPACITY, Series.MAX_CONCURRENT}),
    "counters": COUNTERS - HISTOGRAMS,
    "output_length": frozenset({Series.OUTPUT_LENGTH}),
    "queue_wait": frozenset({Series.QUEUE_WAIT}),
    "first_token_wait": frozenset({Series.FIRST_TOKEN_WAIT}),
    "sample_age": frozenset({Series.SAMPLE_AGE}),
    "gateway": frozenset({Series.GATEWAY_WAITING}),
    "gpu": frozenset({Series.GPU_ACTIVE}),
    "reasoning_share": frozenset({Series.REASONING_SHARE}),
}
"""Which series share a query. Those of one query are known or missing together."""


@dataclass(frozen=True, slots=True)
class Part:
    """One series of one engine.

    ``expression`` is aggregated by namespace, by ``object_label``, and where it says so by ``rank_label``
    (data parallel rank) and ``le``. Raw counters are asked for, not rates: increases are taken per pod in
    the operator.
    """

    engine: str
    series: Series
    expression: str
    object_label: str
    """Label that names the pod, or the inference pool."""
    rank_label: str = ""
    value_of: Callable[[Mapping[str, str]], float] | None = None
    """Takes the value from the labels, for series that carry it there. NaN for none."""
    native: str = ""
    """What the part takes of a native histogram: ``sum``, ``count`` or ``bucket``; nothing unless it says so."""
    lazy: bool = False
    """The engine creates the series with the first event, so its absence on a pod that reports is a zero."""

    @property
    def tag(self) -> str:
        """Unique within a query."""
        return f"{self.engine}/{self.series}"


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a tick and the parts its answer is made of."""

    name: str
    promql: str
    parts: Sequence[Part]


def fleet_queries(parts: Iterable[Part]) -> tuple[Query, ...]:
    """The parts, joined into one query per kind. Kinds without a part cost nothing."""
    wanted = tuple(parts)
    queries = []
    for name, kinds in _QUERIES.items():
        members = tuple(part for part in wanted if part.series in kinds)
        if members:
            queries.append(joined(name, members))
    return tuple(queries)


def joined(name: str, parts: Sequence[Part]) -> Query:
    """One query out of parts."""
    return Query(name=name, promql=promql.union((part.tag, part.expression) for part in parts), parts=parts)


def age_of(metric: str) -> str:
    """Seconds since the last sample of a series: an instant query hides that it may be 5 minutes old."""
    return f"time() - timestamp({metric})"
