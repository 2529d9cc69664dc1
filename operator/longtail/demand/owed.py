"""Tokens still owed: the depth of the queue of reasoning work, in the unit the work is done in.

A queue of ten questions says nothing: one of them may hold a slot for minutes. Waiting requests owe a whole answer
each, running ones the rest of theirs, which for heavy-tailed lengths *grows* with what they have written: 1,526
tokens at the start, 3,764 after 4,000 tokens, in DeepSeek-R1's production lengths.
"""

import numpy as np

from longtail.demand.buckets import Array
from longtail.demand.inflight import InFlight
from longtail.demand.survival import Survival


def running_tokens(flight: InFlight, *, survival: Survival) -> Array:
    """Output tokens that the requests in flight have still to write, shape (services,).

    >>> flight = InFlight(*np.array([[[10.0]], [[700.0]]], dtype=np.float32))
    >>> s = Survival.of(hazard=np.full((1, 19), 1 / 1000), limit=np.array([32768.0]))
    >>> running_tokens(flight, survival=s).round(0).tolist()
    [10000.0]
    """
    left = flight.requests * survival.residual(flight.age_tokens)
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
