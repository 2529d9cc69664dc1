"""Ray Serve's default autoscaling policy (replica queue length).

Read from ray-project/ray 00590c4, ``python/ray/serve/autoscaling_policy.py``: the desired count is
``ongoing requests / target`` (the number of running replicas cancels out), smoothed by a factor, clipped, and
acted on only after the same direction was asked for on more than ``delay / 0.1 s`` consecutive control ticks.

Quirks kept: the wish is compared with the *target* count while the smoothing factor works on the count that
runs; one contrary or equal tick resets the counter; a scale-down that rounds back to where it is goes down by
one; from 0 any request brings one replica at once, past all delays; 1 -> 0 has a delay of its own, and no
other decrease may reach 0.

The control loop runs every 0.1 s on metrics that are averaged over 30 s. Between two views the metrics do not
change, so the ticks in between are counted and not run; the first tick that would act is at most one view
late.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

from longtail.workbench.peers.view import PeerView, bounded
from longtail.workbench.peers.windows import Samples, mean, pushed

CONTROL_LOOP_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class RayMemory:
    """Ongoing requests over the look-back, and consecutive ticks in one direction (negative: down)."""

    ongoing: Samples = ()
    ticks: int = 0
    last: float | None = None


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

    def tuned(self, value: float) -> Self:
        """The same policy with another target."""
        return replace(self, target_ongoing_requests=value)

    def initial(self) -> RayMemory:
        """No metrics yet."""
        return RayMemory()

    def decide(self, *, seen: PeerView, memory: RayMemory, now: float) -> tuple[int, RayMemory]:
        """The default policy with the ticks since the last view counted; no metrics hold."""
        elapsed = self.period_seconds if memory.last is None else now - memory.last
        ticks = max(1, round(elapsed / CONTROL_LOOP_SECONDS))
        if seen.door_requests is not None:
            memory = replace(
                memory,
                ongoing=pushed(
                    memory.ongoing, now=now, value=seen.door_requests, seconds=self.look_back_seconds
                ),
            )
        memory = replace(memory, last=now)
        ongoing = mean(memory.ongoing)
        if ongoing is None:
            return seen.spec_replicas, memory
        if seen.ready_replicas == 0:
            return self._from_zero(seen, ongoing=ongoing), memory
        wish = smoothed(
            ongoing / self.target_ongoing_requests,
            running=seen.ready_replicas,
            up_factor=self.upscaling_factor,
            down_factor=self.downscaling_factor,
        )
        wish = bounded(wish, low=self.min_replicas, high=self.max_replicas)
        return self._delayed(wish, target=seen.spec_replicas, ticks=ticks, memory=memory)

    def _from_zero(self, seen: PeerView, *, ongoing: float) -> int:
        if ongoing > 0:
            return max(math.ceil(self.upscaling_factor), seen.spec_replicas)
        return seen.spec_replicas

    def _delayed(self, wish: int, *, target: int, ticks: int, memory: RayMemory) -> tuple[int, RayMemory]:
        if wish == target:
            return target, replace(memory, ticks=0)
        if wish > target:
            count = max(0, memory.ticks) + ticks
            acts = count > int(self.upscale_delay_seconds / CONTROL_LOOP_SECONDS)
        else:
            to_zero = target == 1
            delay = self.downscale_delay_seconds
            if to_zero and self.downscale_to_zero_delay_seconds is not None:
                delay = self.downscale_to_zero_delay_seconds
            wish = wish if to_zero else max(1, wish)
            count = min(0, memory.ticks) - ticks
            acts = count < -int(delay / CONTROL_LOOP_SECONDS)
        return (wish, replace(memory, ticks=0)) if acts else (target, replace(memory, ticks=count))
