"""What one tick leaves to the next. Everything here can be rebuilt by replaying the last hours."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from longtail.demand.memory import DemandMemory
from longtail.policy.behavior import Recommendation, ScaleEvent
from longtail.policy.decision import Effort, Shortage
from longtail.policy.fleet import Behavior, ServiceKey
from longtail.policy.idle_gaps import IdleClock
from longtail.policy.idleness import IdleSamples
from longtail.policy.stages import ClassMemory


@dataclass(frozen=True, slots=True)
class ForeignWrite:
    """Somebody else set the number."""

    name: str
    """Field manager."""
    replicas: int
    at: float
    """When, or when it was first seen, Unix seconds."""


@dataclass(frozen=True, slots=True)
class RanOut:
    """More replicas were needed than could be had."""

    replicas: int
    """Those that could."""
    at: float
    """When that was last so, Unix seconds."""


@dataclass(frozen=True, slots=True)
class ServiceMemory:
    """What is remembered of one service."""

    recommendations: tuple[Recommendation, ...] = ()
    """Proposals before stabilisation, oldest first, as far back as the longer window."""
    events: tuple[ScaleEvent, ...] = ()
    """Changes that were carried out, oldest first, as far back as the longest period of a policy."""
    decided_at: float | None = None
    """Time of the last decision; None before the first."""
    current: int = 0
    """Replicas that served at the last decision."""
    desired: int = 0
    """What the last decision asked for."""
    watched_since: float | None = None
    """Since when the service has been seen without a gap; None when it is not seen now."""
    watched_at: float | None = None
    """When it was last seen."""
    reported_at: Mapping[str, float] = field(default_factory=dict)
    """When each optional signal was last fresh: one that was there and is gone is not one that never was."""
    known_pods: frozenset[str] = frozenset()
    """Pods whose first readiness has been learned from, or lies before the first sight of the service."""
    idle: Mapping[str, IdleSamples] = field(default_factory=dict)
    """Pods that were empty in their last samples: two in a row prove it (see `idleness`)."""
    spared_until: Mapping[str, float] = field(default_factory=dict)
    """Pods whose drain took too long: they are not chosen again before this time."""
    met: bool = False
    """False at the first sight of the service."""
    blind_since: float | None = None
    """Since when running or waiting requests have not been known; None when they are."""
    start_seconds: float | None = None
    """P90 of the cold start at the last tick: how long a start is given before it counts as not coming."""
    shortage: Shortage | None = None
    """The last time that capacity could not be had; None once some came."""
    ran_out: RanOut | None = None
    """Of a variant: how many could be had when capacity was short last; None once there were more, or after a day."""
    effort: Effort | None = None
    """The level of thinking that was chosen last."""
    classes: ClassMemory = field(default_factory=ClassMemory)
    """How the work divides among classes of requests."""
    idle_clock: IdleClock = field(default_factory=IdleClock)
    """How long there has been no work, and how long it was before (for pools that may sleep)."""
    foreign_writes: tuple[ForeignWrite, ...] = ()
    """Who else set the number lately, oldest first."""
    number_set: tuple[str, int] | None = None
    """Who had set which number at the last look; None before the first."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The accumulator of the fold: never changed in place, so any older one can be continued from."""

    services: Mapping[ServiceKey, ServiceMemory]
    demand: DemandMemory

    @classmethod
    def empty(cls) -> Self:
        """Before the first tick."""
        return cls(services={}, demand=DemandMemory.empty())


def event_since(memory: ServiceMemory, *, current: int) -> ScaleEvent | None:
    """The change that the last decision brought about, dated at that decision.

    What counts is what was carried out, not what was asked for: with a failed write, or in mode Advise with
    nobody listening, nothing has changed and no rate is used up. A change in the other direction is somebody
    else's and, as with HPA, does not count.
    """
    change = current - memory.current
    if memory.decided_at is None or change * (memory.desired - memory.current) <= 0:
        return None
    return ScaleEvent(at=memory.decided_at, change=change)


def remembered(
    memory: ServiceMemory, *, current: int, desired: int, proposal: int | None, behavior: Behavior, now: float
) -> ServiceMemory:
    """The memory after a decision: what windows and periods can no longer see is dropped."""
    window = max(behavior.scale_up.stabilization_window_seconds, behavior.scale_down.stabilization_window_seconds)
    policies = (*behavior.scale_up.policies, *behavior.scale_down.policies)
    period = max(policy.period_seconds for policy in policies)
    recommendations = tuple(each for each in memory.recommendations if each.at > now - window)
    if proposal is not None and window > 0:
        recommendations = (*recommendations, Recommendation(at=now, replicas=proposal))
    return replace(
        memory,
        recommendations=recommendations,
        events=tuple(each for each in memory.events if each.at > now - period),
        decided_at=now,
        current=current,
        desired=desired,
    )
