"""What a run says, and what a sweep of runs says about equal attainment."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

DEFAULT, HINDSIGHT, SWEEP = "default", "hindsight", "sweep"
_LEAST_MISS_PERCENT = 1e-3
"""Where everybody was served in time, the miss counts as one in 100,000: attainments are compared on a
logarithmic scale of misses, since from 99 to 99.9 % is as far as from 90 to 99 %."""
FARTHEST = 10.0
"""Misses over those allowed, of a run that may take part in an interpolation."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the results. A run, or (``tuned`` is hindsight) what lies between two runs of a sweep."""

    trace: str
    policy: str
    seed: int
    knob: float | None
    """None is the policy's default."""
    attainment_percent: float
    """Share of requests that waited at most the objective."""
    gpu_hours: float
    """Starting and draining included."""
    serving_gpu_hours: float
    starting_gpu_hours: float
    draining_gpu_hours: float
    bound_gpu_hours: float
    """The least that serving everybody at once costs."""
    cost_over_bound: float
    wasted_tokens: float
    killed_requests: float
    scaling_actions: float
    direction_changes: float
    wait_p50_seconds: float
    wait_p95_seconds: float
    wait_p99_seconds: float
    attainment_target_percent: float | None = None
    """What was asked for: by the objective (default) or of the best knob (hindsight); None within a sweep."""
    tuned: str = SWEEP

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """A row from what ``dataclasses.asdict`` made of it.

        Raises:
            TypeError: a field is missing or unknown.
        """
        return cls(**values)


_BLENDED = tuple(field.name for field in fields(Row) if field.type in {float, "float"})
"""Numbers that may be interpolated between two runs."""


def frontier_of(rows: Sequence[Row]) -> list[Row]:
    """The runs that no other run beats at once in attainment and cost; ascending in both."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: (-row.attainment_percent, row.gpu_hours)):
        if not best or row.gpu_hours < best[-1].gpu_hours:
            best.append(row)
    return best[::-1]


def at_attainment(rows: Sequence[Row], target_percent: float) -> Row | None:
    """What the runs of one policy, trace and seed say of an attainment.

    Between two neighbours of the frontier cost and all else are interpolated over the logarithm of the misses, if
    the lower one misses at most ten times as often as the target allows. Farther apart nothing is known of what lies
    between (a threshold that an engine's running requests never exceed leads from everybody to nobody in one step),
    and the cheapest run that reached the target stands as it is. None where no run did.
    """
    frontier = frontier_of(rows)
    reached = [row for row in frontier if row.attainment_percent >= target_percent]
    if not reached:
        return None
    above = reached[0]
    lowest = 100.0 - FARTHEST * (100.0 - target_percent)
    short = [row for row in frontier if lowest <= row.attainment_percent < target_percent]
    found = _between(short[-1], above, target_percent) if short else above
    return replace(found, attainment_target_percent=target_percent, tuned=HINDSIGHT)


def _between(low: Row, high: Row, target_percent: float) -> Row:
    start, end = misses(low.attainment_percent), misses(high.attainment_percent)
    share = (misses(target_percent) - start) / (end - start) if end > start else 1.0
    values = {name: (1 - share) * getattr(low, name) + share * getattr(high, name) for name in _BLENDED}
    if low.knob is not None and high.knob is not None:
        values["knob"] = (1 - share) * low.knob + share * high.knob
    return replace(high, **{**values, "attainment_percent": target_percent})


def misses(attainment_percent: float) -> float:
    """Nines: 1 for 90 %, 2 for 99 %.

    >>> misses(99.0)
    2.0
    """
    return -math.log10(max(100.0 - attainment_percent, _LEAST_MISS_PERCENT) / 100.0)
