"""`spec.behavior`: the block of HPA v2, with its names, limits and defaults (KEP-853, KEP-4951).

One difference, on purpose: HPA without a tolerance uses the cluster's (10 %), which here would leave the
pool up to 10 % short of what its objective asks for. Without a tolerance every whole replica counts.
"""

from typing import Annotated

from pydantic import Field

from longtail.api.schema import Model
from longtail.policy.fleet import PolicyType, SelectPolicy

Tolerance = (
    Annotated[int, Field(ge=0, le=100)]
    | Annotated[str, Field(max_length=16, pattern=r"^([0-9]{1,2}(\.[0-9]{1,6})?|[0-9]{1,6}m)$")]
)
"""A Kubernetes quantity: 0, "0.05" or "50m". A bare 0.05 is a float, which the API does not have."""


class HPAScalingPolicy(Model):
    """At most this many replicas may come or go within a period."""

    type: PolicyType
    """Unit of value: Pods, or Percent of the replicas at the start of the period."""
    value: Annotated[int, Field(ge=1, le=1_000_000)]
    """How many pods, or how many percent. Greater than 0."""
    period_seconds: Annotated[int, Field(ge=1, le=1800)]
    """Length of the period, 1 to 1800 seconds."""


Policies = Annotated[
    tuple[HPAScalingPolicy, ...],
    Field(min_length=1, max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
]
Window = Annotated[int, Field(ge=0, le=3600)]


class ScaleUpRules(Model):
    """How fast the pool may grow."""

    stabilization_window_seconds: Window = 0
    """Use the lowest recommendation of the last so many seconds, 0 to 3600. 0 grows at once."""
    select_policy: SelectPolicy = SelectPolicy.MAX
    """Which policy wins: Max allows the largest change, Min the smallest, Disabled none at all."""
    policies: Policies = (
        HPAScalingPolicy(type=PolicyType.PERCENT, value=100, period_seconds=15),
        HPAScalingPolicy(type=PolicyType.PODS, value=4, period_seconds=15),
    )
    """Limits of the change. Default: double, or 4 pods, every 15 seconds, whichever is more."""
    tolerance: Tolerance | None = None
    """Relative shortage not worth a replica, as a quantity such as "0.05" (quoted) or 50m. Default: none."""


class ScaleDownRules(Model):
    """How fast the pool may shrink."""

    stabilization_window_seconds: Window | None = None
    """Use the highest number of so many seconds, 0 to 3600. Default: 60 where a drain can be undone, else 300."""
    select_policy: SelectPolicy = SelectPolicy.MAX
    """Which policy wins: Max allows the largest change, Min the smallest, Disabled none at all."""
    policies: Policies = (HPAScalingPolicy(type=PolicyType.PERCENT, value=100, period_seconds=15),)
    """Limits of the change. Default: everything that the stabilization window lets go."""
    tolerance: Tolerance | None = None
    """Relative surplus not worth a move, as a quantity such as "0.05" (quoted) or 50m. Default: none."""


class ScalingBehavior(Model):
    """Limits on the speed of change, exactly as in HorizontalPodAutoscaler autoscaling/v2."""

    scale_up: ScaleUpRules = ScaleUpRules()
    """Limits on growing."""
    scale_down: ScaleDownRules = ScaleDownRules()
    """Limits on shrinking."""
