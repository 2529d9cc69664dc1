"""Requests in flight by age, where age is the number of tokens already written.

No engine says how old its requests are. But each tick says how many produced their first token, the length
distribution says how many of those are still at it, and the running gauge says how many there are in all. Ages
inferred so have been measured to forecast as well as exact ones (RMSE 10.0 against 9.9 at 216 in flight).

Requests that started together are one cohort. The youngest cohorts are one tick wide; older ones are merged so that
a cohort's width stays a fixed part of its age, so about thirty cohorts reach as far back as any answer lasts.
All services share the ticks, hence the merging: cohorts are columns of one array.
"""

from dataclasses import dataclass, replace

import numpy as np

from longtail.demand.buckets import BUCKETS, EDGES, Array, Array32, Mask
from longtail.demand.survival import Survival

COHORTS = 32
_FEW = np.float32(1e-6)
"""Fewer requests than this are none: keeps products of small numbers out of the denormals."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """Cohorts, youngest first. Shape (services, `COHORTS`)."""

    requests: Array32
    """Requests of the cohort expected to be still running."""
    age_tokens: Array32
    """Tokens each of them has written."""
    started: Array32
    """Requests the cohort began with: it never has more."""

    @classmethod
    def fresh(cls, services: int) -> "InFlight":
        """Nobody in flight."""
        zeros = np.zeros((services, COHORTS), dtype=np.float32)
        return cls(requests=zeros, age_tokens=zeros, started=zeros)

    @property
    def total(self) -> Array:
        """Requests in flight, shape (services,)."""
        result: Array = self.requests.sum(axis=1, dtype=np.float64)
        return result

    @property
    def tokens(self) -> Array:
        """Tokens written so far by all requests in flight, shape (services,)."""
        result: Array = np.einsum("cg,cg->c", self.requests, self.age_tokens).astype(np.float64)
        return result


def advance(state: InFlight, *, tokens: Array, survival: Survival) -> tuple[InFlight, Array]:
    """Cohorts after each request has written ``tokens`` more, shape (services,), and the tokens written by bucket.

    A cohort of n requests falls to n S(u + v)/S(u). While it does, it has on average n (1 - e^-d)/d members, where
    d is the hazard it went through; so many tokens each count as exposure, shape (services, `BUCKETS`), in the
    buckets they were written in.
    """
    step = tokens.astype(np.float32)[:, None]
    age = state.age_tokens + step
    depth = survival.cumulative_hazard(age) - survival.cumulative_hazard(state.age_tokens)
    depth = np.maximum(depth, np.float32(0))
    gone = -np.expm1(-depth)
    alive = state.requests * (1 - gone)
    some = depth > 1e-5
    during = state.requests * np.where(some, gone / np.where(some, depth, 1), np.float32(1))
    passed = np.zeros((len(tokens), BUCKETS + 1))
    for bucket in range(1, BUCKETS):
        inside = np.clip(EDGES[bucket].astype(np.float32) - state.age_tokens, 0, step)
        passed[:, bucket] = np.einsum("cg,cg->c", during, inside)
    passed[:, BUCKETS] = during.sum(axis=1, dtype=np.float64) * tokens
    exposed = np.maximum(np.diff(passed, axis=1), 0.0)
    return replace(state, requests=np.where(alive < _FEW, 0, alive), age_tokens=age), exposed


def admit(
    state: InFlight, *, started: Array, tokens: Array, survival: Survival, width_seconds: Array, elapsed_seconds: float
) -> tuple[InFlight, Array, Array]:
    """A new cohort of requests that began evenly over the tick, the tokens they wrote by bucket, and the new widths.

    ``tokens`` is what a request running for the whole tick wrote, shape (services,). Of those that began x tokens
    ago S(x) are left, so I(v)/v of them on average, of mean age J(v)/I(v). A position y has been written by
    those who began at least y tokens ago and lived to: exposure is the integral of (1 - y/v) S(y) over each bucket.
    ``width_seconds``, shape (`COHORTS`,), is how long each cohort took to start; the pair of neighbours that is
    narrowest for its age is merged to make room.
    """
    step = np.maximum(tokens, 1e-3)[:, None]
    edges = np.minimum(np.append(EDGES[1:], np.inf), step)
    mass, moment = survival.integrals(edges)
    alive, aged = mass[:, -1], moment[:, -1]
    inside = np.diff(mass, axis=1, prepend=0.0) - np.diff(moment, axis=1, prepend=0.0) / step
    exposed = started[:, None] * np.maximum(inside, 0.0)
    newborn = InFlight(
        requests=(started * alive / step[:, 0]).astype(np.float32)[:, None],
        age_tokens=(aged / alive).astype(np.float32)[:, None],
        started=started.astype(np.float32)[:, None],
    )
    pair, widths = _merge_plan(width_seconds, elapsed_seconds)
    return _merge(state, newborn, pair), exposed, widths


def correct(
    state: InFlight, *, running: Array, known: Mask, survival: Survival, attained: Array, attained_known: Mask
) -> InFlight:
    """Cohorts whose total is the running gauge, shape (services,), where it is ``known``.

    Too many: all shrink alike (aborts, restarts). Too few: all grow alike, none beyond what it started with. What
    is then still unexplained was never seen to start, as after a restart of the operator: all grow beyond it, or, if
    nobody was thought in flight, the cohorts get the ages of requests in flight in a steady state, stretched (at most
    to the fourfold) so that they have written what the engines say they have (``attained`` tokens in all).

    >>> nobody, s = InFlight.fresh(1), Survival.of(hazard=np.full((1, 19), 1 / 1000), limit=np.array([32768.0]))
    >>> there = np.array([True])
    >>> seeded = correct(nobody, running=np.array([8.0]), known=there, survival=s,
    ...                  attained=np.array([4000.0]), attained_known=there)
    >>> seeded.total.tolist(), seeded.tokens.round(0).tolist()
    ([8.0], [4000.0])
    """
    target = running.astype(np.float32)
    requests = state.requests
    for _ in range(3):
        total = requests.sum(axis=1)
        factor = np.divide(target, total, out=np.ones_like(target), where=total > _FEW)
        requests = np.minimum(requests * factor[:, None], state.started)
    total = requests.sum(axis=1)
    explained = total > np.float32(0.01) * target
    requests = requests * np.divide(target, total, out=np.ones_like(target), where=explained)[:, None]
    age, started = state.age_tokens, np.maximum(state.started, requests)
    blank = np.flatnonzero(known & (running > 0) & ~explained)
    if len(blank):
        age = age.copy()
        age[blank] = _seeded(survival.rows(blank), attained[blank] / running[blank], attained_known[blank])
        requests[blank] = started[blank] = target[blank, None] / COHORTS
    row = known[:, None]
    return InFlight(
        requests=np.where(row, np.where(requests < _FEW, np.float32(0), requests), state.requests),
        age_tokens=np.where(row, age, state.age_tokens),
        started=np.where(row, started, state.started),
    )


def _seeded(survival: Survival, mean_age: Array, known: Mask) -> Array:
    """Ages in tokens of requests of whom nothing but (perhaps) their mean age is known."""
    ages = survival.stationary_ages(COHORTS)
    usual = np.maximum(ages.mean(axis=1), 1e-3)
    stretch = np.where(known, np.clip(mean_age / usual, 0.25, 4.0), 1.0)
    result: Array = np.minimum(ages * stretch[:, None], survival.limit[:, None])
    return result


def _merge_plan(width_seconds: Array, elapsed_seconds: float) -> tuple[int, Array]:
    """Which cohort to merge with the next older one, and the widths afterwards (shape (`COHORTS`,))."""
    until = elapsed_seconds + np.cumsum(width_seconds)
    cost = (width_seconds[:-1] + width_seconds[1:]) / np.maximum(until[1:], 1e-9)
    # Ties go to the older pair: empty cohorts (width 0) are used up from the far end.
    pair = len(cost) - 1 - int(np.argmin(cost[::-1]))
    merged = np.concatenate(
        [width_seconds[:pair], [width_seconds[pair] + width_seconds[pair + 1]], width_seconds[pair + 2 :]]
    )
    return pair, np.concatenate([[elapsed_seconds], merged])


def _merge(state: InFlight, newborn: InFlight, pair: int) -> InFlight:
    """Cohorts with the newborn in front and ``pair``, ``pair + 1`` made one, its age the mean of its members'."""
    two = slice(pair, pair + 2)
    requests = state.requests[:, two].sum(axis=1, keepdims=True)
    weight = np.where(requests > _FEW, state.requests[:, two], np.float32(0.5))
    share = weight / weight.sum(axis=1, keepdims=True)
    age = (share * state.age_tokens[:, two]).sum(axis=1, keepdims=True)
    started = state.started[:, two].sum(axis=1, keepdims=True)

    def joined(front: Array32, old: Array32, middle: Array32) -> Array32:
        return np.concatenate([front, old[:, :pair], middle, old[:, pair + 2 :]], axis=1)

    return InFlight(
        requests=joined(newborn.requests, state.requests, requests),
        age_tokens=joined(newborn.age_tokens, state.age_tokens, age),
        started=joined(newborn.started, state.started, started),
    )
