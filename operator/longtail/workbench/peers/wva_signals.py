"""What WVA reads of each pod: maxima over one minute, and mean lengths of requests finished in five.

Read from deanlorenz/llm-d-workload-variant-autoscaler 2976e4e (2026-08-18, follows upstream's main up to
v0.9.0-rc1), ``internal/collector/registration/saturation.go``. The lengths are read per pod there and
averaged over the pods; here they are averaged over the pool's requests, which is the same in expectation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from longtail.workbench.peers.view import PeerView
from longtail.workbench.peers.windows import Samples, increase, pushed

PEAK_SECONDS = 60.0
LENGTH_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class PodPeak:
    """One pod over the last minute. KV and queue peaks need not have happened together."""

    kv_used_ratio: float
    waiting_requests: float
    kv_capacity_tokens: float | None


@dataclass(frozen=True, slots=True)
class SignalMemory:
    """Samples of the last minute by pod, and length counters of the last five minutes."""

    pods: tuple[tuple[float, Mapping[str, PodPeak]], ...] = ()
    finished: Samples = ()
    prompt_tokens: Samples = ()
    output_tokens: Samples = ()


def observed(memory: SignalMemory, *, seen: PeerView, now: float) -> SignalMemory:
    """The windows with this view in them. A metrics store that is down adds nothing."""
    if not seen.metrics_reachable:
        return memory
    reading = {
        pod.name: PodPeak(pod.kv_used_ratio, pod.waiting_requests or 0.0, pod.kv_capacity_tokens)
        for pod in seen.pods
        if pod.kv_used_ratio is not None
    }
    pods = (*(p for p in memory.pods if p[0] >= now - PEAK_SECONDS), (now, reading))
    memory = replace(memory, pods=pods)
    counters = (
        seen.finished_requests_total,
        seen.finished_prompt_tokens_total,
        seen.finished_output_tokens_total,
    )
    if None in counters:
        return memory
    finished, prompt, output = (float(counter or 0.0) for counter in counters)
    return replace(
        memory,
        finished=pushed(memory.finished, now=now, value=finished, seconds=LENGTH_SECONDS),
        prompt_tokens=pushed(memory.prompt_tokens, now=now, value=prompt, seconds=LENGTH_SECONDS),
        output_tokens=pushed(memory.output_tokens, now=now, value=output, seconds=LENGTH_SECONDS),
    )


def peaks(memory: SignalMemory, *, seen: PeerView) -> Mapping[str, PodPeak]:
    """Peaks by pod, for the pods that still exist."""
    found: dict[str, PodPeak] = {}
    alive = {pod.name for pod in seen.pods}
    for _, reading in memory.pods:
        for name, sample in reading.items():
            if name not in alive:
                continue
            before = found.get(name, sample)
            found[name] = PodPeak(
                max(before.kv_used_ratio, sample.kv_used_ratio),
                max(before.waiting_requests, sample.waiting_requests),
                sample.kv_capacity_tokens,
            )
    return found


def mean_lengths(memory: SignalMemory) -> tuple[float, float]:
    """Mean prompt and output tokens of the requests finished in the window; (0, 0) when none finished."""
    finished = increase(memory.finished)
    if not finished:
        return 0.0, 0.0
    return (increase(memory.prompt_tokens) or 0.0) / finished, (increase(memory.output_tokens) or 0.0) / finished
