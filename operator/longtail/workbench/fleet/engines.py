"""Requests on slots: one queue, many replicas, a fixed pace. The hot loop of the simulator.

Invariant: when requests wait, every open replica is full. So a request that arrives either starts at once or
queues, and a request that ends hands its slot to the head of the queue without any search.

Requests are tuples (finish, row, start, arrival, prompt, output), times in seconds since the start of the trace:
ordered by finish, they are the heap. Two lists, of those that started and of those that finished, are left for
`meters` to count in whole arrays.
"""

from collections import deque
from heapq import heapify, heappop, heappush, heapreplace

from longtail.workbench.fleet.arrivals import Arrivals, Queued
from longtail.workbench.fleet.rows import CLOSED, Rows
from longtail.workbench.fleet.setting import ReplicaSize, Routing

InFlight = tuple[float, int, float, float, int, int]
"""(finish, row, start, arrival, prompt tokens, output tokens)."""


class Engines(Rows):
    """All replicas of a pool. Times given to its methods must not go back."""

    def __init__(self, size: ReplicaSize, routing: Routing) -> None:
        super().__init__(size, routing)
        self.started: list[InFlight] = []
        self.finished: list[InFlight] = []
        self.queue: deque[Queued] = deque()
        self.queued_prompt_tokens = 0
        self.arrived_requests = 0
        self._heap: list[InFlight] = []

    @property
    def running_requests(self) -> int:
        """Requests in flight on all rows."""
        return len(self._heap)

    @property
    def waiting_requests(self) -> int:
        """Requests in the queue."""
        return len(self.queue)

    @property
    def door_requests(self) -> int:
        """Requests that arrived at the gateway."""
        return self.arrived_requests

    def last_finish(self, row: int, *, at_seconds: float) -> float:
        """When a closed row will be empty."""
        return max((request[0] for request in self._heap if request[1] == row), default=at_seconds)

    def kill(self, row: int, *, at_seconds: float) -> list[InFlight]:
        """The replica dies. What it held is lost, sent again at once, and returned."""
        self.close(row)
        lost = sorted((r for r in self._heap if r[1] == row), key=lambda request: request[3])
        if lost:
            self._heap = [request for request in self._heap if request[1] != row]
            heapify(self._heap)
            self._load[row] = CLOSED
            for _, _, _, _, prompt, output in lost:
                self._enqueue((at_seconds, prompt, output))
        return lost

    # ------------------------------------------------------------------ time

    def advance(self, arrivals: Arrivals, to_seconds: float) -> None:
        """Let time pass up to and including ``to_seconds``."""
        load, heap, queue, slots, pace = self._load, self._heap, self.queue, self._slots, self._pace
        started, finished, count = self.started.append, self.finished.append, 0
        lowest = 0  # no open row has a lower load
        for arrival, prompt, output in arrivals.take(to_seconds):
            count += 1
            while heap and heap[0][0] <= arrival:
                if queue:
                    self._hand_over()
                    continue
                done = heappop(heap)
                row = done[1]
                load[row] = left = load[row] - 1
                lowest = min(lowest, left)
                finished(done)
            while lowest < slots and lowest not in load:
                lowest += 1
            if lowest < slots:
                row = self._fullest_with_room() if self._pack else load.index(lowest)
                load[row] += 1
                request = (arrival + output * pace, row, arrival, arrival, prompt, output)
                heappush(heap, request)
                started(request)
            else:
                self._enqueue((arrival, prompt, output))
        self.arrived_requests += count
        while heap and heap[0][0] <= to_seconds:
            self._hand_over()

    def dispatch(self, at_seconds: float) -> None:
        """Start what waits, as far as there is room: after replicas opened."""
        while self.queue and min(self._load, default=CLOSED) < self._slots:
            row = self._fullest_with_room() if self._pack else self._load.index(min(self._load))
            self._load[row] += 1
            request = self._begin(row, at_seconds)
            heappush(self._heap, request)

    def _hand_over(self) -> None:
        """The next request to finish leaves; the head of the queue takes its slot if it may."""
        heap, load = self._heap, self._load
        done = heap[0]
        row = done[1]
        self.finished.append(done)
        if self.queue and load[row] < CLOSED:
            heapreplace(heap, self._begin(row, done[0]))
        else:
            heappop(heap)
            load[row] -= 1

    def _begin(self, row: int, at_seconds: float) -> InFlight:
        arrival, prompt, output = self.queue.popleft()
        self.queued_prompt_tokens -= prompt
        request = (at_seconds + output * self._pace, row, at_seconds, arrival, prompt, output)
        self.started.append(request)
        return request

    def _enqueue(self, request: Queued) -> None:
        self.queue.append(request)
        self.queued_prompt_tokens += request[1]
