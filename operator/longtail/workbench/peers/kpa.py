"""Knative's pod autoscaler (KPA): stable and panic windows over concurrency.

Read from knative/serving 98e5ef9 (2026-08-21): ``pkg/autoscaler/scaling/autoscaler.go`` (the decision),
``pkg/autoscaler/aggregation/bucketing.go`` (the windows), ``pkg/autoscaler/config/config.go`` (defaults).

Quirks kept: panic is judged on the *unclamped* panic count over ready pods; in panic the wish never falls;
an autoscaler that starts over more than one ready pod starts in panic, so that a restart does not shrink a
fleet before there is data; no data in the whole window is "no decision", not zero; while the data is younger
than the window, the average is over what there is, and a gap inside the window counts as zero.

Left out, because it moves requests and not replicas: the activator, excess burst capacity, and the sampling
of pods (which adds noise to the average, 5 % by design). Scale to zero is left out: minReplicas is at least
1.
"""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Self

from longtail.workbench.peers.view import PeerView, bounded


@dataclass(frozen=True, slots=True)
class Bucket:
    """Sum of what was recorded within one second."""

    second: int
    value: float


@dataclass(frozen=True, slots=True)
class KpaMemory:
    """Buckets of the stable window (the panic window is its young end), and the panic state."""

    buckets: tuple[Bucket, ...] = ()
    first_write: int | None = None
    panic_since: float | None = None
    max_panic_replicas: int = 0
    started: bool = False
    wishes: tuple[tuple[float, int], ...] = ()
    """For scale-down-delay: (time, wish)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What one tick of the rule concluded."""

    replicas: int
    panic_since: float | None
    max_panic_replicas: int


def scale(
    *,
    stable: float,
    panic: float,
    target: float,
    ready_replicas: int,
    panic_since: float | None,
    max_panic_replicas: int,
    now: float,
    stable_window_seconds: float = 60.0,
    panic_threshold: float = 2.0,
    max_scale_up_rate: float = 1000.0,
    max_scale_down_rate: float = 2.0,
    activation_scale: int = 1,
) -> Decision:
    """One decision from both window averages of *total* concurrency; ``target`` is per pod.

    >>> scale(stable=700, panic=700, target=70, ready_replicas=5, panic_since=None,
    ...       max_panic_replicas=0, now=0.0).replicas
    10
    """
    ready = max(1, ready_replicas)
    highest = math.ceil(max_scale_up_rate * ready)
    lowest = math.floor(ready / max_scale_down_rate)
    wanted_stable, wanted_panic = math.ceil(stable / target), math.ceil(panic / target)
    by_stable = min(max(wanted_stable, lowest), highest)
    by_panic = min(max(wanted_panic, lowest), highest)
    if activation_scale > 1:
        by_stable = max(by_stable, activation_scale) if wanted_stable > 0 else by_stable
        by_panic = max(by_panic, activation_scale) if wanted_panic > 0 else by_panic

    if wanted_panic / ready >= panic_threshold:
        panic_since = now
    elif panic_since is not None and panic_since + stable_window_seconds < now:
        panic_since, max_panic_replicas = None, 0
    if panic_since is None:
        return Decision(by_stable, None, max_panic_replicas)
    max_panic_replicas = max(max_panic_replicas, by_stable, by_panic)
    return Decision(max_panic_replicas, panic_since, max_panic_replicas)


def window_average(memory: KpaMemory, *, now: float, seconds: int) -> float | None:
    """Average per second over the last ``seconds``; None when nothing was written in that time.

    Seconds since the first write count even when nothing was recorded in them; seconds after the last write
    do not (the average is then over the part of the window before it). A silence of a whole window makes the
    next write a first one, for each window by itself.
    """
    if not memory.buckets or memory.first_write is None:
        return None
    last, current = memory.buckets[-1].second, math.floor(now)
    if current - last > seconds:
        return None
    valid = min(last - _first_write(memory, seconds=seconds) + 1, seconds - max(0, current - last))
    if valid <= 0:
        return 0.0
    return round(sum(b.value for b in memory.buckets if b.second > current - seconds) / valid, 6)


