"""A vocabulary spelled out in the resource, for engines we do not know.

Each distinct set of names costs one more query a tick: a wrong name then hurts the services that use it, and
nobody else. Series are summed by pod, so each must be free of repetition (ranks, priorities) as exposed.
"""

import hashlib
from dataclasses import dataclass, fields
from typing import Final

from longtail.signals.promql import aggregated, histogram, metric_name
from longtail.signals.sources import LabelNames
from longtail.signals.vocabulary import HISTOGRAMS, Part, Query, Series, age_of, joined


@dataclass(frozen=True, slots=True)
class CustomNames:
    """Names of series as the engine exposes them; an empty one is not asked for, and its signal is missing.

    Raises:
        SpecError: a name is not a Prometheus metric name, or there is none for running requests.
    """

    running_requests: str
    """Gauge. The only one without which nothing can be said."""
    waiting_requests: str = ""
    kv_used_tokens: str = ""
    kv_used_ratio: str = ""
    """Gauge 0..1; an alternative to ``kv_used_tokens`` where ``kv_capacity_tokens`` is given."""
    kv_capacity_tokens: str = ""
    max_concurrent_requests: str = ""
    generated_tokens: str = ""
    """Counter, live."""
    first_tokens: str = ""
    """Counter of requests that produced their first token."""
    arrivals: str = ""
    """Counter of requests at the door."""
    prompt_tokens: str = ""
    """Counter: prompt tokens of finished requests."""
    preemptions: str = ""
    """Counter."""
    output_tokens_histogram: str = ""
    """Base name, without ``_bucket``: output tokens of finished requests."""
    queue_wait_seconds_histogram: str = ""
    first_token_seconds_histogram: str = ""

    def __post_init__(self) -> None:
        for item in fields(self):
            name = getattr(self, item.name)
            if name or item.name == "running_requests":
                metric_name(name, field=f"engine.metrics.{item.name}")

    @property
    def engine(self) -> str:
        """Tag of this vocabulary: the same names are the same engine, in this tick and the next."""
        names = "\n".join(getattr(self, item.name) for item in fields(self))
        return f"custom-{hashlib.sha256(names.encode()).hexdigest()[:12]}"


_SERIES: Final = (
    (Series.RUNNING, "running_requests"),
    (Series.WAITING, "waiting_requests"),
    (Series.KV_USED, "kv_used_tokens"),
    (Series.KV_USED_RATIO, "kv_used_ratio"),
    (Series.KV_CAPACITY, "kv_capacity_tokens"),
    (Series.MAX_CONCURRENT, "max_concurrent_requests"),
    (Series.GENERATED, "generated_tokens"),
    (Series.FIRST_TOKENS, "first_tokens"),
    (Series.ARRIVALS, "arrivals"),
    (Series.PROMPT_TOKENS, "prompt_tokens"),
    (Series.PREEMPTIONS, "preemptions"),
    (Series.OUTPUT_LENGTH, "output_tokens_histogram"),
    (Series.QUEUE_WAIT, "queue_wait_seconds_histogram"),
    (Series.FIRST_TOKEN_WAIT, "first_token_seconds_histogram"),
)


def parts(names: CustomNames, labels: LabelNames) -> tuple[Part, ...]:
    """The series that are named, and the age of the first."""
    pod = (labels.namespace, labels.pod)
    found = []
    for series, attribute in _SERIES:
        name = getattr(names, attribute)
        if name:
            found.append(_part(names.engine, series, name, labels))
    if names.output_tokens_histogram:
        total = histogram(names.output_tokens_histogram, "sum", pod)
        found.append(Part(names.engine, Series.FINISHED_TOKENS, total, object_label=labels.pod, native="sum"))
    age = aggregated("max", age_of(names.running_requests), pod)
    return (*found, Part(names.engine, Series.SAMPLE_AGE, age, object_label=labels.pod))


def query(names: CustomNames, labels: LabelNames) -> Query:
    """The one query that this vocabulary costs."""
    return joined(names.engine, parts(names, labels))


def _part(engine: str, series: Series, name: str, labels: LabelNames) -> Part:
    pod = (labels.namespace, labels.pod)
    if series in HISTOGRAMS:
        return Part(engine, series, histogram(name, "bucket", pod), object_label=labels.pod, native="bucket")
    # Never lazy: of an engine we do not know, an absent counter may as well be a misspelt one.
    operator = "avg" if series is Series.KV_USED_RATIO else "sum"
    return Part(engine, series, aggregated(operator, name, pod), object_label=labels.pod)
