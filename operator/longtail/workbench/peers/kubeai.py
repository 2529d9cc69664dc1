"""KubeAI's model autoscaler: a ten-minute mean of active requests.

Read from kubeai-project/kubeai f442a2c (2025-10-15): ``internal/modelautoscaler/autoscaler.go``,
``internal/modelclient/scale.go``, ``internal/movingaverage/simple.go``, ``internal/config/system.go``.

Quirks kept: the mean runs over a ring that starts full of zeros, so a new model sees a tenth of its load
after a minute; the counter of consecutive lower results is *not* reset by a scale-down, so after the first
one every further decrease is immediate until a result is equal or higher; with 30 s delay and 10 s interval
the first decrease comes at the fourth lower result, because three are only counted.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

from longtail.workbench.peers.view import PeerView


@dataclass(frozen=True, slots=True)
class KubeAIMemory:
    """Last results, newest last (at most one window of them), and consecutive lower wishes."""

    active: tuple[float, ...] = ()
    lower_results: int = 0


@dataclass(frozen=True, slots=True)
class KubeAI:
    """``targetRequests`` 100, ``scaleDownDelaySeconds`` 30, interval 10 s, window 10 min."""

    target_requests: float = 100.0
    min_replicas: int = 1
    max_replicas: int = 10
    scale_down_delay_seconds: float = 30.0
    window_seconds: float = 600.0
    name: str = "kubeai"
    knob: str = "target active requests per replica"
    period_seconds: float = 10.0

    def tuned(self, value: float) -> Self:
        """The same policy with another target."""
        return replace(self, target_requests=value)

    def initial(self) -> KubeAIMemory:
        """A ring of zeros."""
        return KubeAIMemory()

    def decide(self, *, seen: PeerView, memory: KubeAIMemory, now: float) -> tuple[int, KubeAIMemory]:
        """Mean over the window by target, rounded up, clipped, delayed; no metrics skip the turn."""
        del now  # the ring counts turns, not seconds
        if seen.door_requests is None:
            return seen.spec_replicas, memory
        length = math.ceil(self.window_seconds / self.period_seconds)
        active = (*memory.active, seen.door_requests)[-length:]
        wish = math.ceil(sum(active) / length / self.target_requests)
        wish = self.max_replicas if wish > self.max_replicas else max(wish, self.min_replicas)
        if wish >= seen.spec_replicas:
            return wish, KubeAIMemory(active=active)
        required = math.ceil(self.scale_down_delay_seconds / self.period_seconds)
        if memory.lower_results < required:
            return seen.spec_replicas, replace(memory, active=active, lower_results=memory.lower_results + 1)
        return wish, replace(memory, active=active)
