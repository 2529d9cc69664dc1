"""What a tick knows about one service when it is over: the material of its status, conditions and metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

from longtail.cluster.snapshot import ServingView
from longtail.control.costs import Cost
from longtail.demand.observation import Observation
from longtail.errors import ClusterError, LongtailError
from longtail.policy.decision import Decision


@dataclass(frozen=True, slots=True)
class Outcome:
    """One service at the end of one tick."""

    view: ServingView
    decision: Decision | None = None
    """None when the resource could not be decided at all."""
    observation: Observation | None = None
    metrics_error: LongtailError | None = None
    """Why something is missing in the observation."""
    cost: Cost | None = None
    """What it costs; None where nobody knows how many GPUs a replica takes."""
    asked: int | None = None
    """Replicas that the target was asked for in this tick; None when it was not."""
    cordoned: Sequence[str] = ()
    """Pods that were taken out of routing in this tick."""
    uncordoned: Sequence[str] = ()
    """Pods that were put back."""
    drained: Sequence[str] = ()
    """Pods that the target was asked to delete."""
    scale_error: ClusterError | None = None
    """Why it could not be scaled, or a pod not be taken out or put back."""

    @property
    def rescaled(self) -> bool:
        """Whether the target was scaled in this tick."""
        return self.asked is not None
