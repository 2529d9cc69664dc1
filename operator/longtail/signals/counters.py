"""Raw counters of two successive snapshots, differenced per pod.

Why not PromQL's ``increase()``: it extrapolates, it loses the first value of a new series (a visible
share of few long requests), and its window is not the interval between our ticks. Raw values are exact,
and what happened between two looks is their difference, with three cases to tell apart:

* *A restart.* If any counter of a process went back, all of them began again, also those that by now have
  passed their former value: of (generated 100, finished 90) then (150, 10), the increase of generated is
  150, not 50.
* *A first sight.* The value counts in full if the counter is known to have begun since the last look: the
  pod became ready since, or it reported then and the engine creates the counter with its first event.
  Otherwise the value is a history we did not see; counting it would read a day's tokens as a quarter
  minute's.
* *A gap.* A pod or a query without an answer at the last look has no increase now: one over a longer time
  than ``interval_seconds`` would read as a burst.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TypeAlias

from longtail.signals.samples import WHOLE, ObjectKey, SeriesKey, Snapshot
from longtail.signals.vocabulary import HISTOGRAMS, Series

Cumulative: TypeAlias = dict[float, float]
"""Counts by ``le``."""
Process: TypeAlias = tuple[str, ObjectKey, str]
"""Engine, pod and rank: what restarts as one."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the increases of the next snapshot are taken against."""

    snapshot: Snapshot
    """The last one in which any counter was answered."""


@dataclass(frozen=True, slots=True)
class Increases:
    """What happened since the baseline."""

    interval_seconds: float = 0.0
    """0 when there is no baseline."""
    by_pod: Mapping[SeriesKey, Mapping[ObjectKey, Cumulative]] = field(default_factory=dict)
    """Increase by ``le``, summed over ranks. A pod that is not in it is unknown, unless it is gone."""

    def of(self, engine: str, series: Series, pod: ObjectKey) -> Cumulative | None:
        """Increase of one pod; None where unknown."""
        return self.by_pod.get(SeriesKey(engine, series), {}).get(pod)


def advance(
    baseline: Baseline | None,
    snapshot: Snapshot,
    *,
    began_at: Mapping[ObjectKey, float],
    lazy: AbstractSet[SeriesKey],
    unseen_seconds: float = 0.0,
) -> tuple[Increases, Baseline | None]:
    """Increases since the baseline, and the next baseline.

    Args:
        baseline: what was last seen; None at first.
        snapshot: what is seen now.
        began_at: Unix seconds since which a pod can have served; ``inf`` for one that never could.
        lazy: series that their engine creates with the first event.
        unseen_seconds: how long a new pod may serve before its first scrape.
    """
    if not snapshot.counters:  # no counter was answered: an outage is one long interval
        return Increases(), baseline
    after = Baseline(snapshot)
    if baseline is None or snapshot.at_seconds <= baseline.snapshot.at_seconds:
        return Increases(), after
    before = baseline.snapshot
    restarted = _restarted(before, snapshot)
    by_pod: dict[SeriesKey, dict[ObjectKey, Cumulative]] = {}
    for key, pods in snapshot.counters.items():
        if key not in before.answered:
            continue
        found = by_pod[key] = {}
        for pod, ranks in pods.items():
            if (key, pod) in snapshot.damaged or (key, pod) in before.damaged:
                continue
            began = began_at.get(pod, 0.0) > before.at_seconds - unseen_seconds
            past = before.counters.get(key, {}).get(pod)
            if past is None and not began and not _reported(before, key, pod):
                continue
            found[pod] = _difference(past or {}, ranks, {r for r in ranks if (key.engine, pod, r) in restarted})
        if key in lazy and snapshot.answered[key] and key.series not in HISTOGRAMS:
            _add_zeros(found, key, snapshot)
    return Increases(snapshot.at_seconds - before.at_seconds, by_pod), after


def _restarted(before: Snapshot, now: Snapshot) -> set[Process]:
    processes: set[Process] = set()
    for key, pods in now.counters.items():
        past_pods = before.counters.get(key)
        if not past_pods:
            continue
        for pod, ranks in pods.items():
            past_ranks = past_pods.get(pod)
            if not past_ranks:
                continue
            for rank, counts in ranks.items():
                past = past_ranks.get(rank)
                if past and any(value < past.get(bound, 0.0) for bound, value in counts.items()):
                    processes.add((key.engine, pod, rank))
    return processes


def _reported(before: Snapshot, key: SeriesKey, pod: ObjectKey) -> bool:
    """True when the pod reported at the last look and the counter was surely not there."""
    return before.answered.get(key, False) and pod in before.levels.get(SeriesKey(key.engine, Series.RUNNING), {})


def _difference(
    past: Mapping[str, Cumulative], now: Mapping[str, Cumulative], restarted: AbstractSet[str]
) -> Cumulative:
    total: Cumulative = {}
    for rank, counts in now.items():
        base = {} if rank in restarted else past.get(rank, {})
        for bound, value in counts.items():
            total[bound] = total.get(bound, 0.0) + value - _cumulative(base, bound)
    return total


def _cumulative(counts: Cumulative, bound: float) -> float:
    """The count up to a bound. One that a sparse histogram did not have yet was as high as its lower neighbour."""
    if bound in counts:
        return counts[bound]
    return max((value for lower, value in counts.items() if lower < bound), default=0.0)


def _add_zeros(found: dict[ObjectKey, Cumulative], key: SeriesKey, snapshot: Snapshot) -> None:
    present = snapshot.counters[key]
    for pod in snapshot.levels.get(SeriesKey(key.engine, Series.RUNNING), {}):
        if pod not in present and (key, pod) not in snapshot.damaged:
            found[pod] = {WHOLE: 0.0}
