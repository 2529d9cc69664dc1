"""How many requests arrive, at several time scales at once.

Finished requests say nothing about a rise until it is minutes old, first tokens stop at saturation; first tokens
plus the growth of the queue see every request that got in (conservation of flow). Where a gateway counts at the
door, its count is better still: it sees what was turned away too. No trend is extrapolated: local trends have
been measured to overshoot after every gap, and no predictor to beat persistence by much below twenty minutes.
"""

from dataclasses import dataclass

import numpy as np

from longtail.demand.buckets import Array, Mask, clip

SCALES_SECONDS: Array = np.array([60.0, 180.0, 600.0, 1800.0])
"""Memory of each average. Which one to trust differs by service, and is learned (`experts`)."""
SHORT, MEDIUM = 1, 2
"""The scales used where one rate is needed: 180 s to report, 600 s (the best single one measured) to compute with."""


@dataclass(frozen=True, slots=True)
class ArrivalState:
    """Exponentially weighted sums. Shape (services, scales)."""

    requests: Array
    seconds: Array
    """Weight behind ``requests``: their quotient is unbiased from the first tick on."""

    @classmethod
    def fresh(cls, services: int) -> "ArrivalState":
        """Nothing counted yet."""
        zeros = np.zeros((services, len(SCALES_SECONDS)))
        return cls(requests=zeros, seconds=zeros)

    @property
    def known(self) -> Mask:
        """Where any interval has been counted, shape (services,)."""
        return self.seconds[:, 0] > 0

    @property
    def rates(self) -> Array:
        """Requests per second, shape (services, scales); 0 where nothing was counted."""
        return np.divide(self.requests, self.seconds, out=np.zeros_like(self.requests), where=self.seconds > 0)


def count(*, first_tokens: Array, queue_growth: Array, door: Array, door_known: Mask) -> Array:
    """Requests that arrived in a tick, shape (services,): counted at the door where somebody does.

    >>> count(first_tokens=np.array([10.0, 10.0, 1.0]), queue_growth=np.array([5.0, 0.0, -4.0]),
    ...       door=np.array([0.0, 12.0, 0.0]), door_known=np.array([False, True, False])).tolist()
    [15.0, 12.0, 0.0]
    """
    result: Array = np.where(door_known, door, np.maximum(first_tokens + queue_growth, 0.0))
    return result


def learn(state: ArrivalState, *, requests: Array, seconds: Array, learned: Mask) -> ArrivalState:
    """The averages after ``seconds`` (shape (services,)) in which ``requests`` arrived, where ``learned``.

    >>> state = ArrivalState.fresh(1)
    >>> for arrived in (30.0, 60.0):
    ...     state = learn(state, requests=np.array([arrived]), seconds=np.array([15.0]), learned=np.array([True]))
    >>> state.rates.round(2).tolist()
    [[3.12, 3.04, 3.01, 3.0]]
    """
    span = np.where(learned, seconds, 0.0)[:, None]
    kept = np.exp(-np.minimum(span / SCALES_SECONDS, 60.0))
    weight = SCALES_SECONDS * (1 - kept)
    rate = np.divide(requests[:, None], span, out=np.zeros_like(weight), where=span > 0)
    total = state.requests * kept + rate * weight
    return ArrivalState(requests=np.where(total < 1e-12, 0.0, total), seconds=state.seconds * kept + weight)


def lately(state: ArrivalState, *, expected: Array) -> Array:
    """``expected`` rates, shape (services,), kept within what the last minutes leave possible.

    What forecasts go by may have a memory of half an hour, because a wrong replica costs its cold start. Where a
    decision is undone in seconds, a rise or fall should be believed as soon as it is no noise: within two standard
    errors of the 60 s and 180 s averages. Of a sum with exponential weights over Poisson arrivals the variance is
    half of the sum: 120 requests in 60 s have an error of 7.7.

    >>> rise = ArrivalState(requests=np.array([[120.0, 200.0]]), seconds=np.array([[60.0, 180.0]]))
    >>> lately(rise, expected=np.array([1.0])).round(2).tolist()
    [1.74]
    >>> fall = ArrivalState(requests=np.array([[6.0, 90.0]]), seconds=np.array([[60.0, 180.0]]))
    >>> lately(fall, expected=np.array([1.0])).round(2).tolist()
    [0.57]
    """
    requests, seconds = state.requests[:, :MEDIUM], np.maximum(state.seconds[:, :MEDIUM], 1e-9)
    rates, error = requests / seconds, 2 * np.sqrt(requests / 2) / seconds
    low, high = (rates - error).max(axis=1), rates[:, SHORT] + error[:, SHORT]
    return clip(np.minimum(expected, high), low, np.inf)
