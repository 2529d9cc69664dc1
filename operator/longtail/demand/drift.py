"""Whether output lengths have changed: by which factor, and since when.

The test is a sequential one (Page 1954): two sums of log-likelihood ratios, of "lengths are `TESTED_FACTOR` times as
long" and of "that much shorter" against the lengths known before, each held at 0 from below. Hazards and tokens at
risk are what it is fed with, so requests still running count and a change of the load is none of the lengths. When
a sum last stood at 0 is the estimate of when the change began; the lengths known then are the reference that it is
measured by, and what came since is what the model goes on with.

Requests of one client resemble each other, and clients come and go. So evidence is held against how much the endings of
ten minutes vary with this service anyway: much evidence is believed after five minutes, little only when it lasts.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from longtail.demand.buckets import BUCKETS, EDGES, UPPER, WIDTHS, Array, Array32, Index, Mask, clip
from longtail.demand.survival import Survival

TESTED_FACTOR = 1.44
"""Of the alternative: its sum drifts upwards from a true factor of about √1.44 = 1.2 on, so less is never found."""
LEAST_FACTOR = 1.25
"""Smallest change of the mean, up or down, that is worth a word."""
THRESHOLD = 15.0
"""Log-likelihood ratio: about one false alarm in e^15 = 3 million answers, if answers were independent."""
SUSPICION = 5.0
"""Evidence from which on the reference stays as it is, lest it learn the change that it is to be compared with."""
STEEPEST = 3.0
"""Bound on the ratio of two hazards: a handful of very short answers is no proof."""
LEAST_REQUESTS = 200.0
"""Answers that must be known before others are held against them: their mean is good to 10 %."""
SOONEST_SECONDS = 300.0
"""Evidence younger than this may be a burst of one client."""
LASTING_SECONDS = 1200.0
"""Evidence that has stood for so long counts in full, however much the service varies."""
SETTLING_SECONDS = 1800.0
"""After a change its new lengths are learned first, before they are a reference."""
CHAIN_SECONDS = 3600.0
"""A further change in the same direction within this time of the last is a part of it: lengths that grow for hours."""
SHOWN_SECONDS = 6 * 3600.0
"""How long a change is news."""
OVER_FACTOR = 1.1
"""A change of which less than this is left is over."""
BLOCK_SECONDS = 600.0
"""Over which the endings are counted whose variation is learned."""
BLOCK_ENDINGS = 5.0
"""Least endings expected of a block, else it goes on."""
DISPERSION_HALF_LIFE_SECONDS = 6 * 3600.0
DISPERSION_PRIOR = 2.0
DISPERSION_RANGE = (1.0, 1000.0)
DISPERSION_STEP = 10.0
"""Most times the usual variation that one block counts for."""
TINY = 1e-6
"""Fewer endings or tokens are none."""
PRIOR_REQUESTS = 20.0
"""Weight of the reference in the mean of what came since."""


@dataclass(frozen=True, slots=True)
class DriftState:
    """Shape (services,) unless said otherwise; the axis of two is: longer, shorter. Times in Unix seconds."""

    reference: Array32
    """Hazards known before there was any evidence, shape (services, `BUCKETS`)."""
    evidence: Array
    """Sums of log-likelihood ratios, shape (services, 2)."""
    since: Array
    """When each of them was last 0, shape (services, 2)."""
    ended: Array32
    """Endings since then, shape (services, 2, `BUCKETS`)."""
    exposed: Array32
    """Tokens written since then, likewise."""
    requests: Array
    """Answers known, since the beginning or the last change; -1 while we ask for short ones."""
    dispersion: Array
    """Variance of the endings in a block over that of independent ones."""
    block_ended: Array
    block_expected: Array
    block_seconds: Array
    factor: Array
    """Mean length now over that before the last change; 0 where there is no news."""
    began: Array
    """When it changed."""
    found: Array
    """When that was noticed; -inf before the first time."""
    before_mean: Array
    """Mean length before, in tokens."""
    before_half_square: Array
    """Half of the mean square of the lengths before, in tokens squared."""

    @classmethod
    def fresh(cls, services: int) -> "DriftState":
        """Nothing seen."""
        zeros, pair = np.zeros(services), np.zeros((services, 2))
        sums = np.zeros((services, 2, BUCKETS), dtype=np.float32)
        return cls(
            reference=np.zeros((services, BUCKETS), dtype=np.float32),
            evidence=pair,
            since=pair,
            ended=sums,
            exposed=sums,
            requests=zeros,
            dispersion=np.full(services, DISPERSION_PRIOR),
            block_ended=zeros,
            block_expected=zeros,
            block_seconds=zeros,
            factor=zeros,
            began=zeros,
            found=np.full(services, -np.inf),
            before_mean=zeros,
            before_half_square=zeros,
        )

    @property
    def watched(self) -> Mask:
        """Where enough answers are known to tell others from them, or a change is news."""
        result: Mask = (self.requests >= LEAST_REQUESTS) | (self.factor > 0)
        return result


@dataclass(frozen=True, slots=True)
class Found:
    """Services whose lengths have been found changed in this tick, and what was seen since."""

    services: Index
    ended: Array32
    """Shape (len(services), `BUCKETS`)."""
    exposed: Array32
    sure: Mask
    """Where a service that varies so little has never seen the like; shape (len(services),)."""


def scaled(factor: float) -> Array:
    """Matrix M of shape (`BUCKETS`, `BUCKETS`): hazards @ M are those of lengths ``factor`` times as long.

    S(u / f) has the hazard h(u / f) / f; its mean over a bucket is a weighted sum over the buckets that u / f passes.

    >>> hazards = np.full(BUCKETS, 1 / 1000) @ scaled(2.0)
    >>> hazards[[0, 10, 18]].round(5).tolist()
    [0.0005, 0.0005, 0.0005]
    """
    low, high = EDGES / factor, UPPER / factor
    shared = np.minimum(high, UPPER[:, None]) - np.maximum(low, EDGES[:, None])
    result: Array = np.maximum(shared[:, :-1], 0.0) / WIDTHS[:-1]
    last = np.zeros((BUCKETS, 1))
    last[-1] = 1 / factor
    return np.concatenate([result, last], axis=1)


def lifted(state: DriftState, *, cut: Mask, lengths: tuple[Array32, Array32]) -> Found:
    """Services of which we no longer ask for less thinking: cut answers are to be forgotten like old ones.

    ``lengths`` are recent endings and tokens, shape (services, `BUCKETS`), in which hardly any of those are left.
    """
    rows = np.flatnonzero(~cut & (state.requests < 0))
    return Found(rows, lengths[0][rows], lengths[1][rows], np.zeros(len(rows), dtype=bool))


_LONGER, _SHORTER = scaled(TESTED_FACTOR), scaled(1 / TESTED_FACTOR)


def watch(
    state: DriftState,
    *,
    ended: Array,
    exposed: Array,
    settled: Survival,
    learned: Mask,
    cut: Mask,
    now: float,
    elapsed_seconds: float,
) -> tuple[DriftState, Found]:
    """The state after a tick in which ``ended`` requests ended by themselves and ``exposed`` tokens were written.

    Shapes (services, `BUCKETS`); rows where ``learned`` is False stay as they are. ``settled`` is the estimate from
    before the tick. What is found is to be learned anew by whoever keeps the lengths. Where answers are ``cut`` because
    we asked for less thinking, that is no news, and no reference for what follows.
    """
    learned = learned & ~cut
    row = learned[:, None]
    ended, exposed = (np.where(row & (seen > TINY), seen, 0.0) for seen in (ended, exposed))
    calm = state.evidence.max(axis=1) < SUSPICION
    reference = np.where(calm[:, None], settled.hazard.astype(np.float32), state.reference)
    ready = ~cut & (state.requests >= LEAST_REQUESTS) & (now >= state.found + SETTLING_SECONDS)
    evidence, kept = _weighed(state.evidence, reference, ended, exposed, ready)
    requests = ended.sum(axis=1)
    after = replace(
        _varied(state, requests, (reference * exposed).sum(axis=1), np.where(learned, elapsed_seconds, 0.0)),
        reference=reference,
        evidence=evidence,
        since=np.where(kept, state.since, now),
        ended=np.where(kept[:, :, None], state.ended, np.float32(0)) + _on(kept, ended),
        exposed=np.where(kept[:, :, None], state.exposed, np.float32(0)) + _on(kept, exposed),
        requests=np.where(cut, -1.0, np.maximum(state.requests, 0.0) + requests),
    )
    followed = _followed(after, settled=settled, learned=learned, now=now)
    return _found(followed, learned=learned, limit=settled.limit, now=now)


def _weighed(evidence: Array, reference: Array32, ended: Array, exposed: Array, ready: Mask) -> tuple[Array, Mask]:
    """The sums after a tick, and which of them are above 0; shapes (services, 2).

    Endings of a constant hazard h are a Poisson process in the tokens written: a tick adds n log(h'/h) - (h' - h) x.
    """
    known = reference.astype(np.float64)
    total = np.empty_like(evidence)
    for way, matrix in enumerate((_LONGER, _SHORTER)):
        other = clip(known @ matrix, known / STEEPEST, known * STEEPEST)
        gain = (ended * np.log(other / known) - (other - known) * exposed).sum(axis=1)
        total[:, way] = np.where(ready, evidence[:, way] + gain, 0.0)
    return np.maximum(total, 0.0), total > 0


def _on(kept: Mask, values: Array) -> Array32:
    """Values of shape (services, `BUCKETS`) for both directions, 0 where there is no evidence."""
    result: Array32 = np.where(kept[:, :, None], values.astype(np.float32)[:, None], np.float32(0))
    return result


def _varied(state: DriftState, ended: Array, expected: Array, seconds: Array) -> DriftState:
    """Learns how much endings vary: their squared error over their expectation, 1 for independent requests."""
    block_ended, block_expected = state.block_ended + ended, state.block_expected + expected
    block_seconds = state.block_seconds + seconds
    whole = (block_seconds >= BLOCK_SECONDS) & (block_expected >= BLOCK_ENDINGS) & (state.requests >= LEAST_REQUESTS)
    square = (block_ended - block_expected) ** 2 / np.maximum(block_expected, BLOCK_ENDINGS)
    square = np.minimum(square, DISPERSION_STEP * state.dispersion)
    kept = 0.5 ** np.minimum(block_seconds / DISPERSION_HALF_LIFE_SECONDS, 60.0)
    learned = clip(kept * state.dispersion + (1 - kept) * square, *DISPERSION_RANGE)
    # What came before the reference was known says nothing about how the service varies.
    over = whole | (state.requests < LEAST_REQUESTS)
    return replace(
        state,
        dispersion=np.where(whole, learned, state.dispersion),
        block_ended=np.where(over, 0.0, block_ended),
        block_expected=np.where(over, 0.0, block_expected),
        block_seconds=np.where(over, 0.0, block_seconds),
    )


def _followed(state: DriftState, *, settled: Survival, learned: Mask, now: float) -> DriftState:
    """News of a change carries the mean of now, until it is old, or lengths have crept back."""
    factor = np.where(learned, settled.mean / np.maximum(state.before_mean, 1.0), state.factor)
    left = np.where(state.factor > 1, factor, 1 / np.maximum(factor, 1e-9))
    age = now - state.found
    over = (age > SHOWN_SECONDS) | ((left < OVER_FACTOR) & (age >= SETTLING_SECONDS))
    return replace(state, factor=np.where((state.factor > 0) & ~over, factor, 0.0))


def _found(state: DriftState, *, learned: Mask, limit: Array, now: float) -> tuple[DriftState, Found]:
    """Alarms: strong evidence, or any that lasts, of a change that is worth a word. Time alone proves nothing."""
    age = now - state.since
    sure = state.evidence > THRESHOLD * state.dispersion[:, None]
    alarm: Mask = (state.evidence > THRESHOLD) & ((sure & (age >= SOONEST_SECONDS)) | (age >= LASTING_SECONDS))
    alarm &= learned[:, None]
    rows = np.flatnonzero(alarm.any(axis=1))
    if not len(rows):
        return state, Found(rows, state.reference[rows], state.reference[rows], sure[rows, 0])
    way = state.evidence[rows].argmax(axis=1)
    before = Survival.of(hazard=state.reference[rows].astype(np.float64), limit=limit[rows])
    mean = _mean(state.ended[rows, way], state.exposed[rows, way], before)
    factor = mean / before.mean
    large = np.where(way == 0, factor, 1 / factor) >= LEAST_FACTOR
    rows, way, factor, mean = rows[large], way[large], factor[large], mean[large]
    found = Found(rows, state.ended[rows, way], state.exposed[rows, way], sure[rows, way])
    news = state.factor[rows]
    further = (news > 0) & ((news > 1) == (factor > 1)) & (now - state.found[rows] <= CHAIN_SECONDS)
    before_mean = np.where(further, state.before_mean[rows], before.mean[large])
    changes: dict[str, Any] = {
        "factor": mean / before_mean,
        "began": np.where(further, state.began[rows], state.since[rows, way]),
        "found": np.full(len(rows), now),
        "before_mean": before_mean,
        "before_half_square": np.where(further, state.before_half_square[rows], before.half_square[large]),
        "requests": found.ended.sum(axis=1).astype(np.float64),
        "evidence": np.zeros((len(rows), 2)),
    }
    return replace(state, **_put(state, rows, changes)), found


def _put(state: DriftState, rows: Index, changes: dict[str, Any]) -> dict[str, Any]:
    """Copies of some arrays of a state with some rows changed."""
    result = {}
    for name, values in changes.items():
        result[name] = getattr(state, name).copy()
        result[name][rows] = values
    return result


def _mean(ended: Array32, exposed: Array32, before: Survival) -> Array:
    """Mean length of what came since, with the lengths before as prior; shape (rows,)."""
    weight = np.minimum(WIDTHS, before.mean[:, None]) * (PRIOR_REQUESTS / BUCKETS)
    hazard = clip((ended + weight * before.hazard) / (exposed + weight), 1e-9, 1.0)
    return Survival.of(hazard=hazard, limit=before.limit).mean
