"""A ReplicaSet with engines in its pods, small enough to be walked through thousands of states.

It keeps the rules that matter for shrinking: who is deleted when replicas are lowered (KEP-2255), that the
workload replaces what is lost, that only pods in routing get requests, that a pod's requests go with it. The
truth is here; what the policy sees of it is made by `observation`, and may be late, partial or absent.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from longtail.demand.observation import MISSING, Observation, PodReading, Quality, Signal, worst
from longtail.policy.decision import Placement
from longtail.policy.fleet import Pod, Target

COLD_START_SECONDS = 60.0
SLOTS = 8


class OperatorDied(Exception):
    """The operator was killed between two writes."""


@dataclass
class EnginePod:
    """One pod and the seconds of work left of each of its requests."""

    name: str
    created_at: float
    scheduled: bool = True
    ready_at: float | None = None
    ready: bool = False
    routed: bool = True
    cordoned_at: float | None = None
    cost: int = 0
    work: list[float] = field(default_factory=list)
    waiting: int = 0

    @property
    def busy(self) -> bool:
        return bool(self.work or self.waiting)


@dataclass
class ReplicaSet:
    """spec.replicas and the pods; every deletion is told to ``killed`` with its cause when it cost work."""

    now: float
    replicas: int
    gpus: int = 40
    switch: bool = True
    pods: dict[str, EnginePod] = field(default_factory=dict)
    killed: list[str] = field(default_factory=list)
    blame: str = ""
    _count: int = 0

    def settle(self) -> None:
        """Let controllers, scheduler and kubelets do all they can do at once."""
        while len(self.pods) > self.replicas:
            self.delete(min(self.pods.values(), key=_victim_order).name, cause=self.blame or "lowered replicas")
        self.blame = ""
        while len(self.pods) < self.replicas:
            self._count += 1
            name = f"r1-{self._count}"
            self.pods[name] = EnginePod(name=name, created_at=self.now, scheduled=False)
        free = self.gpus - sum(pod.scheduled for pod in self.pods.values())
        for pod in self.pods.values():
            if not pod.scheduled and free > 0:
                pod.scheduled, pod.created_at = True, self.now
                free -= 1

    def delete(self, name: str, *, cause: str) -> None:
        """Delete a pod and what it is working on."""
        if self.pods.pop(name).busy:
            self.killed.append(cause)

    def pass_time(self, seconds: float) -> None:
        """Work goes on, loading ends."""
        self.now += seconds
        for pod in self.pods.values():
            if pod.scheduled and pod.ready_at is None and self.now - pod.created_at >= COLD_START_SECONDS:
                pod.ready, pod.ready_at = True, self.now
            pod.work = [left - seconds for left in pod.work if left > seconds]
            start = min(SLOTS - len(pod.work), pod.waiting)
            pod.work += [60.0] * start
            pod.waiting -= start

    def arrive(self, lengths_seconds: Iterable[float]) -> None:
        """Route requests to the least loaded of the pods that are ready and in routing; else they are refused."""
        for length in lengths_seconds:
            open_pods = [pod for pod in self.pods.values() if pod.ready and pod.routed]
            if not open_pods:
                return
            pod = min(open_pods, key=lambda each: (len(each.work) + each.waiting, each.name))
            if len(pod.work) < SLOTS:
                pod.work.append(length)
            else:
                pod.waiting += 1

    def target(self) -> Target:
        """The target as the store shows it."""
        pods = tuple(
            Pod(
                name=pod.name,
                created_at=pod.created_at,
                scheduled_at=pod.created_at if pod.scheduled else None,
                ready_at=pod.ready_at,
                ready=pod.ready,
                unschedulable_message="" if pod.scheduled else "0/4 nodes are available: Insufficient nvidia.com/gpu",
                switch=self.switch,
                cordoned=not pod.routed,
                cordoned_at=pod.cordoned_at,
                condemned=pod.cost < 0,
            )
            for pod in self.pods.values()
        )
        return Target(replicas=self.replicas, ready_replicas=sum(pod.ready for pod in pods), pods=pods)

    def observation(self, *, hidden: Callable[[str], bool] = lambda _: False, age_seconds: float = 3.0) -> Observation:
        """What a scrape tells; pods that are ``hidden`` have no sample, and an old scrape is stale."""
        ready = [pod for pod in self.pods.values() if pod.ready]
        told = [pod for pod in ready if not hidden(pod.name)]
        age = Quality.STALE if age_seconds > 60 else Quality.FRESH
        quality = worst(age, Quality.FRESH if len(told) == len(ready) else Quality.PARTIAL)

        def signal(value: float, of: Quality) -> Signal:
            return Signal(value=value, age_seconds=age_seconds, quality=of)

        return Observation(
            at_seconds=self.now,
            running_requests=signal(sum(len(p.work) for p in told), quality) if told else MISSING,
            waiting_requests=signal(sum(p.waiting for p in told), quality) if told else MISSING,
            ready_pods=len(ready),
            reporting_pods=len(told) if age is Quality.FRESH else 0,
            pods=tuple(
                PodReading(
                    name=pod.name,
                    running_requests=signal(len(pod.work), age),
                    waiting_requests=signal(pod.waiting, age),
                )
                for pod in told
            ),
        )

    def carry_out(self, placement: Placement, *, dies_before_write: int | None = None) -> None:
        """Execute a placement as the operator does, write by write (see `longtail.control.placer`).

        A target that moved is left alone. Marks for deletion that nobody planned are taken back; replicas are
        lowered by those who were marked before this tick, if nobody else was.

        Raises:
            OperatorDied: before the write with that number, counted from 0.
        """
        condemned = {name for name, pod in self.pods.items() if pod.cost < 0}
        strays = condemned - set(placement.commit)
        lowered = placement.replicas + len(placement.commit) - len(condemned)
        writes: list[Callable[[], None]] = []
        writes += [lambda name=name: self._route(name, routed=True) for name in placement.uncordon]  # type: ignore[misc]  # bound now
        writes += [lambda name=name: self._pardon(name) for name in sorted(strays)]  # type: ignore[misc]
        if placement.replicas > placement.asked:
            writes.append(lambda: self._scale(placement.asked, placement.replicas))
        writes += [lambda name=name: self._route(name, routed=False) for name in placement.cordon]  # type: ignore[misc]
        writes += [lambda name=name: self._condemn(name) for name in placement.commit]  # type: ignore[misc]
        if not strays and lowered < placement.asked:
            writes.append(lambda: self._scale(placement.asked, lowered))
        for number, write in enumerate(writes):
            if number == dies_before_write:
                raise OperatorDied
            write()

    def _route(self, name: str, *, routed: bool) -> None:
        if pod := self.pods.get(name):
            pod.routed, pod.cordoned_at = routed, None if routed else self.now
            pod.cost = 0 if routed else pod.cost

    def _condemn(self, name: str) -> None:
        if pod := self.pods.get(name):
            pod.cost = -1000

    def _pardon(self, name: str) -> None:
        if pod := self.pods.get(name):
            pod.cost = 0

    def _scale(self, asked: int, replicas: int) -> None:
        if self.replicas == asked:
            self.replicas = replicas


def _victim_order(pod: EnginePod) -> tuple[bool, bool, int, float, str]:
    """Unassigned first, then not ready, then the lowest cost, then the newest (KEP-2255)."""
    return (pod.scheduled, pod.ready, pod.cost, -(pod.ready_at or pod.created_at), pod.name)
