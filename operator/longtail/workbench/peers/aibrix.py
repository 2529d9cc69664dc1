"""AIBrix's KPA and APA strategies, as coded and not as documented.

Read from vllm-project/aibrix e3e10f9 (2026-08-22), ``pkg/controller/podautoscaler/``: ``algorithm/kpa.go``,
``algorithm/apa.go``, ``podautoscaler_controller.go`` (bounds, cooldown), ``types/metrics.go`` (windows),
``metrics/client.go`` (what is stored), ``context/context.go`` (defaults).

Quirks kept, because each changes numbers:

* q1: what is stored is the *mean over the pods that answered*, and KPA divides that mean by the target
  without multiplying by the number of pods: with KV use and target 0.5 it can never ask for more than 2.
* q2: panic is ``panic mean / stable mean > 2`` (or a stable mean of 0), and the memory of the highest panic
  count is a no-op in the code, so panic does not stop a decrease.
* q3: the cooldown is inverted against HPA: a decrease takes the *minimum* of the last 300 s.
* A pod that did not answer is left out of the mean, and a pod that loads counts as one of the current pods.

A later change upstream (pull request 2671) adds a guard while replicas are pending; ``pending_guard`` turns
it on: no increase while fewer replicas are ready than were asked for.
"""

import enum
import math
from dataclasses import dataclass, replace
from typing import Self

from longtail.workbench.peers.view import PeerView, bounded, samples
from longtail.workbench.peers.windows import Samples, mean, pushed


class PodMetric(enum.StrEnum):
    """The per-pod number that is compared with the target."""

    KV_USED_RATIO = "kv_used_ratio"
    WAITING_REQUESTS = "waiting_requests"
    RUNNING_REQUESTS = "running_requests"


@dataclass(frozen=True, slots=True)
class AibrixMemory:
    """Window of pod means (the panic window is its young end) and past recommendations."""

    means: Samples = ()
    recommendations: Samples = ()


def kpa_replicas(
    *,
    stable: float,
    panic: float,
    target: float,
    current: int,
    panic_threshold: float = 2.0,
    tolerance: float = 0.1,
    max_scale_up_rate: float = 2.0,
    max_scale_down_rate: float = 2.0,
) -> int:
    """KPA's count from the pod means of both windows (q1, q2), before bounds and cooldown.

    >>> kpa_replicas(stable=1.0, panic=1.0, target=0.5, current=6)  # full caches: down from 6 to 3
    3
    """
    highest = max(1, math.ceil(max_scale_up_rate * current))
    lowest = math.floor(current / max_scale_down_rate)

    def wanted(value: float) -> int:
        if target * (1 - tolerance) <= value <= target * (1 + tolerance):
            return current
        return math.ceil(value / target)

    by_stable, by_panic = (min(max(wanted(value), lowest), highest) for value in (stable, panic))
    in_panic = stable <= 0 or panic / stable > panic_threshold
    return max(by_stable, by_panic) if in_panic else by_stable


def apa_replicas(
    *,
    mean_use: float,
    target: float,
    current: int,
    tolerance: float = 0.1,
    max_scale_up_rate: float = 2.0,
    max_scale_down_rate: float = 2.0,
) -> int:
    """APA's count from the mean of the stable window: HPA's ratio rule with rate limits.

    >>> apa_replicas(mean_use=0.9, target=0.5, current=4)
    8
    """
    ratio = mean_use / target
    if ratio > 1 + tolerance:
        return min(math.ceil(current * ratio), math.ceil(max_scale_up_rate * current))
    if ratio < 1 - tolerance:
        return max(math.ceil(current * ratio), math.floor(current / max_scale_down_rate))
    return current


def cooled_down(
    recommendations: Samples,
    *,
    recommendation: int,
    current: int,
    now: float,
    up_window_seconds: float,
    down_window_seconds: float,
) -> tuple[int, Samples]:
    """Maximum of the up window for an increase, *minimum* of the down window for a decrease (q3).

    >>> cooled_down(((0.0, 2), (10.0, 8)), recommendation=7, current=8, now=20.0,
    ...             up_window_seconds=0, down_window_seconds=300)[0]
    2
    """
    longest = max(up_window_seconds, down_window_seconds)
    history = (*recommendations, (now, float(recommendation)))
    history = tuple(r for r in history if r[0] > now - longest)
    if recommendation == current:
        return current, history
    up = recommendation > current
    window = up_window_seconds if up else down_window_seconds
    recent = [int(value) for time, value in history if time > now - window]
    if not recent:  # a window of 0 s holds nothing, not even what was recorded just now
        return recommendation, history
    return (max(recent) if up else min(recent)), history


class Strategy(enum.StrEnum):
    """``scalingStrategy`` of a PodAutoscaler. Its third value, HPA, is a real HPA: see ``hpa``."""

    KPA = "KPA"
    APA = "APA"


@dataclass(frozen=True, slots=True)
class Aibrix:
    """A PodAutoscaler with one pod metric; reconciles every 10 s and scrapes the pods itself.

    The shipped samples use ``gpu_cache_usage_perc`` with a target of 0.5.
    """

    strategy: Strategy = Strategy.KPA
    metric: PodMetric = PodMetric.KV_USED_RATIO
    target: float = 0.5
    min_replicas: int = 1
    max_replicas: int = 10
    observe_window_seconds: float = 180.0
    panic_window_seconds: float = 60.0
    up_cooldown_seconds: float = 0.0
    down_cooldown_seconds: float = 300.0
    pending_guard: bool = False
    knob: str = "target value per pod"
    period_seconds: float = 10.0

    @property
    def name(self) -> str:
        """aibrix-kpa or aibrix-apa."""
        return f"aibrix-{self.strategy.lower()}"

    def tuned(self, value: float) -> Self:
        """The same policy with another target."""
        return replace(self, target=value)

    def initial(self) -> AibrixMemory:
        """Empty windows."""
        return AibrixMemory()

    def decide(self, *, seen: PeerView, memory: AibrixMemory, now: float) -> tuple[int, AibrixMemory]:
        """Bounds first, as the controller does; no answer from any pod is an error: hold."""
        current = seen.spec_replicas
        if current == 0 and self.min_replicas != 0:
            return 0, memory
        if not self.min_replicas <= current <= self.max_replicas:
            return bounded(current, low=self.min_replicas, high=self.max_replicas), memory
        values = tuple(samples(seen.pods, self.metric).values())
        if not values:
            return current, memory
        means = pushed(memory.means, now=now, value=sum(values) / len(values), seconds=self.observe_window_seconds)
        memory = replace(memory, means=means)
        wanted = self._recommend(means, current=current, now=now)
        if self.pending_guard and wanted > current and seen.ready_replicas < current:
            wanted = current
        wanted, recommendations = cooled_down(
            memory.recommendations,
            recommendation=bounded(wanted, low=self.min_replicas, high=self.max_replicas),
            current=current,
            now=now,
            up_window_seconds=self.up_cooldown_seconds,
            down_window_seconds=self.down_cooldown_seconds,
        )
        memory = replace(memory, recommendations=recommendations)
        return bounded(wanted, low=self.min_replicas, high=self.max_replicas), memory

    def _recommend(self, means: Samples, *, current: int, now: float) -> int:
        stable = mean(means) or 0.0
        if self.strategy is Strategy.APA:
            return apa_replicas(mean_use=stable, target=self.target, current=current)
        panic = mean(tuple(m for m in means if m[0] >= now - self.panic_window_seconds)) or 0.0
        return kpa_replicas(stable=stable, panic=panic, target=self.target, current=current)
