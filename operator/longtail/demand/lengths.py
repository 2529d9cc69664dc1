"""Output lengths by occurrence over exposure, so that requests still running count.

The mean of finished requests lies: short answers finish first, so in the minutes after a rise of the load to the
threefold it is 31-36 % low, after a fall to a third 52-58 % high (measured on DeepSeek-R1 lengths). The cure is the
piecewise-exponential estimate of survival analysis (Holford 1980; Aalen, Borgan and Gjessing 2008, ch. 5): in each
bucket of lengths, hazard = requests that ended there / tokens written there by whoever passed through, finished
or not. With a Gamma prior on each hazard it is a ratio of sums:

    h_b = (ended_b + w_b / m) / (exposed_b + w_b),   m the prior mean, w_b pseudo-tokens of the prior

Both sums are forgotten together. Forgetting takes evidence, not time: a service that slept for a week still knows
its lengths, and a busy one forgets by half in half an hour.
"""

from dataclasses import dataclass

import numpy as np

from longtail.demand.buckets import BUCKETS, EDGES, WIDTHS, Array, Array32, Mask, clip
from longtail.demand.drift import Found
from longtail.demand.survival import Survival

PRIOR_REQUESTS = 20.0
"""Weight of the spec's mean length, in requests. Real requests outvote it within a minute at 1 request/s."""
HALF_LIFE_SECONDS = 3600.0
"""Shortest half-life: a longer one would average two mixes of clients, a shorter one see no long answer end."""
HALF_LIFE_REQUESTS = 1000.0
"""Shortest half-life counted in finished requests: the mean of 1,000 R1 lengths is good to 5 %."""
RECENT_SECONDS = 600.0
"""Half-life of the recent sums, which forecasts go by."""
TICK_REQUESTS = 0.5
"""Weight of the prior, in requests, when one tick's endings are shared out among the cohorts."""


@dataclass(frozen=True, slots=True)
class LengthState:
    """Sufficient statistics. Buckets: shape (services, `BUCKETS`); the rest: shape (services,)."""

    ended: Array32
    """Requests that ended in each bucket, with forgetting."""
    exposed: Array32
    """Tokens written in each bucket, with forgetting."""
    recent_ended: Array32
    recent_exposed: Array32

    @classmethod
    def fresh(cls, services: int) -> "LengthState":
        """Nothing seen: the prior alone speaks."""
        empty = np.zeros((services, BUCKETS), dtype=np.float32)
        return cls(ended=empty, exposed=empty, recent_ended=empty, recent_exposed=empty)


def forget(sums: Array32, factor: Array) -> Array32:
    """Sums times a factor per service, with what has become too small to matter set to 0 (no denormals).

    >>> forget(np.array([[4.0, 1e-9]], dtype=np.float32), np.array([0.5])).tolist()
    [[2.0, 0.0]]
    """
    kept = sums * factor.astype(np.float32)[:, None]
    return np.where(kept < 1e-6, np.float32(0), kept)


def hazards(*, ended: Array32, exposed: Array32, prior_mean: Array) -> Array:
    """Hazard per token in each bucket, shape (services, `BUCKETS`), between 1e-9 and 1.

    ``prior_mean`` in tokens, shape (services,). The prior's requests are spread evenly over the buckets, so that
    every bucket starts with the same weight and the tail, where few requests end, keeps the most of it.

    >>> ended, exposed = np.zeros((2, 1, BUCKETS), dtype=np.float32)
    >>> ended[0, 10], exposed[0, 10] = 99, 198_000
    >>> h = hazards(ended=ended, exposed=exposed, prior_mean=np.array([1000.0]))
    >>> float((1 / h[0, 10]).round()), float((1 / h[0, 11]).round())   # 2000 seen at 1000-2000 tokens; 1000 elsewhere
    (1989.0, 1000.0)
    """
    weight = np.minimum(WIDTHS, prior_mean[:, None]) * (PRIOR_REQUESTS / BUCKETS)
    raw = (ended + weight / prior_mean[:, None]) / (exposed + weight)
    result: Array = clip(raw, 1e-9, 1.0)
    return result


