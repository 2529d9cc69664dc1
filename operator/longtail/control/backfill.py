"""After a start: the last hours are read back from Prometheus and folded through the same ``step``.

The metrics database is the checkpoint. The live loop is not kept waiting: it decides from its first tick on, with a
fresh memory that does not shrink anything yet (``policy.trust``: watched for less than a scale-down window). Meanwhile
the past is replayed here, in the background, up to the first tick; then the ticks in between are decided on once more
on top of it, and the loop goes on from there. A service whose history was unbroken is warm from then on.

What the past does not tell: how many replicas were *asked for* (pods that reported are taken), and cold starts of
pods that are gone (``status.startup`` is the prior instead, see ``control.fleet``).

How far back: one service costs about 1.2 ms of processor time a step, queries included, so `SERVICE_STEPS` are a
minute. Large fleets therefore look back less far, never less finely: of the demand model's upper value, half an hour in
steps of 15 s leaves 11 % of error, three hours in steps of 60 s 19 %, in steps of 120 s 31 % (nothing: 37 %; six hours
in steps of 15 s: 2 %; mean over thirteen loads, against a model that never restarted). It is never less than what it
takes to shrink a pool again.
"""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Final

from longtail.cluster.snapshot import ServingView
from longtail.control.clock import Clock
from longtail.control.fleet import build_fleet, build_signals
from longtail.control.fold import Fold
from longtail.control.metrics import OperatorMetrics
from longtail.demand.observation import Observation
from longtail.errors import MetricsError
from longtail.policy.fleet import Fleet, Pod, Service, ServiceKey, Target
from longtail.policy.memory import Memory
from longtail.policy.step import step
from longtail.policy.trust import GAP_SECONDS
from longtail.signals.client import PrometheusClient
from longtail.signals.history import HistoryReader, Moment, Segment
from longtail.signals.past import Past
from longtail.signals.sources import MetricsSource

logger = logging.getLogger(__name__)

SERVICE_STEPS: Final = 45_000
_ATTEMPTS: Final = 3
_PAUSE_SECONDS: Final = 20.0
_DEADLINE_SECONDS: Final = 600.0
"""A backfill that takes longer is given up: the ticks that are kept for it would fill the memory."""
_CONCURRENCY: Final = 4
_TIMEOUT_SECONDS: Final = 30.0


