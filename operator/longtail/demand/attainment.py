"""The user's number is the number delivered: the level of the upper value is steered by the waits engines report.

A q-quantile of demand is not a share of requests served in time: more of them come just when demand is high. So the
level starts at the objective and an integrator moves it, in log-odds, by the relative error of the share of requests
that waited too long:

    log-odds += dt / TIME x clip((missed - allowed) / allowed, -1, 4)

It is slow (an hour for 1 unit: 0.95 to 0.98), bounded, and learns only from whole windows in which no tick was missing.
It never goes below the objective: hours without a miss say nothing about the next burst (a level that was let down to
0.93 in them missed the promise on five of six traces). And it does not push where pushing cannot help (anti-windup):
not up while the pool is smaller than the upper value asked for one cold start ago. What it asks for now cannot be there
yet, and a miss in that time is a true one.
"""

from dataclasses import dataclass

import numpy as np

from longtail.demand.buckets import Array, Mask, clip

WINDOW_SECONDS = 300.0
WINDOW_REQUESTS = 20.0
"""A window lasts until it holds this many requests, so one late request of three does not count as a third."""
TIME_SECONDS = 3600.0
REACH = 2.0
"""Largest correction in log-odds: it takes 0.95 to 0.993, 0.99 to 0.998."""
LEVELS = (0.5, 0.998)


@dataclass(frozen=True, slots=True)
class AttainmentState:
    """Shape (services,)."""

    correction: Array
    """In log-odds."""
    requests: Array
    """In the open window."""
    within: Array
    """Of those, in time."""
    seconds: Array
    """Length of the open window."""
    short: Array
    """Seconds of the open window in which the pool was smaller than it had been asked to be by then."""
    broken: Mask
    """Data was missing in the open window: it will not be learned from."""
    delivered: Array
    """Share of requests in time in the last whole windows, with forgetting; meaningless before `windows`."""
    windows: Array
    """Whole windows seen."""

    @classmethod
    def fresh(cls, services: int) -> "AttainmentState":
        """No window yet: the level is the objective."""
        zeros = np.zeros(services)
        return cls(
            correction=zeros,
            requests=zeros,
            within=zeros,
            seconds=zeros,
            short=zeros,
            broken=np.zeros(services, dtype=bool),
            delivered=np.ones(services),
            windows=zeros,
        )


def level(state: AttainmentState, *, objective: Array) -> Array:
    """Quantile in force, 0..1, shape (services,), for the share of requests promised, 0..1.

    >>> level(AttainmentState.fresh(2), objective=np.array([0.95, 0.99])).round(6).tolist()
    [0.95, 0.99]
    """
    promised = clip(objective, *LEVELS)
    odds = np.log(promised / (1 - promised)) + state.correction
    return clip(1 / (1 + np.exp(-odds)), *LEVELS)


def learn(
    state: AttainmentState,
    *,
    requests: Array,
    within: Array,
    whole: Mask,
    observed: Mask,
    short: Mask,
    objective: Array,
    elapsed_seconds: float,
) -> AttainmentState:
    """The state after a tick in which ``requests`` got their slot, ``within`` of them in time; all (services,).

    ``observed`` is where waits are reported at all, ``whole`` where nothing was missing this tick, ``short`` where the
    pool is smaller than it was asked to be by now.
    """
    count = state.requests + np.where(observed & whole, requests, 0.0)
    good = state.within + np.where(observed & whole, within, 0.0)
    seconds = state.seconds + elapsed_seconds
    lacking = state.short + np.where(short, elapsed_seconds, 0.0)
    broken = state.broken | ~whole | ~observed
    closed = (seconds >= WINDOW_SECONDS) & (broken | (count >= WINDOW_REQUESTS))
    usable = closed & ~broken
    share = np.divide(good, count, out=np.ones_like(good), where=count > 0)
    allowed = np.maximum(1 - objective, 1e-3)
    error = clip(((1 - share) - allowed) / allowed, -1.0, 4.0)
    # Anti-windup: a miss while the pool lagged behind what was asked says nothing about the level.
    error = np.where((lacking > 0) & (error > 0), 0.0, error)
    moved = clip(state.correction + np.minimum(seconds / TIME_SECONDS, 1.0) * error, 0.0, REACH)
    delivered = np.where(state.windows > 0, state.delivered + 0.2 * (share - state.delivered), share)
    return AttainmentState(
        correction=np.where(usable, moved, state.correction),
        requests=np.where(closed, 0.0, count),
        within=np.where(closed, 0.0, good),
        seconds=np.where(closed, 0.0, seconds),
        short=np.where(closed, 0.0, lacking),
        broken=np.where(closed, False, broken),
        delivered=np.where(usable, delivered, state.delivered),
        windows=state.windows + usable,
    )