def learn(
    state: LengthState,
    *,
    ended: Array,
    exposed: Array,
    finished: Array,
    learned: Mask,
    elapsed_seconds: float,
) -> LengthState:
    """The state after a tick in which ``ended`` requests ended by themselves and ``exposed`` tokens were written.

    Shapes (services, `BUCKETS`); rows where ``learned`` is False stay as they are. ``finished`` counts all that
    finished, answers that were cut at the limit included; shape (services,).
    """
    kept = 0.5 ** np.minimum(np.minimum(elapsed_seconds / HALF_LIFE_SECONDS, finished / HALF_LIFE_REQUESTS), 60.0)
    kept_recent = np.full(len(kept), 0.5 ** min(elapsed_seconds / RECENT_SECONDS, 60.0))
    row = learned[:, None]
    more_ended, more_exposed = ended.astype(np.float32), exposed.astype(np.float32)
    return LengthState(
        ended=np.where(row, forget(state.ended, kept) + more_ended, state.ended),
        exposed=np.where(row, forget(state.exposed, kept) + more_exposed, state.exposed),
        recent_ended=np.where(row, forget(state.recent_ended, kept_recent) + more_ended, state.recent_ended),
        recent_exposed=np.where(row, forget(state.recent_exposed, kept_recent) + more_exposed, state.recent_exposed),
    )


def learn_anew(state: LengthState, found: Found) -> LengthState:
    """The state with what was learned before a change of lengths forgotten, where one was found.

    The recent sums only where it is sure: what varies anyway goes back as it came, and they forget by themselves.
    """
    if not len(found.services):
        return state
    ended, exposed, recent_ended, recent_exposed = (
        sums.copy() for sums in (state.ended, state.exposed, state.recent_ended, state.recent_exposed)
    )
    ended[found.services], exposed[found.services] = found.ended, found.exposed
    sure = found.services[found.sure]
    recent_ended[sure], recent_exposed[sure] = found.ended[found.sure], found.exposed[found.sure]
    return LengthState(ended=ended, exposed=exposed, recent_ended=recent_ended, recent_exposed=recent_exposed)


def recent(state: LengthState, *, settled: Survival) -> Survival:
    """The distribution of the last minutes, estimated like the settled one with the settled one as its prior.

    Forecasts use this: the mix of clients of a service changes within the hour (the ten-minute mean of the R1
    day runs from 612 to 3,933 tokens), and a forecast wants the lengths of those who are there now. Where few
    requests are seen it is the settled distribution.
    """
    weight = np.minimum(WIDTHS, settled.mean[:, None]) * (PRIOR_REQUESTS / BUCKETS)
    raw = (state.recent_ended + weight * settled.hazard) / (state.recent_exposed + weight)
    return Survival.of(hazard=clip(raw, 1e-9, 1.0), limit=settled.limit)


def of_tick(*, ended: Array, exposed: Array, survival: Survival, known: Mask) -> Survival:
    """What this tick's endings say, with ``survival`` as prior: by whom the requests that ended are to be missed.

    An estimate of hazards is wrong by as much as the lengths have just changed, and requests in flight thinned out by
    it get wrong ages, which spoil the next estimate. But which lengths ended in this tick is known, so the cohorts lose
    those: h_b = (ended_b + w_b h_b) / (exposed_b + w_b), where w_b is half a request's tokens. ``ended`` and
    ``exposed`` have shape (services, `BUCKETS`); where endings are not ``known`` it is the prior.
    """
    weight = TICK_REQUESTS * np.minimum(WIDTHS, survival.mean[:, None])
    raw = (ended + weight * survival.hazard) / (exposed + weight)
    return Survival.of(hazard=np.where(known[:, None], clip(raw, 1e-9, 1.0), survival.hazard), limit=survival.limit)


def tail_share(survival: Survival) -> Array:
    """Share of answers beyond the last finite bucket bound below the limit, shape (services,).

    >>> tail_share(Survival.of(hazard=np.full((1, BUCKETS), 1 / 10_000), limit=np.array([32768.0]))).round(3).tolist()
    [0.135]
    """
    last = np.maximum(np.searchsorted(EDGES, survival.limit, side="left") - 1, 0)
    return survival.survival(EDGES[last][:, None])[:, 0]


def natural(ended: Array, survival: Survival) -> Array:
    """Requests that ended by themselves: in the bucket of the limit, the share that did not merely reach it.

    Answers cut there are not evidence of a hazard. ``survival`` is the current estimate; shapes (services, `BUCKETS`).
    """
    last = np.maximum(np.searchsorted(EDGES, survival.limit, side="left") - 1, 0)
    row = np.arange(len(last))
    depth = survival.hazard[row, last] * (survival.limit - EDGES[last])
    result = ended.copy()
    result[row, last] *= -np.expm1(-np.minimum(depth, 60.0))
    return result
