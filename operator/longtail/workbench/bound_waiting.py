"""The least replica time of a pool whose requests may wait a little, had it known the future.

**What is hard.** To choose for every request a start within ``wait_seconds`` of its arrival, so that the fewest
slots do, is scheduling with release times and deadlines on a minimum number of machines, which is NP-complete
as soon as a job may be put off by two units of time (Cieliebak, Erlebach, Hennecke, Weber, Widmayer, "Scheduling
with release times and deadlines on a minimum number of machines", TCS 2004, pp. 209-222).
So the bound is the exact optimum of a relaxation that every way to delay the requests satisfies:

* replicas are whole, change on a grid, and cost what they do in `bound`;
* work is a fluid: what would have been written at t had nobody waited is written within [t, t + wait];
* a request that runs for g seconds occupies a slot throughout [a + wait, a + g), whatever its start.

The second forbids to lose work, which the third alone would; the third forbids to hold up everybody at once,
which the second alone would. Neither needs replicas to be split, as the linear program of the same problem does.

**How it is solved.** Serving as much as possible as early as possible is never worse, so a plan is the path of
its replicas, and its past is told by two numbers: the replicas now and the work that waits. For each number of
replicas the program keeps the least backlog that can be had for each cost; costs are whole multiples of the
interval when the cold start is one, so that is a table, and no plan is left out. A label dearer than another by
more than it costs to overtake it (start the missing replicas, work off the difference in one interval) leads
nowhere; that bounds the table.
"""

import math
from dataclasses import dataclass

import numpy as np

from longtail.workbench.bound import replicas_needed
from longtail.workbench.schedule import Schedule
from longtail.workbench.traces.trace import Floats, Integers

