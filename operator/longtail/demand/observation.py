"""What was seen of one service at one tick: each number with its age and its quality.

Why not plain floats: a scraper that is down, a pod that has just restarted and a pool that is idle all look
like 0 to a float, and an autoscaler that cannot tell them apart shrinks a busy pool. Here "no answer" is
``Signal.value is None``, and zero is a value like any other.

Gauges are levels at the time of the observation. Counters arrive as *increases* over ``interval_seconds``,
already differenced per pod with restarts clipped (a counter that went back starts again from 0), because a
sum of raw counters falls whenever a pod goes away. A first sight has no increase: it is MISSING, not 0.
"""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass


class Quality(enum.StrEnum):
    """How far a value can be trusted, from best to worst."""

    FRESH = "Fresh"
    """Sampled within the freshness limit (two scrape intervals) from every pod that should report."""
    PARTIAL = "Partial"
    """Some pods that should report did not; the value covers the others only."""
    STALE = "Stale"
    """Older than the freshness limit; the true value may be anything by now."""
    MISSING = "Missing"
    """There is no value."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One number: finite and not negative, or None exactly when the quality is MISSING."""

    value: float | None
    age_seconds: float = 0.0
    quality: Quality = Quality.FRESH

    def __post_init__(self) -> None:
        if (self.value is None) != (self.quality is Quality.MISSING):
            raise ValueError(f"Signal: value {self.value!r} does not go with quality {self.quality}")
        if self.value is not None and not (math.isfinite(self.value) and self.value >= 0):
            raise ValueError(f"Signal: value must be finite and >= 0, got {self.value!r}")

    @property
    def fresh(self) -> bool:
        """True when the value may be learned from and may lower a pool."""
        return self.quality is Quality.FRESH


MISSING = Signal(value=None, age_seconds=math.inf, quality=Quality.MISSING)


@dataclass(frozen=True, slots=True)
class Buckets:
    """Increase of a histogram over the interval, per bucket (not cumulative).

    ``upper_bounds`` ascend strictly and end with ``inf``; ``counts`` has the same length.
    """

    upper_bounds: tuple[float, ...]
    counts: tuple[float, ...]

    @property
    def total(self) -> float:
        """Number of events in all buckets."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class PodReading:
    """What one pod of the service reported. Every number may be missing on its own."""

    name: str
    running_requests: Signal = MISSING
    waiting_requests: Signal = MISSING
    kv_used_tokens: Signal = MISSING
    kv_capacity_tokens: Signal = MISSING
    generated_tokens: Signal = MISSING
    """Output tokens written during the interval (increase)."""
    attained_tokens: Signal = MISSING
    """Tokens already written by the requests that still run: generated - finished (vLLM), or the decode
    sum (SGLang). vLLM leaves the tokens of aborted requests in it for ever, so it is a cross-check."""
    gpu_active_ratio: Signal = MISSING
    """Share of time the pod's GPUs were busy, 0..1 (DCGM)."""


OTHER = "other"
"""What people are shown for the requests that are not told apart; so no class can have this name."""
CLASS_RATE_SECONDS = 600.0
"""Requests of a class are counted over so long."""
CLASS_LENGTH_SECONDS = 3600.0
"""Their lengths are averages over so long."""


@dataclass(frozen=True, slots=True)
class ClassCount:
    """What the gateway counted of one class of requests. All >= 0."""

    name: str
    """Empty: what is not told apart."""
    requests: float
    """Answered in the last `CLASS_RATE_SECONDS`."""
    answers: float
    """Answered in the last `CLASS_LENGTH_SECONDS`."""
    output_tokens: float
    """Of these answers, reasoning included."""
    reasoning_tokens: float


@dataclass(frozen=True, slots=True)
class Classes:
    """How the requests of a service divide into classes."""

    counts: tuple[ClassCount, ...] = ()
    """The largest first, the nameless rest last. Empty exactly when the quality is MISSING."""
    age_seconds: float = math.inf
    quality: Quality = Quality.MISSING


