"""What one replica can hold at the promised speed, learned from what replicas show.

The time per output token grows with the batch and with the KV cache that is read for each token:

    TPOT = a + b batch + c KV        (all >= 0; fits measured engines to a median of 4.8 %, without c to 17 %)

Recursive least squares in information form (sums of x x' and x y with forgetting, plus the prior's), solved by a few
sweeps of non-negative coordinate descent from the last solution: no covariance that winds up while nothing varies,
no negative coefficient. Units: TPOT in units of the target, batch in units of `PRIOR_SLOTS`, KV in units of a prior
batch's cache, which keeps the sums well conditioned in any fleet.

Token-weighted over the pods of a service the law holds exactly: sum(running) dt / sum(tokens) is the mean of the
pods' TPOT weighted by their tokens, and the right side is linear; an unweighted mean of the batch is good enough
where the router balances.
"""

from dataclasses import dataclass, replace

import numpy as np

from longtail.demand.buckets import Array, Mask, clip

PRIOR_SLOTS = 64.0
"""Slots at the target speed believed of a replica that nobody has seen at work."""
PRIOR_TOKENS = 4096.0
"""Unit of KV cache per request: prompt and output of an R1 request in flight (4,653 measured)."""
_PRIOR: Array = np.array([0.3, 0.7, 0.0])
"""a, b, c of the prior: the target is met at `PRIOR_SLOTS`, and an idle engine takes 30 % of it."""
_PRIOR_WEIGHT = 0.05
MEMORY_SECONDS = 4 * 3600.0
KV_FILL = 0.88
"""Share of the KV cache to plan with: beyond it engines start to preempt."""
EXTRAPOLATION = 2.0
"""The batch is believed up to this multiple of the largest one seen (or the prior's): lines are straight near data."""
SLOPE_EVIDENCE = 0.5
"""Sum of squared batch deviations (in units of the prior batch) at which the speed law is half believed."""
LIMIT_SAMPLES = 4.0
"""Full pods to be seen before their batch counts as the engine's limit."""
LIMIT_KEPT = 0.99
"""The limit follows engines restarted with a lower one, at one percent a look at a full pod."""


@dataclass(frozen=True, slots=True)
class CapacityState:
    """Shape (services,) unless said otherwise."""

    gram: Array
    """Sum of x x', shape (services, 3, 3)."""
    cross: Array
    """Sum of x y, shape (services, 3)."""
    coefficients: Array
    """a, b, c in the units above, shape (services, 3)."""
    largest_batch: Array
    """Largest requests per replica seen."""
    queued_batch: Array
    """Largest requests on a pod that had others waiting: its limit."""
    queued_samples: Array

    @classmethod
    def fresh(cls, services: int) -> "CapacityState":
        """The prior."""
        zeros = np.zeros(services)
        return cls(
            gram=np.zeros((services, 3, 3)),
            cross=np.zeros((services, 3)),
            coefficients=np.tile(_PRIOR, (services, 1)),
            largest_batch=zeros,
            queued_batch=zeros,
            queued_samples=zeros,
        )


@dataclass(frozen=True, slots=True)
class ReplicaCapacity:
    """Shape (services,)."""

    slots: Array
    kv_tokens: Array
    """Meaningless where not known."""
    kv_known: Mask
    bound: np.ndarray
    """Index into `BOUNDS`."""

    @property
    def queues(self) -> Mask:
        """Where a request beyond the slots waits for one: the engines' own limit binds, not the promised pace."""
        waits: Mask = (self.bound == _KV) | (self.bound == _MAX) | (self.bound == _SPEC)
        return waits


BOUNDS = ("TimePerOutputToken", "KVCache", "MaxConcurrentRequests", "Spec", "Prior")
_TPOT, _KV, _MAX, _SPEC, _PRIOR_BOUND = range(5)


def learn(
    state: CapacityState, *, batch: Array, kv_tokens: Array, tpot_ratio: Array, learned: Mask, elapsed_seconds: float
) -> CapacityState:
    """The state after one sample per service: requests and KV tokens per replica, TPOT over its target; (services,).

    >>> state = CapacityState.fresh(1)
    >>> for batch in [10.0, 40.0, 70.0] * 200:      # an engine of 9 ms + 0.36 ms per request, target 50 ms
    ...     state = learn(state, batch=np.array([batch]), kv_tokens=np.zeros(1),
    ...                   tpot_ratio=np.array([(9 + 0.36 * batch) / 50]), learned=np.array([True]),
    ...                   elapsed_seconds=15.0)
    >>> speed_slots(state, kv_per_request=np.zeros(1)).round(0).tolist()      # (50 - 9) / 0.36 = 113.9
    [114.0]
    """
    x = np.stack([np.ones_like(batch), batch / PRIOR_SLOTS, kv_tokens / (PRIOR_SLOTS * PRIOR_TOKENS)], axis=1)
    kept = np.exp(-min(elapsed_seconds / MEMORY_SECONDS, 60.0))
    gram = state.gram * kept + x[:, :, None] * x[:, None, :]
    cross = state.cross * kept + x * tpot_ratio[:, None]
    row = learned[:, None]
    gram = np.where(row[:, :, None], np.where(gram < 1e-12, 0.0, gram), state.gram)
    cross = np.where(row, np.where(cross < 1e-12, 0.0, cross), state.cross)
    return replace(
        state,
        gram=gram,
        cross=cross,
        # Solving again without a new sample would creep away from what was learned.
        coefficients=np.where(row, _solve(gram, cross, state.coefficients), state.coefficients),
        largest_batch=np.where(learned, np.maximum(state.largest_batch, batch), state.largest_batch),
    )


