"""Places for replicas, and how many requests each has: the whole state of routing.

It is one list, ``_load``: requests in flight by row, a row being a place that a replica takes and leaves. A replica
that takes nothing new is in the same list with `CLOSED` added. The least loaded one is found by asking the list for
the lowest load there may be, a scan in C: less than 1 µs for a hundred replicas, where a cleverer structure in Python
loses.
"""

from heapq import heappop, heappush

from longtail.workbench.fleet.setting import ReplicaSize, Routing

CLOSED = 1 << 30
"""Added to the load of a row that takes no new request: cordoned, being deleted, or empty of any replica."""


class Rows:
    """The replicas of a pool by their loads."""

    def __init__(self, size: ReplicaSize, routing: Routing) -> None:
        self._slots = size.slots
        self._pace = size.seconds_per_token
        self._pack = routing is Routing.PACK
        self._load: list[int] = []
        self._free_rows: list[int] = []

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

    def _fullest_with_room(self) -> int:
        slots = self._slots
        return self._load.index(max(load for load in self._load if load < slots))
