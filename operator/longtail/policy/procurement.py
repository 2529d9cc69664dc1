"""When replicas cannot be had: what was asked for stays asked for, and no more is, but for a rare probe.

A start is *blocked* when no node has room, when pods may not be created, when its container does not come up,
or when it takes three times as long as starts take. Each gets the time of a start (P90) first: a cluster
autoscaler that buys a node needs it too. As long as anything moves, there is no shortage.

Why the blocked replicas stay asked for: they cost nothing, keep their place in the scheduler's queue, hold the
cluster autoscaler's request for a node, and are started the moment there is room. Why no more are asked for: a
shortage of an hour would otherwise end in a herd of starts for a demand of an hour ago. Pods that Kubernetes
does not try anew by itself (crashed, hung) get a probe beside them, ever more rarely.

While capacity is short, cordoned replicas return: what is deleted now cannot be replaced.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from longtail.policy.decision import Shortage, ShortageReason
from longtail.policy.fleet import Pod, Target
from longtail.policy.roster import Roster

OVERDUE_STARTS = 3.0
"""A start that takes this many times the P90 hangs."""

LONGEST_BACKOFF_SECONDS = 900.0
"""Between probes at most: the time in which the cluster autoscaler tries to get a node (max-node-provision-time)."""

FORGET_SECONDS = 3600.0
"""A shortage that nobody has felt for so long says nothing about now."""

_STANDING = frozenset({ShortageReason.UNSCHEDULABLE, ShortageReason.FAILED_CREATE})
"""What Kubernetes tries anew by itself, so that what was asked for is its own probe."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """A start that does not come, or several that are refused together."""

    reason: ShortageReason
    message: str
    since: float


@dataclass(frozen=True, slots=True)
class Procured:
    """The number after the rung."""

    replicas: int
    because: str
    shortage: Shortage | None
    """To be remembered, felt or not."""
    felt: bool = False
    """More replicas are needed than work."""


def blocked_starts(target: Target, pool: Roster, *, patience_seconds: float, now: float) -> tuple[Blocked, ...]:
    """The starts that are not to be counted on, each with its reason. ``pool`` is the target's roster.

    >>> from longtail.policy.roster import roster
    >>> pod = Pod(name="r1-0", created_at=0.0, unschedulable_message="0/2 nodes are available")
    >>> target = Target(replicas=1, ready_replicas=0, pods=(pod,))
    >>> blocked_starts(target, roster(target), patience_seconds=60.0, now=50.0)
    ()
    >>> [start.reason.value for start in blocked_starts(target, roster(target), patience_seconds=60.0, now=70.0)]
    ['Unschedulable']
    """
    starts = (blocked_start(pod, patience_seconds=patience_seconds, now=now) for pod in pool.starting)
    found = [blocked for blocked in starts if blocked is not None]
    if target.refused_message and pool.unseen + pool.faceless:
        found.append(Blocked(ShortageReason.FAILED_CREATE, target.refused_message, now))
    return tuple(found)


def blocked_start(pod: Pod, *, patience_seconds: float, now: float) -> Blocked | None:
    """Why a pod that never served is not to be counted on; None when it is."""
    age = now - pod.created_at
    if age <= patience_seconds:
        return None
    if pod.unschedulable_message:
        return Blocked(ShortageReason.UNSCHEDULABLE, pod.unschedulable_message, pod.created_at)
    if pod.failure_message:
        return Blocked(ShortageReason.CONTAINER_NOT_STARTING, pod.failure_message, pod.created_at)
    loading = now - (pod.created_at if pod.scheduled_at is None else pod.scheduled_at)
    if loading > OVERDUE_STARTS * patience_seconds:
        message = f"{pod.name} has been loading for {loading:.0f} s, 9 of 10 starts take {patience_seconds:.0f} s"
        return Blocked(ShortageReason.START_OVERDUE, message, pod.created_at)
    return None


def procure(
    number: int,
    *,
    target: Target,
    pool: Roster,
    highest: int,
    known: Shortage | None,
    patience_seconds: float,
    now: float,
) -> Procured:
    """What to make of a number when part of it may not be had.

    Args:
        number: replicas that should serve.
        target: with its pods.
        pool: its roster.
        highest: most replicas that may serve.
        known: the shortage that is remembered.
        patience_seconds: how long a start may take, > 0.
        now: Unix seconds.
    """
    blocked = blocked_starts(target, pool, patience_seconds=patience_seconds, now=now)
    shortage = _judge(target, pool, blocked, known=known, patience_seconds=patience_seconds, now=now)
    if shortage is None:
        return Procured(number, _on_the_way(pool), None)
    if number <= len(pool.working):
        return Procured(number, "what is needed is there", shortage)
    back = sum(pod.switch for pod in pool.cordoned)
    there = max(pool.serving, len(pool.working)) + back
    probe = int(number > there and not _stands(blocked) and (now >= shortage.retry_at or now == shortage.probed_at))
    if probe and now != shortage.probed_at:
        wait = min(patience_seconds * 2 ** (shortage.probes + 1), LONGEST_BACKOFF_SECONDS)
        shortage = replace(shortage, probes=shortage.probes + 1, retry_at=now + wait, probed_at=now)
    least = there if back else 0
    replicas = max(min(number, there + probe), min(least, highest))
    waited = f"{shortage.reason} for {now - shortage.since:.0f} s: {shortage.message}"
    probing = "; one more is tried" if probe else ""
    because = f"{len(pool.working)} of {pool.serving} replicas are there, no more are to be had ({waited}){probing}"
    return Procured(replicas, because, shortage, felt=True)


def _judge(
    target: Target,
    pool: Roster,
    blocked: tuple[Blocked, ...],
    *,
    known: Shortage | None,
    patience_seconds: float,
    now: float,
) -> Shortage | None:
    """The shortage as of now: a new one, the one that is known, or none because something has moved."""
    worst = next(_felt(target, pool, blocked, patience_seconds=patience_seconds, now=now), None)
    if known is not None and worst is not None:
        known = replace(known, reason=worst.reason, message=worst.message)
    if known is not None and _has_moved(target, known):
        known = None
    if worst is None:
        forgotten = known is None or now - known.declared_at > FORGET_SECONDS
        return None if forgotten or _all_come(pool, blocked) else known
    if known is None:
        wait = now + patience_seconds
        return Shortage(worst.reason, worst.message, since=worst.since, declared_at=now, retry_at=wait)
    return known


def _felt(
    target: Target, pool: Roster, blocked: tuple[Blocked, ...], *, patience_seconds: float, now: float
) -> Iterator[Blocked]:
    """Blocked starts that say something about the next one, the oldest first."""
    if not blocked:
        return
    placed_at = max((pod.scheduled_at for pod in target.pods if pod.scheduled_at is not None), default=0.0)
    for start in sorted(blocked, key=lambda each: (each.since, each.message)):
        if start.reason in _STANDING:
            # Others found room a moment ago: a node has come, perhaps the next one will.
            if start.reason is ShortageReason.FAILED_CREATE or now - placed_at >= patience_seconds:
                yield start
        elif not any(pod.ready and pod.created_at >= start.since for pod in pool.working):
            # A younger pod of the same template works: this one's trouble is its own.
            yield start


def _has_moved(target: Target, known: Shortage) -> bool:
    """Whether a start has got past what stopped the others."""
    if known.reason in _STANDING:
        return any((pod.scheduled_at or 0.0) >= known.declared_at for pod in target.pods)
    return any(pod.ready and (pod.ready_at or 0.0) >= known.declared_at for pod in target.pods)


def _all_come(pool: Roster, blocked: tuple[Blocked, ...]) -> bool:
    """Starts are under way, and none of them is blocked or waits for a node."""
    return bool(pool.starting) and not blocked and all(pod.scheduled_at is not None for pod in pool.starting)


def _stands(blocked: tuple[Blocked, ...]) -> bool:
    return any(start.reason in _STANDING for start in blocked)


def _on_the_way(pool: Roster) -> str:
    coming = len(pool.starting) + pool.unseen
    if not coming:
        return "nothing is on its way"
    return f"{coming} of {pool.serving} replicas are on their way and count as there when they should be"
