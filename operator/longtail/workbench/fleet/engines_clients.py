"""Requests on slots, of clients that give up and ask again: as `engines`, event by event.

An attempt that is not answered in time ends at its deadline: what runs is dropped and its slot is free, what waits
leaves the queue. Then the client asks again, as often as it does that. So the end of an attempt is still known when it
starts, the earlier of its last token and its deadline, and the heap is ordered by it.

Attempts are tuples of numbers, so that whole lists of them become arrays. Everybody is as patient as everybody else,
so the queue is in order of deadlines, and its head is the first to give up.
"""

import math
from collections import deque
from heapq import heapify, heappop, heappush, heapreplace

from longtail.workbench.fleet.arrivals import Arrivals, limited
from longtail.workbench.fleet.rows import CLOSED, Rows
from longtail.workbench.fleet.setting import Clients, ReplicaSize, Routing

Attempt = tuple[float, int, int, float, float, int, int, int]
"""(arrival, prompt tokens, output tokens, deadline, first arrival, attempts before, wished output tokens, those of them
that are no reasoning). The output is what a limit of thinking leaves of the wish."""
Running = tuple[float, int, float, float, int, int, float, float, int, int, int, float]
"""(end, row, start, arrival, prompt tokens, output tokens), as in `engines`, then the rest of the attempt, and when it
would have been answered."""
DEADLINE, FIRST_ARRIVAL, ATTEMPT, WISHED, ANSWER, ANSWERED = range(6, 12)
"""Columns of a running attempt beyond those of `engines`."""
EXPIRED_ARRIVAL, EXPIRED_AT = range(2)
"""Columns of an attempt that was given up while it waited: (arrival, deadline)."""


