"""Carries decisions out, and says so: /scale, status, Events. Only differences are written.

Order matters when the API server is slow: more replicas first (somebody waits), then fewer (somebody pays),
then status, then Events. What does not fit into the tick's deadline is dropped and decided anew: nothing
queues.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from longtail.api.status import ReasoningServingStatus
from longtail.cluster.status import StatusWriter, stamp
from longtail.cluster.store import Store
from longtail.cluster.targets import Targets
from longtail.control.announcer import Announcer, Flip
from longtail.control.clock import Clock, rfc3339
from longtail.control.conditions import conditions
from longtail.control.fleet import effective_mode
from longtail.control.outcome import Outcome
from longtail.control.report import build_status
from longtail.errors import ClusterError, Conflict, NotFound
from longtail.policy.fleet import Mode, ServiceKey

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


class Writer:
    """Writes what a tick decided."""

    def __init__(
        self,
        *,
        store: Store,
        targets: Targets,
        statuses: StatusWriter,
        announcer: Announcer,
        clock: Clock,
        concurrency: int,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        """Make a writer.

        Args:
            store: asked again just before each write whether the resource is still the one decided on.
            targets: scales.
            statuses: applies status.
            announcer: posts Events.
            clock: for the times that are written.
            concurrency: requests in flight at once.
            may_write: asked before each write; a standby of several operators would say no.
        """
        self._store = store
        self._targets = targets
        self._statuses = statuses
        self._announcer = announcer
        self._clock = clock
        self._concurrency = concurrency
        self._may_write = may_write

    async def scale(self, outcomes: Mapping[ServiceKey, Outcome]) -> dict[ServiceKey, Outcome]:
        """Scale what is Active and differs, ups before downs; return all outcomes with what came of it."""
        wanted = [outcome for outcome in outcomes.values() if _wants_scaling(outcome)]
        results = dict(outcomes)

        async def scale(outcome: Outcome) -> None:
            results[outcome.view.record.key] = await self._scale(outcome)

        await self._in_parallel(scale, [o for o in wanted if _change(o) > 0])
        await self._in_parallel(scale, [o for o in wanted if _change(o) < 0])
        return results

    async def report(self, outcomes: Mapping[ServiceKey, Outcome]) -> None:
        """Write the statuses that are due, then the Events. A standby keeps quiet."""
        if not self._may_write():
            return
        uids = {outcome.view.record.uid for outcome in outcomes.values()}
        self._statuses.forget_all_but(uids)
        self._announcer.forget_all_but(uids)
        # In a thread: 90 µs each, so that 10,000 resources would keep the watches waiting for 0.9 s.
        due = await asyncio.to_thread(self._due, outcomes)
        flips = [Flip(outcome, status.conditions, self._known(outcome)) for outcome, status in due]
        failures: list[str] = []

        async def write_status(item: tuple[Outcome, ReasoningServingStatus]) -> None:
            failure = await self._write_status(*item)
            failures.extend([] if failure is None else [failure])

        await self._in_parallel(write_status, due)
        if failures:
            # One line, not one per resource: an API server that is away fails all of them.
            logger.warning("statuses not written", extra={"count": len(failures), "first": failures[0]})
        await self._in_parallel(self._announcer.rescaled, [o for o in outcomes.values() if o.rescaled or o.scale_error])
        await self._in_parallel(self._announcer.flipped, flips)

    async def _scale(self, outcome: Outcome) -> Outcome:
        record, decision = outcome.view.record, outcome.decision
        assert decision is not None
        assert record.target is not None
        if self._store.serving(record.key) is not record or not self._may_write():
            return outcome  # edited or deleted since the tick began: look again in the next one
        try:
            await self._targets.scale(
                record.target,
                current=decision.current,
                desired=decision.desired,
                now=self._clock.monotonic_seconds(),
            )
        except Conflict as moved:
            logger.info("not scaled: the target moved", extra={"service": str(record.key), "why": str(moved)})
            return outcome
        except ClusterError as failed:
            logger.warning("not scaled", extra={"service": str(record.key), "why": str(failed)})
            return replace(outcome, scale_error=failed)
        logger.info(
            "scaled",
            extra={
                "service": str(record.key),
                "current": decision.current,
                "desired": decision.desired,
                "reason": decision.reason,
                "why": decision.message,
            },
        )
        return replace(outcome, rescaled=True)

    def _due(self, outcomes: Mapping[ServiceKey, Outcome]) -> list[tuple[Outcome, ReasoningServingStatus]]:
        now = self._clock.monotonic_seconds()
        return [
            (outcome, status)
            for outcome in outcomes.values()
            if self._statuses.due(outcome.view.record, status := self._status(outcome), now=now)
        ]

    def _status(self, outcome: Outcome) -> ReasoningServingStatus:
        record, time = outcome.view.record, rfc3339(self._clock.unix_seconds())
        stamped = stamp(
            conditions(outcome),
            previous=self._statuses.conditions(record),
            generation=record.generation,
            time=time,
        )
        return build_status(outcome, conditions=stamped, previous=self._statuses.last(record), time=time)

    def _known(self, outcome: Outcome) -> dict[str, str]:
        return {c.type: str(c.status) for c in self._statuses.conditions(outcome.view.record)}

    async def _write_status(self, outcome: Outcome, status: ReasoningServingStatus) -> str | None:
        """Write one status; return why it could not be, if that matters."""
        record = outcome.view.record
        if not self._may_write() or self._store.serving(record.key) is not record:
            return None
        try:
            await self._statuses.write(record, status, now=self._clock.monotonic_seconds())
        except (NotFound, Conflict):
            logger.debug("status not written: the resource is gone", extra={"service": str(record.key)})
        except ClusterError as failed:
            return f"{record.key}: {failed}"
        return None

    async def _in_parallel(self, write: Callable[[_T], Awaitable[None]], items: Sequence[_T]) -> None:
        """Write all items, as many at once as allowed, in their order."""
        waiting = iter(items)

        async def work() -> None:
            for item in waiting:
                await write(item)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._concurrency, len(items))):
                group.create_task(work())


def _wants_scaling(outcome: Outcome) -> bool:
    decision = outcome.decision
    if decision is None or decision.hold or outcome.view.target is None:
        return False
    return effective_mode(outcome.view) is Mode.ACTIVE and _change(outcome) != 0


def _change(outcome: Outcome) -> int:
    assert outcome.decision is not None
    return outcome.decision.desired - outcome.decision.current