def _first_write(memory: KpaMemory, *, seconds: int) -> int:
    assert memory.first_write is not None
    newest_first = memory.buckets[::-1]
    for newer, older in itertools.pairwise(newest_first):
        if newer.second - older.second >= seconds:
            return newer.second
    return memory.first_write


def recorded(memory: KpaMemory, *, now: float, value: float, seconds: int, held_seconds: int) -> KpaMemory:
    """The windows with one more second for each that passed, at most ``held_seconds``.

    Knative scrapes every second and decides every other one, so between two decisions a level is recorded
    twice; recording it once would halve the average, because a second without a record counts as zero.
    """
    current = math.floor(now)
    last = memory.buckets[-1].second if memory.buckets else None
    start = current - held_seconds + 1 if last is not None else current
    since = max(start, last + 1 if last is not None else start)
    silent = last is not None and since - last >= seconds
    kept = tuple(b for b in memory.buckets if b.second > current - seconds)
    return replace(
        memory,
        buckets=(*kept, *(Bucket(second, value) for second in range(since, current + 1))),
        first_write=since if memory.first_write is None or silent else memory.first_write,
    )


@dataclass(frozen=True, slots=True)
class Kpa:
    """KPA on the concurrency that Knative's proxies count: requests at the door of the service.

    Decides every 2 s as the original; ``target_concurrency`` is 70 by default (100 at 70 %).
    """

    target_concurrency: float = 70.0
    min_replicas: int = 1
    max_replicas: int = 10
    stable_window_seconds: int = 60
    panic_window_percent: float = 10.0
    panic_threshold: float = 2.0
    scale_down_delay_seconds: float = 0.0
    name: str = "knative-kpa"
    knob: str = "target concurrency per replica"
    period_seconds: float = 2.0

    def tuned(self, value: float) -> Self:
        """The same policy with another target; 0.01 is the floor that Knative sets."""
        return replace(self, target_concurrency=max(0.01, value))

    def initial(self) -> KpaMemory:
        """No data yet."""
        return KpaMemory()

    def decide(self, *, seen: PeerView, memory: KpaMemory, now: float) -> tuple[int, KpaMemory]:
        """Panic floor at the first tick, then the rule; no data holds."""
        if not memory.started:
            ready = seen.ready_replicas
            memory = replace(memory, started=True, panic_since=now if ready > 1 else None, max_panic_replicas=ready)
        if seen.door_requests is not None:
            memory = recorded(
                memory,
                now=now,
                value=seen.door_requests,
                seconds=self.stable_window_seconds,
                held_seconds=max(1, round(self.period_seconds)),
            )
        panic_seconds = max(1, round(self.stable_window_seconds * self.panic_window_percent / 100))
        stable = window_average(memory, now=now, seconds=self.stable_window_seconds)
        panic = window_average(memory, now=now, seconds=panic_seconds)
        if stable is None:
            return seen.spec_replicas, memory
        decision = scale(
            stable=stable,
            panic=panic if panic is not None else 0.0,
            target=self.target_concurrency,
            ready_replicas=seen.ready_replicas,
            panic_since=memory.panic_since,
            max_panic_replicas=memory.max_panic_replicas,
            now=now,
            stable_window_seconds=self.stable_window_seconds,
            panic_threshold=self.panic_threshold,
        )
        memory = replace(memory, panic_since=decision.panic_since, max_panic_replicas=decision.max_panic_replicas)
        wish, memory = self._delayed(decision.replicas, memory=memory, now=now)
        return bounded(wish, low=self.min_replicas, high=self.max_replicas), memory

    def _delayed(self, wish: int, *, memory: KpaMemory, now: float) -> tuple[int, KpaMemory]:
        if self.scale_down_delay_seconds <= 0:
            return wish, memory
        kept = tuple(w for w in memory.wishes if w[0] > now - self.scale_down_delay_seconds)
        wishes = (*kept, (now, wish))
        return max(replicas for _, replicas in wishes), replace(memory, wishes=wishes)
