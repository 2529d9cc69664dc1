"""Which value of its one knob a policy should be tried at next.

A knob is a number on a short ascending grid, and cost rises or falls along it, rarely quite monotonely. The search
asks for a run, is told what it said, and ends when every target is bracketed by neighbouring runs that cost about
the same. The targets come in order of importance: the first gets the finer bracket. Six to nine runs do where a
dense grid would take thirty.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

CLOSE_ENOUGH = 0.03
"""Relative difference of cost between the two sides of a bracket that is not worth another run."""
STEP_RUNS = 3
"""Runs of the same cost on the side that reaches the target, after which a bracket is a step and not narrowed: Dynamo's
planners, whose knob is a time per token where every token takes the same time, cost 4.4 on one side, 0.1 on the other.
"""


@dataclass(frozen=True, slots=True)
class Tried:
    """A run, as far as the search cares."""

    knob: float
    attainment_percent: float
    cost: float


@dataclass(slots=True)
class Search:
    """Of one policy, trace and seed."""

    grid: Sequence[float]
    """Ascending."""
    targets_percent: Sequence[float]
    """The most important first."""
    start: Sequence[float] = ()
    """Values to try first; two of the grid unless given."""
    most_runs: int = 9
    tried: dict[float, Tried] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.grid = tuple(sorted(set(self.grid)))
        if not self.start:
            last = len(self.grid) - 1
            self.start = [self.grid[round(last / 3)], self.grid[round(2 * last / 3)]]

    def tell(self, tried: Tried) -> None:
        """A run has been made."""
        self.tried[tried.knob] = tried

    def next(self) -> float | None:
        """The value to try next; None when there is nothing worth another run."""
        for value in self.start:
            if value not in self.tried:
                return value
        if len(self.tried) >= self.most_runs:
            return None
        for rank, target in enumerate(self.targets_percent):
            towards = self._towards(target, fine=rank == 0)
            if towards is not None:
                return towards
        return None

    def _towards(self, target: float, *, fine: bool) -> float | None:
        runs = [self.tried[knob] for knob in sorted(self.tried)]
        if not self._dearer_upwards(runs):
            runs.reverse()
        # From the cheap end: the first run that reaches the target, and the one before it.
        place = next((place for place, run in enumerate(runs) if run.attainment_percent >= target), None)
        if place is None:
            return self._outwards(runs[-1].knob, runs[-2].knob if len(runs) > 1 else None)
        if place == 0:
            return self._outwards(runs[0].knob, runs[1].knob if len(runs) > 1 else None)
        return self._inwards(runs[place - 1], runs[place], fine=fine)

    def _dearer_upwards(self, runs: Sequence[Tried]) -> bool:
        """By the runs farthest apart; knobs of thresholds are dearer downwards, of quantiles upwards."""
        return runs[-1].cost >= runs[0].cost

    def _outwards(self, end: float, before: float | None) -> float | None:
        """Halfway from an end of the tried values to the end of the grid."""
        upwards = before is None or end > before
        beyond = [value for value in self.grid if (value > end if upwards else value < end)]
        if not beyond:
            return None
        ordered = beyond if upwards else beyond[::-1]
        return ordered[len(ordered) // 2]

    def _inwards(self, low: Tried, high: Tried, *, fine: bool) -> float | None:
        """The middle of the grid between two runs; without one, and for a fine bracket, their mean."""
        least, most = sorted((low.knob, high.knob))
        inside = [value for value in self.grid if least < value < most]
        close = abs(high.cost - low.cost) <= CLOSE_ENOUGH * high.cost
        step = sum(math.isclose(run.cost, high.cost, rel_tol=1e-9) for run in self.tried.values()) >= STEP_RUNS
        if close or step:
            return None
        if inside:
            return inside[len(inside) // 2]
        middle = _middle(least, most)
        spread = (most - least) / max(abs(most), 1e-9)
        return middle if fine and spread > 0.01 and middle not in self.tried else None


def _middle(low: float, high: float) -> float:
    """Geometric for factors, arithmetic for shares above a half, where 0.99 and 0.995 are far apart."""
    return round(math.sqrt(low * high) if high > 2 * low > 0 else (low + high) / 2, 6)
