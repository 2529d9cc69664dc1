"""Point forecasts turned into replicas: the upper quantile of demand, in replicas, held for one horizon.

Shared by the baseline "tomorrow is like today" and by the oracle of the rate, so that nothing but the point
forecast differs between them; the conformal layer is the operator's own, ``demand.calibration``, for the same
reason. Demand is requests running plus waiting.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from longtail.demand.calibration import CalibrationState, learn, margin
from longtail.workbench.peers.view import PeerView, total


@dataclass(frozen=True, slots=True)
class Forecast:
    """A forecast that waits to be judged: square roots of demand + 1/4, point and upper."""

    due: float
    point: float
    upper: float


@dataclass(frozen=True, slots=True, eq=False)
class ConformalMemory:
    """Errors so far, forecasts not yet due, and wishes of the last horizon."""

    scores: CalibrationState = field(default_factory=lambda: CalibrationState.fresh(1))
    open: tuple[Forecast, ...] = ()
    wishes: tuple[tuple[float, int], ...] = ()
    last: float | None = None


@dataclass(frozen=True, slots=True)
class Sizing:
    """How demand becomes replicas."""

    slots_per_replica: float
    """Concurrent requests of one replica at the target speed. > 0."""
    horizon_seconds: float = 180.0
    """One cold start."""
    quantile: float = 0.95
    min_replicas: int = 1
    max_replicas: int = 10

    def __post_init__(self) -> None:
        if not self.slots_per_replica > 0:
            raise ValueError(f"Sizing: slots_per_replica must be > 0, got {self.slots_per_replica!r}")
        if not 0.5 <= self.quantile <= 0.999:
            raise ValueError(f"Sizing: quantile must be within [0.5, 0.999], got {self.quantile!r}")

    def replicas(self, demand: float) -> int:
        """Enough for ``demand`` requests at once, within the bounds."""
        wanted = math.ceil(demand / self.slots_per_replica)
        return max(self.min_replicas, min(self.max_replicas, wanted))


def demand_now(seen: PeerView) -> float | None:
    """Running plus waiting everywhere; None when no pod answered."""
    if not seen.metrics_reachable:
        return None
    running, waiting = total(seen, "running_requests"), total(seen, "waiting_requests")
    if running is None or waiting is None:
        return None
    return running + waiting + (seen.gateway_waiting_requests or 0.0)


def sized(
    demand: float, *, point: float, sizing: Sizing, memory: ConformalMemory, now: float
) -> tuple[int, ConformalMemory]:
    """Replicas for the upper quantile of the demand one horizon ahead.

    A wish stands for one horizon: it was an upper value for any time up to then.
    """
    memory = _judged(memory, demand=demand, sizing=sizing, now=now)
    above = float(margin(memory.scores, quantile=np.array([sizing.quantile]))[0])
    root = math.sqrt(max(0.0, point) + 0.25)
    upper = max(0.0, root + above)
    wish = sizing.replicas(max(upper**2 - 0.25, demand))
    kept = tuple(w for w in memory.wishes if w[0] > now - sizing.horizon_seconds)
    wishes = (*kept, (now, wish))
    opened = (*memory.open, Forecast(now + sizing.horizon_seconds, root, upper))
    return max(w for _, w in wishes), replace(memory, open=opened, wishes=wishes, last=now)


def _judged(memory: ConformalMemory, *, demand: float, sizing: Sizing, now: float) -> ConformalMemory:
    """Learn from the forecast that is due, at most one per view; older ones were missed and teach nothing."""
    due = [forecast for forecast in memory.open if forecast.due <= now]
    if not due:
        return memory
    latest = due[-1]
    scores = learn(
        memory.scores,
        realised=np.array([math.sqrt(demand + 0.25)]),
        point=np.array([latest.point]),
        upper=np.array([latest.upper]),
        quantile=np.array([sizing.quantile]),
        judged=np.array([True]),
        elapsed_seconds=0.0 if memory.last is None else now - memory.last,
    )
    return replace(memory, scores=scores, open=memory.open[len(due) :])
