"""How long a replica takes from the decision to its first request: the horizon of every forecast.

Cold starts are log-normal to a good approximation and vary by 15-25 % on one machine type. A service sees few
of them, so the prior keeps a weight: one pseudo-start in the mean of the logarithms, two in their variance (a normal
with semi-conjugate prior, Gelman et al., Bayesian Data Analysis, 3rd ed., §3: a wrong prior mean must not
pass for spread). The spec's figure is read as the time by which a
replica *usually* is there, the P90: that is what people quote, and erring by it only buys earlier.
"""

from dataclasses import dataclass

import numpy as np

from longtail.demand.buckets import Array, clip

PRIOR_STARTS = 1.0
PRIOR_SPREAD_STARTS = 2.0
PRIOR_SPREAD = 0.2
"""Standard deviation of the logarithm."""
KEPT = 0.95
"""Weight left of a start when another has been seen: about twenty count."""
NORMAL_P90 = 1.2816
NORMAL_P99 = 2.3263


@dataclass(frozen=True, slots=True)
class StartupState:
    """Sums over logarithms of cold starts in seconds, with forgetting; shape (services,)."""

    starts: Array
    total: Array
    squares: Array

    @classmethod
    def fresh(cls, services: int) -> "StartupState":
        """No start seen."""
        zeros = np.zeros(services)
        return cls(starts=zeros, total=zeros, squares=zeros)


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Quantiles in seconds, shape (services,)."""

    p50_seconds: Array
    p90_seconds: Array
    p99_seconds: Array


def learn(state: StartupState, *, service: int, seconds: float) -> StartupState:
    """The state after one more cold start of one service, > 0 seconds (shorter than 1 s counts as 1 s)."""
    logarithm = float(np.log(max(seconds, 1.0)))
    starts, total, squares = state.starts.copy(), state.total.copy(), state.squares.copy()
    starts[service] = starts[service] * KEPT + 1
    total[service] = total[service] * KEPT + logarithm
    squares[service] = squares[service] * KEPT + logarithm**2
    return StartupState(starts=starts, total=total, squares=squares)


def cold_start(state: StartupState, *, prior_seconds: Array) -> ColdStart:
    """Quantiles of the cold start with the prior's P90, shape (services,), mixed in.

    >>> state = StartupState.fresh(1)
    >>> cold_start(state, prior_seconds=np.array([180.0])).p90_seconds.round(1).tolist()
    [180.0]
    >>> for seconds in (60.0, 62.0, 58.0, 60.0, 61.0, 59.0):
    ...     state = learn(state, service=0, seconds=seconds)
    >>> learned = cold_start(state, prior_seconds=np.array([180.0]))
    >>> learned.p50_seconds.round(0).tolist(), learned.p90_seconds.round(0).tolist()
    ([69.0], [79.0])
    """
    centre = np.log(np.maximum(prior_seconds, 1.0)) - NORMAL_P90 * PRIOR_SPREAD
    mean = (state.total + PRIOR_STARTS * centre) / (state.starts + PRIOR_STARTS)
    seen = np.divide(state.total, state.starts, out=np.zeros_like(mean), where=state.starts > 0)
    scatter = np.maximum(state.squares - state.starts * seen**2, 0.0)
    spread = np.sqrt((scatter + PRIOR_SPREAD_STARTS * PRIOR_SPREAD**2) / (state.starts + PRIOR_SPREAD_STARTS))
    quantiles = (np.exp(clip(mean + z * spread, 0.0, 13.0)) for z in (0.0, NORMAL_P90, NORMAL_P99))
    return ColdStart(*quantiles)
