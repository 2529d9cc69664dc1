"""From a number to pods: who leaves routing, who comes back, who may be deleted. No thought is cut.

Shrinking has two phases. A replica is *cordoned*: out of routing, at work on what it has, back within
milliseconds when load returns. It is *committed*, deleted, only when it has been seen empty twice. So a shrink
that turns out wrong costs nothing but the GPU time until it is called back.

Growing goes the same way back: cordoned replicas return before anything is started, and a start that has not
become ready gives way to a cordoned replica, because a replica that is there beats one that is minutes away.

Everything is made anew from what is seen, every tick: whatever was half done when the operator died, or was
undone by a rollout, an eviction or a hand, is finished or taken back by the next plan. Protocol and its
reasons: docs/design.md, "Shrinking".
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from longtail.demand.observation import Observation, PodReading
from longtail.policy import words
from longtail.policy.decision import Placement
from longtail.policy.fleet import DrainDeadline, DrainPolicy, DrainRules, Pod, Service, VictimOrder
from longtail.policy.idleness import is_empty, requests_of
from longtail.policy.memory import ServiceMemory
from longtail.policy.roster import Roster, names

CORDONED_SHARE = 0.2
"""At most this share of a pool is out of routing at a time (and at least one may be): a forecast that was
wrong then costs a fifth of the capacity for a tick, and the pool can be judged before the next fifth goes."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """A placement in the making: names of pods, and replicas to be lowered without a name."""

    cordon: tuple[str, ...] = ()
    uncordon: tuple[str, ...] = ()
    commit: tuple[str, ...] = ()
    raise_by: int = 0
    lower_by: int = 0
    """Replicas that go, ``commit`` among them; the others have no pod yet."""
    because: tuple[str, ...] = ()

    def with_(self, other: "_Plan") -> "_Plan":
        if other is _NOTHING:  # nearly every part of nearly every plan
            return self
        return _Plan(
            cordon=(*self.cordon, *other.cordon),
            uncordon=(*self.uncordon, *other.uncordon),
            commit=(*self.commit, *other.commit),
            raise_by=self.raise_by + other.raise_by,
            lower_by=self.lower_by + other.lower_by,
            because=(*self.because, *other.because),
        )


_NOTHING = _Plan()


@dataclass(frozen=True, slots=True)
class _Scene:
    """What a plan is made from."""

    pool: Roster
    rules: DrainRules
    order: VictimOrder
    readings: Mapping[str, PodReading]
    memory: ServiceMemory
    now: float

    def requests(self, pod: Pod) -> float:
        """Requests of a pod; more than anybody has where it does not say."""
        known = requests_of(self.readings.get(pod.name))
        return float("inf") if known is None else known

    def empty(self, pod: Pod) -> bool:
        """Whether a pod has been seen empty twice, since it left routing if it did."""
        since = (pod.cordoned_at or 0.0) if pod.cordoned else 0.0
        return is_empty(self.memory.idle.get(pod.name), since=since)

    def overdue(self, pod: Pod) -> bool:
        """Whether a drain has taken longer than the user allows."""
        return pod.cordoned_at is not None and self.now - pod.cordoned_at > self.rules.max_seconds

    def choose(self, candidates: Iterable[Pod], suits: Callable[[Pod], bool]) -> list[Pod]:
        """Those that suit; of ordered pods only the ones that no other stands before."""
        if self.order is VictimOrder.HIGHEST_INDEX:
            return _leading(candidates, suits)
        return [pod for pod in candidates if suits(pod)]

    def rested(self, pod: Pod) -> bool:
        """Whether a pod may be cordoned: not right after a drain of it took too long."""
        spared_until = self.memory.spared_until.get(pod.name)
        return spared_until is None or self.now >= spared_until


def place(
    *,
    service: Service,
    pool: Roster,
    observation: Observation,
    desired: int,
    may_shrink: bool,
    memory: ServiceMemory,
    now: float,
) -> tuple[Placement, ServiceMemory]:
    """Plan how a service gets from the replicas that serve to ``desired``.

    Args:
        service: with a target.
        pool: the target's roster.
        observation: readings of its pods.
        desired: replicas that should serve.
        may_shrink: False while anything about the observation is in doubt: then nothing is deleted, and
            nothing leaves routing.
        memory: with `idle` up to this observation.
        now: Unix seconds.

    Returns:
        The placement, and the memory with the pods that are to be spared.
    """
    target, rules = service.target, service.drain
    assert target is not None
    scene = _Scene(
        pool=pool,
        rules=rules,
        order=target.victims,
        readings={reading.name: reading for reading in observation.pods},
        memory=memory,
        now=now,
    )
    overdue = [pod for pod in pool.cordoned if scene.overdue(pod)]
    # In the middle of a rollout a Deployment spreads a lowering over its ReplicaSets: over working pods too.
    may_lower = may_shrink and not target.rolling
    plan = _grow(scene, desired=desired)
    if may_lower:
        plan = plan.with_(_cancel(scene, surplus=pool.serving + len(plan.uncordon) - desired))
    if rules.on_deadline is DrainDeadline.UNCORDON:
        plan = plan.with_(_give_up(overdue, plan))
    if may_lower:
        plan = plan.with_(_shrink(scene, desired=desired, plan=plan))
        plan = plan.with_(_commit(scene, plan=plan))
    spared = {name: until for name, until in memory.spared_until.items() if until > now}
    spared |= {pod.name: now + rules.max_seconds for pod in overdue if pod.name in plan.uncordon}
    placement = Placement(
        asked=pool.asked,
        replicas=pool.asked + plan.raise_by - plan.lower_by,
        cordon=plan.cordon,
        uncordon=plan.uncordon,
        commit=plan.commit,
        because="; ".join(plan.because) or "nothing to place",
    )
    return placement, memory if spared == memory.spared_until else replace(memory, spared_until=spared)


def _grow(scene: _Scene, *, desired: int) -> _Plan:
    """Cordoned replicas come back, as far as ready ones are fewer than desired; the rest is started."""
    pool = scene.pool
    back = _returning(scene)[: max(desired - len(pool.working) - pool.faceless, 0)]
    plan = _NOTHING
    if back:
        plan = _Plan(uncordon=names(back), because=(f"back into routing: {words.some(names(back))}",))
    missing = desired - pool.serving - len(back)
    if missing <= 0:
        return plan
    return plan.with_(_Plan(raise_by=missing, because=(f"{words.replicas(missing)} more to be started",)))


def _returning(scene: _Scene) -> list[Pod]:
    """Cordoned pods in the order of their return: those that would have taken longest to empty."""
    ready = [pod for pod in scene.pool.cordoned if pod.switch]
    if scene.order is VictimOrder.HIGHEST_INDEX:
        return sorted(ready, key=lambda pod: pod.index or 0)
    return sorted(ready, key=lambda pod: (-scene.requests(pod), pod.name))


def _cancel(scene: _Scene, *, surplus: int) -> _Plan:
    """Take back starts that are no longer needed: nobody has ever sent them a request."""
    pool = scene.pool
    if surplus <= 0:
        return _NOTHING
    if scene.order is VictimOrder.HIGHEST_INDEX:
        starts = _leading(_downwards(pool.everybody), lambda pod: pod in pool.starting)
    elif scene.order is VictimOrder.UNKNOWN:
        starts = []  # a working pod might go instead
    else:
        # In a ReplicaSet's own order, so that the pods that go are the pods named here.
        starts = sorted(pool.starting, key=lambda pod: (pod.scheduled_at is not None, -pod.created_at, pod.name))
    unborn = min(pool.unseen, surplus)
    chosen = names(starts[: surplus - unborn])
    count = unborn + len(chosen)
    because = (f"{words.replicas(count)} no longer to be started",) if count else ()
    return _Plan(commit=chosen, lower_by=count, because=because)


def _give_up(overdue: Iterable[Pod], plan: _Plan) -> _Plan:
    late = tuple(pod.name for pod in overdue if pod.name not in plan.uncordon and pod.switch)
    if not late:
        return _NOTHING
    return _Plan(uncordon=late, because=(f"not empty in time, back into routing: {words.some(late)}",))


def _shrink(scene: _Scene, *, desired: int, plan: _Plan) -> _Plan:
    """Choose who leaves: out of routing where that can be undone, else only who is empty anyway."""
    pool = scene.pool
    serving = pool.serving + len(plan.uncordon) + plan.raise_by - plan.lower_by
    # A broken replica serves nobody: it does not make a working one superfluous.
    surplus = min(serving, len(pool.working)) - desired
    if surplus <= 0:
        return _NOTHING
    candidates = _victims(scene)
    if scene.rules.policy is DrainPolicy.IMMEDIATE:
        gone = names(candidates[:surplus])
        return _Plan(commit=gone, lower_by=len(gone), because=(f"deleted at once, as asked: {words.some(gone)}",))
    if scene.order is VictimOrder.UNKNOWN:
        return _delete_unnamed(scene, surplus)
    if not any(pod.switch for pod in candidates):
        return _delete_idle(scene, candidates[:surplus])
    out = [pod for pod in pool.cordoned if pod.name not in plan.uncordon]
    room = max(1, int(CORDONED_SHARE * (len(pool.working) + len(out)))) - len(out)
    able = scene.choose(candidates, lambda pod: pod.switch and scene.rested(pod))
    leaving = names(able[: max(min(surplus, room), 0)])
    return _Plan(cordon=leaving, because=(f"out of routing: {words.some(leaving)}",) if leaving else ())


def _victims(scene: _Scene) -> Sequence[Pod]:
    """Working pods, the first to go first.

    Fewest requests means fewest owed tokens, as long as nothing is known of single requests: each owes the
    same expected rest. Among equals the one that has written least loses least if something should go wrong.
    """
    if scene.order is VictimOrder.HIGHEST_INDEX:
        pool = scene.pool
        in_routing = _downwards(pod for pod in pool.everybody if pod not in pool.cordoned)
        return _leading(in_routing, lambda pod: pod in pool.working)

    def order(pod: Pod) -> tuple[float, float, str]:
        reading = scene.readings.get(pod.name)
        attained = reading.attained_tokens.value if reading is not None else None
        return scene.requests(pod), attained or 0.0, pod.name

    return sorted(scene.pool.working, key=order)


def _delete_idle(scene: _Scene, candidates: Sequence[Pod]) -> _Plan:
    """Without a switch: nothing keeps new requests away, so only who is empty already may go."""
    idle = names(scene.choose(candidates, scene.empty))
    because = (
        f"idle, deleted: {words.some(idle)}" if idle else "no replica is idle, and none can be taken out of routing"
    )
    return _Plan(commit=idle, lower_by=len(idle), because=(because,))


def _delete_unnamed(scene: _Scene, surplus: int) -> _Plan:
    """Where the controller takes whom it likes, nobody may be at work."""
    if not all(scene.empty(pod) for pod in scene.pool.everybody):
        return _Plan(because=("nobody can say which replica would go, and not all are idle",))
    return _Plan(lower_by=surplus, because=(f"all are idle, deleted: any {surplus}",))


def _commit(scene: _Scene, *, plan: _Plan) -> _Plan:
    """Delete the cordoned replicas that are empty, or out of time where the user wants them gone."""
    pool = scene.pool
    if not pool.cordoned or scene.order is VictimOrder.UNKNOWN:
        return _NOTHING
    late = scene.rules.on_deadline is DrainDeadline.DELETE

    def done(pod: Pod) -> bool:
        return pod.name not in plan.uncordon and (scene.empty(pod) or (late and scene.overdue(pod)))

    if scene.order is VictimOrder.HIGHEST_INDEX:
        ready = _leading(_downwards(pool.everybody), lambda pod: pod in pool.cordoned and done(pod))
    else:
        # A ReplicaSet deletes pods that are not ready before any that is, whatever their deletion cost.
        others = len(pool.starting) + len(pool.broken) - sum(pod.name in plan.commit for pod in pool.starting)
        ready = [pod for pod in pool.cordoned if done(pod)] if others + pool.unseen == 0 else []
    gone = names(ready)
    if not gone:
        return _NOTHING
    return _Plan(commit=gone, lower_by=len(gone), because=(f"empty, deleted: {words.some(gone)}",))


def _downwards(pods: Iterable[Pod]) -> list[Pod]:
    """From the highest index to the lowest: the order in which a StatefulSet deletes."""
    return sorted(pods, key=lambda pod: -(pod.index or 0))


def _leading(pods: Iterable[Pod], suits: Callable[[Pod], bool]) -> list[Pod]:
    """The pods before the first that does not suit: behind it nobody can go."""
    return list(itertools.takewhile(suits, pods))
