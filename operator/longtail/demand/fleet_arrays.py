"""From observations of services to arrays over the fleet: the one place that loops over services.

Missing is a mask, never a number: every column carries where its value is known and where it is fresh.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from longtail.demand.buckets import Array, Index, Mask, clip, count_within
from longtail.demand.observation import Buckets, Observation, PodReading, Quality
from longtail.demand.parameters import ServiceParameters, Thinking
from longtail.demand.supply import Supply

SATURATED = 0.2
"""Waiting requests per running one from which a queue means full replicas, not prompts being read."""


_SIGNALS = (
    "running_requests",
    "waiting_requests",
    "gateway_waiting_requests",
    "kv_used_tokens",
    "kv_capacity_tokens",
    "first_tokens",
    "arrivals",
    "aborted_requests",
    "generated_tokens",
    "finished_tokens",
    "attained_tokens",
    "prompt_tokens",
    "reasoning_share",
    "max_concurrent_requests",
)
_signals_of = attrgetter(*_SIGNALS)


@dataclass(frozen=True, slots=True)
class Column:
    """One signal of all services. Shape (services,)."""

    value: Array
    """0 where not known."""
    known: Mask
    """There is a value, of whatever quality."""
    fresh: Mask
    """The value may be learned from."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Histograms of some services that share their bounds."""

    upper_bounds: tuple[float, ...]
    services: Index
    counts: Array
    """Shape (len(services), len(upper_bounds))."""


@dataclass(frozen=True, slots=True)
class Waits:
    """How requests waited for their slot. Shape (services,)."""

    requests: Array
    within: Array
    """Of those, the ones that waited no longer than the objective."""
    known: Mask


@dataclass(frozen=True, slots=True)
class Parameters:
    """`ServiceParameters` of the fleet. Shape (services,); 0 where the user said nothing."""

    queue_wait_seconds: Array
    attainment: Array
    target_tpot_seconds: Array
    max_concurrent_requests: Array
    kv_cache_tokens: Array
    mean_output_tokens: Array
    max_output_tokens: Array
    startup_seconds: Array
    thinking: Sequence[tuple[int, Thinking]] = ()
    """Row and levels of the services that have some."""

    @classmethod
    def pack(cls, parameters: Sequence[ServiceParameters]) -> "Parameters":
        """Columns of the parameters, kept within what the model can compute with (all > 0).

        >>> Parameters.pack([ServiceParameters()]).target_tpot_seconds.tolist()
        [0.05]
        """
        rows = [
            (
                p.objective.queue_wait_seconds,
                p.objective.attainment,
                p.objective.time_per_output_token_seconds,
                p.capacity.max_concurrent_requests or 0,
                p.capacity.kv_cache_tokens or 0,
                p.mean_output_tokens,
                p.max_output_tokens,
                p.startup_seconds,
            )
            for p in parameters
        ]
        wait, attainment, tpot, slots, cache, mean, limit, startup = np.array(rows, dtype=float).reshape(-1, 8).T
        limit = np.maximum(limit, 1.0)
        return cls(
            queue_wait_seconds=wait,
            attainment=clip(attainment, 0.5, 0.999),
            target_tpot_seconds=np.maximum(tpot, 1e-3),
            max_concurrent_requests=slots,
            kv_cache_tokens=cache,
            mean_output_tokens=clip(mean, 1.0, limit),
            max_output_tokens=limit,
            startup_seconds=np.maximum(startup, 1.0),
            thinking=[(row, p.thinking) for row, p in enumerate(parameters) if p.thinking is not None],
        )


@dataclass(frozen=True, slots=True)
class Supplies:
    """`Supply` of the fleet. Shape (services,), and lists of what few services have."""

    ready: Array
    draining: Array
    pending_ages: Sequence[tuple[int, float]]
    """Service and seconds."""
    cold_starts: Sequence[tuple[int, float]]
    """Service and seconds."""

    @classmethod
    def pack(cls, supplies: Sequence[Supply]) -> "Supplies":
        """Columns of the supplies.

        >>> Supplies.pack([Supply(ready_replicas=2, pending_ages_seconds=[30.0])]).pending_ages
        [(0, 30.0)]
        """
        return cls(
            ready=np.array([s.ready_replicas for s in supplies], dtype=float),
            draining=np.array([s.draining_replicas for s in supplies], dtype=float),
            pending_ages=[(i, age) for i, s in enumerate(supplies) for age in s.pending_ages_seconds],
            cold_starts=[(i, seconds) for i, s in enumerate(supplies) for seconds in s.cold_starts_seconds],
        )


