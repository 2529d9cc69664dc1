"""The least replica time that any autoscaler could have spent, had it known the future.

The problem: choose replicas x_t >= need_t, pay x_t for every interval and one cold start for every replica
added. It decomposes by level, since a schedule is a stack of replicas of which the l-th is wanted exactly
while need_t >= l (Lin, Wierman et al. 2011): each level bridges a gap in its need where that is cheaper
than a new cold start, and otherwise goes and comes back. The sum over levels is the exact optimum, not a
relaxation. Draining is free here, so ratios to the bound below about 1.1 are out of reach of whoever never
cuts a request.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longtail.workbench.schedule import Schedule
from longtail.workbench.traces.trace import Floats, Integers


@dataclass(frozen=True, slots=True)
class Bound:
    """The optimum over a whole trace."""

    replica_seconds: float
    """Serving and starting replicas together."""
    starts: int


def lower_bound(
    need: NDArray[np.int64],
    *,
    interval_seconds: float,
    cold_start_seconds: float,
    initial_replicas: int | None = None,
) -> Bound:
    """The least of sum_t x_t d + L sum_t (x_t - x_{t-1})+ with x_t >= need_t, exactly.

    Args:
        need: replicas wanted per interval, >= 0. Shape (intervals,).
        interval_seconds: d.
        cold_start_seconds: L; a replica is paid for while it starts.
        initial_replicas: replicas that are there already before the first interval; ``need[0]`` unless given.

    >>> lower_bound(np.array([1, 0, 0, 1]), interval_seconds=15, cold_start_seconds=180)
    Bound(replica_seconds=60.0, starts=0)
    >>> lower_bound(np.array([1, 0, 0, 1]), interval_seconds=15, cold_start_seconds=20)
    Bound(replica_seconds=50.0, starts=1)
    """
    if not len(need):
        return Bound(replica_seconds=0.0, starts=0)
    initial = int(need[0]) if initial_replicas is None else initial_replicas
    total, starts = 0.0, 0
    for level in range(1, int(need.max()) + 1):
        wanted = np.flatnonzero(need >= level)
        gaps = np.diff(wanted) - 1
        # A level that is there at first idles until its first need, or goes and starts anew; one that is not
        # there has to start.
        first = float(wanted[0]) if level <= initial else np.inf
        idle = np.concatenate([[first], gaps[gaps > 0]]) * interval_seconds
        total += len(wanted) * interval_seconds + float(np.minimum(idle, cold_start_seconds).sum())
        starts += int((idle > cold_start_seconds).sum())
    return Bound(replica_seconds=total, starts=starts)


def replicas_needed(
    schedule: Schedule,
    *,
    slots_per_replica: int,
    duration_seconds: float,
    interval_seconds: float,
    wait_seconds: float = 0.0,
    from_seconds: float = 0.0,
) -> Integers:
    """Replicas that no plan can do without, per interval: its peak of mandatory occupancy, over the slots.

    ``schedule`` must start everybody at once. A request that may wait up to ``wait_seconds`` and then runs
    for g occupies a slot throughout [a + wait, a + g) whatever its start, and perhaps longer. Without
    waiting that is all of its time and the need is exact; with waiting it is a lower bound of it, so the
    bound stays one.

    Returns:
        Shape (intervals,); interval k is [k d, (k + 1) d) after ``from_seconds``, up to ``duration_seconds``.
    """
    begin = schedule.trace.arrival_seconds + wait_seconds
    end = schedule.finish_seconds
    certain = end > begin
    begin, end = np.sort(begin[certain]), np.sort(end[certain])
    grid = np.arange(from_seconds, duration_seconds, interval_seconds)
    peak = _peak_per_interval(begin, end, grid=grid, until_seconds=duration_seconds)
    return np.ceil(peak / slots_per_replica).astype(np.int64)


def _peak_per_interval(begin: Floats, end: Floats, *, grid: Floats, until_seconds: float) -> Floats:
    """The greatest number of [begin, end) intervals open at once, per interval of the grid."""
    if not len(grid):
        return np.zeros(0)
    # Occupancy only rises at a begin, so its greatest value over an interval is at its start or at a begin.
    inside = begin[(begin >= grid[0]) & (begin < until_seconds)]
    moments = np.sort(np.concatenate([grid, inside]))
    open_now = np.searchsorted(begin, moments, side="right") - np.searchsorted(end, moments, side="right")
    peaks: Floats = np.maximum.reduceat(open_now, np.searchsorted(moments, grid, side="left")).astype(np.float64)
    return peaks
