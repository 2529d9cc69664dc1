"""What would other fields, or another autoscaler, have done with the load of the last days? Pure.

The recording is what ``signals.history`` read. It is replayed once through ``step`` as it was, to learn what a replica
can hold and how long one takes to start; then every candidate gets a pool of its own under the same load (see
``fluid`` for what is assumed of the load) and decides once a step on what *it* would have seen. All candidates that
are resources of ours are services of one fleet, so that ten of them cost little more than one.

Assumed, beyond ``fluid``: a replica holds at all times the slots that were learned at the end of the recording (or
that the user stated); it starts in the median cold start, and GPUs can always be had; peers delete at once what they
remove, and what that cuts short is counted, not replayed. Steps of which a part is not known are not scored.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from longtail.demand.observation import MISSING, Buckets, Observation, Signal
from longtail.demand.parameters import CapacityOverride
from longtail.policy.decision import Decision
from longtail.policy.fleet import DrainPolicy, DrainRules, Fleet, Mode, Pod, Service, ServiceKey, Target
from longtail.policy.memory import Memory
from longtail.policy.step import step
from longtail.workbench.backtest_scores import Row, Scores
from longtail.workbench.fluid import Interval, Pool, intervals
from longtail.workbench.peers.view import PeerView, PodView, Policy
from longtail.workbench.replay import FIRST_TOKEN_BOUNDS, WAIT_BOUNDS

_WORTH_IT = 0.01
"""A candidate that saves less than this share of the GPU-hours is not worth a change."""

Progress = Callable[[float], None]
"""Told the share that is done."""


@dataclass(frozen=True, slots=True)
class Look:
    """One time of the recording."""

    observation: Observation
    pods: Sequence[Pod]
    partial: bool = False
    """Some query was not answered, or not whole."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What the recording says of a replica."""

    slots_per_replica: float
    bound_by: str
    cold_start_seconds: float
    cold_start_p90_seconds: float
    mean_tokens: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """The resource with some fields changed; the first candidate of a backtest is the base."""

    name: str
    service: Service
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Backtest:
    """The result."""

    rows: Sequence[Row]
    """As recorded, the base, the peers, then the other candidates."""
    better: Sequence[Row]
    """Candidates that would have done better than the base, the best first."""
    learned: Learned
    scored_hours: float
    unknown_percent: float
    """Share of the time after the warm-up that is not scored, because a part of the data is missing."""
    peak_requests: float
    objective_seconds: float
    objective_percent: float


def learn(looks: Sequence[Look], service: Service, *, progress: Progress = lambda _: None) -> Learned:
    """Replay the recording as it was, for what it teaches.

    Raises:
        ValueError: there is no look at all.
    """
    if not looks:
        raise ValueError("the recording is empty")
    memory = Memory.empty()
    decisions: dict[ServiceKey, Decision] = {}
    for number, look in enumerate(looks):
        target = Target(len(look.pods), sum(pod.ready for pod in look.pods), look.pods)
        decisions, memory = step(
            fleet=Fleet((replace(service, mode=Mode.ADVISE, target=target),)),
            observations={service.key: look.observation},
            memory=memory,
            now=look.observation.at_seconds,
        )
        progress((number + 1) / len(looks))
    demand = decisions[service.key].demand
    assert demand is not None
    return Learned(
        slots_per_replica=demand.capacity.slots_per_replica,
        bound_by=demand.capacity.bound_by,
        cold_start_seconds=demand.startup.p50_seconds,
        cold_start_p90_seconds=demand.startup.p90_seconds,
        mean_tokens=demand.lengths.mean_tokens,
    )


def backtest(
    looks: Sequence[Look],
    candidates: Sequence[Candidate],
    peers: Sequence[Policy[Any]],
    learned: Learned,
    *,
    load: Sequence[Interval] | None = None,
    gpus_per_replica: float = 1.0,
    progress: Progress = lambda _: None,
) -> Backtest:
    """Put every candidate and every peer under the recorded load, or under another one of the same looks.

    Raises:
        ValueError: there is no candidate, or never a time at which the load is known.
    """
    if not candidates:
        raise ValueError("there is no candidate")
    load = load or intervals([look.observation for look in looks])
    first = next((number for number, one in enumerate(load) if one.requests or one.known), None)
    if first is None:
        raise ValueError("the load is not known at any time of the recording")
    scores = Scores(
        load,
        partial=[look.partial for look in looks],
        objective_seconds=candidates[0].service.parameters.objective.queue_wait_seconds,
    )
    runs: list[_Run] = [_Recorded(), _Longtail(candidates, learned), *(_Peer(policy) for policy in peers)]
    for run in runs:
        run.begin(load[first], looks[first], learned)
    for number in range(first + 1, len(load)):
        for run in runs:
            for name, pool in run.tick(load[number], looks[number]).items():
                scores.add(name, number, pool)
        progress((number + 1) / len(load))
    changes = {candidate.name: candidate.changes for candidate in candidates}
    rows = [scores.row(name, gpus_per_replica, changes.get(name, {})) for name in scores.names]
    base = next(row for row in rows if row.name == candidates[0].name)
    promised = 100 * candidates[0].service.parameters.objective.attainment
    return Backtest(
        rows=sorted(rows, key=lambda row: _order(row, base, changes)),
        better=better([row for row in rows if row.name in changes], base, promised=promised),
        learned=learned,
        scored_hours=scores.hours,
        unknown_percent=scores.unknown_percent,
        peak_requests=max(one.requests for one in load),
        objective_seconds=scores.objective_seconds,
        objective_percent=promised,
    )


