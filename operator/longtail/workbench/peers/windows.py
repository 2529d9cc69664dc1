"""Sliding windows as values: what a range vector, a moving average or a max-over-time is to a pure fold.

One representation for all: a tuple of ``(time, value)`` pairs, oldest first, trimmed on every push. A window
of 300 s at 15 s holds 21 pairs, so a tuple beats any cleverer structure.
"""

import math

from longtail.workbench.peers.view import Histogram

Samples = tuple[tuple[float, float], ...]
"""(Unix seconds, value), oldest first."""


def pushed(window: Samples, *, now: float, value: float, seconds: float) -> Samples:
    """The window with one sample more and those older than ``seconds`` gone (the edge itself stays).

    >>> pushed(((0.0, 1.0), (15.0, 2.0)), now=60.0, value=3.0, seconds=45.0)
    ((15.0, 2.0), (60.0, 3.0))
    """
    return (*(sample for sample in window if sample[0] >= now - seconds), (now, value))


def mean(window: Samples) -> float | None:
    """Arithmetic mean, as ``avg_over_time``; None of nothing."""
    return sum(value for _, value in window) / len(window) if window else None


def increase(window: Samples) -> float | None:
    """Last minus first; None with fewer than two samples, as ``increase`` has no result then.

    Prometheus extrapolates to the window's ends. Ratios of two increases over the same window, which is
    what all users here take, are not changed by that.
    """
    return window[-1][1] - window[0][1] if len(window) >= 2 else None


def histogram_increase(old: Histogram, new: Histogram) -> Histogram:
    """What was observed between two snapshots of one histogram."""
    return Histogram(
        upper_bounds=new.upper_bounds,
        counts=tuple(after - before for before, after in zip(old.counts, new.counts, strict=True)),
    )


def histogram_quantile(histogram: Histogram, *, q: float) -> float:
    """Prometheus' ``histogram_quantile``: linear inside the bucket, NaN when nothing was observed.

    The last bucket has no width: a quantile in it is the last finite bound.

    >>> histogram_quantile(Histogram((1.0, 2.0, math.inf), (2.0, 4.0, 4.0)), q=0.75)
    1.5
    """
    observed = histogram.counts[-1]
    if observed <= 0:
        return math.nan
    rank = q * observed
    index = next(i for i, count in enumerate(histogram.counts) if count >= rank)
    if index == len(histogram.counts) - 1:
        return histogram.upper_bounds[-2] if index > 0 else math.nan
    low = histogram.upper_bounds[index - 1] if index > 0 else 0.0
    below = histogram.counts[index - 1] if index > 0 else 0.0
    inside = histogram.counts[index] - below
    if inside <= 0:
        return low
    return low + (histogram.upper_bounds[index] - low) * (rank - below) / inside
