"""What is to be done about one service, why, and how the number came about.

A decision is data: whoever executes it checks again that the world is still the one that was decided on.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from longtail.demand.estimate import Demand
from longtail.policy.fleet import EffortLevel


class Rung(enum.StrEnum):
    """The steps of the ladder, in the order in which they are climbed."""

    REACTIVE = "Reactive"
    FORECAST = "Forecast"
    EFFORT = "Effort"
    FALLBACK = "Fallback"
    FLOOR = "Floor"
    CEILING = "Ceiling"
    BEHAVIOR = "Behavior"
    VARIANTS = "Variants"
    SUPPLY = "Supply"
    SAFETY = "Safety"
    ZERO = "ScaleToZero"
    BUDGET = "GPUBudget"
    PLACEMENT = "Placement"


class Reason(enum.StrEnum):
    """Stable, machine-readable outcome of a decision. HPA's words where HPA has one."""

    SCALE_UP = "ScaleUp"
    SCALE_DOWN = "ScaleDown"
    DESIRED_WITHIN_RANGE = "DesiredWithinRange"
    TOO_FEW_REPLICAS = "TooFewReplicas"
    TOO_MANY_REPLICAS = "TooManyReplicas"
    SCALE_UP_LIMIT = "ScaleUpLimit"
    SCALE_DOWN_LIMIT = "ScaleDownLimit"
    SCALE_UP_STABILIZED = "ScaleUpStabilized"
    SCALE_DOWN_STABILIZED = "ScaleDownStabilized"
    SCALING_DISABLED = "ScalingDisabled"
    METRICS_MISSING = "MetricsMissing"
    METRICS_STALE = "MetricsStale"
    METRICS_PARTIAL = "MetricsPartial"
    GPU_BUSY = "GPUBusy"
    """GPUs are at work while the engines report nothing: the report cannot be right."""
    WARMING_UP = "WarmingUp"
    TIMEOUT_CASCADE = "TimeoutCascade"
    """Answers time out and are asked for again: what is counted is not what it seems."""
    TARGET_UNAVAILABLE = "TargetUnavailable"
    SUPPLY_SHORT = "SupplyShort"
    """More replicas are needed, and the cluster does not give any: no more are asked for."""
    GPU_BUDGET = "GPUBudget"
    """More replicas are needed, and the GPUs that they would take are others' by the budget."""
    VARIANTS = "Variants"
    """Fewer replicas than alone: other variants of the model serve the rest at a lower cost, or have room already."""
    MANUAL_SCALING = "ManualScaling"
    """Somebody set the number by hand a moment ago, and it stands."""
    SCALED_TO_ZERO = "ScaledToZero"
    ACTIVATION_MISSING = "ActivationMissing"
    """The pool sleeps, and nobody can say whether work waits for it."""


@dataclass(frozen=True, slots=True)
class LadderStep:
    """The number after one rung, and why it is that number, in words with figures."""

    rung: Rung
    replicas: int
    because: str


@dataclass(frozen=True, slots=True)
class Placement:
    """How the number is brought about: which pods leave routing, which come back, which may be deleted.

    Carried out in this order: uncordon, cordon, then a deletion cost for the pods of ``commit``, then
    ``replicas`` asked of the target, provided that it still asks for ``asked``.
    """

    asked: int
    """spec.replicas as it was decided on: serving and cordoned together."""
    replicas: int
    """spec.replicas to be asked for."""
    cordon: tuple[str, ...] = ()
    """Pods to be taken out of routing."""
    uncordon: tuple[str, ...] = ()
    """Pods to be put back into routing."""
    commit: tuple[str, ...] = ()
    """Pods to be deleted by asking for fewer replicas: empty, or never started."""
    because: str = ""

    @property
    def changes(self) -> bool:
        """Whether there is anything to write."""
        return self.replicas != self.asked or bool(self.cordon or self.uncordon)


class ShortageReason(enum.StrEnum):
    """What keeps replicas that were asked for from serving."""

    UNSCHEDULABLE = "Unschedulable"
    """No node has room."""
    FAILED_CREATE = "FailedCreate"
    """Pods may not be created, because of a quota say."""
    CONTAINER_NOT_STARTING = "ContainerNotStarting"
    """The image cannot be pulled, or the engine crashes."""
    START_OVERDUE = "StartOverdue"
    """They load, for much longer than starts take."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """More replicas are needed than work, and those that were asked for do not come."""

    reason: ShortageReason
    message: str
    """Why, in the words of whoever refuses."""
    since: float
    """Since when the oldest of them has been waited for, Unix seconds."""
    declared_at: float
    """When they were given up."""
    retry_at: float
    """When one more may be asked for, to see whether there is capacity again."""
    probes: int = 0
    """How often that was done without success."""
    probed_at: float | None = None
    """When it was last done."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much requests may think."""

    index: int
    """Of the level among the service's levels, for requests of no class; 0 is the usual one."""
    level: EffortLevel
    since: float
    """Unix seconds."""
    because: str
    classes: Mapping[str, int] = field(default_factory=dict)
    """The same index for each class of requests."""

    @property
    def lowest(self) -> int:
        """The least thinking that anybody is asked for."""
        return max(self.index, *self.classes.values(), 0)


@dataclass(frozen=True, slots=True)
class Decision:
    """Outcome of a tick for one service.

    ``current`` and ``desired`` count replicas that serve: those asked for, less the cordoned ones. ``hold``
    means "no opinion": ``desired == current``, and the pool may not be made smaller because of it.
    """

    current: int
    desired: int
    hold: bool
    reason: Reason
    message: str
    ladder: Sequence[LadderStep] = ()
    limited_by: Reason | None = None
    """TOO_FEW/TOO_MANY_REPLICAS, SCALE_UP/DOWN_LIMIT, VARIANTS or GPU_BUDGET when a limit changed the number."""
    demand: Demand | None = None
    placement: Placement | None = None
    """How ``desired`` is brought about; None where nothing may be touched."""
    shortage: Shortage | None = None
    """Set while the replicas that are needed cannot be had: time for the users of the pool to think less."""
    effort: Effort | None = None
    """None where the user has no levels."""
    contested_by: str = ""
    """Field manager that keeps setting the number that we set."""

    @property
    def supply_short(self) -> bool:
        """Whether more replicas are needed than can be had."""
        return self.shortage is not None