def plan(
    *, end_seconds: int, span_seconds: float, interval_seconds: float, window_seconds: float, services: int
) -> Segment:
    """The times to replay.

    Args:
        end_seconds: time of the first live tick, the last to be replayed.
        span_seconds: how far back, if it can be afforded.
        interval_seconds: of the live loop.
        window_seconds: the longest time that any service must be watched before it may shrink.
        services: how many.

    >>> [(one.start_seconds, one.end_seconds, one.step_seconds) for one in (
    ...     plan(end_seconds=30_000, span_seconds=21_600, interval_seconds=15, window_seconds=300, services=count)
    ...     for count in (50, 1000, 10_000))]
    [(16500, 30000, 15), (29325, 30000, 15), (29565, 30000, 15)]
    """
    step_seconds = max(round(interval_seconds), 1)
    affordable = SERVICE_STEPS // max(services, 1)
    needed = math.ceil((window_seconds + 2 * GAP_SECONDS) / step_seconds) + 1
    steps = min(max(affordable, needed), int(span_seconds // step_seconds))
    return Segment(end_seconds - steps * step_seconds, end_seconds, step_seconds)


class Backfill:
    """One replay of the past, beside the live loop."""

    def __init__(
        self,
        *,
        fold: Fold,
        views: Callable[[], Collection[ServingView]],
        sources: Sequence[MetricsSource],
        metrics: OperatorMetrics,
        clock: Clock,
        span_seconds: float,
        interval_seconds: float,
    ) -> None:
        """Prepare; ``views`` gives the cluster as it is when it is called."""
        self._fold = fold
        self._views = views
        self._sources = {source.name: source for source in sources}
        self._metrics = metrics
        self._clock = clock
        self._span_seconds = span_seconds
        self._interval_seconds = interval_seconds

    async def run(self) -> None:
        """Replay once, after the first tick. Never raises: without a past the loop warms up by itself."""
        await self._fold.began.wait()
        self._fold.keep_ticks()
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                await self._run_patiently()
        except (MetricsError, TimeoutError) as lost:
            logger.warning("no backfill: every service warms up from now on", extra={"why": str(lost) or "too slow"})
        except Exception:
            logger.exception("no backfill: every service warms up from now on")
        finally:
            self._fold.forget_ticks()

    async def _run_patiently(self) -> None:
        views = [view for view in self._views() if view.record.spec is not None and view.target is not None]
        started = self._clock.monotonic_seconds()
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                memory, steps = await self._replay(views)
            except MetricsError as lost:
                if attempt == _ATTEMPTS:
                    raise
                logger.warning("backfill begins anew", extra={"why": str(lost), "attempt": attempt})
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            await self._fold.adopt(memory)
            seconds = round(self._clock.monotonic_seconds() - started, 1)
            self._metrics.backfilled(1.0)
            logger.info("backfill done", extra={"services": len(views), "steps": steps, "seconds": seconds})
            return

    async def _replay(self, views: Sequence[ServingView]) -> tuple[Memory, int]:
        services = {service.key: service for service in build_fleet(views).services}
        window = max((s.limits.behavior.scale_down.stabilization_window_seconds for s in services.values()), default=0)
        segment = plan(
            end_seconds=int(self._fold.began_at),
            span_seconds=self._span_seconds,
            interval_seconds=self._interval_seconds,
            window_seconds=window,
            services=len(services),
        )
        logger.info(
            "backfill begins",
            extra={
                "services": len(services),
                "hours": round((segment.end_seconds - segment.start_seconds) / 3600, 2),
                "step_seconds": segment.step_seconds,
            },
        )
        memory, steps, total = Memory.empty(), 0, len(segment.times)
        async with AsyncExitStack() as readers:
            pasts = [
                await readers.enter_async_context(aclosing(self._moments(readers, *item, segment)))
                for item in _by_source(views).items()
                if item[0] in self._sources
            ]
            async for moments in _side_by_side(pasts):
                memory = await asyncio.to_thread(_fold_moments, services, moments, memory)
                steps += 1
                self._metrics.backfilled(0.99 * steps / total)
                if steps % max(total // 10, 1) == 0:
                    logger.info("backfill", extra={"percent": round(100 * steps / total)})
        return memory, steps

    def _moments(
        self, readers: AsyncExitStack, name: str, pasts: Sequence[Past], segment: Segment
    ) -> AsyncGenerator[Moment, None]:
        # A client of its own: the live loop's queries must find its threads free.
        source = replace(self._sources[name], concurrency=_CONCURRENCY, timeout_seconds=_TIMEOUT_SECONDS)
        client = PrometheusClient(source)
        readers.callback(client.close)
        return HistoryReader(self._sources[name], client).moments(pasts, [segment])


def _fold_moments(services: Mapping[ServiceKey, Service], moments: Sequence[Moment], memory: Memory) -> Memory:
    observations: dict[ServiceKey, Observation] = {}
    fleet: list[Service] = []
    for moment in moments:
        observations.update(moment.observations)
        fleet += [replace(services[key], target=_target(pods)) for key, pods in moment.pods.items()]
    if not fleet:  # before anything is known there is nothing to remember, not even that time passed
        return memory
    now = moments[0].at_seconds
    return step(fleet=Fleet(services=tuple(fleet)), observations=observations, memory=memory, now=now)[1]


def _target(pods: Sequence[Pod]) -> Target:
    return Target(replicas=len(pods), ready_replicas=sum(pod.ready for pod in pods), pods=pods)


def _by_source(views: Sequence[ServingView]) -> dict[str, list[Past]]:
    found: dict[str, list[Past]] = {}
    references = {view.record.key: view.record.target for view in views}
    for signals in build_signals(views):
        reference = references[signals.key]
        assert reference is not None
        found.setdefault(signals.source, []).append(Past(signals, kind=reference.kind, name=reference.name))
    return found


async def _side_by_side(pasts: Sequence[AsyncIterator[Moment]]) -> AsyncIterator[list[Moment]]:
    """The moments of several sources, which all have the same times. One that fails is left out from there on.

    Raises:
        MetricsError: the last one failed.
    """
    while pasts:
        found = await asyncio.gather(*(anext(past) for past in pasts), return_exceptions=True)
        failed = [one for one in found if isinstance(one, BaseException)]
        for one in failed:
            if not isinstance(one, MetricsError | StopAsyncIteration) or (len(failed) == len(pasts) and not _over(one)):
                raise one
            if not _over(one):
                logger.warning("no backfill from one source", extra={"why": str(one)})
        pasts = [past for past, one in zip(pasts, found, strict=True) if not isinstance(one, BaseException)]
        if pasts:
            yield [one for one in found if not isinstance(one, BaseException)]


def _over(one: BaseException) -> bool:
    return isinstance(one, StopAsyncIteration)
