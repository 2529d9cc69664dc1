"""What a run costs and what it shows: GPU time by what replicas did, actions of the policy, a timeline."""

import enum
from collections.abc import Mapping, Sequence

import numpy as np

from longtail.workbench.fleet.run import GpuHours, Timeline
from longtail.workbench.traces.trace import Floats

TIMELINE_BINS = 1440
"""A day in minutes; a longer run has longer bins."""
NO_LIMIT = -1.0
"""Instead of a limit of thinking, where there is none."""
_HOUR = 3600.0


class Phase(enum.StrEnum):
    """What a replica is doing, as far as money goes."""

    UNSCHEDULED = "unscheduled"
    """Waits for a GPU, and is not paid for."""
    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


class Accounts:
    """Books of one run, kept from a moment on."""

    def __init__(self, *, measured_from_seconds: float, until_seconds: float) -> None:
        self.killed_requests = 0
        self.wasted_tokens = 0.0
        self.scaling_actions = 0
        self.direction_changes = 0
        self._from = measured_from_seconds
        self._at = 0.0
        self._seconds = dict.fromkeys(Phase, 0.0)
        self._direction = 0
        self.bins = Bins(measured_from_seconds, until_seconds)

    def pass_time(self, to_seconds: float, replicas: Mapping[Phase, int], desired: int) -> None:
        """So many replicas there were, and so many should have served, since the last call."""
        elapsed = to_seconds - max(self._at, self._from)
        if elapsed > 0:
            for phase, count in replicas.items():
                self._seconds[phase] += count * elapsed
            self.bins.pass_time(self._at, to_seconds, replicas, desired)
        self._at = to_seconds

    def tick(self, *, demand: int, waiting: int) -> None:
        """So many requests ran or waited just now."""
        if self._at >= self._from:
            self.bins.tick(self._at, demand, waiting)

    def killed(self, requests: int, tokens: float) -> None:
        """Requests were lost, with the tokens they had written."""
        if self._at >= self._from:
            self.killed_requests += requests
            self.wasted_tokens += tokens

    def asked(self, change: int) -> None:
        """The policy wants so many more or fewer replicas to serve."""
        direction = (change > 0) - (change < 0)
        if direction == 0:
            return
        if self._at >= self._from:
            self.scaling_actions += 1
            self.direction_changes += direction == -self._direction
        self._direction = direction

    def gpu_hours(self, gpus: int) -> GpuHours:
        """By what the replicas did, with so many GPUs each."""
        serving, starting, draining = (
            self._seconds[phase] * gpus / _HOUR for phase in (Phase.SERVING, Phase.STARTING, Phase.DRAINING)
        )
        return GpuHours(serving=serving, starting=starting, draining=draining)

    @property
    def unscheduled_hours(self) -> float:
        """Hours of pods that waited for a GPU."""
        return self._seconds[Phase.UNSCHEDULED] / _HOUR

    def timeline(self) -> Timeline:
        """What there was, by bins."""
        return self.bins.timeline()


class Bins:
    """Levels over time.

    A passage that crosses into another bin counts for the one where it begins: bins are a minute or more, and
    passages end at every tick.
    """

    def __init__(self, start: float, end: float) -> None:
        self._start = start
        span = max(end - start, 0.0)
        self._width = max(60.0, span / TIMELINE_BINS)
        count = max(int(np.ceil(span / self._width)), 1)
        self._peaks = np.zeros((2, count))
        self._means = np.zeros((4, count))
        self._seconds = np.zeros(count)
        self._requests = np.zeros((3, count))
        self._limit = np.full(count, NO_LIMIT)

    def tick(self, at: float, demand: int, waiting: int) -> None:
        """So many requests ran or waited."""
        index = self._index(at)
        self._peaks[:, index] = np.maximum(self._peaks[:, index], (demand, waiting))

    def pass_time(self, start: float, end: float, replicas: Mapping[Phase, int], desired: int) -> None:
        """So many replicas there were, and so many should have served."""
        index = self._index(start)
        elapsed = end - max(start, self._start)
        coming = replicas[Phase.STARTING] + replicas[Phase.UNSCHEDULED]
        levels = (replicas[Phase.SERVING], coming, replicas[Phase.DRAINING], desired)
        for row, level in enumerate(levels):
            self._means[row, index] += level * elapsed
        self._seconds[index] += elapsed

    def ask(self, asked: Sequence[float]) -> None:
        """Requests were asked for the first time."""
        self._count(0, np.array(asked, np.float64))

    def answer(self, asked: Floats, asked_once: Floats) -> None:
        """Requests were answered: when they were first asked, and when those were that did not have to ask again."""
        self._count(1, asked)
        self._count(2, asked_once)

    def limit(self, at: float, thinking_tokens: int | None) -> None:
        """From now on nobody thinks more than this."""
        self._limit[self._index(at) :] = NO_LIMIT if thinking_tokens is None else thinking_tokens

    def timeline(self) -> Timeline:
        """What there was."""
        serving, starting, draining, desired = self._means / np.maximum(self._seconds, 1e-9)
        return Timeline(
            at_seconds=self._start + self._width * np.arange(len(self._seconds), dtype=np.float64),
            demand=self._peaks[0],
            waiting=self._peaks[1],
            serving=serving,
            starting=starting,
            draining=draining,
            desired=desired,
            asked=self._requests[0],
            answered=self._requests[1],
            answered_first=self._requests[2],
            thinking_tokens=self._limit,
        )

    def _count(self, row: int, moments: Floats) -> None:
        moments = moments[moments >= self._start]
        index = np.minimum(((moments - self._start) / self._width).astype(np.intp), len(self._seconds) - 1)
        np.add.at(self._requests[row], index, 1.0)

    def _index(self, at: float) -> int:
        index = int((at - self._start) / self._width)
        return min(max(index, 0), len(self._seconds) - 1)
