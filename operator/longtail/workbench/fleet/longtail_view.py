"""A pool as longtail sees it: the observation and the target that the operator would have made of it.

The rules of ``signals.observe`` over arrays: a pod counts when its last scrape succeeded, and one that should
have answered and did not makes a sum PARTIAL; pods that are being deleted count in increases, not in levels; a pod
is excused for its first minute. Tests hold this against the reader itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from longtail.demand.observation import MISSING, Buckets, Observation, PodReading, Quality, Signal
from longtail.policy.fleet import Pod, Target
from longtail.signals.observe import FIRST_SCRAPE_SECONDS
from longtail.workbench.fleet.deployment import Replica
from longtail.workbench.fleet.meters import ABORTED, FINISHED_OUTPUT, FINISHED_PROMPT, FIRST_TOKENS, GENERATED
from longtail.workbench.fleet.scrape import Scrape, increases
from longtail.workbench.fleet.setting import EPOCH_SECONDS, ReplicaSize
from longtail.workbench.replay import FIRST_TOKEN_BOUNDS, WAIT_BOUNDS
from longtail.workbench.traces.trace import Floats, Mask


def target_of(pods: Sequence[Replica], *, replicas: int) -> Target:
    """The Deployment with its pods, as a watch shows them. Every pod can be taken out of routing."""
    seen = tuple(_pod(pod) for pod in pods)
    return Target(replicas=replicas, ready_replicas=sum(pod.ready and not pod.deleting for pod in seen), pods=seen)


def _pod(pod: Replica) -> Pod:
    return Pod(
        name=pod.name,
        created_at=EPOCH_SECONDS + pod.created_seconds,
        scheduled_at=_unix(pod.scheduled_seconds),
        ready_at=_unix(pod.ready_seconds),
        ready=pod.ready,
        deleting=pod.deleting_seconds is not None,
        unschedulable_message="" if pod.scheduled_seconds is not None else "0 nodes have a free GPU",
        switch=True,
        cordoned=pod.cordoned_seconds is not None,
        cordoned_at=_unix(pod.cordoned_seconds),
    )


def _unix(seconds: float | None) -> float | None:
    return None if seconds is None else EPOCH_SECONDS + seconds


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """What the next look's increases are taken against."""

    looked_at_seconds: float
    scrape: Scrape


def observe(
    pods: Sequence[Replica], scrape: Scrape | None, *, baseline: Baseline | None, size: ReplicaSize, at_seconds: float
) -> Observation:
    """One service at one tick.

    Args:
        pods: all pods of the target, as the watch shows them.
        scrape: the last one; None when the store does not answer.
        baseline: the last look that was answered; None at first.
        size: of a replica; the engines state their KV capacity.
        at_seconds: now, since the start of the trace.
    """
    at = EPOCH_SECONDS + at_seconds
    ready = sum(pod.ready and pod.deleting_seconds is None for pod in pods)
    if scrape is None:
        return Observation(at_seconds=at, ready_pods=ready, pods=tuple(PodReading(name=pod.name) for pod in pods))
    view = _View(pods, scrape, at_seconds - scrape.at_seconds, at_seconds)
    levels = Observation(
        at_seconds=at,
        running_requests=view.level(scrape.running),
        waiting_requests=view.level(scrape.waiting),
        gateway_waiting_requests=view.signal(scrape.gateway_waiting),
        attained_tokens=view.level(scrape.attained_tokens),
        ready_pods=ready,
        reporting_pods=int((view.expected & view.heard).sum()),
    )
    kv = None
    if size.kv_capacity_tokens is not None:
        kv = np.minimum(scrape.kv_used_tokens, size.kv_capacity_tokens)
        capacity = view.level(np.full(len(kv), size.kv_capacity_tokens))
        levels = replace(levels, kv_used_tokens=view.level(kv), kv_capacity_tokens=capacity)
    if baseline is None:
        return replace(levels, pods=view.readings(kv, size, None))
    change = increases(baseline.scrape, scrape, since_seconds=baseline.looked_at_seconds)
    columns, generated = scrape.columns, change[:, GENERATED]
    return replace(
        levels,
        interval_seconds=at_seconds - baseline.looked_at_seconds,
        first_tokens=view.increase(change[:, FIRST_TOKENS]),
        generated_tokens=view.increase(generated),
        finished_tokens=view.increase(change[:, FINISHED_OUTPUT]),
        prompt_tokens=view.increase(change[:, FINISHED_PROMPT]),
        aborted_requests=view.increase(change[:, ABORTED]),
        preemptions=view.increase(np.where(np.isnan(generated), np.nan, 0.0)),
        finished_output_tokens=_buckets(columns.length_bounds, change[:, columns.length]),
        queue_wait_seconds=_buckets(WAIT_BOUNDS, change[:, columns.wait]),
        first_token_seconds=_buckets(FIRST_TOKEN_BOUNDS, change[:, columns.first_token]),
        pods=view.readings(kv, size, generated),
    )


