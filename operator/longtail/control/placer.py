"""Carries placements out: who comes back, who is started, who leaves routing, who may be deleted. In this order.

Uncordons come first, for all services: somebody waits, and it takes milliseconds. Then more replicas; then cordons,
which save money; then fewer replicas. What fails or does not fit into the tick's deadline is planned anew from what
is seen then: nothing here is remembered, and nothing queues.

A ReplicaSet learns of a deletion cost and of a lower number of replicas by two watches, in either order. So the cost
is written in one tick and the number lowered in the next one that still plans to delete these pods: whoever was
marked and is not empty any more is pardoned instead. For the same reason nothing is lowered in a tick that found a
mark on anybody else: the ReplicaSet may not have heard of the pardon yet, and would take that pod.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from longtail.cluster.cordon import Cordons, is_ours, needs_repair
from longtail.cluster.records import PodRecord
from longtail.cluster.routing import cost_owners
from longtail.cluster.store import Store
from longtail.cluster.targets import Targets
from longtail.control.clock import Clock, rfc3339_micro
from longtail.control.fleet import effective_mode, policy_target, victim_order
from longtail.control.outcome import Outcome
from longtail.control.parallel import in_parallel
from longtail.errors import ClusterError, Conflict, NotFound
from longtail.policy.decision import Placement
from longtail.policy.fleet import Mode, ServiceKey, VictimOrder
from longtail.policy.roster import names, roster

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_UNREAD: Final = "TargetNotReadYet"


@dataclass(slots=True)
class _Task:
    """One service's placement, and what has come of it so far."""

    outcome: Outcome
    placement: Placement
    label: str
    pods: Mapping[str, PodRecord]
    cordoned: list[str] = field(default_factory=list)
    uncordoned: list[str] = field(default_factory=list)
    drained: tuple[str, ...] = ()
    asked: int | None = None
    error: ClusterError | None = None

    @property
    def key(self) -> ServiceKey:
        return self.outcome.view.record.key

    def stays(self, name: str) -> bool:
        """Whether a pod is neither on its way out nor to be deleted: no mark for deletion may stay on it."""
        view = self.outcome.view
        assert view.target is not None
        present = names(roster(policy_target(view, view.target)).everybody)
        return name in present and name not in self.placement.commit

    def marked_strays(self) -> list[str]:
        """Pods that stay and carried a mark for deletion when the tick began."""
        return [name for name, record in self.pods.items() if record.pod.condemned and self.stays(name)]

    def done(self) -> Outcome:
        return replace(
            self.outcome,
            asked=self.asked,
            cordoned=tuple(self.cordoned),
            uncordoned=tuple(self.uncordoned),
            drained=self.drained,
            scale_error=self.error,
        )


_Change = tuple[_Task, str]
"""A pod of a service, by name."""


