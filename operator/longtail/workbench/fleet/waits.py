"""Quantiles of waits in constant memory: a histogram whose buckets grow by half a percent.

Exact waits of a day would be 11 MB and a sort; the bucket that a quantile falls into is enough.
"""

import math

import numpy as np

from longtail.workbench.traces.trace import Floats

_GROWTH = 1.005
_SHORTEST_SECONDS = 1e-3
_LONGEST_SECONDS = 1e7
_BUCKETS = math.ceil(math.log(_LONGEST_SECONDS / _SHORTEST_SECONDS) / math.log(_GROWTH))


class WaitSketch:
    """Waits of requests; quantiles within 0.5 %, waits of less than a millisecond count as none."""

    def __init__(self, objective_seconds: float) -> None:
        self.count = 0
        self.within = 0
        """Requests that waited no longer than the objective."""
        self.longest = 0.0
        self._objective = objective_seconds
        self._buckets = np.zeros(_BUCKETS + 2, np.int64)

    def add(self, waits: Floats) -> None:
        """Count some, in seconds."""
        if not len(waits):
            return
        self.count += len(waits)
        self.within += int((waits <= self._objective).sum())
        self.longest = max(self.longest, float(waits.max()))
        waited = waits[waits >= _SHORTEST_SECONDS]
        self._buckets[0] += len(waits) - len(waited)
        bucket = np.log(waited / _SHORTEST_SECONDS) / math.log(_GROWTH)
        np.add.at(self._buckets, 1 + np.minimum(bucket.astype(np.intp), _BUCKETS), 1)

    def quantile(self, q: float) -> float:
        """The wait that a share ``q`` of the requests did not exceed, in seconds; 0 when there were none.

        >>> sketch = WaitSketch(10.0)
        >>> sketch.add(np.arange(1.0, 101.0))
        >>> round(sketch.quantile(0.5))
        50
        """
        if self.count == 0:
            return 0.0
        rank = max(math.ceil(q * self.count), 1)
        bucket = int(np.searchsorted(np.cumsum(self._buckets), rank))
        middle = _SHORTEST_SECONDS * _GROWTH ** (bucket - 0.5)
        return 0.0 if bucket == 0 else min(middle, self.longest)
