"""A fixed-rate loop that neither drifts, overlaps nor queues.

The next start is one interval after the previous *start*. A run that takes longer than the interval makes
the next one late, and the starts that were missed are skipped: the world is looked at as it is, never at
what it was.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from longtail.control.clock import Clock

logger = logging.getLogger(__name__)


class LoopMetrics(Protocol):
    """What the loop tells about itself."""

    def tick_lag(self, seconds: float) -> None:
        """Tell how late a run started."""

    def tick_failed(self) -> None:
        """Tell that a run raised an error."""


def next_start(*, previous: float, now: float, interval_seconds: float) -> float:
    """Return the next start that is not in the past, on the grid of the previous one.

    >>> [next_start(previous=100, now=now, interval_seconds=15) for now in (104, 131)]
    [115, 145]
    """
    missed = max(0, int((now - previous) // interval_seconds))
    return previous + (missed + 1) * interval_seconds


async def run_at_fixed_rate(
    run: Callable[[float], Awaitable[None]],
    *,
    interval_seconds: float,
    clock: Clock,
    metrics: LoopMetrics,
    hurry: asyncio.Event,
) -> None:
    """Call ``run`` at a fixed rate until cancelled, with how late it is in seconds.

    When ``hurry`` is set the next run starts at once, and the grid with it: what has just begun to lead must not
    wait for an interval. An error of one run is logged and ends only that run.
    """
    start = clock.monotonic_seconds()
    while True:
        if await _called_before(start, hurry=hurry, clock=clock):
            start = clock.monotonic_seconds()
        lag = max(0.0, clock.monotonic_seconds() - start)
        metrics.tick_lag(lag)
        try:
            await run(lag)
        except Exception:
            # A tick is stateless but for its memory, which a failed run does not touch: try again from
            # scratch.
            metrics.tick_failed()
            logger.exception("the tick failed; the next one starts anew")
        start = next_start(previous=start, now=clock.monotonic_seconds(), interval_seconds=interval_seconds)


async def _called_before(start: float, *, hurry: asyncio.Event, clock: Clock) -> bool:
    """Wait until ``start``, or until ``hurry`` is set, which is then taken back; tell whether it was."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, start - clock.monotonic_seconds())):
            await hurry.wait()
            hurry.clear()
            return True
    return False
