"""Scores forecasts of demand against what then happened, beside the simplest forecast there is.

Errors are taken between square roots, sqrt(D + 1/4), where the spread of a count does not depend on its
level: so a quiet night weighs as much as a busy day. The baseline is persistence, D(t + h) = D(t), and for
the upper value a rolling quantile of persistence's own errors on top.
"""

import math
from dataclasses import dataclass

import numpy as np

from longtail.workbench.replay import TICK_SECONDS
from longtail.workbench.traces.trace import Floats, Mask

WORST_WINDOW_TICKS = round(4 * 3600 / TICK_SECONDS)
BASELINE_WINDOW_TICKS = round(6 * 3600 / TICK_SECONDS)


@dataclass(frozen=True, slots=True)
class Score:
    """Figures of one scenario over the ticks after the warm-up whose horizon lies inside the trace."""

    mean_demand: float
    sqrt_rmse: float
    sqrt_rmse_ratio: float
    """Root mean square error between square roots, over that of persistence. < 1 beats it."""
    sqrt_bias: float
    """Mean of sqrt(realised) - sqrt(forecast). > 0: the forecast is low."""
    coverage: float
    """Share of ticks whose realised demand did not exceed the upper value."""
    worst_4h_coverage: float
    """The least coverage over any four hours in a row."""
    pinball_ratio: float
    """Pinball loss of the upper value over the baseline's: height buys coverage, but not this."""
    baseline_coverage: float


def root(demand: Floats) -> Floats:
    """The variance-stabilised demand, sqrt(D + 1/4).

    >>> root(np.array([0.0, 6.0])).tolist()
    [0.5, 2.5]
    """
    return np.sqrt(np.maximum(demand, 0.0) + 0.25)


def score(
    demand: Floats, point: Floats, upper: Floats, *, horizon_ticks: int, warm_up_ticks: int, level: float
) -> Score:
    """Scores one service.

    Args:
        demand: realised, per tick.
        point: forecast made at each tick for ``horizon_ticks`` later.
        upper: upper value made at each tick for the same moment, of level ``level``.
        horizon_ticks: how far ahead, in ticks.
        warm_up_ticks: forecasts made before are not scored.
        level: 0..1.

    Raises:
        ValueError: a scored forecast is missing (NaN), which must not count as right or wrong.
    """
    made = slice(warm_up_ticks, len(demand) - horizon_ticks)
    realised, now = demand[warm_up_ticks + horizon_ticks :], demand[made]
    point, upper = point[made], upper[made]
    if np.isnan(point).any() or np.isnan(upper).any():
        raise ValueError(f"{int(np.isnan(point + upper).sum())} of {len(point)} forecasts are missing")
    error = root(realised) - root(point)
    persistence = root(realised) - root(now)
    baseline = rolling_upper(demand, horizon_ticks=horizon_ticks, level=level)[made]
    rmse = _rms(error)
    return Score(
        mean_demand=float(realised.mean()),
        sqrt_rmse=rmse,
        sqrt_rmse_ratio=_ratio(rmse, _rms(persistence)),
        sqrt_bias=float(error.mean()),
        coverage=float((realised <= upper).mean()),
        worst_4h_coverage=worst_coverage(realised <= upper, WORST_WINDOW_TICKS),
        pinball_ratio=_ratio(pinball(realised, upper, level), pinball(realised, baseline, level)),
        baseline_coverage=float((realised <= baseline).mean()),
    )


def worst_coverage(held: Mask, window: int) -> float:
    """The least mean of any ``window`` values in a row (of all, where there are fewer).

    >>> worst_coverage(np.array([True, True, False, False, True]), 2)
    0.0
    """
    window = min(window, len(held))
    sums = np.concatenate([[0], np.cumsum(held)])
    return float((sums[window:] - sums[:-window]).min() / window)


def pinball(realised: Floats, upper: Floats, level: float) -> float:
    """Mean pinball loss: a unit too low costs ``level``, a unit too high ``1 - level``.

    >>> round(pinball(np.array([10.0, 10.0]), np.array([8.0, 12.0]), 0.95), 6)
    1.0
    """
    short = realised - upper
    return float(np.maximum(level * short, (level - 1) * short).mean())


def rolling_upper(demand: Floats, *, horizon_ticks: int, level: float, window: int = BASELINE_WINDOW_TICKS) -> Floats:
    """Persistence plus the ``level`` quantile of its own last ``window`` errors, in square roots.

    Only errors known at the time are used: at tick t those of forecasts made up to t - horizon. NaN before
    the first of them.
    """
    roots = root(demand)
    errors = roots[horizon_ticks:] - roots[:-horizon_ticks]
    upper = np.full(len(demand), math.nan)
    padded = np.concatenate([np.full(window - 1, math.nan), errors])
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)
    full = windows[window - 1 :]
    early = [np.quantile(errors[: count + 1], level) for count in range(min(window - 1, len(errors)))]
    margins = np.concatenate([early, np.quantile(full, level, axis=1) if len(full) else []])
    upper[horizon_ticks:] = np.maximum(np.maximum(roots[horizon_ticks:] + margins, 0.0) ** 2 - 0.25, 0.0)
    return upper


def geometric_mean(ratios: Floats) -> float:
    """The mean that treats twice and half alike.

    >>> round(geometric_mean(np.array([0.5, 2.0])), 9)
    1.0
    """
    return float(np.exp(np.log(ratios).mean()))


def _ratio(mine: float, baseline: float) -> float:
    """1 where both are the same, zero included; infinite where only the baseline is perfect."""
    if mine == baseline:
        return 1.0
    return mine / baseline if baseline > 0 else math.inf


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))