class _View:
    """The pods of the watch beside the samples of the store. Masks have one entry a pod of the watch."""

    def __init__(self, pods: Sequence[Replica], scrape: Scrape, age_seconds: float, at_seconds: float) -> None:
        uids = np.array([pod.uid for pod in pods], np.int64)
        self._pods = pods
        self._scrape = scrape
        self._age = age_seconds
        self._place = np.searchsorted(scrape.uids, uids)
        inside = self._place < len(scrape.uids)
        self.heard: Mask = inside.copy()
        self.heard[inside] = scrape.uids[self._place[inside]] == uids[inside]
        deleting = np.array([pod.deleting_seconds is not None for pod in pods], bool)
        ready = np.array([pod.ready for pod in pods], bool)
        fresh_faced = [pod.ready and at_seconds - (pod.ready_seconds or 0.0) < FIRST_SCRAPE_SECONDS for pod in pods]
        self.expected: Mask = ready & ~deleting
        self._excused = np.array(fresh_faced, bool)
        self._levelled = ~deleting

    def level(self, values: Floats) -> Signal:
        """Sum of a gauge over the pods that are not being deleted."""
        return self._total(values, self._levelled)

    def increase(self, values: Floats) -> Signal:
        """Sum of an increase over all pods; NaN is a pod whose increase is not known."""
        return self._total(values, np.ones(len(self._pods), bool))

    def signal(self, value: float | None) -> Signal:
        """A number that is nobody's in particular."""
        return MISSING if value is None else Signal(value, age_seconds=self._age)

    def readings(self, kv: Floats | None, size: ReplicaSize, generated: Floats | None) -> tuple[PodReading, ...]:
        """What each pod reported."""
        scrape, age = self._scrape, self._age
        capacity = MISSING if size.kv_capacity_tokens is None else Signal(size.kv_capacity_tokens, age_seconds=age)
        columns = [
            [Signal(value, age_seconds=age) for value in values.tolist()]
            for values in (scrape.running, scrape.waiting, scrape.attained_tokens)
        ]
        used = None if kv is None else kv.tolist()
        written = None if generated is None else generated.tolist()
        readings = []
        for pod, place, heard in zip(self._pods, self._place.tolist(), self.heard.tolist(), strict=True):
            if not heard:
                readings.append(PodReading(name=pod.name))
                continue
            running, waiting, attained = (column[place] for column in columns)
            reading = PodReading(
                name=pod.name,
                running_requests=running,
                waiting_requests=waiting,
                kv_used_tokens=MISSING if used is None else Signal(used[place], age_seconds=age),
                kv_capacity_tokens=capacity,
                generated_tokens=MISSING if written is None else self._known(written[place]),
                attained_tokens=attained,
            )
            readings.append(reading)
        return tuple(readings)

    def _known(self, value: float) -> Signal:
        return MISSING if math.isnan(value) else Signal(value, age_seconds=self._age)

    def _total(self, values: Floats, counted: Mask) -> Signal:
        mine = np.full(len(self._pods), np.nan)
        mine[self.heard] = values[self._place[self.heard]]
        known = ~np.isnan(mine)
        reporting = self.expected & known
        if self.expected.any() and not reporting.any():
            return MISSING
        missed = self.expected & ~known & ~self._excused
        quality = Quality.PARTIAL if missed.any() else Quality.FRESH
        total = math.fsum(mine[known & counted].tolist())
        return Signal(max(total, 0.0), age_seconds=self._age, quality=quality)


def _buckets(bounds: tuple[float, ...], change: Floats) -> Buckets | None:
    known = ~np.isnan(change[:, 0])
    if not known.any():
        return None
    return Buckets(upper_bounds=bounds, counts=tuple(change[known].sum(axis=0).tolist()))