class ClientEngines(Rows):
    """All replicas of a pool whose clients give up. Times given to its methods must not go back."""

    def __init__(
        self, size: ReplicaSize, routing: Routing, clients: Clients, *, queue_limit: int | None = None
    ) -> None:
        super().__init__(size, routing)
        self.started: list[Running] = []
        self.finished: list[Running] = []
        self.aborted: list[Running] = []
        """Given up while they ran."""
        self.expired: list[tuple[float, float]] = []
        """Given up while they waited."""
        self.asked: list[float] = []
        """When requests were asked for the first time."""
        self.lost: list[float] = []
        """Requests that are not asked again: when they had been asked for the first time."""
        self.queue: deque[Attempt] = deque()
        self.queued_prompt_tokens = 0
        self.arrived_requests = 0
        """Distinct ones."""
        self.retries = 0
        self.turned_away = 0
        """Attempts that found the queue full."""
        self._clients = clients
        self._most_waiting = math.inf if queue_limit is None else queue_limit
        self._heap: list[Running] = []
        self._again: deque[tuple[float, Attempt]] = deque()
        """Attempts that were given up and when they will be made again, in order of time."""

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
        """Requests that arrived at the gateway, those asked again included."""
        return self.arrived_requests + self.retries

    def last_finish(self, row: int, *, at_seconds: float) -> float:
        """When a closed row will be empty."""
        return max((request[0] for request in self._heap if request[1] == row), default=at_seconds)

    def kill(self, row: int, *, at_seconds: float) -> list[Running]:
        """The replica dies. What it held is lost, sent again at once by the gateway, and returned."""
        self.close(row)
        killed = sorted((r for r in self._heap if r[1] == row), key=lambda request: request[DEADLINE])
        if killed:
            self._heap = [request for request in self._heap if request[1] != row]
            heapify(self._heap)
            self._load[row] = CLOSED
        for request in reversed(killed):  # They came before all that wait, so they go in front of them.
            _, _, _, _, prompt, output, deadline, first, before, wished, answer, _ = request
            self.queue.appendleft((at_seconds, prompt, output, deadline, first, before, wished, answer))
            self.queued_prompt_tokens += prompt
        return killed

    def advance(self, arrivals: Arrivals, to_seconds: float) -> None:
        """Let time pass up to and including ``to_seconds``."""
        for at, prompt, wished, answer in arrivals.take_wishes(to_seconds):
            self._pass_time(at, arrivals)
            self.arrived_requests += 1
            self.asked.append(at)
            self._arrive(at, prompt, at, 0, wished, answer, arrivals)
        self._pass_time(to_seconds, arrivals)

    def dispatch(self, at_seconds: float) -> None:
        """Start what waits, as far as there is room: after replicas opened."""
        self._expire(at_seconds)
        while self.queue and min(self._load, default=CLOSED) < self._slots:
            self._start(self._take(), at_seconds)

    # ------------------------------------------------------------------ events

    def _pass_time(self, until: float, arrivals: Arrivals) -> None:
        """All but the arrivals of the trace, in order of time; at one moment who gives up, who ends, who asks again."""
        heap, queue, again = self._heap, self.queue, self._again
        while True:
            end = heap[0][0] if heap else math.inf
            deadline = queue[0][3] if queue else math.inf
            due = again[0][0] if again else math.inf
            at = min(end, deadline, due)
            if at > until:
                return
            if deadline == at:
                self._expire(at)
            elif end == at:
                self._end()
            else:
                _, (_, prompt, _, _, first, before, wished, answer) = again.popleft()
                self.retries += 1
                self._arrive(at, prompt, first, before + 1, wished, answer, arrivals)

    def _arrive(
        self, at: float, prompt: int, first: float, before: int, wished: int, answer: int, arrivals: Arrivals
    ) -> None:
        output = limited(wished, answer, thinking_tokens=arrivals.thinking_tokens)
        deadline = at + self._clients.timeout_seconds
        attempt = (at, prompt, output, deadline, first, before, wished, answer)
        if min(self._load, default=CLOSED) < self._slots:
            self._start(attempt, at)
        elif len(self.queue) >= self._most_waiting:
            self.turned_away += 1
            self._give_up(attempt, at)
        else:
            self.queue.append(attempt)
            self.queued_prompt_tokens += prompt

    def _start(self, attempt: Attempt, at: float) -> None:
        row = self._fullest_with_room() if self._pack else self._load.index(min(self._load))
        self._load[row] += 1
        heappush(self._heap, self._running(attempt, row, at))

    def _end(self) -> None:
        """The next attempt to end leaves its slot, to the head of the queue if it may have it."""
        done = self._heap[0]
        row = done[1]
        if self.queue and self._load[row] < CLOSED:
            heapreplace(self._heap, self._running(self._take(), row, done[0]))
        else:
            heappop(self._heap)
            self._load[row] -= 1
        if done[ANSWERED] <= done[0]:
            self.finished.append(done)
            return
        self.aborted.append(done)
        _, _, _, arrival, prompt, output, deadline, first, before, wished, answer, _ = done
        self._give_up((arrival, prompt, output, deadline, first, before, wished, answer), done[0])

    def _expire(self, at: float) -> None:
        """Those that have waited for too long leave."""
        while self.queue and self.queue[0][3] <= at:
            attempt = self._take()
            self.expired.append((attempt[0], attempt[3]))
            self._give_up(attempt, attempt[3])

    def _give_up(self, attempt: Attempt, at: float) -> None:
        if attempt[5] < self._clients.retries:
            self._again.append((at + self._clients.pause_seconds, attempt))
        else:
            self.lost.append(attempt[4])

    def _take(self) -> Attempt:
        attempt = self.queue.popleft()
        self.queued_prompt_tokens -= attempt[1]
        return attempt

    def _running(self, attempt: Attempt, row: int, at: float) -> Running:
        arrival, prompt, output, deadline, first, before, wished, answer = attempt
        answered = at + output * self._pace
        end = min(answered, deadline)
        request = (end, row, at, arrival, prompt, output, deadline, first, before, wished, answer, answered)
        self.started.append(request)
        return request
