"""Persistence with a conformal upper quantile: the demand in a cold start from now is the demand of now.

The strongest of the simple baselines: on request arrivals nothing beats "as now" by much at horizons of
minutes, and calibrated errors give it the right headroom without tuning.
"""

from dataclasses import dataclass, replace
from typing import Self

from longtail.workbench.peers.conformal import ConformalMemory, Sizing, demand_now, sized
from longtail.workbench.peers.view import PeerView


@dataclass(frozen=True, slots=True)
class Persistence:
    """Point forecast: running plus waiting requests."""

    sizing: Sizing
    name: str = "persistence-conformal"
    knob: str = "quantile of demand (0..1)"
    period_seconds: float = 15.0

    def tuned(self, value: float) -> Self:
        """The same policy at another quantile."""
        return replace(self, sizing=replace(self.sizing, quantile=value))

    def initial(self) -> ConformalMemory:
        """Prior errors only."""
        return ConformalMemory()

    def decide(self, *, seen: PeerView, memory: ConformalMemory, now: float) -> tuple[int, ConformalMemory]:
        """Without an answer from the pods, hold."""
        demand = demand_now(seen)
        if demand is None:
            return seen.spec_replicas, memory
        return sized(demand, point=demand, sizing=self.sizing, memory=memory, now=now)
