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
    asked: Floats
    """Requests that were asked for the first time in the bin. This and the next two: only of clients that give up."""
    answered: Floats
    """Of these, the ones that were answered, however often they had to be asked."""
    answered_first: Floats
    """Of these, the ones that had to be asked once."""
    thinking_tokens: Floats
    """Most tokens that a request might think, as of the end of the bin; -1: no limit."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What clients got. Where nobody gives up, everybody is answered at the first attempt."""

    answered: int
    """Requests that were answered, in time where clients give up."""
    answered_first: int
    """Of these, the ones that had to be asked once."""
    given_up: int
    """Requests that nobody asks again."""
    retries: int
    aborted_requests: int
    """Attempts that were given up while they ran."""
    expired_requests: int
    """Attempts that were given up while they waited."""
    turned_away: int
    """Attempts that found the queue full."""
    aborted_tokens: float
    """Output tokens that were written for nobody."""
    capped_requests: int
    """Requests that were made shorter by a limit of thinking: of those that arrived, or, where clients give up, of
    those that were answered."""
    cut_tokens: int
    """By how much, all together."""
    level_changes: int
    """Changes of the limit."""


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
    answers: Answers
    timeline: Timeline

    @property
    def goodput(self) -> float:
        """Requests that were answered (in time, where clients give up) per GPU-hour; 0 without any."""
        return self.answers.answered / self.gpu_hours.total if self.gpu_hours.total > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists of them only: what JSON can hold."""
        values = asdict(self)
        values["gpu_hours"]["total"] = self.gpu_hours.total
        values["timeline"] = {name: column.tolist() for name, column in values["timeline"].items()}
        return values
