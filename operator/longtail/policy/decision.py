"""What is to be done about one service, why, and how the number came about.

A decision is data: whoever executes it checks again that the world is still the one that was decided on.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from longtail.demand.estimate import Demand


class Rung(enum.StrEnum):
    """The steps of the ladder, in the order in which they are climbed."""

    REACTIVE = "Reactive"
    FORECAST = "Forecast"
    FLOOR = "Floor"
    CEILING = "Ceiling"
    BEHAVIOR = "Behavior"
    SAFETY = "Safety"
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
    TARGET_UNAVAILABLE = "TargetUnavailable"


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
    """TOO_FEW/TOO_MANY_REPLICAS or SCALE_UP/DOWN_LIMIT when a limit changed the number."""
    demand: Demand | None = None
    placement: Placement | None = None
    """How ``desired`` is brought about; None where nothing may be touched."""
