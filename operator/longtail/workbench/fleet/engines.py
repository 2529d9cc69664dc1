"""Requests on slots: one queue, many replicas, a fixed pace. The hot loop of the simulator.

The whole state of routing is one list, ``_load``: requests in flight by row, a row being a place that a replica
takes and leaves. A replica that takes nothing new is in the same list with `CLOSED` added. The least loaded one is
found by asking the list for the lowest load there may be, a scan in C: less than 1 µs for a hundred replicas, where
a cleverer structure in Python loses.

Invariant: when requests wait, every open replica is full. So a request that arrives either starts at once or
queues, and a request that ends hands its slot to the head of the queue without any search.

Requests are tuples (finish, row, start, arrival, prompt, output), times in seconds since the start of the trace:
ordered by finish, they are the heap. Two lists, of those that started and of those that finished, are left for
`meters` to count in whole arrays.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush, heapreplace

from longtail.workbench.fleet.setting import ReplicaSize, Routing
from longtail.workbench.traces.trace import Trace

CLOSED = 1 << 30
"""Added to the load of a row that takes no new request: cordoned, being deleted, or empty of any replica."""
InFlight = tuple[float, int, float, float, int, int]
"""(finish, row, start, arrival, prompt tokens, output tokens)."""
Queued = tuple[float, int, int]
"""(arrival, prompt tokens, output tokens)."""


class Arrivals:
    """The requests in order of arrival, a piece at a time. Those without output need no slot and are left out."""

    def __init__(self, chunks: Iterable[Trace]) -> None:
        self._chunks: Iterator[Trace] = iter(chunks)
        self._columns: tuple[Sequence[float], Sequence[int], Sequence[int]] = ((), (), ())
        self._next = 0
        self._over = False

    def take(self, until_seconds: float) -> Iterator[Queued]:
        """Those that arrive up to a time, once."""
        while not self._over:
            arrivals, prompts, outputs = self._columns
            end = bisect_right(arrivals, until_seconds, self._next)
            piece = slice(self._next, end)
            self._next = end
            yield from zip(arrivals[piece], prompts[piece], outputs[piece], strict=True)
            if end < len(arrivals):
                return
            self._load_chunk()

    def _load_chunk(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            self._over = True
            return
        served = chunk.select(chunk.output_tokens > 0)
        self._columns = (
            served.arrival_seconds.tolist(),
            served.input_tokens.tolist(),
            served.output_tokens.tolist(),
        )
        self._next = 0


class Engines:
    """All replicas of a pool. Times given to its methods must not go back."""

    def __init__(self, size: ReplicaSize, routing: Routing) -> None:
        self.started: list[InFlight] = []
        self.finished: list[InFlight] = []
        self.queue: deque[Queued] = deque()
        self.queued_prompt_tokens = 0
        self.arrived_requests = 0
        self._slots = size.slots
        self._pace = size.seconds_per_token
        self._pack = routing is Routing.PACK
        self._load: list[int] = []
        self._heap: list[InFlight] = []
        self._free_rows: list[int] = []

    # ------------------------------------------------------------------ rows

    def add_row(self) -> int:
        """A place for a replica: closed, nothing in flight."""
        if self._free_rows:
            return heappop(self._free_rows)
        self._load.append(CLOSED)
        return len(self._load) - 1

    def remove_row(self, row: int) -> None:
        """Give an empty place back."""
        assert self._load[row] == CLOSED, f"row {row} is open or busy"
        heappush(self._free_rows, row)

    def open(self, row: int) -> None:
        """Let new requests in; call `dispatch` after the last of several."""
        self._load[row] %= CLOSED

    def close(self, row: int) -> None:
        """Let no new request in. What runs goes on."""
        self._load[row] |= CLOSED

    def running(self, row: int) -> int:
        """Requests in flight on a row."""
        return self._load[row] % CLOSED

    @property
    def rows(self) -> int:
        """Places there are, taken or not."""
        return len(self._load)

    @property
    def running_requests(self) -> int:
        """Requests in flight on all rows."""
        return len(self._heap)

    @property
    def waiting_requests(self) -> int:
        """Requests in the queue."""
        return len(self.queue)

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

    def _fullest_with_room(self) -> int:
        slots = self._slots
        return self._load.index(max(load for load in self._load if load < slots))
