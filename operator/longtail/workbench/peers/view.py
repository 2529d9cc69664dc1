"""What a peer autoscaler may see of the fleet at one moment, and the protocol that all of them share.

A ``PeerView`` holds metrics, never the truth: a pod whose scrape was lost has no sample, a metrics store that
is down answers nothing. Levels are levels at the last scrape. Everything that a peer reads as a rate, an
increase or a quantile over a window arrives as a counter, and each policy folds the window that *it* uses:
Dynamo 180 s, llm-d 60 s, WVA 300 s. Counters here never fall: they are sums of increases per pod with
restarts clipped, which is what ``sum(rate(...))`` sees, and not the sum of raw counters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Histogram:
    """A cumulative Prometheus histogram: ``counts[i]`` events so far at or below ``upper_bounds[i]``.

    ``upper_bounds`` ascend strictly and end with ``inf``.
    """

    upper_bounds: tuple[float, ...]
    counts: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Iteration:
    """One engine iteration as Dynamo's ForwardPassMetrics describe it (not a Prometheus metric).

    Averages over the iterations since the last view are as good: every user of this value is linear in it.
    """

    seconds: float
    """Wall time; 0 while the engine idles, and then nothing is learned from it."""
    prefill_requests: float = 0.0
    prefill_tokens: float = 0.0
    """Prompt tokens scheduled in the iteration."""
    decode_requests: float = 0.0
    decode_kv_tokens: float = 0.0
    """KV tokens of the sequences that are decoding."""
    queued_prefill_tokens: float = 0.0
    """Prompt tokens of the requests that wait."""
    queued_decode_kv_tokens: float = 0.0
    """KV tokens that preempted or transferred requests wait with."""


@dataclass(frozen=True, slots=True)
class PodView:
    """One pod of the target. A number is None when the last scrape brought none."""

    name: str
    ready: bool = True
    pending: bool = False
    """Phase Pending: not scheduled, or its image is being pulled. A pod that loads weights is Running."""
    running_requests: float | None = None
    waiting_requests: float | None = None
    kv_used_ratio: float | None = None
    """0..1, ``vllm:kv_cache_usage_perc``."""
    kv_capacity_tokens: float | None = None
    iteration: Iteration | None = None


@dataclass(frozen=True, slots=True)
class PeerView:
    """The target of one autoscaler. Pods that are being deleted are in none of its numbers."""

    spec_replicas: int
    status_replicas: int
    """Pods that exist, surge pods included: ``scale.status.replicas``."""
    ready_replicas: int
    pods: tuple[PodView, ...] = ()
    metrics_reachable: bool = True
    """False while the metrics store does not answer: every query is an error, not an empty result."""

    door_requests: float | None = None
    """Requests that arrived and are not answered yet, as a proxy in front counts them."""
    gateway_waiting_requests: float | None = None
    """Held back in front of the engines: ``llm_d_epp_flow_control_queue_size``."""
    prefill_backlog_tokens: float | None = None
    """Prompt tokens sent to engines whose prefill is not done: ``llm_d_epp_inflight_tokens``."""

    arrived_requests_total: float | None = None
    finished_requests_total: float | None = None
    finished_prompt_tokens_total: float | None = None
    finished_output_tokens_total: float | None = None
    first_token_seconds: Histogram | None = None
    token_interval_seconds: Histogram | None = None

    @property
    def pending_replicas(self) -> int:
        """Replicas that exist and are not ready."""
        return max(0, self.status_replicas - self.ready_replicas)


class Policy(Protocol[M]):
    """A peer's rule: a pure fold over views. ``decide`` is called every ``period_seconds``."""

    @property
    def name(self) -> str:
        """Stable, kebab-case: the key of its row in a report."""

    @property
    def knob(self) -> str:
        """The one parameter that is tuned in hindsight, in words with its unit."""

    @property
    def period_seconds(self) -> float:
        """How often the peer looks and decides."""

    def tuned(self, value: float) -> Self:
        """The same policy with its knob at ``value``."""

    def initial(self) -> M:
        """Memory of a peer that has just started."""

    def decide(self, *, seen: PeerView, memory: M, now: float) -> tuple[int, M]:
        """Replicas wanted at ``now`` (``seen.spec_replicas`` for no change), and the new memory."""


def bounded(replicas: int, *, low: int, high: int) -> int:
    """``replicas`` within ``[low, high]``; where the two cross, ``low`` wins, as in Ray, Dynamo and KubeAI.

    >>> bounded(7, low=1, high=5)
    5
    """
    return max(low, min(high, replicas))


def samples(pods: tuple[PodView, ...], attribute: str) -> Mapping[str, float]:
    """The numbers that the last scrape brought, by pod name.

    >>> samples((PodView("a", waiting_requests=3.0), PodView("b")), "waiting_requests")
    {'a': 3.0}
    """
    return {pod.name: value for pod in pods if (value := getattr(pod, attribute)) is not None}


def total(seen: PeerView, attribute: str) -> float | None:
    """``sum()`` over the pods that have a sample; None where PromQL would return an empty vector."""
    values = samples(seen.pods, attribute)
    return sum(values.values()) if values else None
