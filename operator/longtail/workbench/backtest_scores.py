"""What a backtest comes to: GPU-hours, time short of slots, expected waits and turns of each pool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from longtail.workbench.fluid import Interval, Pool
from longtail.workbench.traces.trace import Floats

WARM_UP_SHARE = 0.1
WARM_UP_SECONDS = 6 * 3600.0
"""What is replayed and not scored at the start: the smaller of the two."""


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate over the scored part of the recording."""

    name: str
    gpu_hours: float
    under_capacity_percent: float
    """Share of the time in which more requests were there than slots."""
    attainment_percent: float
    """Share of the requests that could expect to wait no longer than the objective."""
    mean_wait_seconds: float
    p99_wait_seconds: float
    direction_changes: int
    scaling_actions: int
    cut_requests: float
    """Requests whose replica was removed under them."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the resource that differ from the base, by path."""


class Scores:
    """What each pool cost and served over the part of the recording that counts."""

    def __init__(self, load: Sequence[Interval], *, partial: Sequence[bool], objective_seconds: float) -> None:
        """Count the intervals of ``load`` after the warm-up that are known whole: not ``partial``."""
        self.objective_seconds = objective_seconds
        span = load[-1].at_seconds - load[0].at_seconds
        scored_from = load[0].at_seconds + min(WARM_UP_SHARE * span, WARM_UP_SECONDS)
        self._after = np.array([one.at_seconds > scored_from for one in load])
        self._scored = self._after & np.array([one.known for one in load])
        self._scored &= ~np.array(partial)
        self._seconds = np.array([one.seconds for one in load])
        self._columns: dict[str, Floats] = {}
        self._cut: dict[str, tuple[float, float]] = {}
        self._length = len(load)

    @property
    def names(self) -> list[str]:
        """Of the pools so far, in the order in which they came."""
        return list(self._columns)

    @property
    def hours(self) -> float:
        """Hours that count."""
        return float(self._seconds[self._scored].sum() / 3600)

    @property
    def unknown_percent(self) -> float:
        """Share of the time after the warm-up that does not count, because a part of the data is missing."""
        after = float(self._seconds[self._after].sum())
        return 100.0 * (1 - 3600 * self.hours / after) if after else 100.0

    def add(self, name: str, number: int, pool: Pool) -> None:
        """Note a pool as it is after interval ``number``."""
        if name not in self._columns:
            # Replicas paid, replicas serving, short of slots, arrivals, wait.
            self._columns[name] = np.zeros((self._length, 5))
            self._cut[name] = (pool.cut_requests, pool.cut_requests)
        short = float(pool.requests > pool.capacity * (1 + 1e-9))
        self._columns[name][number] = (pool.paid, pool.serving, short, pool.arrived, pool.wait_seconds)
        begin, _ = self._cut[name]
        self._cut[name] = (begin if self._after[number] else pool.cut_requests, pool.cut_requests)

    def row(self, name: str, gpus_per_replica: float, changes: Mapping[str, Any]) -> Row:
        """The figures of one pool."""
        paid, serving, short, arrived, wait = self._columns[name].T
        seconds = np.where(self._scored, self._seconds, 0.0)
        arrivals = np.where(self._scored, arrived, 0.0)
        moves = np.diff(serving[self._after])
        moves = np.sign(moves[moves != 0])
        begin, end = self._cut[name]
        return Row(
            name=name,
            gpu_hours=float((paid * seconds).sum() / 3600 * gpus_per_replica),
            under_capacity_percent=100 * _mean(short, seconds),
            attainment_percent=100 * _mean((wait <= self.objective_seconds).astype(float), arrivals, empty=1.0),
            mean_wait_seconds=_mean(wait, arrivals),
            p99_wait_seconds=_quantile(wait, arrivals, 0.99),
            direction_changes=int((moves[1:] != moves[:-1]).sum()),
            scaling_actions=len(moves),
            cut_requests=end - begin,
            changes=changes,
        )


def _mean(values: Floats, weights: Floats, *, empty: float = 0.0) -> float:
    total = float(weights.sum())
    return float((values * weights).sum() / total) if total else empty


def _quantile(values: Floats, weights: Floats, q: float) -> float:
    """The value that a share ``q`` of the weight does not exceed.

    >>> _quantile(np.array([0.0, 5.0, 50.0]), np.array([90.0, 9.0, 1.0]), 0.99)
    5.0
    """
    if not weights.sum():
        return 0.0
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    return float(values[order][min(int(np.searchsorted(below, q * below[-1] - 1e-9)), len(values) - 1)])
