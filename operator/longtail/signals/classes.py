"""How requests divide into classes, from LiteLLM's counters by a label that the user names.

Its counters carry the team, the key's alias, the user and, where the proxy is so configured, any field of a key's or
team's metadata. There is no histogram of output tokens, so of a class a mean is known and no distribution. What is
answered is counted when it ends. Answers are the count of the histogram of latencies, because it has the labels of the
token counters; the counter of requests has a series for each client's address too, and ``increase()`` does not see the
first value of a series.

How many requests a class sends may change in minutes, how long its answers are does not: rates are those of the last
ten minutes, lengths those of the last hour. Prometheus does the averaging, so that nothing is lost by a restart.

A label may have a value for each of ten thousand users. The `MOST` classes with most tokens are asked for one by one,
all others in one sum.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from longtail.demand.observation import CLASS_LENGTH_SECONDS, CLASS_RATE_SECONDS, OTHER, ClassCount
from longtail.signals.litellm import MODEL, OUTPUT, REASONING
from longtail.signals.promql import aggregated
from longtail.signals.samples import ObjectKey, Snapshot
from longtail.signals.vocabulary import Part, Query, Series, joined

MOST: Final = 16
"""Classes of a model that are told apart."""
_LATENCY: Final = "litellm_request_total_latency_metric"
_NAMELESS: Final = frozenset({"", "None", OTHER})
"""What stands in the label of a request that has no such thing: LiteLLM writes "None"."""
_RATE: Final = f"[{CLASS_RATE_SECONDS:.0f}s]"
_LENGTH: Final = f"[{CLASS_LENGTH_SECONDS:.0f}s]"


def _answers(window: str) -> tuple[str, ...]:
    """Counts of a classic histogram, or of the native one that a Prometheus may have made of it."""
    return f"increase({_LATENCY}_count{window})", f"histogram_count(increase({_LATENCY}{window}))"


_COUNTED: Final[Mapping[Series, Sequence[str]]] = {
    Series.CLASS_REQUESTS: _answers(_RATE),
    Series.CLASS_ANSWERS: _answers(_LENGTH),
    Series.CLASS_TOKENS: (f"increase({OUTPUT}{_LENGTH})",),
    Series.CLASS_REASONING: (f"increase({REASONING}{_LENGTH})",),
}
"""Alternatives of what is summed up."""


def engine(label: str) -> str:
    """Tag of the vocabulary of one label."""
    return f"litellm/{label}"


def _total(label: str) -> str:
    return f"litellm/{label}/all"


def query(label: str) -> Query:
    """One query for all models that are divided by this label."""
    return joined(f"classes-{label}", parts(label))


def parts(label: str) -> tuple[Part, ...]:
    """Increases by requested model and class for the largest classes, and by requested model for all."""
    by = (MODEL, label)
    largest = f"topk by ({MODEL}) ({MOST}, {_sum(Series.CLASS_TOKENS, by)})"
    found = []
    for series in _COUNTED:
        own = _sum(series, by)
        some = largest if series is Series.CLASS_TOKENS else f"({own} and on ({MODEL}, {label}) {largest})"
        found.append(Part(engine(label), series, some, object_label=MODEL, rank_label=label))
        found.append(Part(_total(label), series, _sum(series, (MODEL,)), object_label=MODEL))
    return tuple(found)


def _sum(series: Series, by: Sequence[str]) -> str:
    alternatives = " or ".join(aggregated("sum", each, by) for each in _COUNTED[series])
    return alternatives if len(_COUNTED[series]) == 1 else f"({alternatives})"


def counts(snapshot: Snapshot, *, label: str, model: str) -> tuple[ClassCount, ...]:
    """The classes of a model, the one with most tokens first, and last what is left of all; empty where unknown."""
    place = ObjectKey("", model)
    total = [snapshot.level(_total(label), series, place) for series in _COUNTED]
    by_class = [snapshot.ranks(engine(label), series, place) for series in _COUNTED]
    tokens = by_class[list(_COUNTED).index(Series.CLASS_TOKENS)]
    if total[0] is None or not tokens:
        return ()
    found = [ClassCount(name, *(each.get(name, 0.0) for each in by_class)) for name in tokens if name not in _NAMELESS]
    found.sort(key=lambda each: (-each.output_tokens, each.name))
    told = zip(*((c.requests, c.answers, c.output_tokens, c.reasoning_tokens) for c in found), strict=True)
    sums = [sum(each) for each in told] or [0.0] * len(total)
    # Sums in another order differ by rounding.
    rest = [max((whole or 0.0) - part, 0.0) for whole, part in zip(total, sums, strict=True)]
    return (*found, ClassCount("", *rest))
