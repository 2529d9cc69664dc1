"""What the model remembers of each service between ticks, and how rows follow services that come and go."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import numpy as np

from longtail.demand.arrivals import ArrivalState
from longtail.demand.attainment import AttainmentState
from longtail.demand.buckets import Array, Index, Mask
from longtail.demand.calibration import CalibrationState
from longtail.demand.capacity import CapacityState
from longtail.demand.cascade import CascadeState
from longtail.demand.departures import DepartureState
from longtail.demand.drift import DriftState
from longtail.demand.experts import EXPERTS, ExpertState
from longtail.demand.inflight import COHORTS, InFlight
from longtail.demand.ledger import Ledger
from longtail.demand.lengths import LengthState
from longtail.demand.startup import StartupState
from longtail.demand.thinking import ThinkingState

T = TypeVar("T")

FORECAST_NUMBERS = EXPERTS + 2
"""Roots kept of a forecast of one resource: the experts', the mixture, its upper value."""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """Gauges of the last tick and ratios that are smoothed. Shape (services,)."""

    running: Array
    running_fresh: Mask
    waiting: Array
    """Last known."""
    waiting_fresh: Mask
    busy_seconds: Array
    """Request-seconds in service, with forgetting; over `tokens` it is the time per output token."""
    tokens: Array
    kv_beyond_output: Array
    """KV tokens that are not output of requests in flight, with forgetting; over `prompts` it is the prompt's KV."""
    prompts: Array
    attained: Array
    """Tokens of requests in flight as engines count them, with forgetting; over `inferred` it checks the ages."""
    inferred: Array
    kv_per_replica: Array
    """KV cache of one replica in tokens, last known; 0 if never."""

    @classmethod
    def fresh(cls, services: int) -> "ServiceState":
        """Nothing seen."""
        zeros = np.zeros(services)
        nowhere = np.zeros(services, dtype=bool)
        return cls(zeros, nowhere, zeros, nowhere, *(zeros for _ in range(7)))


@dataclass(frozen=True, slots=True)
class FleetState:
    """Everything learned, one row a service in every array."""

    service: ServiceState
    flight: InFlight
    departures: DepartureState
    lengths: LengthState
    drift: DriftState
    arrivals: ArrivalState
    capacity: CapacityState
    startup: StartupState
    slots_experts: ExpertState
    kv_experts: ExpertState
    slots_calibration: CalibrationState
    kv_calibration: CalibrationState
    ledger: Ledger
    attainment: AttainmentState
    thinking: ThinkingState
    cascade: CascadeState

    @classmethod
    def fresh(cls, services: int) -> "FleetState":
        """Services never seen."""
        return cls(
            service=ServiceState.fresh(services),
            flight=InFlight.fresh(services),
            departures=DepartureState.fresh(services),
            lengths=LengthState.fresh(services),
            drift=DriftState.fresh(services),
            arrivals=ArrivalState.fresh(services),
            capacity=CapacityState.fresh(services),
            startup=StartupState.fresh(services),
            slots_experts=ExpertState.fresh(services),
            kv_experts=ExpertState.fresh(services),
            slots_calibration=CalibrationState.fresh(services),
            kv_calibration=CalibrationState.fresh(services),
            ledger=Ledger.fresh(services, 2 * FORECAST_NUMBERS),
            attainment=AttainmentState.fresh(services),
            thinking=ThinkingState.fresh(services),
            cascade=CascadeState.fresh(services),
        )


@dataclass(frozen=True, slots=True)
class Kept:
    """What had been learned about one service before requests began to wait (see `safekeeping`)."""

    queued_at: float
    """Unix seconds of the last tick with a queue."""
    parts: Mapping[str, Any]
    """Of `FleetState`, by name, one row of each."""
    starved: bool = False
    """The queue is one for want of replicas."""


@dataclass(frozen=True, slots=True)
class DemandMemory:
    """The fold's accumulator: never changed in place, so any older one can be continued from."""

    keys: tuple[Hashable, ...]
    now: float | None
    """Unix seconds of the last tick; None before the first."""
    width_seconds: Array
    """How long each cohort took to start, shape (`COHORTS`,): the same for all services."""
    state: FleetState
    kept: Mapping[Hashable, Kept] = field(default_factory=dict)
    """Of services whose requests wait."""

    @classmethod
    def empty(cls) -> "DemandMemory":
        """Before the first tick.

        >>> DemandMemory.empty().keys
        ()
        """
        return cls(keys=(), now=None, width_seconds=np.zeros(COHORTS), state=FleetState.fresh(0))

    def aligned(self, keys: Sequence[Hashable]) -> tuple[FleetState, Mask]:
        """State with one row per key in the order given, fresh for new ones, and which were known, (services,)."""
        wanted = tuple(keys)
        if wanted == self.keys:
            return self.state, np.ones(len(wanted), dtype=bool)
        row_of = {key: row for row, key in enumerate(self.keys)}
        rows = np.array([row_of.get(key, -1) for key in wanted], dtype=np.intp)
        return _carry_over(self.state, FleetState.fresh(len(wanted)), rows), rows >= 0


def _carry_over(old: T, fresh: T, rows: Index) -> T:
    """A state of ``len(rows)`` services: row ``rows[i]`` of the old state, or the fresh row where that is -1."""
    known = rows >= 0

    def moved(name: str) -> Any:
        before, after = getattr(old, name), getattr(fresh, name)
        if not isinstance(after, np.ndarray):
            return _carry_over(before, after, rows)
        result = after.copy()
        result[known] = before[rows[known]]
        return result

    return type(fresh)(**{field.name: moved(field.name) for field in fields(fresh)})  # type: ignore[arg-type]