UNDIVIDED = Classes()


@dataclass(frozen=True, slots=True)
class Observation:
    """One service at one tick. Sums over its pods unless said otherwise."""

    at_seconds: float
    """Evaluation time of the queries, Unix seconds."""
    interval_seconds: float = 0.0
    """Length of the interval that the increases below cover; 0 when there is no earlier observation."""

    running_requests: Signal = MISSING
    waiting_requests: Signal = MISSING
    """Engine queues only."""
    gateway_waiting_requests: Signal = MISSING
    """Requests held back in front of the engines (endpoint-picker flow control); MISSING without a gateway."""
    activation: Signal = MISSING
    """Work at the door as the user's own query counts it: it outlives the pods. MISSING without such a query."""
    kv_used_tokens: Signal = MISSING
    kv_capacity_tokens: Signal = MISSING

    first_tokens: Signal = MISSING
    """Requests that produced their first token (increase): on vLLM and SGLang the only live count of starts."""
    arrivals: Signal = MISSING
    """Requests that arrived (increase), from a counter at the door where one exists."""
    generated_tokens: Signal = MISSING
    finished_tokens: Signal = MISSING
    """Sum of output lengths of finished requests (increase)."""
    prompt_tokens: Signal = MISSING
    """Sum of prompt lengths of finished requests (increase)."""
    preemptions: Signal = MISSING
    aborted_requests: Signal = MISSING
    """Requests that their clients gave up (increase), where the engine counts them. vLLM has the counter and leaves it
    at 0: what gave up while it ran is inferred (see `demand.cascade`)."""
    attained_tokens: Signal = MISSING
    finished_output_tokens: Buckets | None = None
    """Finished requests by output length (increase); None when not known, which is not "none finished"."""
    queue_wait_seconds: Buckets | None = None
    """Requests by time spent waiting for a slot (increase)."""
    first_token_seconds: Buckets | None = None
    """Requests by time to first token (increase)."""
    reasoning_share: Signal = MISSING
    """Share of output tokens that are reasoning, 0..1, from a gateway counter where one exists."""
    classes: Classes = UNDIVIDED
    """Requests by class, from a gateway's counters where the user names a label."""
    gpu_active_ratio: Signal = MISSING

    max_concurrent_requests: Signal = MISSING
    """Slots of one replica as the engine states them, where it does (not vLLM)."""
    ready_pods: int = 0
    """Pods that should report: ready and not being deleted."""
    reporting_pods: int = 0
    """Pods among them with a fresh sample of running requests."""
    pods: Sequence[PodReading] = ()

    @property
    def known_percent(self) -> int:
        """Share of the pods that should report and do; 100 when none should."""
        return 100 if self.ready_pods == 0 else math.floor(100 * self.reporting_pods / self.ready_pods)

    @property
    def waiting_everywhere(self) -> Signal:
        """Engine queues plus the gateway's queue where there is one, with the worse age and quality."""
        if self.waiting_requests.value is None or self.gateway_waiting_requests.value is None:
            return self.waiting_requests
        worse = max(self.waiting_requests, self.gateway_waiting_requests, key=lambda s: _RANK[s.quality])
        return Signal(
            value=self.waiting_requests.value + self.gateway_waiting_requests.value,
            age_seconds=max(self.waiting_requests.age_seconds, self.gateway_waiting_requests.age_seconds),
            quality=worse.quality,
        )


_RANK = {quality: rank for rank, quality in enumerate(Quality)}


def worst(*qualities: Quality) -> Quality:
    """The least trustworthy of some qualities; FRESH of none.

    >>> worst(Quality.FRESH, Quality.STALE, Quality.PARTIAL)
    <Quality.STALE: 'Stale'>
    """
    return max(qualities, key=_RANK.__getitem__, default=Quality.FRESH)
