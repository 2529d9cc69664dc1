"""A recorded load as a fluid, and a pool of another size under it.

What is taken from the recording, for each interval between two looks: requests that arrived (those that started,
plus the growth of the queue), and the share of the requests in service that finished. Both are taken as given whatever
the pool (the load is *exogenous*): clients neither come more often nor give up because a pool is faster. A pool of
another size then follows from one balance,

    requests' = requests + arrivals - finished * (in service here / in service as recorded),

which gives the recording back exactly where the pool was as large as the recorded one (up to requests beyond the
promised pace, which wait here). Averages only: bursts within an interval and the luck of single requests are not
seen, so short waits are underestimated, long ones are not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from longtail.demand.observation import Observation, Quality, Signal
from longtail.policy.fleet import Pod
from longtail.policy.placement import CORDONED_SHARE

_SERVICE_MEMORY_SECONDS = 3600.0
_MOST_TIMES_AS_FAST = 4.0
"""A pool of another size is never believed to finish more than this multiple of the recorded requests."""


@dataclass(frozen=True, slots=True)
class Interval:
    """What happened between the look before and this one."""

    at_seconds: float
    seconds: float
    known: bool
    """Both looks saw all of it."""
    requests: float = 0.0
    """Running and waiting now."""
    running_before: float = 0.0
    running: float = 0.0
    arrived: float = 0.0
    finished: float = 0.0
    jump: float = 0.0
    """Change of the requests over a gap, of which nothing else is known."""
    service_seconds: float = 60.0
    """Mean time in service, over about an hour."""


def intervals(observations: Sequence[Observation]) -> list[Interval]:
    """The load, look by look. The first look is an interval without length."""
    found: list[Interval] = []
    held = finished_lately = 0.0
    before: Observation | None = None
    for observation in observations:
        seconds = 0.0 if not found else observation.at_seconds - found[-1].at_seconds
        if not _whole(observation):
            found.append(Interval(observation.at_seconds, seconds, known=False))
            continue
        running, requests = _value(observation.running_requests), _requests(observation)
        if before is None or before is not observations[len(found) - 1]:
            jump = requests - (_requests(before) if before is not None else 0.0)
            found.append(
                Interval(observation.at_seconds, seconds, known=False, requests=requests, running=running, jump=jump)
            )
        else:
            finished, arrived = _balance(before, observation, seconds)
            kept = math.exp(-seconds / _SERVICE_MEMORY_SECONDS)
            running_before = _value(before.running_requests)
            held = held * kept + (running + running_before) / 2 * seconds
            finished_lately = finished_lately * kept + finished
            found.append(
                Interval(
                    at_seconds=observation.at_seconds,
                    seconds=seconds,
                    known=True,
                    requests=requests,
                    running_before=running_before,
                    running=running,
                    arrived=arrived,
                    finished=finished,
                    service_seconds=held / finished_lately if finished_lately >= 1 else 60.0,
                )
            )
        before = observation
    return found


def _balance(before: Observation, now: Observation, seconds: float) -> tuple[float, float]:
    """Requests that finished and that arrived."""
    growth = _requests(now) - _requests(before)
    if now.first_tokens.value is not None:
        started = now.first_tokens.value
        finished = max(started + _value(before.running_requests) - _value(now.running_requests), 0.0)
    elif now.finished_output_tokens is not None:
        finished = now.finished_output_tokens.total
    else:  # nothing counts requests: believe that they stay for a minute
        finished = _value(before.running_requests) * min(seconds / 60.0, 1.0)
    return max(finished, -growth), max(finished + growth, 0.0)


def _whole(observation: Observation) -> bool:
    return all(
        signal.quality in {Quality.FRESH, Quality.STALE}
        for signal in (observation.running_requests, observation.waiting_everywhere)
    )


def _requests(observation: Observation) -> float:
    return _value(observation.running_requests) + _value(observation.waiting_everywhere)


def _value(signal: Signal) -> float:
    return signal.value or 0.0


@dataclass(slots=True)
class _Replica:
    number: int
    asked_at: float
    ready_at: float
    drained_at: float | None = None
    """When it will be empty; None while it takes requests."""


class Pool:
    """Replicas and requests of one policy. Replicas come a cold start after they were asked for.

    ``drains``: a replica that goes finishes what it has, is paid for until then and is the first one back, a fifth
    of the pool at a time; otherwise it is gone at once with what it has.
    """

    def __init__(
        self,
        *,
        slots: float,
        cold_start_seconds: float,
        replicas: int,
        requests: float,
        at_seconds: float,
        drains: bool,
    ) -> None:
        self.requests = requests
        self.now = at_seconds
        self.arrived = 0.0
        self.finished = 0.0
        self.started = 0.0
        self.wait_seconds = 0.0
        """What a request that arrives now may expect."""
        self.cut_requests = 0.0
        """Requests whose replica went away under them. They are sent again at once: the load stays the same."""
        self.replica_seconds = 0.0
        self._slots = slots
        self._cold_start_seconds = cold_start_seconds
        self._drains = drains
        self._made = 0
        self._replicas: list[_Replica] = []
        self._start(replicas, ready_at=at_seconds)

    @property
    def serving(self) -> int:
        """Replicas asked for and not on their way out."""
        return sum(replica.drained_at is None for replica in self._replicas)

    @property
    def ready(self) -> int:
        """Replicas that take requests."""
        return sum(replica.drained_at is None and replica.ready_at <= self.now for replica in self._replicas)

    @property
    def paid(self) -> int:
        """Replicas that hold a GPU."""
        return len(self._replicas)

    @property
    def capacity(self) -> float:
        """Requests that are served at the promised pace."""
        return self.ready * self._slots

    @property
    def running(self) -> float:
        """Requests in service."""
        return min(self.requests, self.capacity)

    @property
    def waiting(self) -> float:
        """Requests without a slot."""
        return self.requests - self.running

    def pods(self) -> tuple[Pod, ...]:
        """The replicas as the cluster would show them, those on their way out excepted."""
        return tuple(
            Pod(
                name=f"replica-{replica.number}",
                created_at=replica.asked_at,
                ready_at=replica.ready_at if replica.ready_at <= self.now else None,
                ready=replica.ready_at <= self.now,
            )
            for replica in self._replicas
            if replica.drained_at is None
        )

    def follow(self, load: Interval) -> None:
        """Let an interval pass."""
        self.replica_seconds += self.paid * load.seconds
        before = self.waiting
        if load.known:
            here = min(self.requests, self.capacity)
            ratio = here / load.running_before if load.running_before >= 1.0 else float(self.capacity > 0)
            self.arrived = load.arrived
            self.finished = min(load.finished * min(ratio, _MOST_TIMES_AS_FAST), self.requests + load.arrived)
            self.requests = max(self.requests + self.arrived - self.finished, 0.0)
        else:
            self.arrived = self.finished = 0.0
            self.requests = max(self.requests + load.jump, 0.0)
        self.now = load.at_seconds
        self._replicas = [r for r in self._replicas if r.drained_at is None or r.drained_at > self.now]
        self.started = max(self.arrived - (self.waiting - before), 0.0)
        if self.waiting <= 0.0:
            self.wait_seconds = 0.0
        elif self.capacity > 0:
            self.wait_seconds = self.waiting * load.service_seconds / self.capacity
        else:
            self.wait_seconds = max(self._cold_start_seconds, load.seconds)

    def ask(self, replicas: int, *, service_seconds: float) -> None:
        """Change the number of serving replicas."""
        missing = replicas - self.serving
        if missing > 0:
            back = [replica for replica in self._replicas if replica.drained_at is not None][:missing]
            for replica in back:
                replica.drained_at = None
            self._start(missing - len(back), ready_at=self.now + self._cold_start_seconds)
        elif missing < 0:
            self._stop(-missing, service_seconds)

    def set_ready(self, replicas: int) -> None:
        """Make it so many ready replicas, at once and at no cost: what a recording shows has happened."""
        if replicas < len(self._replicas):
            del self._replicas[replicas:]
        self._start(replicas - len(self._replicas), ready_at=self.now)

    def _start(self, count: int, *, ready_at: float) -> None:
        for _ in range(count):
            self._replicas.append(_Replica(self._made, asked_at=min(self.now, ready_at), ready_at=ready_at))
            self._made += 1

    def _stop(self, count: int, service_seconds: float) -> None:
        unborn = [r for r in self._replicas if r.ready_at > self.now and r.drained_at is None][::-1][:count]
        self._replicas = [replica for replica in self._replicas if replica not in unborn]
        serving = [r for r in self._replicas if r.drained_at is None and r.ready_at <= self.now]
        leaving = serving[::-1][: count - len(unborn)]
        held = self.running / max(len(serving), 1)
        if not self._drains:
            self.cut_requests += held * len(leaving)
            self._replicas = [replica for replica in self._replicas if replica not in leaving]
            return
        out = sum(replica.drained_at is not None for replica in self._replicas)
        room = max(max(1, int(CORDONED_SHARE * (len(serving) + out))) - out, 0)
        # The last of n requests ends after H_n mean times in service, were they exponential.
        seconds = service_seconds * (math.log(held) + 0.5772 if held > 1 else held)
        for replica in leaving[:room]:
            replica.drained_at = self.now + seconds
