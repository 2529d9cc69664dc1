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
MEMORY_SECONDS = 7500.0
"""Mean age of the losses that count (0.998 a tick of 15 s)."""
RATE = 0.5
"""Learning rate per unit of loss, losses being measured in units of the mean loss of the experts."""
FLOOR = 0.01
"""No expert falls below this weight, so that one which was wrong for a day can be right tomorrow."""
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
    """Demand from the scale of roots; what would be negative is 0.

    >>> from_root(np.array([0.2, 0.5, 1.5])).tolist()
    [0.0, 0.0, 2.0]
    """
    result: Array = np.maximum(np.square(np.maximum(root, 0.5)) - _OFFSET, 0.0)
    return result


@dataclass(frozen=True, slots=True)
class ExpertState:
    """Discounted losses, shape (services, `EXPERTS`), and their weight in samples, shape (services,)."""

    loss: Array
    samples: Array

    @classmethod
    def fresh(cls, services: int) -> "ExpertState":
        """No verdict yet."""
        return cls(loss=np.zeros((services, EXPERTS)), samples=np.zeros(services))


def weights(state: ExpertState) -> Array:
    """Weights of the experts, shape (services, `EXPERTS`): each at least `FLOOR`, together 1.

    Losses are divided by their mean, so that the rate means the same to a service of 2 slots and one of 2,000.

    >>> weights(ExpertState.fresh(1)).tolist()
    [[0.2, 0.2, 0.2, 0.2, 0.2]]
    >>> better = ExpertState(loss=np.array([[10.0, 20.0, 20.0, 20.0, 20.0]]), samples=np.array([100.0]))
    >>> weights(better).round(2).tolist()
    [[0.96, 0.01, 0.01, 0.01, 0.01]]
    """
    scale = state.loss.mean(axis=1) / np.maximum(state.samples, 1.0)
    excess = state.loss - state.loss.min(axis=1, keepdims=True)
    judged = np.divide(excess, scale[:, None], out=np.zeros_like(excess), where=scale[:, None] > 1e-12)
    raw = np.exp(-np.minimum(RATE * judged, 60.0))
    share = raw / raw.sum(axis=1, keepdims=True)
    result: Array = FLOOR + (1 - FLOOR * EXPERTS) * share
    return result


def mix(weight: Array, roots: Array) -> Array:
    """Weighted mean of the experts' forecasts in roots; shapes (services, `EXPERTS`) to (services,)."""
    result: Array = np.einsum("ce,ce->c", weight, roots)
    return result


def learn(state: ExpertState, *, roots: Array, realised: Array, judged: Mask, elapsed_seconds: float) -> ExpertState:
    """The state after what came (``realised``, roots, shape (services,)) is known for forecasts made earlier."""
    kept = np.exp(-min(elapsed_seconds / MEMORY_SECONDS, 60.0))
    loss = state.loss * kept + np.square(roots - realised[:, None])
    row = judged[:, None]
    return ExpertState(
        loss=np.where(row, loss, state.loss), samples=np.where(judged, state.samples * kept + 1.0, state.samples)
    )
