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
class Decision:
    """Outcome of a tick for one service.

    ``hold`` means "no opinion": ``desired == current`` and nothing may be written because of it.
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
