"""How long a pool without work is kept awake: ski rental on its own idle gaps.

Staying awake costs a GPU second a second; waking up costs a cold start that computes nothing, and somebody
waits for it. Whoever rents skis for as long as buying would have cost pays at most twice the best possible
(Karlin, Manasse, Rudolph, Sleator, "Competitive snoopy caching", 1988); knowing how long gaps have been does
better: the time T that minimises E[min(gap, T)] + P(gap > T) x the price of waking up.

The user's idleSeconds is the shortest T. The longest is idleSeconds plus one price, so that the worst that
history can talk us into is what the classic rule would have paid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

GAPS = 64
"""Gaps remembered: some days of a service that goes idle every night and every noon."""

ENOUGH_GAPS = 4
"""Fewer say nothing about the next."""

UNKNOWN_SECONDS = 60.0
"""Looking away for longer than this starts the clock again: work may have come and gone."""


@dataclass(frozen=True, slots=True)
class IdleClock:
    """Since when a service has had no work, and its gaps before."""

    since: float | None = None
    """Unix seconds; None while there is work."""
    confirmed_at: float | None = None
    """When it was last seen without work."""
    gaps_seconds: tuple[float, ...] = ()
    """Ended gaps, oldest first."""
    unknown_since: float | None = None
    """Since when nobody can say whether work waits at the door; None when it can be said."""

    def idle_seconds(self, now: float) -> float:
        """How long there has been no work, as far as it is confirmed."""
        return 0.0 if self.since is None else max(now - self.since, 0.0)


def tick(clock: IdleClock, *, idle: bool | None, now: float) -> IdleClock:
    """The clock after a look: True is idle for certain, False is work, None is anything.

    >>> clock = tick(IdleClock(), idle=True, now=100.0)
    >>> tick(clock, idle=True, now=115.0).idle_seconds(115.0)
    15.0
    >>> tick(clock, idle=False, now=140.0).gaps_seconds
    (40.0,)
    """
    if idle is None:
        blind = clock.confirmed_at is not None and now - clock.confirmed_at > UNKNOWN_SECONDS
        return replace(clock, since=None, confirmed_at=None) if blind else clock
    if idle:
        return replace(clock, since=now if clock.since is None else clock.since, confirmed_at=now)
    if clock.since is None:
        return clock
    gaps = (*clock.gaps_seconds, max(now - clock.since, 0.0))[-GAPS:]
    return replace(clock, since=None, confirmed_at=None, gaps_seconds=gaps)


def keep_awake_seconds(*, gaps_seconds: Sequence[float], idle_seconds: float, wake_price_seconds: float) -> float:
    """How long to stay awake without work.

    Args:
        gaps_seconds: lengths of past gaps.
        idle_seconds: the least, as the user wants it.
        wake_price_seconds: price of waking up, in seconds of one replica.

    Example: naps of ten minutes at noon, whole nights. Waking up costs six minutes, the user says five. Staying up
    for the naps costs 5 minutes more each time, and saves half of the wake-ups: not worth it. At twenty minutes it is.

    >>> gaps = [600.0, 36000.0] * 5
    >>> keep_awake_seconds(gaps_seconds=gaps, idle_seconds=300.0, wake_price_seconds=360.0)
    300.0
    >>> keep_awake_seconds(gaps_seconds=gaps, idle_seconds=300.0, wake_price_seconds=1200.0)
    600.0
    """
    if len(gaps_seconds) < ENOUGH_GAPS:
        return idle_seconds
    longest = idle_seconds + wake_price_seconds
    candidates = [idle_seconds, *sorted(gap for gap in gaps_seconds if idle_seconds < gap <= longest)]

    def cost(awake: float) -> float:
        return fmean(min(gap, awake) + (wake_price_seconds if gap > awake else 0.0) for gap in gaps_seconds)

    return min(candidates, key=cost)
