"""llm-d's KEDA blueprints: queue, queue with overshoot guard, token-aware and SLO-aware.

Read from llm-d/llm-d, ``guides/workload-autoscaling/``: ``keda-epp/.../overlays/k8s/queue/scaledobject.yaml``
057abb4, ``.../queue-guard/scaledobject.yaml`` b06ec63, ``keda-epp-token-aware/optimized-baseline/base/
scaledobject.yaml`` 04c0115, ``README.slo-aware.md`` d38c9f0 (its ScaledObject and rules are not stored where
we could read them: the README gives the law and every number).

Quirks kept: in a formula the triggers' thresholds do nothing, and the composite metric passes through HPA's
tolerance, so a pool of more than ten never moves by one; both token-aware queries end in ``or vector(0)``, so
a lost series is an idle pool even where KEDA would have refused it; the SLO-aware credit applies to growing
only; without traffic its signal is 0, not missing.

Where the EPP is not there, its numbers are None and KEDA reads 0: these policies need the gateway's signals.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

from longtail.policy.fleet import Behavior, PolicyType, ScalingPolicy, ScalingRules
from longtail.workbench.peers.keda import (
    Fallback,
    Keda,
    KedaMemory,
    ScaledObject,
    Trigger,
    step,
)
from longtail.workbench.peers.queries import (
    gateway_running_requests,
    gateway_waiting_requests,
    kv_used_ratio,
)
from longtail.workbench.peers.view import Histogram, PeerView
from longtail.workbench.peers.windows import Samples, histogram_increase, histogram_quantile, mean, pushed


def rules(*policies: tuple[PolicyType, int, int], window_seconds: int) -> ScalingRules:
    """One direction of a behavior block: (type, value, period in seconds)."""
    return ScalingRules(
        stabilization_window_seconds=window_seconds,
        policies=tuple(ScalingPolicy(type=t, value=v, period_seconds=p) for t, v, p in policies),
    )


_DOUBLE = (PolicyType.PERCENT, 100, 15)


def queue(*, min_replicas: int = 1, max_replicas: int = 8) -> Keda:
    """Flow-control queue (1 per replica) and running requests (16 per replica), both windows 300 s."""
    return Keda(
        triggers=(
            Trigger(query=gateway_waiting_requests, threshold=1.0),
            Trigger(query=gateway_running_requests, threshold=16.0),
        ),
        scaled_object=ScaledObject(
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            polling_seconds=15.0,
            behavior=Behavior(
                scale_up=rules(_DOUBLE, window_seconds=300), scale_down=rules(_DOUBLE, window_seconds=300)
            ),
        ),
        name="llm-d-queue",
    )


def guarded_demand(seen: PeerView, *, queue_per_replica: float, running_per_replica: float) -> float:
    """The queue-guard formula: demand in replicas, less those that start, but never below what is there."""
    demand = max(
        (gateway_waiting_requests(seen) or 0.0) / queue_per_replica,
        (gateway_running_requests(seen) or 0.0) / running_per_replica,
    )
    replicas = float(seen.status_replicas)
    return demand if demand <= replicas else max(demand - seen.pending_replicas, replicas)


@dataclass(frozen=True, slots=True)
class QueueGuard:
    """Queue blueprint whose formula discounts starting replicas, so that growing needs no window."""

    queue_per_replica: float = 1.0
    running_per_replica: float = 16.0
    min_replicas: int = 1
    max_replicas: int = 8
    name: str = "llm-d-queue-guard"
    knob: str = "factor on both per-replica targets"
    period_seconds: float = 15.0

    def tuned(self, value: float) -> Self:
        """The same formula with both targets times ``value``."""
        return replace(
            self,
            queue_per_replica=self.queue_per_replica * value,
            running_per_replica=self.running_per_replica * value,
        )

    def initial(self) -> KedaMemory:
        """Just created."""
        return KedaMemory(failures=(0,))

    def decide(self, *, seen: PeerView, memory: KedaMemory, now: float) -> tuple[int, KedaMemory]:
        """The formula through KEDA and its HPA."""

        def demand(view: PeerView) -> float:
            return guarded_demand(
                view, queue_per_replica=self.queue_per_replica, running_per_replica=self.running_per_replica
            )

        trigger = Trigger(query=demand, threshold=1.0)
        scaled_object = ScaledObject(
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            polling_seconds=15.0,
            fallback=Fallback(failure_threshold=3, replicas=1),
            behavior=Behavior(scale_up=rules(_DOUBLE, window_seconds=0), scale_down=rules(_DOUBLE, window_seconds=300)),
        )
        return step(
            scaled_object,
            triggers=(trigger,),
            read=lambda _: trigger.read(seen),
            seen=seen,
            memory=memory,
            now=now,
        )


@dataclass(frozen=True, slots=True)
class PrefillBacklogSeconds:
    """``(sum(llm_d_epp_inflight_tokens) / V_P) or vector(0)``."""

    peak_prefill_tokens_per_second: float

    def __call__(self, seen: PeerView) -> float:
        """Seconds of prefill that wait, over the whole pool."""
        return (seen.prefill_backlog_tokens or 0.0) / self.peak_prefill_tokens_per_second


def pods_worth_of_kv(seen: PeerView) -> float:
    """``sum(vllm:kv_cache_usage_perc) or vector(0)``."""
    return kv_used_ratio(seen) or 0.0


def token_aware(
    *,
    peak_prefill_tokens_per_second: float = 15_928.0,
    min_replicas: int = 1,
    max_replicas: int = 10,
) -> Keda:
    """Prefill backlog (1.5 s per replica) and KV (0.8 per replica); +1 in 180 s, -1 in 300 s.

    15 928 tokens/s is the guide's calibration for Qwen3-32B on two H100; every deployment measures its own.
    """
    return Keda(
        triggers=(
            Trigger(query=PrefillBacklogSeconds(peak_prefill_tokens_per_second), threshold=1.5),
            Trigger(query=pods_worth_of_kv, threshold=0.8),
        ),
        scaled_object=ScaledObject(
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            polling_seconds=15.0,
            behavior=Behavior(
                scale_up=rules((PolicyType.PODS, 1, 180), window_seconds=0),
                scale_down=rules((PolicyType.PODS, 1, 300), window_seconds=300),
            ),
        ),
        name="llm-d-token-aware",
    )


def slo_replicas(*, saturation: float, replicas: int, ready: int, up: float, down: float) -> int:
    """The SLO-aware control law.

    >>> slo_replicas(saturation=1.1, replicas=4, ready=4, up=0.55, down=0.40)
    8
    >>> slo_replicas(saturation=1.1, replicas=8, ready=4, up=0.55, down=0.40)  # half of them still start
    8
    >>> slo_replicas(saturation=0.2, replicas=8, ready=8, up=0.55, down=0.40)
    4
    """
    if saturation > up:
        credit = ready / replicas if 0 < ready < replicas else 1.0
        return replicas + math.ceil(replicas * (saturation * credit / up - 1))
    if saturation < down:
        return replicas - math.floor(replicas * (1 - saturation / down))
    return replicas


@dataclass(frozen=True, slots=True)
class SloMemory:
    """Recording rules (histograms of a minute, signal of 45 s) and KEDA."""

    first_tokens: tuple[tuple[float, Histogram], ...] = ()
    intervals: tuple[tuple[float, Histogram], ...] = ()
    signal: Samples = ()
    keda: KedaMemory = KedaMemory(failures=(0,))  # noqa: RUF009 - frozen, so sharing it is safe


@dataclass(frozen=True, slots=True)
class SloAware:
    """P90 latency over its SLO, clamped at 2 and averaged over 45 s, through the law above.

    The histograms are the measured ones: the blueprint prefers an online-trained predictor where one runs.
    """

    first_token_slo_seconds: float = 3.0
    token_slo_seconds: float = 0.1
    up: float = 0.55
    down: float = 0.40
    clamp: float = 2.0
    min_replicas: int = 3
    max_replicas: int = 8
    name: str = "llm-d-slo-aware"
    knob: str = "saturation that adds replicas (ratio)"
    period_seconds: float = 15.0

    def tuned(self, value: float) -> Self:
        """Another upper threshold; the hysteresis band keeps its ratio, and the clamp stays above it."""
        return replace(self, up=value, down=self.down * value / self.up, clamp=max(self.clamp, 2 * value))

    def initial(self) -> SloMemory:
        """No rules evaluated yet."""
        return SloMemory()

    def decide(self, *, seen: PeerView, memory: SloMemory, now: float) -> tuple[int, SloMemory]:
        """Recording rules, the law, KEDA, HPA."""
        memory = self._recorded(memory, seen=seen, now=now)
        wish = slo_replicas(
            saturation=mean(memory.signal) or 0.0,
            replicas=seen.status_replicas,
            ready=seen.ready_replicas,
            up=self.up,
            down=self.down,
        )
        replicas, keda = step(
            ScaledObject(
                min_replicas=self.min_replicas,
                max_replicas=self.max_replicas,
                polling_seconds=15.0,
                behavior=Behavior(
                    scale_up=rules((PolicyType.PERCENT, 100, 60), (PolicyType.PODS, 4, 60), window_seconds=30),
                    scale_down=rules((PolicyType.PODS, 1, 120), window_seconds=180),
                ),
            ),
            triggers=(Trigger(query=lambda _: float(wish), threshold=1.0),),
            read=lambda _: float(wish) if seen.metrics_reachable else None,
            seen=seen,
            memory=memory.keda,
            now=now,
        )
        return replicas, replace(memory, keda=keda)

    def _recorded(self, memory: SloMemory, *, seen: PeerView, now: float) -> SloMemory:
        if not seen.metrics_reachable:
            return memory
        firsts = _kept(memory.first_tokens, seen.first_token_seconds, now=now)
        intervals = _kept(memory.intervals, seen.token_interval_seconds, now=now)
        raw = max(_p90(firsts) / self.first_token_slo_seconds, _p90(intervals) / self.token_slo_seconds)
        signal = pushed(memory.signal, now=now, value=min(raw, self.clamp), seconds=45.0)
        return replace(memory, first_tokens=firsts, intervals=intervals, signal=signal)


def _kept(
    window: tuple[tuple[float, Histogram], ...], histogram: Histogram | None, *, now: float
) -> tuple[tuple[float, Histogram], ...]:
    young = tuple(w for w in window if w[0] >= now - 60.0)
    return young if histogram is None else (*young, (now, histogram))


def _p90(window: tuple[tuple[float, Histogram], ...]) -> float:
    """P90 over the window; 0 without traffic."""
    if len(window) < 2:
        return 0.0
    value = histogram_quantile(histogram_increase(window[0][1], window[-1][1]), q=0.9)
    return value if math.isfinite(value) else 0.0
