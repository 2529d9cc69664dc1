"""Pods that come and go, as a Deployment's ReplicaSet, a scheduler and a GPU supply make them."""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from longtail.workbench.fleet.accounts import Phase
from longtail.workbench.fleet.setting import Setting


@dataclass(slots=True, eq=False)
class Replica:
    """One pod. Times are seconds since the start of the trace; None means not yet."""

    uid: int
    created_seconds: float
    scheduled_seconds: float | None = None
    ready_due_seconds: float = math.inf
    ready_seconds: float | None = None
    cordoned_seconds: float | None = None
    deleting_seconds: float | None = None
    gone_due_seconds: float = math.inf
    """When a pod that is being deleted has finished its work."""
    row: int = -1
    """Its place among the engines; -1 while it has none."""
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"pod-{self.uid}"

    @property
    def ready(self) -> bool:
        """It serves, or finishes what it has."""
        return self.ready_seconds is not None

    @property
    def routable(self) -> bool:
        """It may get new requests."""
        return self.ready and self.cordoned_seconds is None and self.deleting_seconds is None

    @property
    def phase(self) -> Phase:
        """What it is paid for."""
        if self.scheduled_seconds is None:
            return Phase.UNSCHEDULED
        if not self.ready:
            return Phase.STARTING
        return Phase.SERVING if self.routable else Phase.DRAINING


class Deployment:
    """The pods of a target, in order of creation, and ``spec.replicas``. What runs on them is not known here."""

    def __init__(self, setting: Setting) -> None:
        self.replicas = setting.initial_replicas
        """``spec.replicas``."""
        self.pods: list[Replica] = []
        self._cold_start = (setting.cold_start_seconds, setting.cold_start_spread)
        self._gpus = math.inf
        """Replicas that can have GPUs now."""
        self._gpu_changes = deque(setting.gpu_limit)
        self._random = np.random.default_rng([setting.seed, 1])
        self._born = 0
        self.version = 0
        """Grows with every change of any pod."""
        self._phases: Mapping[Phase, int] | None = None
        self._next: float | None = None
        for pod in self._create(setting.initial_replicas, 0.0):
            pod.scheduled_seconds = pod.ready_due_seconds = 0.0

    # ------------------------------------------------------------------ what is there

    @property
    def alive(self) -> list[Replica]:
        """Pods that are not being deleted."""
        return [pod for pod in self.pods if pod.deleting_seconds is None]

    @property
    def wanted(self) -> int:
        """Replicas that should serve: those asked for, less the cordoned ones."""
        cordoned = (pod.cordoned_seconds is not None and pod.deleting_seconds is None for pod in self.pods)
        return self.replicas - sum(cordoned)

    def touch(self) -> None:
        """A pod has changed; to be called by whoever changes one."""
        self.version += 1
        self._phases = self._next = None

    def phases(self) -> Mapping[Phase, int]:
        """Pods by what they are paid for."""
        if self._phases is None:
            counts = dict.fromkeys(Phase, 0)
            for pod in self.pods:
                counts[pod.phase] += 1
            self._phases = counts
        return self._phases

    @property
    def next_seconds(self) -> float:
        """When a pod becomes ready or is gone, or the supply of GPUs changes."""
        if self._next is None:
            supply = self._gpu_changes[0][0] if self._gpu_changes and self._unscheduled() else math.inf
            pods = (pod.gone_due_seconds if pod.ready else pod.ready_due_seconds for pod in self.pods)
            self._next = min(supply, min(pods, default=math.inf))
        return self._next

    # ------------------------------------------------------------------ what time does

    def schedule(self, at_seconds: float) -> None:
        """Give GPUs to pods that wait for one, oldest first."""
        while self._gpu_changes and self._gpu_changes[0][0] <= at_seconds:
            self._gpus = self._gpu_changes.popleft()[1]
            self.touch()
        room = self._gpus - sum(pod.scheduled_seconds is not None for pod in self.pods)
        for pod in self._unscheduled():
            if room <= 0:
                return
            pod.scheduled_seconds = at_seconds
            pod.ready_due_seconds = at_seconds + self._draw_cold_start()
            self.touch()
            room -= 1

    def due(self, at_seconds: float) -> tuple[list[Replica], list[Replica]]:
        """Pods that become ready by now, and pods that are gone by now; both are booked as such."""
        if self.next_seconds > at_seconds:
            return [], []
        self.touch()
        ready = [pod for pod in self.pods if not pod.ready and pod.ready_due_seconds <= at_seconds]
        for pod in ready:
            pod.ready_seconds = at_seconds
        gone = [pod for pod in self.pods if pod.gone_due_seconds <= at_seconds]
        self.forget(gone)
        return ready, gone

    def forget(self, gone: Iterable[Replica]) -> None:
        """Pods are gone."""
        names = {pod.name for pod in gone}
        if names:
            self.pods = [pod for pod in self.pods if pod.name not in names]
            self.touch()

    # ------------------------------------------------------------------ what a policy does

    def scale(self, replicas: int, *, at_seconds: float) -> list[Replica]:
        """Ask for so many replicas. Returns the pods that are to go; the caller ends them."""
        self.replicas = replicas
        self.touch()
        alive = self.alive
        self._create(replicas - len(alive), at_seconds)
        return sorted(alive, key=_deletion_rank)[: max(len(alive) - replicas, 0)]

    def named(self, names: Sequence[str]) -> list[Replica]:
        """Pods by name that are there and not being deleted."""
        wanted = set(names)
        return [pod for pod in self.alive if pod.name in wanted]

    def _create(self, count: int, at_seconds: float) -> list[Replica]:
        created = [Replica(uid=self._born + index, created_seconds=at_seconds) for index in range(count)]
        self._born += len(created)
        self.pods += created
        return created

    def _unscheduled(self) -> list[Replica]:
        return [pod for pod in self.pods if pod.scheduled_seconds is None]

    def _draw_cold_start(self) -> float:
        mean, spread = self._cold_start
        return mean * float(self._random.uniform(1.0 - spread, 1.0 + spread))


def _deletion_rank(pod: Replica) -> tuple[bool, bool, float, int]:
    """A ReplicaSet deletes first: pods without a node, pods that are not ready, the newest ready, the newest.

    Source: kubernetes ``pkg/controller/controller_utils.go``, ``ActivePodsWithRanks.Less``.
    """
    since_ready = -(pod.ready_seconds or 0.0)
    return pod.scheduled_seconds is not None, pod.ready, since_ready, -pod.uid
