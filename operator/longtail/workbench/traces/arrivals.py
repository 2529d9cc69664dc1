"""Arrival processes: rates over time, and Poisson or renewal arrivals that follow them. Seeded, vectorised.

A rate is an array with the requests per second of each second. Arrivals are drawn in operational time (the
expected number of requests so far), where the process has rate 1, and mapped back through the inverse of the
cumulative rate: so one renewal law serves any shape of day.
"""

import enum
import math

import numpy as np

from longtail.workbench.traces.trace import Floats


class GapLaw(enum.StrEnum):
    """Law of the gaps between the requests of one client."""

    GAMMA = "Gamma"
    WEIBULL = "Weibull"


def constant(seconds: int, per_second: float) -> Floats:
    """The same rate throughout. Shape (seconds,)."""
    return np.full(seconds, float(per_second))


def stepped(rate: Floats, at_seconds: int, factor: float) -> Floats:
    """The rate multiplied by ``factor`` from ``at_seconds`` on.

    >>> stepped(constant(4, 2.0), 2, 3.0).tolist()
    [2.0, 2.0, 6.0, 6.0]
    """
    return burst(rate, at_seconds, len(rate) - at_seconds, factor)


def burst(rate: Floats, at_seconds: int, for_seconds: int, factor: float) -> Floats:
    """The rate multiplied by ``factor`` for a while.

    >>> burst(constant(4, 1.0), 1, 2, 6.0).tolist()
    [1.0, 6.0, 6.0, 1.0]
    """
    changed = rate.copy()
    changed[at_seconds : at_seconds + for_seconds] *= factor
    return changed


def ramp(rate: Floats, at_seconds: int, for_seconds: int, factor: float) -> Floats:
    """The rate growing linearly from itself to ``factor`` times itself, and staying there.

    >>> ramp(constant(5, 1.0), 1, 2, 3.0).tolist()
    [1.0, 1.0, 2.0, 3.0, 3.0]
    """
    progress = np.clip((np.arange(len(rate)) - at_seconds) / for_seconds, 0.0, 1.0)
    return rate * (1.0 + (factor - 1.0) * progress)


def outage(rate: Floats, at_seconds: int, for_seconds: int, *, returning: float = 0.5) -> Floats:
    """No arrival for a while; then a share ``returning`` of the lost ones over as long a time again.

    >>> outage(constant(6, 1.0), 1, 2).tolist()
    [1.0, 0.0, 0.0, 1.5, 1.5, 1.0]
    """
    changed = rate.copy()
    end = at_seconds + for_seconds
    lost = rate[at_seconds:end].sum()
    changed[at_seconds:end] = 0.0
    after = changed[end : end + for_seconds]
    after += returning * lost / max(len(after), 1)
    return changed


def day_shape(seconds: int, mean_per_second: float, *, swing: float = 0.5, peak_hour: float = 15.0) -> Floats:
    """A sinusoid of a day's length around its mean; ``swing`` is the amplitude over the mean."""
    angle = 2 * np.pi * (np.arange(seconds) / 3600 - peak_hour) / 24
    shape: Floats = mean_per_second * (1 + swing * np.cos(angle))
    return shape


def poisson(rate: Floats, rng: np.random.Generator) -> Floats:
    """Arrivals of a Poisson process with this rate, ascending seconds."""
    cumulative = np.concatenate([[0.0], np.cumsum(rate)])
    total = rng.poisson(cumulative[-1])
    return _real_time(np.sort(rng.random(total)) * cumulative[-1], cumulative)


def renewal(
    rate: Floats, coefficient_of_variation: float, rng: np.random.Generator, *, law: GapLaw = GapLaw.GAMMA
) -> Floats:
    """Arrivals of a renewal process whose gaps vary by ``coefficient_of_variation`` (1 is Poisson).

    The clock starts long before 0 (20 cv^2 mean gaps), so that second 0 is a moment like any other and not
    the end of a gap.
    """
    cumulative = np.concatenate([[0.0], np.cumsum(rate)])
    before = 20.0 * max(coefficient_of_variation, 1.0) ** 2
    end = cumulative[-1] + before
    pieces, reached = [], 0.0
    while reached < end:
        size = int((end - reached) * 1.05) + 64
        gaps = _gaps(law, coefficient_of_variation, size, rng)
        pieces.append(reached + np.cumsum(gaps))
        reached = float(pieces[-1][-1])
    operational = np.concatenate(pieces) - before
    return _real_time(operational[(operational >= 0) & (operational < cumulative[-1])], cumulative)


def _gaps(law: GapLaw, cv: float, size: int, rng: np.random.Generator) -> Floats:
    """Gaps with mean 1."""
    if law is GapLaw.GAMMA:
        shape = 1.0 / (cv * cv)
        return rng.gamma(shape, 1.0 / shape, size)
    shape = weibull_shape(cv)
    return rng.weibull(shape, size) / math.gamma(1 + 1 / shape)


def weibull_shape(coefficient_of_variation: float) -> float:
    """Shape k of the Weibull law with this cv, by bisection on cv^2 = G(1 + 2/k) / G(1 + 1/k)^2 - 1.

    >>> round(weibull_shape(1.0), 6)  # the exponential law
    1.0
    """
    low, high = 0.05, 50.0
    for _ in range(80):
        middle = math.sqrt(low * high)
        log_ratio = math.lgamma(1 + 2 / middle) - 2 * math.lgamma(1 + 1 / middle)
        if math.sqrt(math.expm1(log_ratio)) > coefficient_of_variation:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)


def _real_time(operational: Floats, cumulative: Floats) -> Floats:
    # Where the rate is 0 the cumulative rate repeats a value; interp then takes the last of the equal points,
    # so that nothing arrives inside.
    return np.interp(operational, cumulative, np.arange(len(cumulative), dtype=np.float64))
