"""A pool of replicas behind a router: requests are spread, pods come and go, what is lost is counted.

A request that finds no routable pod stays at the door (a client or gateway that retries), so demand is never
forgotten. With ``gateway`` the door holds back every request until an engine has a free place, as an endpoint
picker with flow control does: then the queue is at the door and the engines' own queues stay near 0.
"""

import math
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from longtail.workbench.engine.model import Replica
from longtail.workbench.engine.profiles import EngineProfile
from longtail.workbench.engine.request import Recorder, Request

Routing = Literal["least_loaded", "pack"]
_KV_FULL_RATIO = 0.95
"""A gateway and the ``pack`` router take an engine as full above this share of its KV cache."""
_RESENT_FROM_ID = 1 << 40
"""Ids of re-sent requests; those of the source stay below."""


class Exposition(Protocol):
    """The metrics page of one pod."""

    @property
    def recorders(self) -> Sequence[Recorder]:
        """One per engine of the pod."""

    def render(self, replicas: Sequence[Replica]) -> str:
        """The page now."""

    def constant(self, value: str) -> str:
        """The page with the same string in the place of every value (faults)."""


class Source(Protocol):
    """Where requests come from, in order of time."""

    @property
    def next_seconds(self) -> float:
        """When the next one arrives."""

    def take(self) -> Request:
        """The next one."""


@dataclass(slots=True)
class Pod:
    """One pod: an engine, or several (data-parallel ranks)."""

    name: str
    engines: list[Replica]
    exposition: Exposition | None
    routable: bool = True


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts since the pool began, of pods that are gone too."""

    generated_tokens: int = 0
    finished_requests: int = 0
    finished_tokens: int = 0
    aborted_requests: int = 0
    aborted_tokens: int = 0
    preemptions: int = 0

    def plus(self, engine: Replica) -> "Totals":
        """With an engine's counts added."""
        now = engine.reading()
        return Totals(
            generated_tokens=self.generated_tokens + now.generated_tokens,
            finished_requests=self.finished_requests + now.finished_requests,
            finished_tokens=self.finished_tokens + now.finished_tokens,
            aborted_requests=self.aborted_requests + now.aborted_requests,
            aborted_tokens=self.aborted_tokens + now.aborted_tokens,
            preemptions=self.preemptions + now.preemptions,
        )


@dataclass(frozen=True, slots=True)
class Truth:
    """What is really going on: for tests and pictures, never for the operator."""

    at_seconds: float
    pods: int
    routable_pods: int
    running_requests: int
    waiting_requests: int
    """In engine queues."""
    door_requests: int
    """In front of the engines."""
    owed_tokens: int
    """Output tokens still to be written by everybody in the system, exactly."""
    in_flight_tokens: int
    """Output tokens already written by requests that are not finished."""
    kv_used_tokens: int
    kv_capacity_tokens: int
    slots: int
    arrived_requests: int
    resent_requests: int
    killed_requests: int
    lost_tokens: int
    """Output tokens written for requests that were killed."""
    totals: Totals
    started_requests: int
    """Requests that got a slot within the window of the waits."""
    wait_p50_seconds: float | None
    wait_p99_seconds: float | None
    within_target_share: float | None
    """Share of them that waited at most ``target_seconds``; None when there were none."""
    longest_current_wait_seconds: float
    """Of those that still wait."""


class _Waits(Recorder):
    """When requests got their first slot and how long their clients had waited."""

    def __init__(self) -> None:
        self.at_seconds = array("d")
        self.waited_seconds = array("d")

    def started(self, request: Request, *, at_seconds: float, waited_seconds: float) -> None:  # noqa: ARG002
        """From the client's point of view: time at the door counts too."""
        self.at_seconds.append(at_seconds)
        self.waited_seconds.append(at_seconds - request.arrived_seconds)


