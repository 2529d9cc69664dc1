"""Tokens still owed: the depth of the queue of reasoning work, in the unit the work is done in.

A queue of ten questions says nothing: one of them may hold a slot for minutes. Waiting requests owe a whole answer
each, running ones the rest of theirs, which for heavy-tailed lengths *grows* with what they have written: 1,526
tokens at the start, 3,764 after 4,000 tokens, in DeepSeek-R1's production lengths.
"""

import numpy as np

from longtail.demand.buckets import EDGES, Array, bucket_of
from longtail.demand.inflight import InFlight
from longtail.demand.survival import Survival


def running_tokens(flight: InFlight, *, survival: Survival) -> Array:
    """Output tokens that the requests in flight have still to write, shape (services,).

    The mean residual life is computed at the bucket edges and taken as linear between them.

    >>> flight = InFlight(*np.array([[[10.0]], [[700.0]], [[10.0]]], dtype=np.float32))
    >>> s = Survival.of(hazard=np.full((1, 19), 1 / 1000), limit=np.array([32768.0]))
    >>> running_tokens(flight, survival=s).round(0).tolist()
    [10000.0]
    """
    limit = survival.limit[:, None]
    knots = np.minimum(np.append(EDGES, 2 * EDGES[-1]), limit)
    rest = survival.residual(knots).astype(np.float32)
    age = np.minimum(flight.age_tokens, limit.astype(np.float32))
    bucket = bucket_of(age)
    low = np.take_along_axis(rest, bucket, axis=1)
    high = np.take_along_axis(rest, bucket + 1, axis=1)
    start = np.take_along_axis(knots.astype(np.float32), bucket, axis=1)
    end = np.take_along_axis(knots.astype(np.float32), bucket + 1, axis=1)
    part = (age - start) / np.maximum(end - start, np.float32(1))
    left = flight.requests * (low + np.clip(part, 0, 1) * (high - low))
    result: Array = left.sum(axis=1, dtype=np.float64)
    return result


def owed_tokens(*, running: Array, waiting_requests: Array, mean_tokens: Array) -> Array:
    """Output tokens owed in all, shape (services,): by running requests, and a whole mean answer by waiting ones.

    >>> owed = owed_tokens(running=np.array([9e3]), waiting_requests=np.array([3.0]), mean_tokens=np.array([2e3]))
    >>> owed.tolist()
    [15000.0]
    """
    result: Array = running + waiting_requests * mean_tokens
    return result
