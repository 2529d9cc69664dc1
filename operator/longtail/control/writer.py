"""Carries decisions out, and says so: placements, levels of thinking, status, Events. Only differences are written.

Order matters when the API server is slow: placements first (see `placer`), then levels, then status, then Events.
What does not fit into the tick's deadline is dropped and decided anew: nothing queues.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from longtail.api.status import ReasoningServingStatus
from longtail.cluster.status import StatusWriter, stamp
from longtail.cluster.store import Store
from longtail.control.announcer import Announcer, Flip
from longtail.control.clock import Clock, rfc3339
from longtail.control.conditions import conditions
from longtail.control.outcome import Outcome
from longtail.control.parallel import in_parallel
from longtail.control.placer import Placer
from longtail.control.report import build_status
from longtail.control.thinking import EffortPublisher
from longtail.errors import ClusterError, Conflict, NotFound
from longtail.policy.fleet import ServiceKey

logger = logging.getLogger(__name__)


class Writer:
    """Writes what a tick decided."""

    def __init__(
        self,
        *,
        store: Store,
        placer: Placer,
        statuses: StatusWriter,
        announcer: Announcer,
        efforts: EffortPublisher,
        clock: Clock,
        concurrency: int,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        """Make a writer.

        Args:
            store: asked again just before each write whether the resource is still the one decided on.
            placer: changes pods and replicas.
            statuses: applies status.
            announcer: posts Events.
            efforts: publishes levels of thinking.
            clock: for the times that are written.
            concurrency: requests in flight at once.
            may_write: asked before each write; a standby of several operators would say no.
        """
        self._store = store
        self._placer = placer
        self._statuses = statuses
        self._announcer = announcer
        self._efforts = efforts
        self._clock = clock
        self._concurrency = concurrency
        self._may_write = may_write

    def begin_term(self) -> None:
        """Forget what was written: somebody else may have written since, and what they wrote is to be seen."""
        self._statuses.forget_all_but(())
        self._efforts.begin_term()

    async def scale(self, outcomes: Mapping[ServiceKey, Outcome]) -> dict[ServiceKey, Outcome]:
        """Carry out the placements of what is Active, and publish levels; return all outcomes with what came of it."""
        outcomes = await self._placer.place(outcomes)
        await self._efforts.publish(outcomes)
        return outcomes

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

        await in_parallel(write_status, due, limit=self._concurrency)
        if failures:
            # One line, not one per resource: an API server that is away fails all of them.
            logger.warning("statuses not written", extra={"count": len(failures), "first": failures[0]})
        changed = [o for o in outcomes.values() if o.rescaled or o.scale_error or o.cordoned or o.uncordoned]
        await in_parallel(self._announcer.placed, changed, limit=self._concurrency)
        await in_parallel(self._announcer.flipped, flips, limit=self._concurrency)

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
        if not self._may_write() or not record.is_same_spec(self._store.serving(record.key)):
            return None
        try:
            await self._statuses.write(record, status, now=self._clock.monotonic_seconds())
        except (NotFound, Conflict):
            logger.debug("status not written: the resource is gone", extra={"service": str(record.key)})
        except ClusterError as failed:
            return f"{record.key}: {failed}"
        return None
