"""From the pods of a target to the replicas that serve, come and go, and to the cold starts seen."""

from collections.abc import Sequence
from dataclasses import replace

from longtail.demand.supply import Supply
from longtail.policy.fleet import Pod, Target
from longtail.policy.memory import ServiceMemory
from longtail.policy.procurement import OVERDUE_STARTS, blocked_start
from longtail.policy.roster import Roster, roster


def supply_of(
    target: Target | None,
    *,
    pool: Roster | None = None,
    memory: ServiceMemory,
    start_seconds: float,
    now: float,
) -> tuple[Supply, ServiceMemory]:
    """Replicas by what they do, and each cold start exactly once.

    A replica that was asked for and has no pod yet is pending with age 0. A cordoned one does not serve, though
    its pod is ready. Where no pods are seen at all, the target's own counts have to do.

    Not counted, because nobody knows when they come, if ever: starts that are blocked (see `procurement`) or
    whose container fails, pods that may not be created, and pods that served and are not ready now.

    Args:
        target: with its pods; None supplies nothing.
        pool: its roster, where there is one already.
        memory: what is known of pods and starts.
        start_seconds: the P90 of a cold start as the user states it, until it has been computed.
        now: Unix seconds.
    """
    if target is None:
        return Supply(ready_replicas=0), memory
    pool = pool or roster(target)
    ready = len(pool.working) if target.pods else target.ready_replicas
    patience = memory.start_seconds or start_seconds
    ages = [
        max(now - pod.created_at, 0.0)
        for pod in pool.starting
        if not pod.failure_message and blocked_start(pod, patience_seconds=patience, now=now) is None
    ]
    unseen = pool.unseen if target.pods else max(target.replicas - ready, 0)
    if target.refused_message:
        unseen = 0
    cold_starts, memory = _cold_starts(target.pods, memory, longest=OVERDUE_STARTS * patience)
    supply = Supply(
        ready_replicas=ready,
        pending_ages_seconds=(*ages, *[0.0] * unseen),
        draining_replicas=len(pool.cordoned) + sum(pod.ready for pod in pool.deleting),
        cold_starts_seconds=cold_starts,
    )
    return supply, memory


def _cold_starts(
    pods: Sequence[Pod], memory: ServiceMemory, *, longest: float
) -> tuple[tuple[float, ...], ServiceMemory]:
    """Creation to first ready of the pods that became ready under our eyes, ``longest`` for longer ones.

    An hour without GPUs is no cold start of an hour, and a forecast that looks an hour ahead would be one of the
    damages of the shortage. Where starts really are that slow, each one trebles what the next may teach.

    Pods that were ready at the first sight of a service teach nothing: what they show is the last change of
    their condition, and a pod that flapped yesterday would pass for a cold start of days.
    """
    before = memory.known_pods
    news = [pod for pod in pods if pod.ready_at is not None and pod.name not in before]
    learned = tuple(
        min(pod.ready_at - pod.created_at, longest)
        for pod in news
        if memory.met and not pod.restarted and pod.ready_at is not None and pod.ready_at >= pod.created_at
    )
    names = {pod.name for pod in pods}
    if memory.met and not news and names >= before:
        return learned, memory
    return learned, replace(memory, known_pods=(before & names).union(pod.name for pod in news), met=True)