_ROUNDING = 1e-6
"""Slot seconds; sums of a day of work are exact to about 1e-8."""


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What has to be done, on a grid. Built by ``Work.of``."""

    arriving: Floats
    """Slot seconds that would be served in each interval if nobody waited. Shape (intervals,)."""
    may_wait: Floats
    """Slot seconds that may be left over at the end of each interval. Shape (intervals,)."""
    mandatory: Integers
    """Replicas that each interval needs whatever waits. Shape (intervals,)."""
    unhurried: Integers
    """Replicas that each interval needs if nobody waits. Shape (intervals,)."""

    @classmethod
    def of(
        cls,
        schedule: Schedule,
        *,
        slots_per_replica: int,
        from_seconds: float,
        until_seconds: float,
        interval_seconds: float,
        wait_seconds: float,
        min_replicas: int = 0,
    ) -> "Work":
        """From a schedule that starts everybody at once. Counts whole intervals of [from, until) only."""
        intervals = math.floor((until_seconds - from_seconds) / interval_seconds + 1e-9)
        at: Floats = from_seconds + np.arange(intervals + 1, dtype=np.float64) * interval_seconds
        done, due = work_until(schedule, at), work_until(schedule, at - wait_seconds)

        def needed(wait: float) -> Integers:
            replicas = replicas_needed(
                schedule,
                slots_per_replica=slots_per_replica,
                duration_seconds=float(at[-1]),
                interval_seconds=interval_seconds,
                wait_seconds=wait,
                from_seconds=from_seconds,
            )
            return np.maximum(replicas[:intervals], min_replicas)

        # Work that was held up before the grid begins counts as done: a relaxation, so the bound stays one.
        left_over = np.minimum(done[1:] - due[1:], done[1:] - done[0])
        return cls(np.diff(done), left_over, needed(wait_seconds), needed(0.0))


def work_until(schedule: Schedule, at_seconds: Floats) -> Floats:
    """Slot seconds served by each moment if everybody starts at once; shape of ``at_seconds``.

    ``sum_i min((t - a_i)+, g_i) = sum_i (t - a_i)+ - sum_i (t - f_i)+``, with a = arrivals and f = endings.
    """
    return _time_since(np.sort(schedule.start_seconds), at_seconds) - _time_since(
        np.sort(schedule.finish_seconds), at_seconds
    )


def _time_since(ascending: Floats, at_seconds: Floats) -> Floats:
    summed = np.concatenate([[0.0], np.cumsum(ascending)])
    passed = np.searchsorted(ascending, at_seconds, side="right")
    since: Floats = passed * at_seconds - summed[passed]
    return since


def lower_bound_with_waiting(
    work: Work,
    *,
    slots_per_replica: int,
    interval_seconds: float,
    cold_start_seconds: float,
    initial_replicas: int | None = None,
) -> float:
    """The least replica seconds, starting and serving, of the relaxation above. Exact.

    Args:
        work: what has to be done.
        slots_per_replica: concurrent requests of a replica.
        interval_seconds: of the grid of ``work``; replicas change at its points only.
        cold_start_seconds: a whole multiple of ``interval_seconds``; a replica is paid for while it starts.
        initial_replicas: those that are there before the first interval, and cost no start; what the first
            interval needs without waiting unless given.

    Raises:
        ValueError: the cold start is not a multiple of the interval.
    """
    start_cost = round(cold_start_seconds / interval_seconds)
    if abs(start_cost * interval_seconds - cold_start_seconds) > 1e-9:
        grid = f"a multiple of interval_seconds {interval_seconds!r}"
        raise ValueError(f"cold_start_seconds: must be {grid}, got {cold_start_seconds!r}")
    if not len(work.arriving):
        return 0.0
    initial = int(work.unhurried[0]) if initial_replicas is None else initial_replicas
    table = _Table.fresh(work, initial, start_cost, slots_per_replica * interval_seconds)
    for interval in range(len(work.arriving)):
        table.change_replicas()
        table.serve(work, interval)
    return (table.base + int(np.flatnonzero(np.isfinite(table.backlog).any(axis=0))[0])) * interval_seconds


@dataclass(slots=True, eq=False)
class _Table:
    """Least backlog by replicas and cost so far: ``backlog[x - low, k]`` for a cost of at most ``base + k``."""

    backlog: Floats
    base: int
    low: int
    replicas: Integers
    start_cost: int
    served_per_replica: float
    """Slot seconds of one replica in one interval."""

    @classmethod
    def fresh(cls, work: Work, initial: int, start_cost: int, served_per_replica: float) -> "_Table":
        low = min(int(work.mandatory.min()), initial)
        # More replicas than are ever needed at once never pay: what they work off sooner, one replica fewer
        # works off later for the same replica time and without the start.
        high = max(int(work.unhurried.max()), initial)
        replicas = np.arange(low, high + 1)
        catch_up = math.ceil(float(work.may_wait.max(initial=0.0)) / served_per_replica)
        # The label that overtakes another starts the missing replicas, and more of them for one interval.
        costs = start_cost * (len(replicas) - 1) + catch_up * (start_cost + 1) + len(replicas) + 1
        backlog = np.full((len(replicas), costs), np.inf)
        backlog[initial - low] = 0.0
        return cls(
            backlog=backlog,
            base=0,
            low=low,
            replicas=replicas,
            start_cost=start_cost,
            served_per_replica=served_per_replica,
        )

    def change_replicas(self) -> None:
        """Replicas go for nothing and come for the cost of a start each."""
        backlog = np.minimum.accumulate(self.backlog[::-1], axis=0)[::-1]
        cost = self.start_cost
        if cost == 0:
            backlog = np.minimum.accumulate(backlog, axis=0)
        elif cost < backlog.shape[1]:
            backlog = backlog.copy()
            for more in range(1, len(backlog)):
                np.minimum(backlog[more, cost:], backlog[more - 1, :-cost], out=backlog[more, cost:])
        self.backlog = backlog

    def serve(self, work: Work, interval: int) -> None:
        """One interval: pay for the replicas, serve as much as there is, drop what breaks a promise."""
        held = np.full_like(self.backlog, np.inf)
        for more, row in enumerate(self.backlog):
            held[more, more:] = row[: len(row) - more]
        capacity = self.replicas * self.served_per_replica
        left = np.maximum(held + (work.arriving[interval] - capacity)[:, None], 0.0)
        left[left > work.may_wait[interval] + _ROUNDING] = np.inf
        left[self.replicas < work.mandatory[interval]] = np.inf
        cheapest = int(np.argmax(np.isfinite(left).any(axis=0)))
        self.base += self.low + cheapest
        if cheapest:
            left = np.concatenate([left[:, cheapest:], np.repeat(left[:, -1:], cheapest, axis=1)], axis=1)
        # What a cost buys, a higher cost buys too.
        self.backlog = np.minimum.accumulate(left, axis=1)
