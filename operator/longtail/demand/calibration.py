"""How far above the forecast to stay so that a chosen share of the future lies below: a conformal quantile.

The errors made so far say how large errors are: no distribution is assumed and no percentage of headroom is
guessed. Errors are differences of square roots (with logarithms, one outage made the upper value explode to the
fivefold); they fade with time. Because they fade too slowly when the world changes, the level that is asked of
them adapts: each miss raises it, each hit lowers it a little (adaptive conformal inference, Gibbs and Candès 2021),
so that in the long run the promised share is kept whatever happens.

The errors are kept as a histogram, not as a list: adding one and reading a quantile then costs the same at any
length of memory, and a service needs half a kilobyte instead of twelve.
"""

from dataclasses import dataclass

import numpy as np

from longtail.demand.buckets import Array, Array32, Mask, clip

BINS = 128
MEMORY_SECONDS = 3 * 3600.0
"""Mean age of the scores that count: as in a rolling window of six hours."""
STEP = 0.01
"""How far one miss moves the level."""
LEVELS = (0.5, 0.999)
PRIOR_SPREAD = 1.5
"""Standard deviation of the scores believed before any was seen, in roots: 20 % at 200 slots."""
PRIOR_SAMPLES = 40.0
_UNIT = 0.5
_REACH = 8.0
"""Bins are equally wide in asinh(score / unit): 0.06 near 0, 12 % of the score far out, up to ±745."""
_WIDTH = 2 * _REACH / BINS
MIN_COVERAGE_SAMPLES = 40.0


@dataclass(frozen=True, slots=True)
class CalibrationState:
    """Scores seen so far. Shape (services,) unless said otherwise."""

    scores: Array32
    """Histogram of scores with forgetting, shape (services, `BINS`)."""
    offset: Array
    """What the adaptive level adds to the level asked for."""
    held: Array
    """Upper values that held, with forgetting."""
    judged: Array
    """Upper values that could be judged, with forgetting."""

    @classmethod
    def fresh(cls, services: int) -> "CalibrationState":
        """The prior's scores: normal with `PRIOR_SPREAD`."""
        centre = _UNIT * np.sinh((np.arange(BINS) + 0.5) * _WIDTH - _REACH)
        spacing = np.gradient(centre)
        density = np.exp(-np.minimum(0.5 * (centre / PRIOR_SPREAD) ** 2, 60.0)) * spacing
        prior = np.where(density < 1e-9, 0.0, density) * (PRIOR_SAMPLES / density.sum())
        scores = np.tile(prior.astype(np.float32), (services, 1))
        zeros = np.zeros(services)
        return cls(scores=scores, offset=zeros, held=zeros, judged=zeros)


def margin(state: CalibrationState, *, quantile: Array) -> Array:
    """What to add to the root of a forecast so that ``quantile`` (0..1) of the roots lie below; both (services,).

    >>> margin(CalibrationState.fresh(1), quantile=np.array([0.95])).round(1).tolist()     # 1.645 x 1.5
    [2.5]
    """
    level = clip(quantile + state.offset, *LEVELS)
    below = np.cumsum(state.scores, axis=1, dtype=np.float64)
    wanted = level * below[:, -1]
    bin_ = np.minimum((below < wanted[:, None]).sum(axis=1), BINS - 1)
    row = np.arange(len(bin_))
    inside = state.scores[row, bin_].astype(np.float64)
    before = below[row, bin_] - inside
    part = np.divide(wanted - before, inside, out=np.full(len(bin_), 0.5), where=inside > 0)
    result: Array = _UNIT * np.sinh((bin_ + clip(part, 0.0, 1.0)) * _WIDTH - _REACH)
    return result


def learn(
    state: CalibrationState,
    *,
    realised: Array,
    point: Array,
    upper: Array,
    quantile: Array,
    judged: Mask,
    elapsed_seconds: float,
) -> CalibrationState:
    """The state after what came is known: roots of demand, of the forecast and of its upper value, (services,)."""
    kept = np.exp(-min(elapsed_seconds / MEMORY_SECONDS, 60.0))
    score = realised - point
    place = (np.arcsinh(score / _UNIT) + _REACH) / _WIDTH
    bin_ = clip(place, 0, BINS - 1).astype(np.intp)
    faded = state.scores * np.where(judged, np.float32(kept), np.float32(1))[:, None]
    scores = np.where(faded < 1e-6, np.float32(0), faded)
    scores[np.flatnonzero(judged), bin_[judged]] += 1
    held = realised <= upper + 1e-6
    moved = state.offset + STEP * (np.where(held, 0.0, 1.0) - (1 - quantile))
    # The sum of level and offset stays within LEVELS, so a long run of hits cannot wind the offset up.
    bounded = clip(quantile + moved, *LEVELS) - quantile
    return CalibrationState(
        scores=scores,
        offset=np.where(judged, bounded, state.offset),
        held=np.where(judged, state.held * kept + held, state.held),
        judged=np.where(judged, state.judged * kept + 1.0, state.judged),
    )


def coverage(state: CalibrationState) -> tuple[Mask, Array]:
    """Where enough upper values were judged to say, and the share of them that held; (services,)."""
    known = state.judged >= MIN_COVERAGE_SAMPLES
    return known, np.divide(state.held, state.judged, out=np.ones_like(state.held), where=known)
