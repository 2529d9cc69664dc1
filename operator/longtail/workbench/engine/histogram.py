"""A classic Prometheus histogram that can take a whole run of steps at once."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from longtail.workbench.engine.request import StepRun


class Histogram:
    """Counts per bucket and the sum of what was observed. ``bounds`` ascend; +Inf is implied."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(float(bound) for bound in bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, *, count: int = 1) -> None:
        """Add ``count`` observations of one value."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += value * count

    def observe_run(self, run: StepRun) -> None:
        """Add one observation per step and request that had a token before it: its gap is the step's time.

        >>> h = Histogram([0.02, 0.03])
        >>> run = StepRun(
        ...     steps=3, batch=2, fresh=0, prefill_tokens=0, first_seconds=0.015, growth_seconds=0.01
        ... )
        >>> h.observe_run(run)  # steps of 15, 25 and 35 ms, two requests in each
        >>> h.counts
        [2, 2, 2]
        """
        weight = run.batch - run.fresh
        if weight == 0:
            return
        last_seconds = run.first_seconds + run.growth_seconds * (run.steps - 1)
        low, high = bisect_left(self.bounds, run.first_seconds), bisect_left(self.bounds, last_seconds)
        booked = 0
        for bucket in range(low, high):
            reach = math.floor((self.bounds[bucket] - run.first_seconds) / run.growth_seconds) + 1
            upto = min(run.steps, max(booked, reach))
            self.counts[bucket] += weight * (upto - booked)
            booked = upto
        self.counts[high] += weight * (run.steps - booked)
        pairs = run.steps * (run.steps - 1) // 2
        self.sum += weight * (run.steps * run.first_seconds + run.growth_seconds * pairs)

    def copy(self) -> "Histogram":
        """An independent copy."""
        twin = Histogram(())
        twin.bounds, twin.counts, twin.sum = self.bounds, list(self.counts), self.sum
        return twin

    def samples(self) -> list[float]:
        """Values in the order of the text format: cumulative buckets, count, sum."""
        cumulative = list(accumulate(self.counts))
        return [*cumulative, cumulative[-1], self.sum]
