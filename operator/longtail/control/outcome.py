"""What a tick knows about one service when it is over: the material of its status, conditions and metrics."""

from dataclasses import dataclass

from longtail.cluster.snapshot import ServingView
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
    rescaled: bool = False
    """The target was asked for ``decision.desired`` in this tick."""
    scale_error: ClusterError | None = None
    """Why it could not be."""
