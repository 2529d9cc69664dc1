"""When lengths have changed in truth, seen with hindsight from the trace; and what alarms are worth by that.

Requests are counted by their arrival, so that no window is biased by the long ones that end later. An alarm is true if
at some moment of the half hour before it the mean length of the half hour that follows differs, the way it says, by
`TRUE_FACTOR` or more from that of the hour before the moment. All detectors are judged by the same rule.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from longtail.workbench.traces.trace import Floats, Trace

TRUE_FACTOR = 1.2
BEFORE_SECONDS, AFTER_SECONDS = 3600.0, 1800.0
LOOK_BACK_SECONDS = 1800.0
LEAST_REQUESTS = 30
"""In each window; with fewer nothing can be said, and the alarm counts as false."""

HINDSIGHT_REQUESTS = 200
"""In each window, for a change that ought to be found."""
APART_SECONDS = 5400.0
"""Two changes that ought to be found are this far apart: the windows of one must not hold another."""
EARLY_SECONDS, LATE_SECONDS = 1800.0, 3600.0
"""An alarm belongs to a change if it comes no earlier before it and no later after."""
STEP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Alarm:
    """A detector says that lengths have changed."""

    at_seconds: float
    longer: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the windowed mean."""

    at_seconds: float
    factor: float


@dataclass(frozen=True, slots=True)
class Worth:
    """What the alarms on one trace are worth."""

    alarms: int
    false: int
    changes: int
    found: int
    delays_seconds: Sequence[float]
    """Of the changes that were found, from the change; below 0 where the alarm came before its steepest moment."""


def ratios(trace: Trace, moments: Floats, *, least_requests: int) -> Floats:
    """Mean length after over mean length before each moment; NaN where either window holds too few requests.

    >>> two = np.repeat([100, 200], 50)
    >>> trace = Trace(name="t", arrival_seconds=np.linspace(0.0, 7200.0, 100), input_tokens=two, output_tokens=two)
    >>> ratios(trace, np.array([3610.0, 7200.0]), least_requests=20).tolist()
    [2.0, nan]
    """
    total = np.concatenate([[0.0], np.cumsum(trace.output_tokens, dtype=np.float64)])
    low, middle, high = (
        np.searchsorted(trace.arrival_seconds, moments + shift) for shift in (-BEFORE_SECONDS, 0.0, AFTER_SECONDS)
    )
    enough = (middle - low >= least_requests) & (high - middle >= least_requests)
    before = (total[middle] - total[low]) / np.maximum(middle - low, 1)
    after = (total[high] - total[middle]) / np.maximum(high - middle, 1)
    result: Floats = np.divide(after, before, out=np.full(len(moments), math.nan), where=enough & (before > 0))
    return result


def is_true(alarm: Alarm, trace: Trace) -> bool:
    """Whether lengths changed that way in the half hour before the alarm."""
    moments = np.arange(alarm.at_seconds - LOOK_BACK_SECONDS, alarm.at_seconds + STEP_SECONDS / 2, STEP_SECONDS)
    found = ratios(trace, moments, least_requests=LEAST_REQUESTS)
    way = found if alarm.longer else 1 / found
    return bool((way >= TRUE_FACTOR).any())


def changes(trace: Trace, *, duration_seconds: float, least_factor: float) -> list[Change]:
    """Changes that ought to be found: the largest ratios first, each `APART_SECONDS` away from all larger ones."""
    moments = np.arange(BEFORE_SECONDS, duration_seconds - AFTER_SECONDS, STEP_SECONDS)
    size = np.abs(np.log(np.nan_to_num(ratios(trace, moments, least_requests=HINDSIGHT_REQUESTS), nan=1.0)))
    found = []
    while len(size) and size.max() >= math.log(least_factor):
        at = moments[size.argmax()]
        factor = ratios(trace, np.array([at]), least_requests=HINDSIGHT_REQUESTS)[0]
        found.append(Change(at_seconds=float(at), factor=float(factor)))
        size[np.abs(moments - at) < APART_SECONDS] = 0.0
    return sorted(found, key=lambda change: change.at_seconds)


def worth(alarms: Sequence[Alarm], trace: Trace, *, duration_seconds: float, least_factor: float) -> Worth:
    """How many of the alarms are false, and how many of the changes of ``least_factor`` or more they find."""
    ought = changes(trace, duration_seconds=duration_seconds, least_factor=least_factor)
    delays = [delay for change in ought if (delay := _delay(alarms, change)) is not None]
    return Worth(
        alarms=len(alarms),
        false=sum(not is_true(alarm, trace) for alarm in alarms),
        changes=len(ought),
        found=len(delays),
        delays_seconds=delays,
    )


def _delay(alarms: Sequence[Alarm], change: Change) -> float | None:
    """Seconds from a change to its first alarm."""
    found = [
        alarm.at_seconds - change.at_seconds
        for alarm in alarms
        if alarm.longer is (change.factor > 1)
        and -EARLY_SECONDS <= alarm.at_seconds - change.at_seconds <= LATE_SECONDS
    ]
    return min(found, default=None)
