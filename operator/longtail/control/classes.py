"""What each class of requests takes, told: in status rounded, on /metrics as it is."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from longtail.api.status import ClassStatus
from longtail.cluster.status import quantise
from longtail.control.costs import significant
from longtail.control.outcome import Outcome
from longtail.demand.estimate import ClassDemand
from longtail.demand.observation import OTHER

_LABELS: Final = ("namespace", "name", "class")
_FIGURES: Final[Sequence[tuple[str, str, Callable[[ClassDemand], float | None]]]] = (
    (
        "longtail_class_requests_per_second",
        "Requests of the class that were answered in the last ten minutes, as the gateway counts them.",
        lambda each: each.requests_per_second,
    ),
    (
        "longtail_class_mean_output_tokens",
        "Estimated mean length of an answer to the class, reasoning included.",
        lambda each: each.mean_tokens,
    ),
    (
        "longtail_class_reasoning_ratio",
        "Share of the class's output that is reasoning, 0 to 1; no series where the engine does not tell.",
        lambda each: each.reasoning_share,
    ),
    (
        "longtail_class_work_ratio",
        "Share of the slots in use that the class's requests hold, 0 to 1; the classes of a service add up to 1.",
        lambda each: each.work_share,
    ),
)
_MOST_LETTERS: Final = 63


def class_status(outcome: Outcome) -> tuple[ClassStatus, ...] | None:
    """Return the classes of a service for its status, largest first, the rest last; None where they are not known."""
    classes = _classes(outcome)
    if not classes:
        return None
    percents = whole_percents([each.work_share for each in classes])
    return tuple(
        ClassStatus(
            name=_name(each)[:_MOST_LETTERS],
            requests_per_second=significant(round(each.requests_per_second, 6)),
            mean_tokens=quantise(each.mean_tokens) or 0,
            reasoning_percent=None if each.reasoning_share is None else round(100 * each.reasoning_share),
            work_percent=percent,
        )
        for each, percent in zip(classes, percents, strict=True)
    )


def class_families(outcomes: Collection[Outcome]) -> Iterator[Metric]:
    """Return a gauge for each figure of each class."""
    known = [(outcome.view.record.key, each) for outcome in outcomes for each in _classes(outcome)]
    for name, text, read in _FIGURES:
        family = GaugeMetricFamily(name, text, labels=_LABELS)
        for key, each in known:
            value = read(each)
            if value is not None:
                family.add_metric([*key, _name(each)], value)
        yield family
    yield _levels(outcomes)


def _levels(outcomes: Collection[Outcome]) -> Metric:
    family = GaugeMetricFamily(
        "longtail_class_effort_level",
        "Index of the level of effort of the class in spec.effort.levels; 0 is the usual.",
        labels=_LABELS,
    )
    for outcome in outcomes:
        effort = outcome.decision.effort if outcome.decision is not None else None
        for name, index in (effort.classes if effort is not None else {}).items():
            family.add_metric([*outcome.view.record.key, name], float(index))
    return family


def whole_percents(shares: Sequence[float]) -> list[int]:
    """Percents that add up to 100 like the shares to 1: what rounding down leaves over goes to the largest remainders.

    >>> whole_percents([1 / 3, 1 / 3, 1 / 3])
    [34, 33, 33]
    """
    exact = [100 * share for share in shares]
    percents = [int(each) for each in exact]
    behind = sorted(range(len(exact)), key=lambda at: percents[at] - exact[at])
    for at in behind[: round(sum(exact)) - sum(percents)]:
        percents[at] += 1
    return percents


def _classes(outcome: Outcome) -> Sequence[ClassDemand]:
    demand = outcome.decision.demand if outcome.decision is not None else None
    return () if demand is None else demand.classes


def _name(each: ClassDemand) -> str:
    return each.name or OTHER