class Pool:
    """Pods of one service. Times given to its methods must not go back."""

    def __init__(
        self,
        *,
        profile: EngineProfile,
        source: Source | None = None,
        exposition: Callable[[], Exposition] | None = None,
        recorders: Iterable[Recorder] = (),
        engines_per_pod: int = 1,
        routing: Routing = "least_loaded",
        gateway: bool = False,
        start_seconds: float = 0.0,
    ) -> None:
        self.profile = profile
        self.pods: dict[str, Pod] = {}
        self.door: deque[Request] = deque()
        self.now_seconds = start_seconds
        self._source = source
        self._exposition = exposition
        self._waits = _Waits()
        self._recorders = (self._waits, *recorders)
        self._engines_per_pod = engines_per_pod
        self._routing = routing
        self._gateway = gateway
        self._targets: list[Replica] = []
        self._gone = Totals()
        self._arrived = self._resent = self._killed = self._lost_tokens = 0

    # ------------------------------------------------------------------ time and requests

    def advance(self, to_seconds: float) -> None:
        """Let time pass: requests arrive, engines work, the door opens."""
        if to_seconds < self.now_seconds:
            raise ValueError(f"Pool: time went back from {self.now_seconds} to {to_seconds}")
        source = self._source
        while True:
            arrival = math.inf if source is None else source.next_seconds
            freed = math.inf
            if self.door:
                freed = min((engine.next_event_seconds for engine in self._targets), default=math.inf)
            at = min(arrival, freed)
            if at > to_seconds:
                break
            self._work_until(at)
            if source is not None and arrival == at:
                self._arrived += 1
                self.door.append(source.take())
            self._dispatch()
        self._advance_engines(to_seconds)

    def submit(self, request: Request, *, at_seconds: float) -> None:
        """A request from outside the source."""
        self.advance(at_seconds)
        self._arrived += 1
        self.door.append(request)
        self._dispatch()

    def abort_share(self, share: float, *, at_seconds: float, rng: np.random.Generator) -> int:
        """That share of the clients gives up, at random; returns how many."""
        self.advance(at_seconds)
        count = 0
        for pod in self.pods.values():
            for engine in pod.engines:
                ids = engine.request_ids
                for request_id in [i for i, u in zip(ids, rng.random(len(ids)), strict=True) if u < share]:
                    count += engine.abort(request_id, at_seconds=at_seconds)
        kept = [request for request in self.door if rng.random() >= share]
        count += len(self.door) - len(kept)
        self.door = deque(kept)
        return count

    # ------------------------------------------------------------------ pods

    def add(self, name: str, *, at_seconds: float, routable: bool = True) -> None:
        """A pod became ready, with all counters at 0.

        Raises:
            ValueError: there is a pod of that name.
        """
        self.advance(at_seconds)
        if name in self.pods:
            raise ValueError(f"Pool: pod {name!r} exists")
        exposition = self._exposition() if self._exposition else None
        engines = [
            Replica(
                profile=self.profile,
                start_seconds=at_seconds,
                recorders=(*self._recorders, exposition.recorders[rank]) if exposition else self._recorders,
            )
            for rank in range(self._engines_per_pod)
        ]
        self.pods[name] = Pod(name=name, engines=engines, exposition=exposition, routable=routable)
        self._retarget()

    def remove(self, name: str, *, at_seconds: float) -> int:
        """A pod is gone; what it held is lost and sent again by its clients. Returns how many requests."""
        self.advance(at_seconds)
        lost = [pair for engine in self.pods[name].engines for pair in engine.kill(at_seconds=at_seconds)]
        for engine in self.pods[name].engines:
            self._gone = self._gone.plus(engine)
        del self.pods[name]
        for request, tokens in lost:
            self._lost_tokens += tokens
            self.door.append(
                Request(
                    id=_RESENT_FROM_ID + self._resent,
                    arrived_seconds=at_seconds,
                    prompt_tokens=request.prompt_tokens,
                    output_tokens=request.output_tokens,
                    max_tokens=request.max_tokens,
                    attempt=request.attempt + 1,
                )
            )
            self._resent += 1
        self._killed += len(lost)
        self._retarget()
        return len(lost)

    def restart(self, name: str, *, at_seconds: float) -> int:
        """The container crashed and is back under the same name; returns how many requests were lost."""
        routable = self.pods[name].routable
        lost = self.remove(name, at_seconds=at_seconds)
        self.add(name, at_seconds=at_seconds, routable=routable)
        return lost

    def route(self, name: str, *, routable: bool, at_seconds: float) -> None:
        """Send new requests to a pod, or none any more (it finishes what it has)."""
        self.advance(at_seconds)
        self.pods[name].routable = routable
        self._retarget()

    # ------------------------------------------------------------------ what can be seen

    def metrics(self, name: str) -> str:
        """The metrics page of a pod as of the last ``advance``."""
        pod = self.pods[name]
        if pod.exposition is None:
            raise ValueError("Pool: built without an exposition")
        return pod.exposition.render(pod.engines)

    def truth(self, *, target_seconds: float = 10.0, window_seconds: float = math.inf) -> Truth:
        """Everything, with the waits of requests that got their slot in the last ``window_seconds``."""
        engines = [engine for pod in self.pods.values() for engine in pod.engines]
        readings = [engine.reading() for engine in engines]
        totals = self._gone
        for engine in engines:
            totals = totals.plus(engine)
        recent = np.frombuffer(self._waits.at_seconds) >= self.now_seconds - window_seconds
        waits = np.frombuffer(self._waits.waited_seconds)[recent]
        since = [engine.waiting_since_seconds for engine in engines] + [r.arrived_seconds for r in self.door]
        return Truth(
            at_seconds=self.now_seconds,
            pods=len(self.pods),
            routable_pods=sum(pod.routable for pod in self.pods.values()),
            running_requests=sum(r.running_requests for r in readings),
            waiting_requests=sum(r.waiting_requests for r in readings),
            door_requests=len(self.door),
            owed_tokens=sum(r.owed_tokens for r in readings) + sum(r.output_tokens for r in self.door),
            in_flight_tokens=sum(r.in_flight_tokens for r in readings),
            kv_used_tokens=sum(r.kv_used_tokens for r in readings),
            kv_capacity_tokens=self.profile.kv_capacity_tokens * len(engines),
            slots=self.profile.slots * len(engines),
            arrived_requests=self._arrived,
            resent_requests=self._resent,
            killed_requests=self._killed,
            lost_tokens=self._lost_tokens,
            totals=totals,
            started_requests=len(waits),
            wait_p50_seconds=float(np.percentile(waits, 50)) if len(waits) else None,
            wait_p99_seconds=float(np.percentile(waits, 99)) if len(waits) else None,
            within_target_share=float(np.mean(waits <= target_seconds)) if len(waits) else None,
            longest_current_wait_seconds=max((self.now_seconds - at for at in since if at is not None), default=0.0),
        )

    # ------------------------------------------------------------------ routing

    def _work_until(self, at: float) -> None:
        """Only engines with an event before then move; the others' state is a closed form of time."""
        for pod in self.pods.values():
            for engine in pod.engines:
                if engine.next_event_seconds <= at:
                    engine.advance(at)
        self.now_seconds = at

    def _advance_engines(self, at: float) -> None:
        for pod in self.pods.values():
            for engine in pod.engines:
                engine.advance(at)
        self.now_seconds = at

    def _retarget(self) -> None:
        self._targets = [engine for pod in self.pods.values() if pod.routable for engine in pod.engines]
        self._dispatch()

    def _dispatch(self) -> None:
        while self.door:
            engine = self._choose()
            if engine is None:
                return
            engine.submit(self.door.popleft(), at_seconds=self.now_seconds)

    def _choose(self) -> Replica | None:
        """The engine for the next request: of equals the oldest, so that a run can be repeated."""
        if not self._targets:
            return None
        if self._routing == "least_loaded" and not self._gateway:
            return min(self._targets, key=_load)
        for engine in self._targets:
            engine.advance(self.now_seconds)
        roomy = [engine for engine in self._targets if _has_room(engine)]
        if not roomy:
            return None if self._gateway else min(self._targets, key=_load)
        return max(roomy, key=_load) if self._routing == "pack" else min(roomy, key=_load)


def _load(engine: Replica) -> int:
    return engine.load


def _has_room(engine: Replica) -> bool:
    return engine.free_slots > 0 and engine.kv_claimed_tokens < _KV_FULL_RATIO * engine.profile.kv_capacity_tokens
