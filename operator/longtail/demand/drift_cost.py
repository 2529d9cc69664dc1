"""What a change of output lengths costs in replicas, at the rate and speed of now.

By Little's law requests that arrive at a rate r and write m tokens of d seconds each hold r m d slots, and by the same
law r d (p m + J) tokens of KV cache, with p tokens of prompt and J = E[length^2] / 2: twice the length is twice the
slots and four times the cache.
"""

from dataclasses import dataclass

import numpy as np

from longtail.demand.buckets import Array, Index
from longtail.demand.capacity import BOUNDS, ReplicaCapacity
from longtail.demand.drift import DriftState
from longtail.demand.survival import Survival

_KV_CACHE = BOUNDS.index("KVCache")


@dataclass(frozen=True, slots=True)
class Changes:
    """Services whose lengths have changed lately, and how. Shape (len(services),)."""

    services: Index
    factor: Array
    since: Array
    """Unix seconds."""
    before_tokens: Array
    requests_per_second: Array
    replicas: Array


def changes(
    state: DriftState,
    *,
    settled: Survival,
    replica: ReplicaCapacity,
    prompt_tokens: Array,
    seconds_per_token: Array,
    requests_per_second: Array,
) -> Changes:
    """The news of the fleet. ``seconds_per_token`` is that at full replicas, ``settled`` the lengths of now."""
    rows = state.factor.nonzero()[0]
    factor, before = state.factor[rows], state.before_mean[rows]
    # At the tick of the alarm the settled lengths are still those of before; E[length^2] is at least the mean's square.
    half_square = np.maximum(settled.half_square[rows], np.square(factor * before) / 2)
    prompt = prompt_tokens[rows]
    cache_then = before * prompt + state.before_half_square[rows]
    cache_now = factor * before * prompt + half_square
    slots = replica.slots[rows]
    # Where the cache is what bounds the slots, shorter answers have more of them; E[length^2] is the cache of one.
    by_cache = replica.bound[rows] == _KV_CACHE
    slots_then = np.where(by_cache, slots * (cache_now / (factor * before)) / (cache_then / before), slots)
    cache = np.where(replica.kv_known[rows], np.maximum(replica.kv_tokens[rows], 1.0), np.inf)
    flow = requests_per_second[rows] * seconds_per_token[rows]
    now = flow * np.maximum(factor * before / slots, cache_now / cache)
    then = flow * np.maximum(before / slots_then, cache_then / cache)
    return Changes(
        services=rows,
        factor=factor,
        since=state.began[rows],
        before_tokens=before,
        requests_per_second=requests_per_second[rows],
        replicas=now - then,
    )
