"""Requests on slots and in KV caches: as `engines`, where a full cache keeps requests waiting too.

A request is admitted when slot and cache allow: prompt and output so far of all that runs there, with its prompt,
must stay below `FULL` of the cache; an empty replica admits any. What runs grows on, and nobody is preempted: the
rest of the cache is there for that, and what goes beyond it is not modelled (``workbench.engine`` does).

Between two finishes caches only grow, so that the invariant still holds: when requests wait, no open replica has
room for the first of them.
"""

from heapq import heappop, heappush

from longtail.workbench.fleet.arrivals import Arrivals
from longtail.workbench.fleet.engines import Engines, InFlight
from longtail.workbench.fleet.rows import CLOSED
from longtail.workbench.fleet.setting import ReplicaSize, Routing

FULL = 0.95
"""Share of the KV cache up to which requests are admitted, as an endpoint picker's admission does."""


class KvEngines(Engines):
    """All replicas of a pool whose KV caches bind."""

    def __init__(self, size: ReplicaSize, routing: Routing) -> None:
        super().__init__(size, routing)
        assert size.kv_capacity_tokens is not None
        self._limit = FULL * size.kv_capacity_tokens
        self._prompts: list[int] = []
        self._starts: list[float] = []
        """Sums over what runs, by row."""

    def add_row(self) -> int:
        """A place for a replica: closed, nothing in flight."""
        row = super().add_row()
        if row == len(self._prompts):
            self._prompts.append(0)
            self._starts.append(0.0)
        self._prompts[row], self._starts[row] = 0, 0.0
        return row

    def advance(self, arrivals: Arrivals, to_seconds: float) -> None:
        """Let time pass up to and including ``to_seconds``."""
        for request in arrivals.take(to_seconds):
            self.arrived_requests += 1
            self._finish_until(request[0])
            waits = bool(self.queue)
            self._enqueue(request)
            if not waits:
                self.dispatch(request[0])
        self._finish_until(to_seconds)

    def dispatch(self, at_seconds: float) -> None:
        """Start what waits, as far as there is room."""
        while self.queue:
            prompt = self.queue[0][1]
            rows = [row for row in range(len(self._load)) if self._has_room(row, prompt, at_seconds)]
            if not rows:
                return
            load = self._load
            best = (max if self._pack else min)(rows, key=load.__getitem__)
            self._admit(best, at_seconds)

    def kill(self, row: int, *, at_seconds: float) -> list[InFlight]:
        """The replica dies. What it held is lost, sent again at once, and returned."""
        self._prompts[row], self._starts[row] = 0, 0.0
        return super().kill(row, at_seconds=at_seconds)

    def _finish_until(self, to_seconds: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= to_seconds:
            done = heappop(heap)
            at, row, start, _, prompt, _ = done
            self._load[row] -= 1
            self._prompts[row] -= prompt
            self._starts[row] -= start
            self.finished.append(done)
            while self.queue and self._has_room(row, self.queue[0][1], at):
                self._admit(row, at)

    def _admit(self, row: int, at_seconds: float) -> None:
        request = self._begin(row, at_seconds)
        heappush(self._heap, request)
        self._load[row] += 1
        self._prompts[row] += request[4]
        self._starts[row] += request[2]

    def _has_room(self, row: int, prompt: int, at_seconds: float) -> bool:
        load = self._load[row]
        if load >= self._slots or load >= CLOSED:
            return False
        used = self._prompts[row] + (load * at_seconds - self._starts[row]) / self._pace
        return load == 0 or used + prompt <= self._limit
