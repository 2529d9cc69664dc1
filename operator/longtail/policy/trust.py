"""How far an observation can be trusted: may it be counted, and may a pool shrink because of it?

The rule of the house: "no data", "old data", "part of the data" and "zero" are four different things, and
only zero may shrink a pool. Every doubt below forbids shrinking; only a missing or stale number of running or
waiting requests forbids counting as well. Nothing here forbids growing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from longtail.demand.estimate import Demand
from longtail.demand.observation import Observation, Quality, Signal, worst
from longtail.policy import words
from longtail.policy.decision import Reason
from longtail.policy.fleet import Behavior, Pod
from longtail.policy.idleness import gpu_busy, idle_samples
from longtail.policy.memory import ServiceMemory

SCRAPE_GRACE_SECONDS = 60.0
"""A pod that became ready within this time need not have been scraped: two scrape intervals of 30 s."""

GAP_SECONDS = 60.0
"""Looking away for longer than this (four ticks of 15 s) starts the warm-up again; a lost scrape does not."""

FORGET_SECONDS = 3600.0
"""An optional signal that has been gone for so long, such as that of a removed gateway, is not missed."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What may be done with an observation."""

    countable: bool
    """Running and waiting requests are known, of all pods or of some."""
    doubt: Reason | None = None
    """Why the pool may not shrink; None when it may."""
    because: str = "all ready pods report, and have for long enough"
    blind_pods: int = 0
    """Ready pods that should report and do not."""
    may_grow: bool = True
    """False while a number set by hand stands and nobody waits."""


def look(memory: ServiceMemory, *, observation: Observation, demand: Demand, now: float) -> ServiceMemory:
    """Remember that the service was seen, which of the optional signals and which empty pods were."""
    reported = {
        name: now if signal.fresh else memory.reported_at.get(name) for name, signal in _optional(observation).items()
    }
    blind_since = None
    watched_since, watched_at = memory.watched_since, memory.watched_at
    if not _countable(observation):
        blind_since = now if memory.blind_since is None else memory.blind_since
    elif observation.ready_pods > 0:
        unbroken = watched_at is not None and now - watched_at <= GAP_SECONDS
        watched_since, watched_at = watched_since if unbroken else now, now
    return replace(
        memory,
        reported_at={name: at for name, at in reported.items() if at is not None},
        blind_since=blind_since,
        watched_since=watched_since,
        watched_at=watched_at,
        idle=idle_samples(memory.idle, observation),
        start_seconds=demand.startup.p90_seconds,
    )


def judge(
    *,
    observation: Observation,
    demand: Demand,
    pods: Sequence[Pod],
    memory: ServiceMemory,
    behavior: Behavior,
    now: float,
    by_hand: str | None = None,
) -> Trust:
    """The first doubt that applies, the gravest first. ``memory`` has had its `look` at this observation.

    ``by_hand`` says why a number that somebody else has set stands for now.
    """
    trusted = _judge(observation=observation, demand=demand, pods=pods, memory=memory, behavior=behavior, now=now)
    if by_hand is None:
        return trusted
    requests_wait = bool(observation.waiting_everywhere.value or observation.gateway_waiting_requests.value)
    if trusted.doubt is not None:
        return replace(trusted, because=f"{by_hand}; {trusted.because}", may_grow=requests_wait)
    return replace(trusted, doubt=Reason.MANUAL_SCALING, because=by_hand, may_grow=requests_wait)


def _judge(
    *,
    observation: Observation,
    demand: Demand,
    pods: Sequence[Pod],
    memory: ServiceMemory,
    behavior: Behavior,
    now: float,
) -> Trust:
    if _countable(observation) and demand.slots_now is None:
        because = "running and waiting requests are known, but not yet how many slots they need"
        return Trust(countable=False, doubt=Reason.METRICS_MISSING, because=because)
    for doubt, because in _doubts(observation, memory=memory, behavior=behavior, now=now):
        blind_pods = _blind_pods(observation, pods, now=now)
        return Trust(countable=_countable(observation), doubt=doubt, because=because, blind_pods=blind_pods)
    if demand.cascade is not None:
        because = (
            f"answers time out and are asked for again: {words.number(demand.cascade.aborted_per_second)} requests a "
            f"second are given up, {words.number(demand.cascade.finished_per_second)} are answered"
        )
        return Trust(countable=True, doubt=Reason.TIMEOUT_CASCADE, because=because)
    return Trust(countable=True)


def _blind_pods(observation: Observation, pods: Sequence[Pod], *, now: float) -> int:
    """Ready pods that do not report and have had the time to."""
    silent = observation.ready_pods - observation.reporting_pods
    if silent <= 0:
        return 0
    fresh_faces = sum(
        pod.ready and pod.ready_at is not None and now - pod.ready_at < SCRAPE_GRACE_SECONDS for pod in pods
    )
    return max(silent - fresh_faces, 0)


def _doubts(
    observation: Observation, *, memory: ServiceMemory, behavior: Behavior, now: float
) -> Iterator[tuple[Reason, str]]:
    core = {"running": observation.running_requests, "waiting": observation.waiting_requests}
    quality = worst(observation.running_requests.quality, observation.waiting_requests.quality)
    if quality is Quality.MISSING:
        absent = " and ".join(name for name, signal in core.items() if signal.value is None)
        yield Reason.METRICS_MISSING, f"the number of {absent} requests is missing"
    if observation.ready_pods == 0:
        yield Reason.METRICS_MISSING, "no pod is ready, so none reports"
    if quality is Quality.STALE:
        age = max(signal.age_seconds for signal in core.values())
        yield Reason.METRICS_STALE, f"running and waiting requests are {age:.0f} s old"
    if quality is Quality.PARTIAL or observation.reporting_pods < observation.ready_pods:
        pods = f"{observation.reporting_pods} of {observation.ready_pods} ready pods"
        yield Reason.METRICS_PARTIAL, f"only {pods} report"
    for name, signal in _optional(observation).items():
        last = memory.reported_at.get(name)
        if not signal.fresh and last is not None and now - last <= FORGET_SECONDS:
            yield Reason.METRICS_PARTIAL, f"{name}: last known {now - last:.0f} s ago, now {signal.quality}"
    gpu = observation.gpu_active_ratio
    if gpu_busy(gpu) and not any(signal.value for signal in core.values()):
        busy = 100 * (gpu.value or 0.0)
        yield Reason.GPU_BUSY, f"no request is reported, yet the GPUs are busy {busy:.0f} % of the time"
    window = behavior.scale_down.stabilization_window_seconds
    watched = 0.0 if memory.watched_since is None else now - memory.watched_since
    if watched < window:
        yield Reason.WARMING_UP, f"watched for {watched:.0f} s of the {window} s that shrinking takes"


def _countable(observation: Observation) -> bool:
    counted = (Quality.FRESH, Quality.PARTIAL)
    return observation.running_requests.quality in counted and observation.waiting_requests.quality in counted


def _optional(observation: Observation) -> dict[str, Signal]:
    return {
        "KV cache use": observation.kv_used_tokens,
        "gateway queue": observation.gateway_waiting_requests,
    }
