"""The pods of the past: what Prometheus alone can tell of them.

Live reading asks about the pods that the cluster's watch shows. Of a pod that is gone the watch shows nothing, so its
life is taken from its own series: it began and ended with its samples of running requests. Whose pod it was is
read off its name, as the controllers make them: ``<deployment>-<hash>-<suffix>``, ``<statefulset>-<n>``,
``<leaderworkerset>-<group>[-<worker>]``, ``<replicaset>-<suffix>``; of other kinds one to three parts after the
target's name. The alphabet of hashes and suffixes is Kubernetes' own (``k8s.io/apimachinery/pkg/util/rand``), so
that ``r1-large-7d9f8b6c5d-bcdfg`` is no pod of the Deployment ``r1``. Not recognised are pods of Deployments whose name
is so long that Kubernetes cuts it (beyond 46 characters), and pods that were named by hand.

When such a pod was created is not known: it is marked ``restarted``, so that nothing learns a cold start of 0 s.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from longtail.policy.fleet import Pod, ServiceKey
from longtail.signals.observe import ServiceSignals
from longtail.signals.samples import ObjectKey

_SAFE: Final = "[bcdfghjklmnpqrstvwxz2456789]"
_SUFFIXES: Final[Mapping[str, str]] = {
    "Deployment": f"-{_SAFE}{{1,10}}-{_SAFE}{{5}}",
    "ReplicaSet": f"-{_SAFE}{{5}}",
    "StatefulSet": "-[0-9]+",
    "LeaderWorkerSet": "-[0-9]+(-[0-9]+)?",
}
_ANY_SUFFIX: Final = "(-[a-z0-9]+){1,3}"
_TRUSTED_SECONDS: Final = 120.0
"""A pod whose samples begin so soon after it became ready for the first time was never ready before."""


@dataclass(frozen=True, slots=True)
class Past:
    """What is to be read of one service's past."""

    signals: ServiceSignals
    """With the pods that are there now."""
    kind: str
    """Of the scale target, such as Deployment."""
    name: str
    """Of the scale target."""


@dataclass(frozen=True, slots=True)
class Life:
    """First and last step, Unix seconds, at which a pod had a sample of running requests."""

    first: float
    last: float

    def with_sample_at(self, at_seconds: float) -> "Life":
        """The life, stretched to a step."""
        return Life(min(self.first, at_seconds), max(self.last, at_seconds))


def pod_pattern(kind: str, name: str) -> str:
    """A regular expression, Python's and Prometheus' (RE2), for the names of a workload's pods.

    >>> bool(re.fullmatch(pod_pattern("Deployment", "r1"), "r1-7d9f8b6c5d-bcdfg"))
    True
    >>> bool(re.fullmatch(pod_pattern("Deployment", "r1"), "r1-large-7d9f8b6c5d-bcdfg"))
    False
    """
    return re.escape(name).replace(r"\-", "-") + _SUFFIXES.get(kind, _ANY_SUFFIX)


class Owners:
    """Whose a pod was, by its name. Where two workloads claim a pod, the one with the longer name has it."""

    def __init__(self, services: Iterable[Past]) -> None:
        self._workloads: dict[tuple[str, str], list[tuple[re.Pattern[str], ServiceKey]]] = {}
        self._living: dict[ObjectKey, ServiceKey] = {}
        for past in services:
            key = past.signals.key
            pattern = re.compile(pod_pattern(past.kind, past.name))
            self._workloads.setdefault((key.namespace, past.name), []).append((pattern, key))
            self._living.update({ObjectKey(key.namespace, pod.name): key for pod in past.signals.pods})

    def owner(self, place: ObjectKey) -> ServiceKey | None:
        """The service of a pod; None for a stranger."""
        if place in self._living:
            return self._living[place]
        parts = place.name.split("-")
        for count in range(len(parts) - 1, max(len(parts) - 4, 0), -1):
            for pattern, key in self._workloads.get((place.namespace, "-".join(parts[:count])), ()):
                if pattern.fullmatch(place.name):
                    return key
        return None