def better(rows: Sequence[Row], base: Row, *, promised: float) -> list[Row]:
    """Candidates that beat the base: the promise kept for less, or where it was broken, kept at all or broken less.

    >>> def row(name, hours, percent):
    ...     return Row(name, hours, 0.0, percent, 0.0, 0.0, 0, 0, 0.0)
    >>> base = row("base", 100.0, 99.5)
    >>> [r.name for r in better([base, row("a", 90.0, 99.0), row("b", 80.0, 98.0)], base, promised=99.0)]
    ['a']
    >>> broken = row("base", 100.0, 97.0)
    >>> [r.name for r in better([broken, row("a", 120.0, 99.2), row("b", 101.0, 98.0)], broken, promised=99.0)]
    ['a', 'b']
    """
    others = [row for row in rows if row.name != base.name]
    keeping = sorted((row for row in others if row.attainment_percent >= promised), key=lambda row: row.gpu_hours)
    if base.attainment_percent >= promised:
        return [row for row in keeping if row.gpu_hours < base.gpu_hours * (1 - _WORTH_IT)]
    closer = [row for row in others if base.attainment_percent + 0.1 < row.attainment_percent < promised]
    return [*keeping, *sorted(closer, key=lambda row: -row.attainment_percent)]


def _order(row: Row, base: Row, changes: Mapping[str, Any]) -> tuple[int, float]:
    if row.name == _Recorded.name:
        return 0, 0.0
    if row.name == base.name:
        return 1, 0.0
    return (3, row.gpu_hours) if row.name in changes else (2, row.gpu_hours)


# --------------------------------------------------------------------- who decides


class _Run(Protocol):
    """Somebody at the controls, of one pool or of several."""

    def begin(self, load: Interval, look: Look, learned: Learned) -> None:
        """Start with the pool of the first look."""

    def tick(self, load: Interval, look: Look) -> dict[str, Pool]:
        """Let an interval pass, and decide; the pools by name."""


class _Recorded:
    """The replicas that there were."""

    name = "as recorded"

    def begin(self, load: Interval, look: Look, learned: Learned) -> None:
        self._pool = _pool(load, look, learned, drains=False)

    def tick(self, load: Interval, look: Look) -> dict[str, Pool]:
        self._pool.follow(load)
        ready = sum(pod.ready for pod in look.pods)
        if load.known or ready:
            self._pool.set_ready(ready)
        return {self.name: self._pool}


class _Longtail:
    """All candidates as one fleet."""

    def __init__(self, candidates: Sequence[Candidate], learned: Learned) -> None:
        slots = max(int(learned.slots_per_replica), 1)
        self._services = {
            ServiceKey(candidate.service.key.namespace, f"{number:03d}"): (
                candidate.name,
                replace(
                    candidate.service,
                    key=ServiceKey(candidate.service.key.namespace, f"{number:03d}"),
                    mode=Mode.ACTIVE,
                    # The pool drains by itself (fluid.Pool), so the plan may delete at once.
                    drain=DrainRules(policy=DrainPolicy.IMMEDIATE),
                    parameters=replace(
                        candidate.service.parameters,
                        startup_seconds=learned.cold_start_p90_seconds,
                        capacity=CapacityOverride(
                            max_concurrent_requests=slots,
                            kv_cache_tokens=candidate.service.parameters.capacity.kv_cache_tokens,
                        ),
                    ),
                ),
            )
            for number, candidate in enumerate(candidates)
        }
        self._memory = Memory.empty()
        self._pools: dict[ServiceKey, Pool] = {}

    def begin(self, load: Interval, look: Look, learned: Learned) -> None:
        self._pools = {key: _pool(load, look, learned, drains=True) for key in self._services}

    def tick(self, load: Interval, look: Look) -> dict[str, Pool]:
        for pool in self._pools.values():
            pool.follow(load)
        fleet = []
        for key, (_, service) in self._services.items():
            pool = self._pools[key]
            fleet.append(replace(service, target=Target(pool.serving, pool.ready, pool.pods())))
        decisions, self._memory = step(
            fleet=Fleet(tuple(fleet)),
            observations={key: _seen(pool, load, look.observation) for key, pool in self._pools.items()},
            memory=self._memory,
            now=load.at_seconds,
        )
        for key, pool in self._pools.items():
            pool.ask(decisions[key].desired, service_seconds=load.service_seconds)
        return {name: self._pools[key] for key, (name, _) in self._services.items()}


