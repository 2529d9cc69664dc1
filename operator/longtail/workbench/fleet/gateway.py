"""One stream of requests in front of several pools of a model: a gateway that balances them, or one that splits them.

It looks at the pools once a window and then sends each request to the pool with the lowest load per open slot, with
what it has sent there in this window. A request that has been sent stays there: each pool has a queue of its own.
"""

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from longtail.workbench.fleet.setting import Requests
from longtail.workbench.fleet.simulation import Simulation
from longtail.workbench.traces.trace import Integers, Trace

WINDOW_SECONDS = 15.0


class Gateway:
    """What each of several pools is sent of one trace."""

    def __init__(
        self,
        trace: Trace,
        *,
        duration_seconds: float,
        pools: int,
        weights: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        """Make a gateway that has not sent anything.

        Args:
            trace: all requests.
            duration_seconds: of the simulation.
            pools: how many share them.
            weights: fixed shares of the pools, with sum 1; None balances their loads.
            seed: of the draws with fixed shares.
        """
        self._trace = trace
        self._duration = duration_seconds
        self._weights = weights
        self._random = np.random.default_rng(seed)
        self._sent: list[deque[Trace]] = [deque() for _ in range(pools)]
        self._simulations: Sequence[Simulation] = ()
        self._next = 0

    def requests(self, pool: int) -> Requests:
        """What one pool is sent, as time goes on: to be taken once, and together with the other pools'."""

        def chunks() -> Iterator[Trace]:
            while self._sent[pool] or self._next * WINDOW_SECONDS < self._duration:
                if not self._sent[pool]:
                    self._send()
                    continue
                yield self._sent[pool].popleft()

        return Requests(self._trace.name, self._duration, chunks, WINDOW_SECONDS)

    def attach(self, simulations: Sequence[Simulation]) -> None:
        """The pools behind it, in their order."""
        self._simulations = simulations

    def _send(self) -> None:
        start = self._next * WINDOW_SECONDS
        self._next += 1
        first, end = np.searchsorted(self._trace.arrival_seconds, (start, start + WINDOW_SECONDS))
        keep = np.zeros(len(self._trace), dtype=bool)
        keep[first:end] = True
        window = self._trace.select(keep)
        where = self._where(len(window))
        for pool, sent in enumerate(self._sent):
            sent.append(window.select(where == pool))

    def _where(self, count: int) -> Integers:
        if self._weights is not None:
            return self._random.choice(len(self._weights), size=count, p=self._weights)
        loads = [simulation.load for simulation in self._simulations]
        requests = [float(load.requests) for load in loads]
        slots = [max(load.slots, 1e-3) for load in loads]
        where = np.empty(count, dtype=np.int64)
        for number in range(count):
            pool = min(range(len(slots)), key=lambda each: (requests[each] + 1) / slots[each])
            requests[pool] += 1
            where[number] = pool
        return where
