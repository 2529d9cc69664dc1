"""After a start: the last hours are read back from Prometheus and folded through the same ``step``.

The metrics database is the checkpoint. The live loop is not kept waiting: it decides from its first tick on, with a
fresh memory that does not shrink anything yet (``policy.trust``: watched for less than a scale-down window). Meanwhile
the past is replayed here, in the background, up to the first tick; then the ticks in between are decided on once more on
top of it, and the loop goes on from there. A service whose history was unbroken is warm from then on.

What the past does not tell: how many replicas were *asked for* (pods that reported are taken), and cold starts of
pods that are gone (``status.startup`` is the prior instead, see ``control.fleet``).

How fine: one service costs about 0.6 ms a step, queries included, so that a budget of `SERVICE_STEPS` is a minute. The
last part, which says whether a service was watched without a gap, is as fine as the loop where the budget allows
and never coarser than `policy.trust.GAP_SECONDS`; the rest gets what is left, in steps of 2 minutes at most, and
what does not fit is left out at the far end.
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

SERVICE_STEPS: Final = 90_000
_COARSEST_SECONDS: Final = 120
_RECENT_SECONDS: Final = 600
_ATTEMPTS: Final = 3
_PAUSE_SECONDS: Final = 20.0
_DEADLINE_SECONDS: Final = 600.0
"""A backfill that takes longer is given up: the ticks that are kept for it would fill the memory."""
_CONCURRENCY: Final = 4
_TIMEOUT_SECONDS: Final = 30.0


def plan(
    *, end_seconds: int, span_seconds: float, interval_seconds: float, window_seconds: float, services: int
) -> tuple[Segment, ...]:
    """The times to replay, the older ones first; the last is ``end_seconds``.

    Args:
        end_seconds: time of the first live tick.
        span_seconds: how far back, if it can be afforded.
        interval_seconds: of the live loop.
        window_seconds: the longest time that any service must be watched before it may shrink.
        services: how many.

    >>> [(s.end_seconds - s.start_seconds, s.step_seconds) for s in plan(
    ...     end_seconds=86400, span_seconds=21600, interval_seconds=15, window_seconds=300, services=50)]
    [(20985, 15), (600, 15)]
    >>> [(s.end_seconds - s.start_seconds, s.step_seconds) for s in plan(
    ...     end_seconds=86400, span_seconds=21600, interval_seconds=15, window_seconds=300, services=1000)]
    [(8280, 120), (600, 30)]
    """
    most = max(SERVICE_STEPS // max(services, 1), 10)
    finest = max(round(interval_seconds), 1)
    ladder = [finest * 2**power for power in range(12) if finest * 2**power <= _COARSEST_SECONDS] or [finest]
    recent = min(max(_RECENT_SECONDS, window_seconds + 2 * GAP_SECONDS), span_seconds)
    fine = next((s for s in ladder if recent / s <= most / 3), ladder[-1])
    fine = min(fine, max(int(GAP_SECONDS), finest))
    steps = math.ceil(recent / fine)
    begin = end_seconds - steps * fine
    last = Segment(begin, end_seconds, fine)
    rest, left = span_seconds - steps * fine, most - steps
    coarse = next((s for s in ladder if s >= fine and rest / s <= left), max(ladder[-1], fine))
    earlier = min(int(rest // coarse), left)
    if earlier <= 0:
        return (last,)
    return Segment(begin - earlier * coarse, begin - coarse, coarse), last


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
        segments = plan(
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
                "hours": round((segments[-1].end_seconds - segments[0].start_seconds) / 3600, 1),
                "step_seconds": [segment.step_seconds for segment in segments],
            },
        )
        memory, steps, total = Memory.empty(), 0, sum(len(segment.times) for segment in segments)
        async with AsyncExitStack() as readers:
            pasts = [
                await readers.enter_async_context(aclosing(self._moments(readers, *item, segments)))
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
        self, readers: AsyncExitStack, name: str, pasts: Sequence[Past], segments: Sequence[Segment]
    ) -> AsyncGenerator[Moment, None]:
        # A client of its own: the live loop's queries must find its threads free.
        source = replace(self._sources[name], concurrency=_CONCURRENCY, timeout_seconds=_TIMEOUT_SECONDS)
        client = PrometheusClient(source)
        readers.callback(client.close)
        return HistoryReader(self._sources[name], client).moments(pasts, segments)


def _fold_moments(services: Mapping[ServiceKey, Service], moments: Sequence[Moment], memory: Memory) -> Memory:
    observations: dict[ServiceKey, Observation] = {}
    fleet: list[Service] = []
    for moment in moments:
        observations.update(moment.observations)
        fleet += [replace(services[key], target=_target(pods)) for key, pods in moment.pods.items()]
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
