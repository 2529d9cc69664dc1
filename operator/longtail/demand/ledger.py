"""Forecasts that have not come due: what was said, and when it can be judged.

A forecast made now for one cold start ahead is compared with what is seen then. A service has room for
`PLACES` open forecasts; they are made at least a `PER_HORIZON`-th of the horizon apart, so that the room suffices for
any cold start and any tick, and a longer horizon does not count the same look twice as often.
"""

from dataclasses import dataclass

import numpy as np

from longtail.demand.buckets import Array, Array32, Mask

PLACES = 32
PER_HORIZON = 24
LATEST_PART = 0.125
"""A forecast not judged by this part of the horizon after its time (or two ticks) is void: nobody looked then."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Open forecasts."""

    due: Array
    """Unix seconds at which each can be judged, inf where the place is free; shape (services, `PLACES`)."""
    said: Array32
    """The numbers of each forecast; shape (services, `PLACES`, numbers)."""
    last: Array
    """Unix seconds of the latest entry, -inf if none; shape (services,)."""

    @classmethod
    def fresh(cls, services: int, numbers: int) -> "Ledger":
        """No open forecast."""
        return cls(
            due=np.full((services, PLACES), np.inf),
            said=np.zeros((services, PLACES, numbers), dtype=np.float32),
            last=np.full(services, -np.inf),
        )


def settle(ledger: Ledger, *, now: float, horizon_seconds: Array, tick_seconds: float) -> tuple[Ledger, Mask, Array]:
    """The ledger without what is due, where there is something to judge, and what was said; (services, numbers).

    Where several are due at once (after a gap) only the latest is judged, and none that is long overdue.
    """
    due = ledger.due <= now
    latest = np.argmax(np.where(due, ledger.due, -np.inf), axis=1)
    row = np.arange(len(latest))
    # Two ticks, but not two gaps: after half an hour without a look, nothing said before it can be judged.
    allowed = np.maximum(LATEST_PART * horizon_seconds, np.minimum(2 * tick_seconds, horizon_seconds))
    late = np.where(due[row, latest], now - np.where(due[row, latest], ledger.due[row, latest], now), np.inf)
    judged: Mask = late <= allowed
    said = ledger.said[row, latest].astype(np.float64)
    return Ledger(due=np.where(due, np.inf, ledger.due), said=ledger.said, last=ledger.last), judged, said


def enter(ledger: Ledger, *, now: float, horizon_seconds: Array, numbers: Array, made: Mask) -> Ledger:
    """The ledger with this tick's forecasts (shape (services, numbers)) where ``made`` and one is due to be kept."""
    free = np.isinf(ledger.due)
    place = np.argmax(free, axis=1)
    row = np.arange(len(place))
    # A thousandth of slack: ticks of 7.5 s must not miss a spacing of 7.5 s by rounding.
    spaced = now - ledger.last >= 0.999 * horizon_seconds / PER_HORIZON
    kept = np.flatnonzero(made & spaced & free[row, place])
    due, said, last = ledger.due.copy(), ledger.said.copy(), ledger.last.copy()
    due[kept, place[kept]] = now + horizon_seconds[kept]
    said[kept, place[kept]] = numbers[kept]
    last[kept] = now
    return Ledger(due=due, said=said, last=last)