class Placer:
    """Writes pods and ``/scale``."""

    def __init__(
        self,
        *,
        store: Store,
        targets: Targets,
        cordons: Cordons,
        clock: Clock,
        concurrency: int,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        """Make a placer.

        Args:
            store: asked again just before each write whether the resource is still the one decided on.
            targets: scales.
            cordons: writes pods.
            clock: for the times that are written.
            concurrency: requests in flight at once.
            may_write: asked before each write; a standby of several operators would say no.
        """
        self._store = store
        self._targets = targets
        self._cordons = cordons
        self._clock = clock
        self._concurrency = concurrency
        self._may_write = may_write

    async def place(self, outcomes: Mapping[ServiceKey, Outcome]) -> dict[ServiceKey, Outcome]:
        """Carry out what was decided for services in mode Active; return all outcomes with what came of it."""
        tasks = [task for outcome in outcomes.values() if (task := _task(outcome)) is not None]
        await self._each(self._uncordon, _changes(tasks, lambda placement: placement.uncordon))
        await self._each(self._put_right, self._strays(tasks, outcomes.values()))
        await self._each(self._scale, [(t, t.placement.replicas) for t in tasks if _change(t) > 0])
        await self._each(self._cordon, _changes(tasks, lambda placement: placement.cordon))
        await self._each(self._lower, [task for task in tasks if _change(task) < 0])
        return {**outcomes, **{task.key: task.done() for task in tasks}}

    async def _uncordon(self, change: _Change) -> None:
        task, name = change

        async def uncordon() -> None:
            await self._cordons.uncordon(task.pods[name], label=task.label, time=self._now())
            task.uncordoned.append(name)
            self._log("back in routing", task, pod=name)

        await self._attempt(uncordon, task, f"pod {name} is not back in routing")

    async def _cordon(self, change: _Change) -> None:
        task, name = change

        async def cordon() -> None:
            await self._cordons.cordon(task.pods[name], label=task.label, time=self._now())
            task.cordoned.append(name)
            self._log("out of routing", task, pod=name)

        await self._attempt(cordon, task, f"pod {name} is not out of routing")

    async def _scale(self, change: tuple[_Task, int]) -> None:
        task, replicas = change
        record = task.outcome.view.record
        assert record.target is not None
        reference = record.target

        async def scale() -> None:
            await self._targets.scale(
                reference,
                current=task.placement.asked,
                desired=replicas,
                now=self._clock.monotonic_seconds(),
            )
            task.asked = replicas
            self._log("scaled", task, asked=task.placement.asked, replicas=replicas)

        await self._attempt(scale, task, "not scaled")

    async def _lower(self, task: _Task) -> None:
        """Mark the pods that may be deleted, and ask for as many replicas less as were marked before this tick."""
        commit = task.placement.commit
        if risen := [name for name in commit if self._has_come_up(task.pods[name])]:
            # A start that was given up, and is in routing by now: whether it may go is the next plan's to say.
            logger.info("not lowered: ready meanwhile", extra={"service": str(task.key), "pods": risen})
            return
        ready: Sequence[str] = commit
        if victim_order(task.outcome.view) is VictimOrder.CHOSEN:
            owners = cost_owners(task.pods.values(), commit=commit)
            if owners:
                logger.warning("not lowered: deletion cost of others", extra={"service": str(task.key), "pods": owners})
                return
            for name in commit:
                await self._condemn(task, task.pods[name])
            if strays := task.marked_strays():
                logger.info("not lowered: marks to be seen gone", extra={"service": str(task.key), "pods": strays})
                return
            ready = [name for name in commit if task.pods[name].pod.condemned and self._is_condemned(task.pods[name])]
        replicas = task.placement.replicas + len(commit) - len(ready)
        if replicas < task.placement.asked:
            await self._scale((task, replicas))
            task.drained = tuple(ready) if task.asked is not None else ()

    async def _condemn(self, task: _Task, record: PodRecord) -> None:
        await self._attempt(
            lambda: self._cordons.condemn(record), task, f"pod {record.pod.name} is not marked for deletion"
        )

    def _is_condemned(self, record: PodRecord) -> bool:
        known = self._store.pod(namespace=record.namespace, name=record.pod.name)
        return known is not None and known.uid == record.uid and known.pod.condemned

    def _has_come_up(self, record: PodRecord) -> bool:
        known = self._store.pod(namespace=record.namespace, name=record.pod.name)
        return known is not None and known.pod.ready and not record.pod.ready

    async def _attempt(self, write: Callable[[], Awaitable[None]], task: _Task, otherwise: str) -> None:
        """Write, if the resource is still the one that was decided on and we may; a failure is the service's own."""
        record = task.outcome.view.record
        if not record.is_same_spec(self._store.serving(record.key)) or not self._may_write():
            return  # edited or deleted since the tick began: look again in the next one
        try:
            await write()
        except (Conflict, NotFound) as moved:
            logger.info(otherwise, extra={"service": str(task.key), "why": str(moved)})
        except ClusterError as failed:
            logger.warning(otherwise, extra={"service": str(task.key), "why": str(failed)})
            task.error = failed

    def _strays(
        self, tasks: Iterable[_Task], outcomes: Iterable[Outcome]
    ) -> list[tuple[PodRecord, Callable[[PodRecord], Awaitable[None]]]]:
        """Pods with marks of ours that no placement accounts for, and what is to be done about each.

        Whatever leaves a mark behind (a crash, a hand, a resource that is Off or gone) is found here, because the
        marks are looked for and not what made them.
        """
        managed = {record.uid: task for task in tasks for record in task.pods.values()}
        unread = {o.view.record.key.namespace for o in outcomes if o.view.problem and o.view.problem.reason == _UNREAD}
        strays: list[tuple[PodRecord, Callable[[PodRecord], Awaitable[None]]]] = []
        for record in self._store.marked_pods():
            task = managed.get(record.uid)
            if record.pod.deleting or record.finished:
                continue
            if record.has_gate and record.in_service is None:
                strays.append((record, self._admit))
            elif task is None:
                if (is_ours(record) or record.in_service is False) and record.namespace not in unread:
                    strays.append((record, self._release))
            elif needs_repair(record):
                strays.append((record, self._release))
            elif record.pod.condemned and task.stays(record.pod.name):
                strays.append((record, self._cordons.pardon))
        return strays

    async def _admit(self, record: PodRecord) -> None:
        await self._cordons.admit(record, time=self._now())

    async def _release(self, record: PodRecord) -> None:
        await self._cordons.uncordon(record, label="", time=self._now())
        logger.info("put right", extra={"pod": f"{record.namespace}/{record.pod.name}"})

    async def _put_right(self, stray: tuple[PodRecord, Callable[[PodRecord], Awaitable[None]]]) -> None:
        record, write = stray
        if not self._may_write():
            return
        try:
            await write(record)
        except ClusterError as failed:
            # It is found again in the next tick.
            logger.info("not put right", extra={"pod": f"{record.namespace}/{record.pod.name}", "why": str(failed)})

    async def _each(self, write: Callable[[_T], Awaitable[None]], items: Sequence[_T]) -> None:
        await in_parallel(write, items, limit=self._concurrency)

    def _log(self, what: str, task: _Task, **details: object) -> None:
        logger.info(what, extra={"service": str(task.key), **details, "why": task.placement.because})

    def _now(self) -> str:
        return rfc3339_micro(self._clock.unix_seconds())


def _task(outcome: Outcome) -> _Task | None:
    """What there is to do for a service; None where nothing may be touched."""
    view, decision = outcome.view, outcome.decision
    if view.target is None or view.record.spec is None or decision is None or decision.placement is None:
        return None
    if effective_mode(view) is not Mode.ACTIVE:
        return None
    return _Task(
        outcome=outcome,
        placement=decision.placement,
        label=view.record.spec.drain.routing_label,
        pods={record.pod.name: record for record in view.pods},
    )


def _changes(tasks: Iterable[_Task], names_of: Callable[[Placement], Sequence[str]]) -> list[_Change]:
    return [(task, name) for task in tasks for name in names_of(task.placement)]


def _change(task: _Task) -> int:
    return task.placement.replicas - task.placement.asked