def speed_slots(state: CapacityState, *, kv_per_request: Array) -> Array:
    """Requests on one replica at which the target TPOT is met, >= 1, shape (services,); KV per request in tokens.

    >>> speed_slots(CapacityState.fresh(1), kv_per_request=np.array([4096.0])).tolist()
    [64.0]
    """
    idle, per_batch, per_kv = state.coefficients.T
    slope = per_batch + per_kv * kv_per_request / PRIOR_TOKENS
    reach = EXTRAPOLATION * np.maximum(state.largest_batch, PRIOR_SLOTS / EXTRAPOLATION)
    wanted = PRIOR_SLOTS * np.maximum(1 - idle, 0.0)
    slots = np.where(wanted < slope * reach, wanted / np.maximum(slope, 1e-6), reach)
    result: Array = np.maximum(slots, 1.0)
    return result


def slowdown(state: CapacityState, *, batch: Array, slots: Array, kv_per_request: Array) -> Array:
    """TPOT at full slots over TPOT at the present batch, 1..3: what running requests weigh at the target speed.

    Fewer replicas mean larger batches, slower tokens and so more requests in flight for the same work; a controller
    that ignores it shrinks, slows down, and grows again. 1 until the batch has varied enough to know the slope.
    """
    idle, per_batch, per_kv = state.coefficients.T
    slope = (per_batch + per_kv * kv_per_request / PRIOR_TOKENS) / PRIOR_SLOTS
    raw = (idle + slope * slots) / np.maximum(idle + slope * batch, 1e-6)
    samples = np.maximum(state.gram[:, 0, 0], 1e-9)
    varied = np.maximum(state.gram[:, 1, 1] - np.square(state.gram[:, 0, 1]) / samples, 0.0)
    belief = varied / (varied + SLOPE_EVIDENCE)
    result: Array = clip(1 + belief * (raw - 1), 1.0, 3.0)
    return result


def learn_limit(state: CapacityState, *, running: Array) -> CapacityState:
    """The state after ``running`` requests were in service on the fullest pod of a saturated service; 0 elsewhere.

    >>> learn_limit(CapacityState.fresh(2), running=np.array([24.0, 0.0])).queued_batch.tolist()
    [24.0, 0.0]
    """
    return replace(
        state,
        queued_batch=np.where(running > 0, np.maximum(LIMIT_KEPT * state.queued_batch, running), state.queued_batch),
        queued_samples=state.queued_samples + (running > 0),
    )


def replica(
    state: CapacityState,
    *,
    kv_tokens: Array,
    kv_known: Mask,
    kv_per_request: Array,
    stated_slots: Array,
    spec_slots: Array,
) -> ReplicaCapacity:
    """Capacity of one replica: the narrowest bound, and which it is.

    Shapes (services,). ``stated_slots`` is what the engine says, ``spec_slots`` what the user says, 0 for nothing said.
    The user's word is final; the engine's, the KV cache's and the speed's are bounds.
    """
    speed = speed_slots(state, kv_per_request=kv_per_request)
    cache = np.where(kv_known, KV_FILL * kv_tokens / np.maximum(kv_per_request, 1.0), np.inf)
    full = np.maximum(state.queued_batch, state.largest_batch)  # who ran more on average has room for more
    learned = np.where(state.queued_samples >= LIMIT_SAMPLES, full, np.inf)
    limit = np.where(stated_slots > 0, stated_slots, learned)
    bounds = np.stack([speed, cache, limit], axis=1)
    bound = np.argmin(bounds, axis=1)
    narrowest = bounds[np.arange(len(bound)), bound]
    bound = np.where((bound == _TPOT) & (state.gram[:, 0, 0] <= 0), _PRIOR_BOUND, bound)
    said = spec_slots > 0
    return ReplicaCapacity(
        slots=np.where(said, spec_slots, np.maximum(np.floor(narrowest), 1.0)),
        kv_tokens=kv_tokens,
        kv_known=kv_known,
        bound=np.where(said, _SPEC, bound),
    )


def _solve(gram: Array, cross: Array, start: Array) -> Array:
    """Non-negative least squares with the prior, three sweeps of coordinate descent from ``start``."""
    result = start.copy()
    wanted = cross + _PRIOR_WEIGHT * _PRIOR
    own = np.einsum("cii->ci", gram)
    weight = own + _PRIOR_WEIGHT
    for _ in range(3):
        for i in range(3):
            others = np.einsum("cj,cj->c", gram[:, i], result) - own[:, i] * result[:, i]
            result[:, i] = np.maximum((wanted[:, i] - others) / weight[:, i], 0.0)
    return result
