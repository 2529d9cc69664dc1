"""Ray Serve's default autoscaling policy (replica queue length).

Read from ray-project/ray 2.60.0 as published on PyPI, ``ray/serve/autoscaling_policy.py``: the desired
count is ``ongoing requests / target`` (the number of running replicas cancels out), smoothed by a factor,
and acted on once the same direction has been wanted without a break for the delay. (Up to 00590c4 the delay
was counted in control ticks of 0.1 s, which comes to the same when ticks keep time.)

Quirks kept: the wish is compared with the *target* count while the smoothing factor works on the count that
runs; one contrary or equal look starts the delay anew, and acting does too; a scale-down that rounds back to
where it is goes down by one; with nothing running any request brings one replica at once, past all delays;
1 -> 0 has a delay of its own, and no other decrease may reach 0; bounds are applied last.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

from longtail.workbench.peers.view import PeerView, bounded
from longtail.workbench.peers.windows import Samples, mean, pushed

ELAPSED_TOLERANCE_SECONDS = 1e-6


@dataclass(frozen=True, slots=True)
class RayMemory:
    """Ongoing requests over the look-back, and since when which direction is wanted (+1, -1, 0)."""

    ongoing: Samples = ()
    direction: int = 0
    since: float = 0.0


def smoothed(desired: float, *, running: int, up_factor: float, down_factor: float) -> int:
    """The wish after the smoothing factor.

    >>> smoothed(9.2, running=10, up_factor=1.0, down_factor=0.5)  # ceil(9.6): the wish is 10 as well
    10
    >>> smoothed(8.9, running=10, up_factor=1.0, down_factor=0.5)  # ceil(9.45) = 10 is stuck: one less
    9
    """
    delta = desired - running
    scaled = math.ceil(running + (up_factor if delta > 0 else down_factor) * delta)
    if math.ceil(desired) < running and scaled == running:
        scaled -= 1
    return scaled


@dataclass(frozen=True, slots=True)
class RayServe:
    """``AutoscalingConfig`` with its defaults; the metric is requests queued and ongoing at the handles."""

    target_ongoing_requests: float = 2.0
    min_replicas: int = 1
    max_replicas: int = 10
    look_back_seconds: float = 30.0
    upscale_delay_seconds: float = 30.0
    downscale_delay_seconds: float = 600.0
    downscale_to_zero_delay_seconds: float | None = None
    upscaling_factor: float = 1.0
    downscaling_factor: float = 1.0
    name: str = "ray-serve"
    knob: str = "target ongoing requests per replica"
    period_seconds: float = 10.0
    """``metrics_interval_s``: the control loop is faster, but sees nothing new in between."""

    def tuned(self, value: float) -> Self:
        """The same policy with another target."""
        return replace(self, target_ongoing_requests=value)

    def initial(self) -> RayMemory:
        """No metrics yet."""
        return RayMemory()

    def decide(self, *, seen: PeerView, memory: RayMemory, now: float) -> tuple[int, RayMemory]:
        """The default policy; no metrics hold."""
        if seen.door_requests is not None:
            ongoing = pushed(memory.ongoing, now=now, value=seen.door_requests, seconds=self.look_back_seconds)
            memory = replace(memory, ongoing=ongoing)
        requests = mean(memory.ongoing)
        if requests is None:
            return seen.spec_replicas, memory
        wish, memory = self._wish(seen, requests=requests, memory=memory, now=now)
        return bounded(wish, low=self.min_replicas, high=self.max_replicas), memory

    def _wish(self, seen: PeerView, *, requests: float, memory: RayMemory, now: float) -> tuple[int, RayMemory]:
        target = seen.spec_replicas
        if seen.ready_replicas == 0:
            return (max(math.ceil(self.upscaling_factor), target) if requests > 0 else target), memory
        wish = smoothed(
            requests / self.target_ongoing_requests,
            running=seen.ready_replicas,
            up_factor=self.upscaling_factor,
            down_factor=self.downscaling_factor,
        )
        direction = (wish > target) - (wish < target)
        if direction != memory.direction:
            memory = replace(memory, direction=direction, since=now)
        if direction == 0:
            return target, memory
        if direction < 0 and target > 1:
            wish = max(1, wish)
        waited = now - memory.since + ELAPSED_TOLERANCE_SECONDS
        if waited < self._delay(direction, target=target):
            return target, memory
        return wish, replace(memory, direction=0)

    def _delay(self, direction: int, *, target: int) -> float:
        if direction > 0:
            return self.upscale_delay_seconds
        if target == 1 and self.downscale_to_zero_delay_seconds is not None:
            return self.downscale_to_zero_delay_seconds
        return self.downscale_delay_seconds
