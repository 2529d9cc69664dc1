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

from longtail.demand.buckets import BUCKETS, UPPER, UPPER_32, Array, Array32, Mask, clip, increments
from longtail.demand.survival import Survival

COHORTS = 32
FEW = np.float32(1e-6)
"""Fewer requests than this are none: keeps products of small numbers out of the denormals."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """Cohorts, youngest first. Shape (services, `COHORTS`)."""

    requests: Array32
    """Requests of the cohort expected to be still running."""
    age_tokens: Array32
    """Tokens each of them has written."""

    @classmethod
    def fresh(cls, services: int) -> "InFlight":
        """Nobody in flight."""
        zeros = np.zeros((services, COHORTS), dtype=np.float32)
        return cls(requests=zeros, age_tokens=zeros)

    @property
    def older(self) -> "InFlight":
        """All cohorts but the youngest."""
        return InFlight(requests=self.requests[:, 1:], age_tokens=self.age_tokens[:, 1:])

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


def advance(state: InFlight, *, tokens: Array, survival: Survival) -> tuple[InFlight, Array32]:
    """Cohorts after each request has written ``tokens`` more, shape (services,), and the hazard each went through.

    A cohort of n requests falls to n S(u + v)/S(u) = n exp(-depth).

    >>> flight = InFlight(*np.array([[[100.0]], [[0.0]]], dtype=np.float32))
    >>> s = Survival.of(hazard=np.full((1, 19), 1 / 1000), limit=np.array([32768.0]))
    >>> aged, depth = advance(flight, tokens=np.array([500.0]), survival=s)
    >>> aged.total.round(1).tolist(), depth.tolist()
    ([60.7], [[0.5]])
    """
    age = state.age_tokens + tokens.astype(np.float32)[:, None]
    depth = survival.cumulative_hazard(age) - survival.cumulative_hazard(state.age_tokens)
    depth = clip(depth, 0.0, 60.0)
    alive = state.requests * np.exp(-depth)
    return replace(state, requests=np.where(alive < FEW, np.float32(0), alive), age_tokens=age), depth


def admit(state: InFlight, *, started: Array, tokens: Array, survival: Survival) -> tuple[InFlight, Array]:
    """Cohorts with a new one in front, of requests that began evenly over the tick, and the tokens those wrote.

    ``tokens`` is what a request running for the whole tick wrote, shape (services,). Of those that began x tokens
    ago S(x) are left, so I(v)/v of them on average, of mean age J(v)/I(v). A position y has been written by
    those who began at least y tokens ago and lived to: exposure, shape (services, `BUCKETS`), is the integral of
    (1 - y/v) S(y) over each bucket.

    >>> s = Survival.of(hazard=np.full((1, 19), 1 / 1000), limit=np.array([32768.0]))
    >>> flight, exposed = admit(InFlight.fresh(1), started=np.array([10.0]), tokens=np.array([300.0]), survival=s)
    >>> flight.total.round(2).tolist(), float(exposed.sum().round())     # 10 requests of 0 to 300 tokens, some done
    ([8.64], 1361.0)
    """
    step = np.maximum(tokens, 1e-3)[:, None]
    edges = np.minimum(UPPER, step)
    mass, moment = survival.integrals(edges)
    alive, aged = mass[:, -1], moment[:, -1]
    inside = increments(mass) - increments(moment) / step
    requests = (started * alive / step[:, 0]).astype(np.float32)[:, None]
    age = (aged / alive).astype(np.float32)[:, None]
    after = InFlight(
        requests=np.concatenate([requests, state.requests], axis=1),
        age_tokens=np.concatenate([age, state.age_tokens], axis=1),
    )
    return after, started[:, None] * np.maximum(inside, 0.0)


def correct(
    state: InFlight,
    *,
    ceiling: Array32,
    running: Array,
    known: Mask,
    survival: Survival,
    attained: Array,
    attained_known: Mask,
) -> InFlight:
    """Cohorts whose total is the running gauge, shape (services,), where it is ``known``.

    Too many: all shrink alike (aborts, restarts). Too few: all grow alike, none beyond its ``ceiling`` (shape of the
    cohorts; inf where nothing bounds them): an old one has no more than at the last tick, since nobody joins it, the
    youngest no more than started. What is then unexplained started unseen, and is young. Where nobody was thought in
    flight, as after a restart of the operator, the cohorts get the ages of requests in flight in a steady state,
    stretched (at most to the fourfold) so that they have written what the engines say they have: ``attained`` tokens.

    >>> nobody, s = InFlight.fresh(1), Survival.of(hazard=np.full((1, 19), 1 / 1000), limit=np.array([32768.0]))
    >>> there = np.array([True])
    >>> seeded = correct(nobody, ceiling=np.full((1, COHORTS), np.inf), running=np.array([8.0]), known=there,
    ...                  survival=s, attained=np.array([4000.0]), attained_known=there)
    >>> seeded.total.tolist(), seeded.tokens.round(0).tolist()
    ([8.0], [4000.0])
    """
    target = running.astype(np.float32)
    requests = _filled(state.requests, ceiling, target)
    age = state.age_tokens
    blank = np.flatnonzero(known & (running > 0) & (requests.sum(axis=1) <= FEW) & np.isinf(ceiling[:, -1]))
    if len(blank):
        age = age.copy()
        mean_age = attained[blank] / running[blank]
        age[blank] = _seeded(survival.rows(blank), requests.shape[1], mean_age, attained_known[blank])
        requests[blank] = target[blank, None] / requests.shape[1]
    requests[:, 0] += np.maximum(target - requests.sum(axis=1), np.float32(0))
    row = known[:, None]
    return InFlight(
        requests=np.where(row, np.where(requests < FEW, np.float32(0), requests), state.requests),
        age_tokens=np.where(row, age, state.age_tokens),
    )


def _filled(requests: Array32, ceiling: Array32, target: Array32) -> Array32:
    """Requests times one factor per service, each at most its ceiling, so that they add up to the target if they can.

    Each pass scales those below their ceiling to what the others leave; a few reach one and are left out of the next.
    """
    result = requests
    free = np.ones(requests.shape, dtype=bool)
    for _ in range(4):
        held = np.where(free, np.float32(0), result).sum(axis=1)
        total = np.where(free, result, np.float32(0)).sum(axis=1)
        wanted = np.maximum(target - held, np.float32(0))
        factor = np.divide(wanted, total, out=np.ones_like(target), where=total > FEW)
        result = np.where(free, np.minimum(result * factor[:, None], ceiling), result)
        free &= result < ceiling
    return result


def _seeded(survival: Survival, count: int, mean_age: Array, known: Mask) -> Array:
    """Ages in tokens of requests of whom nothing but (perhaps) their mean age is known."""
    ages = survival.stationary_ages(count)
    usual = np.maximum(ages.mean(axis=1), 1e-3)
    stretch = np.where(known, clip(mean_age / usual, 0.25, 4.0), 1.0)
    result: Array = np.minimum(ages * stretch[:, None], survival.limit[:, None])
    return result


def exposure(before: InFlight, *, tokens: Array, depth: Array32, expected: InFlight, found: InFlight) -> Array:
    """Tokens written by cohorts that were there before the tick, by bucket: shape (services, `BUCKETS`).

    A cohort that falls from n to n exp(-d) has n (1 - e^-d)/d members on average; so many tokens each count in
    the buckets they were written in. d is the hazard that was expected, moved by what the gauge then showed
    (``found`` against ``expected``), so that requests which last longer than thought are exposure from the first tick.

    >>> before = InFlight(*np.array([[[100.0]], [[200.0]]], dtype=np.float32))
    >>> s = Survival.of(hazard=np.full((1, 19), 1 / 1000), limit=np.array([32768.0]))
    >>> aged, depth = advance(before, tokens=np.array([500.0]), survival=s)
    >>> exposure(before, tokens=np.array([500.0]), depth=depth, expected=aged, found=aged)[0, 8:10].round().tolist()
    [23608.0, 15739.0]
    """
    step = tokens.astype(np.float32)[:, None]
    seen = depth
    if found is not expected:
        there = (expected.requests > FEW) & (found.requests > FEW)
        ratio = np.divide(found.requests, expected.requests, out=np.ones_like(depth), where=there)
        # Bounds: a gauge that says 0 does not say that all ended at once, nor one that doubles that they multiplied.
        seen = clip(depth - np.log(clip(ratio, 1e-9, 1e9)), 0, depth + 3).astype(np.float32)
    some = seen > 1e-5
    during = before.requests * np.where(some, -np.expm1(-seen) / np.where(some, seen, 1), np.float32(1))
    # Tokens written below the upper edge of each bucket, of which the last has none.
    inside = UPPER_32[:-1, None] - before.age_tokens[:, None, :]
    np.minimum(np.maximum(inside, 0, out=inside), step[:, :, None], out=inside)
    passed = np.empty((len(tokens), BUCKETS))
    passed[:, :-1] = np.einsum("cg,cbg->cb", during, inside)
    passed[:, -1] = during.sum(axis=1, dtype=np.float64) * tokens
    result: Array = np.maximum(increments(passed), 0.0)
    return result


def make_room(state: InFlight, *, width_seconds: Array, elapsed_seconds: float) -> tuple[InFlight, Array]:
    """Cohorts with two neighbours made one, and the widths afterwards: `COHORTS` again after `admit`.

    ``width_seconds``, shape (`COHORTS`,), is how long each took to start; the new one took ``elapsed_seconds``. The
    pair that is narrowest for its age is merged, its age the mean of its members'.

    >>> flight = InFlight(*np.full((2, 1, COHORTS + 1), 2.0, dtype=np.float32))
    >>> merged, widths = make_room(flight, width_seconds=np.full(COHORTS, 15.0), elapsed_seconds=15.0)
    >>> merged.requests.shape, merged.total.tolist(), widths.max().tolist()
    ((1, 32), [66.0], 30.0)
    """
    pair, widths = _merge_plan(width_seconds, elapsed_seconds)
    two = slice(pair, pair + 2)
    requests = state.requests[:, two].sum(axis=1, keepdims=True)
    weight = np.where(requests > FEW, state.requests[:, two], np.float32(0.5))
    share = weight / weight.sum(axis=1, keepdims=True)
    age = (share * state.age_tokens[:, two]).sum(axis=1, keepdims=True)

    def joined(old: Array32, middle: Array32) -> Array32:
        return np.concatenate([old[:, :pair], middle, old[:, pair + 2 :]], axis=1)

    merged = InFlight(
        requests=joined(state.requests, requests),
        age_tokens=joined(state.age_tokens, age),
    )
    return merged, widths


def _merge_plan(width_seconds: Array, elapsed_seconds: float) -> tuple[int, Array]:
    """Which cohort to merge with the next older one, the newest counted, and the widths afterwards."""
    widths = np.append(elapsed_seconds, width_seconds)
    until = np.cumsum(widths)
    cost = (widths[1:-1] + widths[2:]) / np.maximum(until[2:], 1e-9)  # the newest stays by itself
    # Ties go to the older pair: empty cohorts (width 0) are used up from the far end.
    pair = len(cost) - int(np.argmin(cost[::-1]))
    return pair, np.concatenate([widths[:pair], [widths[pair] + widths[pair + 1]], widths[pair + 2 :]])