class _Peer:
    """One peer's rule."""

    def __init__(self, policy: Policy[Any]) -> None:
        self._policy = policy
        self._memory = policy.initial()
        self._arrived = self._finished = 0.0

    def begin(self, load: Interval, look: Look, learned: Learned) -> None:
        self._pool = _pool(load, look, learned, drains=False)
        self._tokens = learned.mean_tokens

    def tick(self, load: Interval, look: Look) -> dict[str, Pool]:
        pool = self._pool
        pool.follow(load)
        self._arrived += pool.arrived
        self._finished += pool.finished
        if load.known:
            seen = self._view(look.observation)
        else:
            seen = replace(self._view(look.observation), metrics_reachable=False)
        replicas, self._memory = self._policy.decide(seen=seen, memory=self._memory, now=load.at_seconds)
        pool.ask(replicas, service_seconds=load.service_seconds)
        return {self._policy.name: pool}

    def _view(self, recorded: Observation) -> PeerView:
        pool = self._pool
        ready = max(pool.ready, 1)
        per_pod = _per_pod(recorded.kv_capacity_tokens, recorded.reporting_pods)
        used = _scaled(recorded.kv_used_tokens, pool.running, recorded.running_requests)
        ratio = None
        if per_pod and used.value is not None:
            ratio = min(used.value / ready / per_pod, 1.0)
        pods = tuple(
            PodView(
                name=pod.name,
                ready=pod.ready,
                running_requests=pool.running / ready if pod.ready else None,
                waiting_requests=pool.waiting / ready if pod.ready else None,
                kv_used_ratio=ratio if pod.ready else None,
                kv_capacity_tokens=per_pod if pod.ready else None,
            )
            for pod in pool.pods()
        )
        return PeerView(
            spec_replicas=pool.serving,
            status_replicas=pool.serving,
            ready_replicas=pool.ready,
            pods=pods,
            door_requests=pool.requests,
            arrived_requests_total=self._arrived,
            finished_requests_total=self._finished,
            finished_output_tokens_total=self._finished * self._tokens,
        )


def _pool(load: Interval, look: Look, learned: Learned, *, drains: bool) -> Pool:
    return Pool(
        slots=learned.slots_per_replica,
        cold_start_seconds=learned.cold_start_seconds,
        replicas=max(sum(pod.ready for pod in look.pods), 1),
        requests=load.requests,
        at_seconds=load.at_seconds,
        drains=drains,
    )


# --------------------------------------------------------------------- what it sees


def _seen(pool: Pool, load: Interval, recorded: Observation) -> Observation:
    """The recorded observation as it would have been of this pool."""
    if not load.known:
        return Observation(at_seconds=load.at_seconds, ready_pods=pool.ready)
    running = recorded.running_requests
    share = pool.finished / load.finished if load.finished else 0.0
    per_pod = _per_pod(recorded.kv_capacity_tokens, recorded.reporting_pods)
    return Observation(
        at_seconds=load.at_seconds,
        interval_seconds=recorded.interval_seconds,
        running_requests=Signal(pool.running),
        waiting_requests=Signal(pool.waiting),
        kv_used_tokens=_scaled(recorded.kv_used_tokens, pool.running, running),
        kv_capacity_tokens=MISSING if not per_pod else Signal(per_pod * pool.ready),
        first_tokens=Signal(pool.started),
        arrivals=Signal(pool.arrived) if recorded.arrivals.fresh else MISSING,
        generated_tokens=_scaled(recorded.generated_tokens, pool.running, running),
        finished_tokens=_times(recorded.finished_tokens, share),
        prompt_tokens=_times(recorded.prompt_tokens, share),
        preemptions=recorded.preemptions,
        aborted_requests=_times(recorded.aborted_requests, share),
        attained_tokens=_scaled(recorded.attained_tokens, pool.running, running),
        finished_output_tokens=_buckets_times(recorded.finished_output_tokens, share),
        queue_wait_seconds=_waits(recorded.queue_wait_seconds, WAIT_BOUNDS, pool),
        first_token_seconds=_waits(recorded.first_token_seconds, FIRST_TOKEN_BOUNDS, pool),
        ready_pods=pool.ready,
        reporting_pods=pool.ready,
    )


def _scaled(signal: Signal, running: float, recorded_running: Signal) -> Signal:
    if signal.value is None or not recorded_running.value:
        return MISSING if signal.value is None else Signal(0.0 if running == 0 else signal.value)
    return Signal(signal.value * running / recorded_running.value)


def _times(signal: Signal, share: float) -> Signal:
    return MISSING if signal.value is None else Signal(signal.value * share)


def _per_pod(signal: Signal, pods: int) -> float | None:
    return None if signal.value is None or pods == 0 else signal.value / pods


def _buckets_times(buckets: Buckets | None, share: float) -> Buckets | None:
    return None if buckets is None else replace(buckets, counts=tuple(count * share for count in buckets.counts))


def _waits(recorded: Buckets | None, bounds: tuple[float, ...], pool: Pool) -> Buckets | None:
    """All that started had the same wait."""
    if recorded is None:
        return None
    place = int(np.searchsorted(bounds, pool.wait_seconds, side="left"))
    return Buckets(bounds, tuple(pool.started if number == place else 0.0 for number in range(len(bounds))))
