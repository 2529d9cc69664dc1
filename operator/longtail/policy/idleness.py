"""When is a replica empty? When it said so twice, of its own accord, after it had left routing.

Absence of evidence is work: a pod without a fresh sample, or with a busy GPU, is never empty.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from longtail.demand.observation import Observation, PodReading, Signal

BUSY_GPU_RATIO = 0.05
"""GPUs that are active for more of the time than this are at work. An idle engine that polls its queue stays
below 1 %; one decoding sequence alone keeps a GPU active for most of the time (DCGM GR_ENGINE_ACTIVE)."""

ROUTING_LAG_SECONDS = 5.0
"""After this time nobody routes to a cordoned pod any more: watch, EndpointSlice, and the tables of proxies
and endpoint pickers follow each other within a second or two each."""

_DISTINCT_SECONDS = 0.5
"""Samples closer to each other than this are one sample read twice: nobody scrapes so often."""


@dataclass(frozen=True, slots=True)
class IdleSamples:
    """The last two samples of a pod that has been empty in all of them. Unix seconds."""

    last_at: float
    previous_at: float | None = None


def idle_samples(before: Mapping[str, IdleSamples], observation: Observation) -> dict[str, IdleSamples]:
    """What is known of the emptiness of each pod after one more observation; one doubt and it starts anew."""
    after: dict[str, IdleSamples] = {}
    for reading in observation.pods:
        if reading.running_requests.value:  # at work, as most are
            continue
        sampled_at = _empty_at(reading, observation.at_seconds)
        if sampled_at is None:
            continue
        known = before.get(reading.name)
        if known is None:
            after[reading.name] = IdleSamples(last_at=sampled_at)
        elif sampled_at - known.last_at < _DISTINCT_SECONDS:
            after[reading.name] = known
        else:
            after[reading.name] = IdleSamples(last_at=sampled_at, previous_at=known.last_at)
    return after


def is_empty(samples: IdleSamples | None, *, since: float) -> bool:
    """Whether a pod was empty in two samples, both taken later than ``since`` and the lag of routing.

    >>> is_empty(IdleSamples(last_at=40.0, previous_at=25.0), since=0.0)
    True
    >>> is_empty(IdleSamples(last_at=18.0, previous_at=3.0), since=0.0)
    False
    """
    return (
        samples is not None and samples.previous_at is not None and samples.previous_at >= since + ROUTING_LAG_SECONDS
    )


def gpu_busy(active_ratio: Signal) -> bool:
    """Whether GPUs are known to be at work, however old the knowledge.

    >>> gpu_busy(Signal(value=0.4)), gpu_busy(Signal(value=0.01))
    (True, False)
    """
    return active_ratio.value is not None and active_ratio.value > BUSY_GPU_RATIO


def requests_of(reading: PodReading | None) -> float | None:
    """Requests that a pod runs and queues; None where it does not say, which is not 0."""
    if reading is None or not (reading.running_requests.fresh and reading.waiting_requests.fresh):
        return None
    return (reading.running_requests.value or 0.0) + (reading.waiting_requests.value or 0.0)


def _empty_at(reading: PodReading, at_seconds: float) -> float | None:
    """When a pod was sampled empty; None when it was not, or nobody knows."""
    if requests_of(reading) != 0.0:
        return None
    if gpu_busy(reading.gpu_active_ratio):
        return None
    return at_seconds - max(reading.running_requests.age_seconds, reading.waiting_requests.age_seconds)