@dataclass(frozen=True, slots=True)
class FleetArrays:
    """Observations of the fleet. Shape (services,) unless said otherwise."""

    interval_seconds: Array
    running: Column
    waiting: Column
    """Engine queues and the gateway's."""
    kv_used: Column
    kv_capacity: Column
    first_tokens: Column
    arrivals: Column
    aborted: Column
    generated: Column
    finished_tokens: Column
    attained: Column
    prompts: Column
    reasoning_share: Column
    max_concurrent: Column
    finished: Sequence[Histogram]
    finished_known: Mask
    waits: Waits
    ready_pods: Array
    reporting_pods: Array
    queued_batch: Array
    """Most requests on one pod that holds many others back; 0 where no pod does."""

    @classmethod
    def pack(cls, observations: Sequence[Observation], parameters: Parameters) -> "FleetArrays":
        """Columns of the observations."""
        columns = _columns(observations)
        waiting, gateway = columns["waiting_requests"], columns["gateway_waiting_requests"]
        finished = _histograms([o.finished_output_tokens for o in observations])
        finished_known = np.zeros(len(observations), dtype=bool)
        for group in finished:
            finished_known[group.services] = True
        return cls(
            interval_seconds=np.array([o.interval_seconds for o in observations], dtype=float),
            running=columns["running_requests"],
            waiting=Column(
                value=np.where(waiting.known, waiting.value + gateway.value, 0.0),
                known=waiting.known,
                fresh=waiting.fresh & (gateway.fresh | ~gateway.known),
            ),
            kv_used=columns["kv_used_tokens"],
            kv_capacity=columns["kv_capacity_tokens"],
            first_tokens=columns["first_tokens"],
            arrivals=columns["arrivals"],
            aborted=columns["aborted_requests"],
            generated=columns["generated_tokens"],
            finished_tokens=columns["finished_tokens"],
            attained=columns["attained_tokens"],
            prompts=columns["prompt_tokens"],
            reasoning_share=columns["reasoning_share"],
            max_concurrent=columns["max_concurrent_requests"],
            finished=finished,
            finished_known=finished_known,
            waits=_waits(observations, parameters),
            ready_pods=np.array([o.ready_pods for o in observations], dtype=float),
            reporting_pods=np.array([o.reporting_pods for o in observations], dtype=float),
            queued_batch=np.array([_queued_batch(o) for o in observations], dtype=float),
        )


def _columns(observations: Sequence[Observation]) -> dict[str, Column]:
    """All signals by name: one array of (signals, services) costs a small fleet a tenth of one array each."""
    rows = list(map(_signals_of, observations))
    raw = np.array([[-1.0 if s.value is None else s.value for s in row] for row in rows], dtype=float).T.copy()
    fresh = np.array([[s.quality is Quality.FRESH for s in row] for row in rows], dtype=bool).T.copy()
    return dict(zip(_SIGNALS, map(Column, np.maximum(raw, 0.0), raw >= 0, fresh), strict=True))


def _histograms(buckets: Sequence[Buckets | None]) -> list[Histogram]:
    """Groups of services with the same bounds; pods and engines of one version share them."""
    groups: dict[tuple[float, ...], tuple[list[int], list[Sequence[float]]]] = {}
    for service, histogram in enumerate(buckets):
        if histogram is not None and histogram.upper_bounds:
            services, counts = groups.setdefault(tuple(histogram.upper_bounds), ([], []))
            services.append(service)
            counts.append(histogram.counts)
    return [
        Histogram(
            upper_bounds=bounds, services=np.array(services, dtype=np.intp), counts=np.array(counts, dtype=np.float64)
        )
        for bounds, (services, counts) in groups.items()
    ]


def _waits(observations: Sequence[Observation], parameters: Parameters) -> Waits:
    """Waits in the queue, or times to the first token where the engine has no histogram of waits."""
    requests = np.zeros(len(observations))
    within = np.zeros(len(observations))
    known = np.zeros(len(observations), dtype=bool)
    histograms = _histograms([o.queue_wait_seconds or o.first_token_seconds for o in observations])
    for group in histograms:
        limit = parameters.queue_wait_seconds[group.services]
        requests[group.services] = group.counts.sum(axis=1)
        within[group.services] = count_within(counts=group.counts, upper_bounds=group.upper_bounds, limit=limit)
        known[group.services] = True
    return Waits(requests=requests, within=within, known=known)


def _queued_batch(observation: Observation) -> float:
    """Most requests in service on a pod that holds back a fifth as many, where both of its numbers are fresh.

    One request that waits for its prefill says nothing: every engine has that now and then.
    """
    if not observation.waiting_requests.value:
        return 0.0
    return max((_full_batch(pod) for pod in observation.pods), default=0.0)


def _full_batch(pod: PodReading) -> float:
    running, waiting = pod.running_requests, pod.waiting_requests
    if running.value is None or waiting.value is None or not (running.fresh and waiting.fresh):
        return 0.0
    return running.value if waiting.value >= SATURATED * max(running.value, 1.0) else 0.0
