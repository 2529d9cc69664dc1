"""One look at the fleet: a flat list of named steps, each timed.

refresh → freeze → read → decide → account → scale → report. Nothing is remembered between ticks but the policy's
memory and what was written last. A source that answers late is a source that did not answer: its services
hold.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence

from longtail.cluster.snapshot import ServingView, freeze
from longtail.cluster.store import Store
from longtail.cluster.targets import Targets
from longtail.control.accounts import Accounts
from longtail.control.clock import Clock
from longtail.control.fleet import build_fleet, build_signals
from longtail.control.fold import Fold, Tick
from longtail.control.metrics import OperatorMetrics
from longtail.control.outcome import Outcome
from longtail.control.prices import Prices
from longtail.control.writer import Writer
from longtail.errors import LongtailError, MetricsUnavailable
from longtail.policy.decision import Decision
from longtail.policy.fleet import Fleet, GpuBudget, ServiceKey
from longtail.signals.observe import ServiceSignals, blind
from longtail.signals.reader import Failure, Reading, SignalReader

logger = logging.getLogger(__name__)


class FleetTick:
    """Runs ticks; holds the memory that one leaves to the next, and the outcomes of the last."""

    def __init__(
        self,
        *,
        store: Store,
        targets: Targets,
        reader: SignalReader,
        writer: Writer,
        clock: Clock,
        metrics: OperatorMetrics,
        interval_seconds: float,
        fold: Fold | None = None,
        accounts: Accounts | None = None,
        budgets: Sequence[GpuBudget] = (),
        prices: Prices | None = None,
    ) -> None:
        self._store = store
        self._targets = targets
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self._metrics = metrics
        # Of an interval of 15 s: the metrics have 7.5 s to answer, all of a tick ends within 12 s.
        self._read_seconds = 0.5 * interval_seconds
        self._tick_seconds = 0.8 * interval_seconds
        self._fold = fold or Fold()
        self._accounts = accounts or Accounts(prices=None, leads=lambda: True)
        self._budgets = budgets
        self._prices = prices
        self._outcomes: Mapping[ServiceKey, Outcome] = {}
        self._fleet = Fleet(())

    @property
    def outcomes(self) -> Collection[Outcome]:
        """What the last tick ended with, service by service."""
        return self._outcomes.values()

    @property
    def fleet(self) -> Fleet:
        """What the last tick decided on."""
        return self._fleet

    async def run(self, lag_seconds: float) -> None:
        """Run one tick that was due ``lag_seconds`` ago.

        The policy is told the scheduled time: with the jitter of the actual one, a change of the previous
        tick might or might not be older than a period of exactly one interval.
        """
        now = self._clock.unix_seconds() - lag_seconds
        cut = False
        try:
            async with asyncio.timeout(self._tick_seconds):
                await self._run(now)
        except TimeoutError:
            cut = True
            logger.warning("the tick was cut short by its deadline; what was not written is decided anew")
        self._metrics.tick_ended(cut=cut)

    async def _run(self, now: float) -> None:
        with self._metrics.step("refresh"):
            references = [s.target for s in self._store.servings() if s.target is not None]
            await self._targets.refresh(references, now=self._clock.monotonic_seconds())
        with self._metrics.step("freeze"):
            views = freeze(self._store, self._targets)
            fleet = build_fleet(views.values(), budgets=self._budgets, prices=self._prices)
            signals = build_signals(views.values())
        self._fleet = fleet
        with self._metrics.step("read"):
            reading = await self._read(signals, now=now)
        with self._metrics.step("decide"):
            decisions = await self._fold.decide(Tick(fleet, reading.observations, now))
        with self._metrics.step("account"):
            # In a thread, as the decisions: 10,000 services take a fraction of a second.
            outcomes = await asyncio.to_thread(self._accounts.settle, join(views, decisions, reading), now=now)
        self._log_changes(outcomes)
        self._outcomes = outcomes
        with self._metrics.step("scale"):
            outcomes = self._outcomes = await self._writer.scale(outcomes)
        for outcome in outcomes.values():
            self._metrics.placed(outcome)
        with self._metrics.step("report"):
            await self._writer.report(outcomes)

    async def _read(self, signals: tuple[ServiceSignals, ...], *, now: float) -> Reading:
        try:
            async with asyncio.timeout(self._read_seconds):
                reading = await self._reader.read(signals, at_seconds=now)
        except TimeoutError:
            reading = _unanswered(signals, now=now, within_seconds=self._read_seconds)
        for failure in reading.failures:
            self._metrics.query_failed(source=failure.source, query=failure.query)
        return reading

    def _log_changes(self, outcomes: Mapping[ServiceKey, Outcome]) -> None:
        for key, outcome in outcomes.items():
            decision = outcome.decision
            if decision is None:
                continue
            self._metrics.decided(decision.reason)
            before = self._outcomes.get(key)
            changed = (
                before is None
                or before.decision is None
                or (before.decision.desired, before.decision.reason) != (decision.desired, decision.reason)
            )
            logger.log(
                logging.INFO if changed else logging.DEBUG,
                "decided",
                extra={
                    "service": str(key),
                    "current": decision.current,
                    "desired": decision.desired,
                    "reason": decision.reason,
                    "why": decision.message,
                },
            )


def join(
    views: Mapping[ServiceKey, ServingView], decisions: Mapping[ServiceKey, Decision], reading: Reading
) -> dict[ServiceKey, Outcome]:
    """Put together what is known of each service. The first failure that concerns a service is told."""
    errors: dict[ServiceKey, LongtailError] = {}
    for failure in reading.failures:
        for key in failure.services:
            errors.setdefault(key, failure.error)
    return {
        key: Outcome(
            view=view,
            decision=decisions.get(key),
            observation=reading.observations.get(key),
            metrics_error=errors.get(key),
        )
        for key, view in views.items()
    }


def _unanswered(signals: tuple[ServiceSignals, ...], *, now: float, within_seconds: float) -> Reading:
    failures = []
    for source in sorted({service.source for service in signals}):
        error = MetricsUnavailable(f"metrics source {source!r}: no answer within {within_seconds:g} s")
        keys = [service.key for service in signals if service.source == source]
        failures.append(Failure(source=source, query="", services=keys, error=error))
    return Reading(observations={s.key: blind(s, now) for s in signals}, failures=failures)
