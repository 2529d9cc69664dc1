"""When each request of a trace is served: at once, or first come first served on a limited number of slots.

The time per output token is constant here, so that the truth about demand is known exactly: a request holds a
slot for ``output_tokens * seconds_per_token``. Its first token counts when it starts, its prefill takes no
time. For engines whose speed depends on their batch there is the engine model.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from longtail.workbench.traces.trace import Floats, Trace


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Start of every request of a trace, in the order of the trace. Requests without output are not in it."""

    trace: Trace
    start_seconds: Floats
    """When the request gets its slot and writes its first token; ascending. Never before it arrives."""
    seconds_per_token: float

    @property
    def finish_seconds(self) -> Floats:
        """When the last token is written and the slot is free. Not sorted."""
        finish: Floats = self.start_seconds + self.trace.output_tokens * self.seconds_per_token
        return finish

    def known_share(self, at_seconds: Floats, horizon_seconds: float) -> float:
        """Share of the demand one horizon ahead that has arrived already, over the moments ``at_seconds``.

        In the infinite-server queue this is S_e(h), the stationary excess of the length distribution at the
        horizon (Eick, Massey, Whitt 1993). A request that arrived by t and is unfinished at t + h is counted
        as (arrived by t) minus (arrived by t and finished by t + h), and the latter is max(a, f - h) <= t.
        """
        arrival, finish = self.trace.arrival_seconds, np.sort(self.finish_seconds)
        gone = np.sort(np.maximum(arrival, self.finish_seconds - horizon_seconds))
        known = _count(arrival, at_seconds) - _count(gone, at_seconds)
        later = at_seconds + horizon_seconds
        demand = _count(arrival, later) - _count(finish, later)
        return float(known.sum() / max(demand.sum(), 1))


def start_at_once(trace: Trace, *, seconds_per_token: float) -> Schedule:
    """An infinite server: nobody waits, so demand is the number in service (the Mt/G/inf queue)."""
    served = _with_output(trace)
    return Schedule(trace=served, start_seconds=served.arrival_seconds, seconds_per_token=seconds_per_token)


def first_come_first_served(trace: Trace, *, seconds_per_token: float, slots: Sequence[tuple[float, int]]) -> Schedule:
    """A queue before a number of slots that changes at given moments.

    Args:
        trace: the requests.
        seconds_per_token: constant time per output token.
        slots: (seconds, slots from then on), ascending, the first at 0. Slots that go away finish what they
            hold, soonest free first; slots that come are free at once.

    Raises:
        ValueError: ``slots`` does not begin at 0, does not ascend, or leaves requests waiting for ever.
    """
    moments = [at for at, _ in slots]
    if not slots or moments[0] != 0 or moments != sorted(moments):
        raise ValueError(f"slots: moments must ascend from 0, got {moments}")
    served = _with_output(trace)
    busy = served.output_tokens * seconds_per_token
    free_at = [0.0] * slots[0][1]
    changes = list(slots[1:])[::-1]
    count = slots[0][1]
    starts = np.empty(len(served))
    for index, (arrival, seconds) in enumerate(zip(served.arrival_seconds.tolist(), busy.tolist(), strict=True)):
        while changes and (not free_at or changes[-1][0] <= max(arrival, free_at[0])):
            at, wanted = changes.pop()
            _resize(free_at, wanted - count, at)
            count = wanted
        if not free_at:
            raise ValueError(f"slots: request {index} would wait for ever, there is no slot left")
        starts[index] = start = max(arrival, free_at[0])
        heapq.heapreplace(free_at, start + seconds)
    return Schedule(trace=served, start_seconds=starts, seconds_per_token=seconds_per_token)


def _resize(free_at: list[float], change: int, at_seconds: float) -> None:
    for _ in range(change):
        heapq.heappush(free_at, at_seconds)
    for _ in range(min(-change, len(free_at))):
        heapq.heappop(free_at)


def _with_output(trace: Trace) -> Trace:
    return trace.select(trace.output_tokens > 0) if (trace.output_tokens == 0).any() else trace


def _count(ascending: Floats, at_seconds: Floats) -> Floats:
    return np.searchsorted(ascending, at_seconds, side="right").astype(np.float64)
