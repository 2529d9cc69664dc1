"""Oracles: policies that are told the truth about the future, to split the cost of not knowing it.

They still pay cold starts, whole replicas and drains. From the bound to the oracle of arrivals is the price
of these; from there to the oracle of the rate the price of chance (Poisson arrivals, lengths); from there
to a real policy the price of its forecast.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from longtail.workbench.peers.conformal import ConformalMemory, Sizing, demand_now, sized
from longtail.workbench.peers.view import PeerView

Floats = npt.NDArray[np.float64]
GRID = 33
"""Points on the horizon where the expected demand is computed: every 5.6 s of 180 s."""


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """All arrivals of a trace, and what they do to a pool that never makes anybody wait.

    Built by ``Truth.of``. Times are Unix seconds, as ``now`` is.
    """

    arrivals: Floats
    """Ascending, shape (requests,)."""
    slot_seconds: Floats
    """Ascending lengths of stay in a slot, shape (requests,): the distribution, not in order of arrival."""
    event_times: Floats
    in_flight: Floats
    """Requests in flight from each event time on, shape (2 · requests,)."""

    @classmethod
    def of(cls, *, arrivals: Floats, slot_seconds: Floats) -> "Truth":
        """From each request's arrival and its stay in a slot at the target speed, both shape (requests,).

        Raises:
            ValueError: shapes differ, a value is not finite, a stay is negative, or arrivals do not ascend.
        """
        if arrivals.shape != slot_seconds.shape or arrivals.ndim != 1 or not len(arrivals):
            raise ValueError(
                f"Truth: arrivals and slot_seconds must be equally long and not empty, "
                f"got shapes {arrivals.shape} and {slot_seconds.shape}"
            )
        if not (np.isfinite(arrivals).all() and np.isfinite(slot_seconds).all()):
            raise ValueError("Truth: arrivals and slot_seconds must be finite")
        if (np.diff(arrivals) < 0).any() or (slot_seconds < 0).any():
            raise ValueError("Truth: arrivals must ascend and slot_seconds must be >= 0")
        times = np.concatenate([arrivals, arrivals + slot_seconds])
        change = np.concatenate([np.ones(len(arrivals)), -np.ones(len(arrivals))])
        order = np.lexsort((change, times))  # at equal times, leave first
        return cls(arrivals, np.sort(slot_seconds), times[order], np.cumsum(change[order]))

    def peak(self, *, start: float, end: float) -> float:
        """Most requests in flight at any time of [start, end]."""
        first = int(np.searchsorted(self.event_times, start, side="right"))
        last = int(np.searchsorted(self.event_times, end, side="right"))
        before = self.in_flight[first - 1] if first else 0.0
        return float(max(before, self.in_flight[first:last].max(initial=0.0)))

    def rate(self, at: float, *, bin_seconds: float) -> float:
        """Mean arrivals per second in the bin that holds ``at``; bins start at the first arrival."""
        start = self.arrivals[0] + np.floor((at - self.arrivals[0]) / bin_seconds) * bin_seconds
        inside = np.searchsorted(self.arrivals, [start, start + bin_seconds])
        return float(inside[1] - inside[0]) / bin_seconds

    def survival(self, ages: Floats) -> Floats:
        """Share of requests that stay longer than each age in seconds; shape of ``ages``."""
        below = np.searchsorted(self.slot_seconds, ages, side="right")
        return 1.0 - below / len(self.slot_seconds)


@dataclass(frozen=True, slots=True)
class ArrivalsOracle:
    """Knows every arrival and length: as many replicas as will be needed at any time of the next cold start.

    For a pool without waiting this is the cheapest plan there is: a level that will be needed again within a
    cold start is cheaper kept than started anew, one that will not is cheaper stopped. What waits now, for
    whatever reason, is served too. The knob is the share of the peak that is provided for.
    """

    truth: Truth
    sizing: Sizing
    share: float = 1.0
    name: str = "oracle-arrivals"
    knob: str = "share of the coming peak (ratio)"
    period_seconds: float = 15.0

    def tuned(self, value: float) -> Self:
        """The same oracle providing for another share."""
        return replace(self, share=value)

    def initial(self) -> None:
        """Nothing has to be remembered by who knows everything."""
        return

    def decide(self, *, seen: PeerView, memory: None, now: float) -> tuple[int, None]:
        """The coming peak, and at least the demand of now. One period more, because the next look is then."""
        del memory
        until = now + self.sizing.horizon_seconds + self.period_seconds
        peak = self.truth.peak(start=now, end=until) * self.share
        return self.sizing.replicas(max(peak, (demand_now(seen) or 0.0) * self.share)), None


@dataclass(frozen=True, slots=True)
class RateOracle:
    """Knows the mean rate of the present and the coming ten minutes, and the distribution of stays.

    Expected demand after h seconds: what is here and stays on (in equilibrium, 1 - ∫₀ʰ S / E[S]), and what
    arrives and is still here, ∫₀ʰ λ(now + h - u) S(u) du. The conformal layer adds the rest.
    """

    truth: Truth
    sizing: Sizing
    bin_seconds: float = 600.0
    name: str = "oracle-rate"
    knob: str = "quantile of demand (0..1)"
    period_seconds: float = 15.0

    def tuned(self, value: float) -> Self:
        """The same oracle at another quantile."""
        return replace(self, sizing=replace(self.sizing, quantile=value))

    def initial(self) -> ConformalMemory:
        """Prior errors only."""
        return ConformalMemory()

    def decide(self, *, seen: PeerView, memory: ConformalMemory, now: float) -> tuple[int, ConformalMemory]:
        """Without an answer from the pods, hold."""
        demand = demand_now(seen)
        if demand is None:
            return seen.spec_replicas, memory
        point = self.expected(demand, now=now)
        return sized(demand, point=point, sizing=self.sizing, memory=memory, now=now)

    def expected(self, demand: float, *, now: float) -> float:
        """Expected demand one horizon after ``now``."""
        ages = np.linspace(0.0, self.sizing.horizon_seconds, GRID)
        survival = self.truth.survival(ages)
        step = ages[1] - ages[0]
        rates = np.array(
            [self.truth.rate(now + self.sizing.horizon_seconds - age, bin_seconds=self.bin_seconds) for age in ages]
        )
        weights = np.full(GRID, step)
        weights[[0, -1]] = step / 2  # trapezoid
        mean_stay = float(self.truth.slot_seconds.mean())
        gone = float(survival @ weights) / mean_stay if mean_stay > 0 else 1.0
        return demand * max(0.0, 1.0 - gone) + float((rates * survival) @ weights)
