"""WVA's two saturation analyzers as policies: a wish every 15 s, and the HPA that carries it out.

The controller emits ``wva_desired_replicas``; an HPA with AverageValue 1 follows it (deanlorenz/
llm-d-workload-variant-autoscaler 2976e4e, ``config/samples/hpa/``; the behavior is that of its benchmarks: up
10 pods in 150 s without window, down 10 pods in 150 s with a window of 240 s). HPA's tolerance is passed on
too: above ten replicas a wish of one more or one less does nothing. ``wva_v1`` and ``wva_v2`` hold the rules.
"""

from dataclasses import dataclass, field, replace
from typing import Self

from longtail.policy.fleet import Behavior, PolicyType, ScalingPolicy, ScalingRules
from longtail.workbench.peers.hpa import HpaMemory, HpaSpec, external_proposal, reconcile
from longtail.workbench.peers.hpa_metrics import Tolerances
from longtail.workbench.peers.view import PeerView, bounded
from longtail.workbench.peers.wva_signals import SignalMemory, mean_lengths, observed, peaks
from longtail.workbench.peers.wva_v1 import V1Thresholds, v1_wish
from longtail.workbench.peers.wva_v2 import History, V2Settings, pool_tokens, v2_wish

_TEN_PODS = (ScalingPolicy(type=PolicyType.PODS, value=10, period_seconds=150),)
BENCHMARK_BEHAVIOR = Behavior(
    scale_up=ScalingRules(stabilization_window_seconds=0, policies=_TEN_PODS),
    scale_down=ScalingRules(stabilization_window_seconds=240, policies=_TEN_PODS),
)


@dataclass(frozen=True, slots=True)
class WvaMemory:
    """Windows, last wish (v1), k2 history (v2) and the HPA behind it."""

    signals: SignalMemory = SignalMemory()  # noqa: RUF009 - frozen, so sharing it is safe
    last_wish: int | None = None
    history: History = field(default_factory=dict)
    hpa: HpaMemory = HpaMemory()  # noqa: RUF009 - frozen, so sharing it is safe


def actuated(wish: int, *, spec: HpaSpec, seen: PeerView, memory: WvaMemory, now: float) -> tuple[int, WvaMemory]:
    """The count that the HPA writes for a wish."""

    def propose(tolerances: Tolerances) -> int:
        return external_proposal(float(wish), target=1.0, average=True, seen=seen, spec=spec, tolerances=tolerances)

    replicas, hpa = reconcile(propose, spec=spec, current=seen.spec_replicas, memory=memory.hpa, now=now)
    return replicas, replace(memory, hpa=hpa, last_wish=wish)


@dataclass(frozen=True, slots=True)
class WvaV1:
    """The percentage analyzer."""

    thresholds: V1Thresholds = V1Thresholds()  # noqa: RUF009 - frozen, so sharing it is safe
    min_replicas: int = 1
    max_replicas: int = 10
    behavior: Behavior = BENCHMARK_BEHAVIOR
    name: str = "wva-v1"
    knob: str = "KV use that saturates a replica (ratio)"
    period_seconds: float = 15.0

    def tuned(self, value: float) -> Self:
        """Another ``kvCacheThreshold``; the spare that triggers keeps its share of it."""
        share = self.thresholds.kv_spare / self.thresholds.kv_saturated
        return replace(self, thresholds=replace(self.thresholds, kv_saturated=value, kv_spare=value * share))

    def initial(self) -> WvaMemory:
        """Nothing seen."""
        return WvaMemory()

    def decide(self, *, seen: PeerView, memory: WvaMemory, now: float) -> tuple[int, WvaMemory]:
        """One analysis and one HPA sync."""
        memory = replace(memory, signals=observed(memory.signals, seen=seen, now=now))
        wish = v1_wish(
            tuple(peaks(memory.signals, seen=seen).values()) if seen.metrics_reachable else (),
            thresholds=self.thresholds,
            current=seen.spec_replicas,
            pending=seen.pending_replicas,
            last_wish=memory.last_wish,
        )
        wish = bounded(wish, low=self.min_replicas, high=self.max_replicas)
        spec = HpaSpec(self.min_replicas, self.max_replicas, self.behavior)
        return actuated(wish, spec=spec, seen=seen, memory=memory, now=now)


@dataclass(frozen=True, slots=True)
class WvaV2:
    """The token analyzer."""

    settings: V2Settings = V2Settings()  # noqa: RUF009 - frozen, so sharing it is safe
    min_replicas: int = 1
    max_replicas: int = 10
    behavior: Behavior = BENCHMARK_BEHAVIOR
    name: str = "wva-v2"
    knob: str = "scale-up threshold (demand over supply)"
    period_seconds: float = 15.0

    def tuned(self, value: float) -> Self:
        """Another ``scaleUpThreshold``; ``scaleDownBoundary`` keeps its ratio to it."""
        ratio = self.settings.scale_down_boundary / self.settings.scale_up_threshold
        return replace(
            self,
            settings=replace(self.settings, scale_up_threshold=value, scale_down_boundary=value * ratio),
        )

    def initial(self) -> WvaMemory:
        """Nothing seen."""
        return WvaMemory()

    def decide(self, *, seen: PeerView, memory: WvaMemory, now: float) -> tuple[int, WvaMemory]:
        """One analysis and one HPA sync; without metrics the current count is emitted again."""
        memory = replace(memory, signals=observed(memory.signals, seen=seen, now=now))
        spec = HpaSpec(self.min_replicas, self.max_replicas, self.behavior)
        if not seen.metrics_reachable:
            return actuated(seen.spec_replicas, spec=spec, seen=seen, memory=memory, now=now)
        prompt, output = mean_lengths(memory.signals)
        tokens, history = pool_tokens(
            tuple(peaks(memory.signals, seen=seen).values()),
            settings=self.settings,
            prompt=prompt,
            output=output,
            history=memory.history,
        )
        wish = v2_wish(
            tokens,
            settings=self.settings,
            gateway_waiting=seen.gateway_waiting_requests or 0.0,
            prompt=prompt,
            output=output,
            current=seen.spec_replicas,
            pending=seen.pending_replicas,
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
        )
        return actuated(wish, spec=spec, seen=seen, memory=replace(memory, history=history), now=now)