@dataclass(frozen=True, slots=True)
class _Known:
    """One pod over its whole life. Times in Unix seconds."""

    pod: Pod
    appears: float
    first: float
    last: float
    begins: float
    """When it first shows that its service is there."""

    def at(self, at_seconds: float) -> Pod | None:
        if self.first <= at_seconds <= self.last:
            return self.pod
        if self.appears <= at_seconds < self.first:
            return replace(self.pod, ready=False, ready_at=None)
        return None


class Census:
    """Which pods each service had, at any time of a span."""

    def __init__(self, services: Sequence[Past], lives: Mapping[ObjectKey, Life], *, end_seconds: float) -> None:
        owners = Owners(services)
        self._services = services
        self._began: dict[ServiceKey, float] = {}
        self._pods: dict[ServiceKey, list[_Known]] = {past.signals.key: [] for past in services}
        living = {ObjectKey(p.signals.key.namespace, pod.name): pod for p in services for pod in p.signals.pods}
        for place, life in lives.items():
            key = owners.owner(place)
            if key is not None:
                self._pods[key].append(_known(place.name, life, living.get(place), end_seconds))
        for past in services:
            namespace = past.signals.key.namespace
            silent = [pod for pod in past.signals.pods if ObjectKey(namespace, pod.name) not in lives]
            pods = self._pods[past.signals.key]
            # Mute pods say when a service began only where no other does.
            began = [known.begins for known in pods] or [pod.created_at for pod in silent]
            self._began[past.signals.key] = min(began, default=math.inf)
            pods += [_silent(pod, end_seconds) for pod in silent]
            pods.sort(key=lambda known: known.pod.name)

    def everybody(self) -> list[ServiceSignals]:
        """The services with all pods that they had at any time."""
        return [
            replace(past.signals, pods=tuple(known.pod for known in self._pods[past.signals.key]))
            for past in self._services
        ]

    def at(self, at_seconds: float) -> list[ServiceSignals]:
        """The services with the pods that they had at that time.

        A service is left out before its first sign of life: that the source knows nothing of it does not say
        that it had nothing to do.
        """
        found = []
        for past in self._services:
            if self._began[past.signals.key] <= at_seconds:
                pods = [known.at(at_seconds) for known in self._pods[past.signals.key]]
                found.append(replace(past.signals, pods=tuple(pod for pod in pods if pod is not None)))
        return found


def _known(name: str, life: Life, pod: Pod | None, end_seconds: float) -> _Known:
    if pod is None:
        dead = Pod(name=name, created_at=life.first, ready_at=life.first, ready=True, restarted=True)
        return _Known(dead, life.first, life.first, life.last, life.first)
    # What is being deleted, cordoned or broken now was not so then: the past is told without it.
    served = Pod(name=name, created_at=pod.created_at, scheduled_at=pod.scheduled_at, ready_at=pod.ready_at, ready=True)
    if pod.ready_at is not None and 0.0 <= life.first - pod.ready_at <= _TRUSTED_SECONDS:
        return _Known(
            replace(served, restarted=pod.restarted), pod.created_at, pod.ready_at, end_seconds, pod.created_at
        )
    # Its samples are older than its latest readiness (it flapped), or begin with the span: no cold start to learn.
    ready_at = life.first if pod.ready_at is None else min(pod.ready_at, life.first)
    return _Known(replace(served, ready_at=ready_at, restarted=True), ready_at, ready_at, end_seconds, life.first)


def _silent(pod: Pod, end_seconds: float) -> _Known:
    """A pod without a sample: on its way, or ready and mute, which must not pass for idle."""
    ready_at = end_seconds if pod.ready_at is None else pod.ready_at
    return _Known(pod, pod.created_at, ready_at, end_seconds if pod.ready_at is not None else -1.0, pod.created_at)
