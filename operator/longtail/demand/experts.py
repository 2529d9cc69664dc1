"""Which forecast to believe, learned per service: persistence among the candidates, hedged where demand is compared.

Persistence (the demand of now) is very hard to beat at these horizons, and no single memory of the arrival rate is
right for every service. So nobody chooses: each candidate's forecast is compared with what came one cold start
later, and the mixture follows the ones that were right (exponential weights: Vovk 1990; Cesa-Bianchi and Lugosi
2006, ch. 2). Errors are taken between square roots, where the error of a count does not grow with the count.
"""

from dataclasses import dataclass

import numpy as np

from longtail.demand.arrivals import SCALES_SECONDS
from longtail.demand.buckets import Array, Mask

EXPERTS = 1 + len(SCALES_SECONDS)
"""Persistence first, then the fluid path under each average of the arrival rate."""
PARTS = (0.15, 0.3, 0.6, 1.0)
"""How far a candidate goes from persistence towards a fluid path: the best of both is usually a blend."""
BLENDS: Array = np.array(
    [[1.0] + [0.0] * (EXPERTS - 1)]
    + [
        [1.0 - part] + [part if path == expert else 0.0 for path in range(EXPERTS - 1)]
        for part in PARTS
        for expert in range(EXPERTS - 1)
    ]
)
"""Candidates as blends of the experts: shape (candidates, `EXPERTS`), rows sum to 1."""
CANDIDATES = len(BLENDS)
MEMORY_SECONDS = 7500.0
"""Mean age of the losses that count (0.998 a tick of 15 s)."""
RATE = 0.1
"""Learning rate per unit of loss, losses being measured in units of the candidates' mean loss."""
FLOOR = 0.001
"""No candidate falls below this weight, so that one which was wrong for a day can be right tomorrow."""
_OFFSET = 0.25
"""Anscombe's (1948) idea for counts: sqrt(x + 1/4) has a variance of about 1/4 whatever the mean."""


def to_root(demand: Array) -> Array:
    """Demand (>= 0) in the scale where errors are compared.

    >>> to_root(np.array([0.0, 2.0])).tolist()
    [0.5, 1.5]
    """
    result: Array = np.sqrt(np.maximum(demand, 0.0) + _OFFSET)
    return result


def from_root(root: Array) -> Array:
    """Demand from the scale of roots; less than a quarter of a request is none.

    An idle service needs no replica because an average has not quite faded.

    >>> from_root(np.array([0.2, 0.5, 0.6, 1.5])).tolist()
    [0.0, 0.0, 0.0, 2.0]
    """
    demand = np.square(np.maximum(root, 0.5)) - _OFFSET
    result: Array = np.where(demand < 0.25, 0.0, demand)
    return result


@dataclass(frozen=True, slots=True)
class ExpertState:
    """Discounted losses, shape (services, `CANDIDATES`), and their weight in samples, shape (services,)."""

    loss: Array
    samples: Array

    @classmethod
    def fresh(cls, services: int) -> "ExpertState":
        """No verdict yet."""
        return cls(loss=np.zeros((services, CANDIDATES)), samples=np.zeros(services))


def weights(state: ExpertState) -> Array:
    """Weights of the experts in the mixture, shape (services, `EXPERTS`): >= 0, together 1.

    Each candidate weighs exp(-RATE x its excess loss), losses being divided by their mean so that the rate means the
    same to a service of 2 slots and one of 2,000; what a candidate weighs it passes on to the experts it blends.

    >>> weights(ExpertState.fresh(1)).round(3).tolist()
    [[0.518, 0.121, 0.121, 0.121, 0.121]]
    >>> loss = np.full((1, CANDIDATES), 200.0)
    >>> loss[0, 0] = 100.0                                # persistence had half the loss of all others in 100 looks
    >>> weights(ExpertState(loss=loss, samples=np.array([100.0]))).round(3).tolist()
    [[0.949, 0.013, 0.013, 0.013, 0.013]]
    """
    scale = state.loss.mean(axis=1) / np.maximum(state.samples, 1.0)
    excess = state.loss - state.loss.min(axis=1, keepdims=True)
    judged = np.divide(excess, scale[:, None], out=np.zeros_like(excess), where=scale[:, None] > 1e-12)
    raw = np.exp(-np.minimum(RATE * judged, 60.0))
    share = FLOOR + (1 - FLOOR * CANDIDATES) * raw / raw.sum(axis=1, keepdims=True)
    result: Array = np.einsum("cb,be->ce", share, BLENDS)
    return result


def mix(weight: Array, roots: Array) -> Array:
    """Weighted mean of the experts' forecasts in roots; shapes (services, `EXPERTS`) to (services,).

    >>> mix(np.array([[0.5, 0.5, 0.0, 0.0, 0.0]]), np.array([[3.0, 5.0, 9.0, 9.0, 9.0]])).tolist()
    [4.0]
    """
    result: Array = np.einsum("ce,ce->c", weight, roots)
    return result


def learn(state: ExpertState, *, roots: Array, realised: Array, judged: Mask, elapsed_seconds: float) -> ExpertState:
    """The state after what came is known for forecasts made earlier, where ``judged``.

    ``roots`` are the experts' forecasts, shape (services, `EXPERTS`), ``realised`` those of the demand, (services,).

    >>> after = learn(ExpertState.fresh(1), roots=np.array([[3.0, 5.0, 5.0, 5.0, 5.0]]), realised=np.array([3.0]),
    ...               judged=np.array([True]), elapsed_seconds=15.0)
    >>> after.loss[0, [0, 1, -1]].round(2).tolist()       # persistence, 15 % of the way, all of it
    [0.0, 0.09, 4.0]
    """
    kept = np.exp(-min(elapsed_seconds / MEMORY_SECONDS, 60.0))
    rows = np.flatnonzero(judged)
    loss, samples = state.loss.copy(), state.samples.copy()
    missed = np.einsum("ce,be->cb", roots[rows], BLENDS) - realised[rows, None]
    faded = loss[rows] * kept + np.square(missed)
    loss[rows] = np.where(faded < 1e-12, 0.0, faded)
    samples[rows] = samples[rows] * kept + 1.0
    return ExpertState(loss=loss, samples=samples)
