"""The result of a simulation. Values only."""

from dataclasses import asdict, dataclass
from typing import Any

from longtail.workbench.traces.trace import Floats


@dataclass(frozen=True, slots=True)
class GpuHours:
    """GPU-hours by what the replicas did. A pod that waits for a GPU costs nothing."""

    serving: float
    """Ready and taking requests."""
    starting: float
    """From the GPU to ready."""
    draining: float
    """Ready, taking nothing new: cordoned or being deleted."""

    @property
    def total(self) -> float:
        """All that is paid for."""
        return self.serving + self.starting + self.draining


@dataclass(frozen=True, slots=True)
class Waits:
    """How long requests waited for a slot, of every attempt that began (or waits in vain at the end)."""

    p50_seconds: float
    p95_seconds: float
    p99_seconds: float
    """Quantiles within 0.5 %, from a histogram."""
    max_seconds: float
    requests: int


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """What there was, by bins of equal length, at most `accounts.TIMELINE_BINS` of them. Shape (bins,) each."""

    at_seconds: Floats
    """Start of the bin."""
    demand: Floats
    """Most requests running or waiting at a tick of the bin."""
    waiting: Floats
    """Most requests waiting at a tick of the bin."""
    serving: Floats
    """Replicas, mean over the bin; so the next three."""
    starting: Floats
    """Those that wait for a GPU included."""
    draining: Floats
    desired: Floats
    """Serving replicas that the policy wanted."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What a policy made of some requests, from ``measured_from_seconds`` on."""

    requests: str
    """Name of the trace."""
    policy: str
    seed: int
    measured_seconds: float
    attainment: float
    """Share of requests that waited at most the objective, 0..1; 1 when there was none."""
    objective_seconds: float
    waits: Waits
    gpu_hours: GpuHours
    arrived_requests: int
    finished_requests: int
    killed_requests: int
    """Attempts that ended with their pod and were sent again."""
    wasted_tokens: float
    """Output tokens that they had written."""
    scaling_actions: int
    """Changes of the number of serving replicas that the policy asked for."""
    direction_changes: int
    """Of these, the ones in the other direction than the one before."""
    unscheduled_hours: float
    """Hours of pods that waited for a GPU, all together."""
    timeline: Timeline

    def as_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists of them only: what JSON can hold."""
        values = asdict(self)
        values["gpu_hours"]["total"] = self.gpu_hours.total
        values["timeline"] = {name: column.tolist() for name, column in values["timeline"].items()}
        return values
