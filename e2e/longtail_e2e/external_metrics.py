"""A metrics API and scale targets of our own, behind the API server's aggregation layer: the HPA's whole world.

The real HPA controller reads a target's ``/scale``, then each of its metrics, decides, and writes ``/scale``. All of
that is served here, on loopback, so a test scripts what every sync sees and records what it did, without pods, races
or sleeping: a ``GET`` of ``/scale`` is the beginning of a sync.

Two groups are served: ``external.metrics.k8s.io/v1beta1``, and ``scripted.longtail.dev/v1`` with the kind ``Target``
that has nothing but a ``/scale``.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

from longtail_e2e.aggregation import METRICS_GROUP, AggregatedApi, Group, external_metric
from longtail_e2e.cluster import Cluster
from longtail_e2e.controlplane import CONTROLLERS
from longtail_e2e.processes import wait_until

TARGET_GROUP: Final = "scripted.longtail.dev"
TARGET_VERSION: Final = "v1"
TARGET_KIND: Final = "Target"
TARGET_LABEL: Final = "target"
"""An HPA's metric selects ``target: NAME``, so that each has values of its own."""
_GOLDEN_RATIO: Final = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one sync sees.

    Attributes:
        metrics: Metric name to the quantities of its series, which the controller adds up; none is an empty answer.
        status_replicas: The target's ``status.replicas``; None is what ``spec.replicas`` says.
        spec_replicas: Somebody sets the target to this just before; None leaves it.
    """

    metrics: Mapping[str, Sequence[str]]
    status_replicas: int | None = None
    spec_replicas: int | None = None


@dataclass(slots=True, kw_only=True)
class Sync:
    """What one sync saw and did.

    ``at_seconds`` is on the monotonic clock: when its last metric was answered, or ``/scale`` if it asked for none. The
    controller reads its own clock next, and was back no later than ``back_seconds`` for the next sync.
    """

    at_seconds: float
    back_seconds: float = math.inf
    step: Step
    spec_replicas: int
    status_replicas: int
    asked: list[str] = field(default_factory=list)
    written: int | None = None

    @property
    def replicas_after(self) -> int:
        """What it left behind."""
        return self.spec_replicas if self.written is None else self.written


@dataclass(slots=True, kw_only=True)
class Target:
    """A scale target with its script; ``syncs`` grows by one with each sync of its HPA, up to the script's end."""

    script: Sequence[Step]
    replicas: int
    selector: str
    phase_seconds: float = 0.0
    syncs: list[Sync] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)


class ScriptedApi:
    """The server; a context manager that registers it with a cluster and takes it out again.

    Syncs begin on a grid of ``grid_seconds``, whatever the controller's own period (which must be shorter): so it is
    known beforehand which of them fall inside a window of the HPA's behavior. Each target has a phase of its own on
    that grid: all at once would keep each other waiting.
    """

    def __init__(self, cluster: Cluster, *, grid_seconds: float) -> None:
        self._cluster = cluster
        self._grid_seconds = grid_seconds
        self._targets: dict[tuple[str, str], Target] = {}
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._api = AggregatedApi(cluster, groups=_RESOURCES, answer=self._answer)

    def __enter__(self) -> Self:
        self._api.__enter__()
        try:
            kubectl = self._cluster.kubectl
            wait_until(
                lambda: TARGET_GROUP in kubectl.run("api-resources", "--no-headers", "--cached=false").stdout,
                timeout_seconds=30.0,
                what="discovery to show the scripted groups",
                interval_seconds=0.2,
            )
            # The controllers look for new kinds every 30 s; a new process looks at once.
            self._cluster.control_plane.restart(CONTROLLERS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._api.__exit__()

    def add(self, namespace: str, name: str, *, script: Sequence[Step], replicas: int, selector: str) -> Target:
        """A new target, before its HPA; ``replicas`` is its scale when the first sync comes."""
        with self._lock:
            # Multiples of the golden ratio spread over a circle evenly, however many they are.
            phase_seconds = self._grid_seconds * (len(self._targets) * _GOLDEN_RATIO % 1)
            target = Target(script=script, replicas=replicas, selector=selector, phase_seconds=phase_seconds)
            self._targets[namespace, name] = target
        return target

    # ------------------------------------------------------------------ what the controller asks

    def begin_sync(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Answer ``GET /scale``, at the next point of the grid; None when there is none, or its script has ended."""
        with self._lock:
            target = self._targets.get((namespace, name))
        if target is None or target.done.is_set():
            return None
        now = time.monotonic()
        if target.syncs:
            target.syncs[-1].back_seconds = now
        elapsed = now - self._began - target.phase_seconds
        time.sleep(self._grid_seconds - elapsed % self._grid_seconds)
        if len(target.syncs) == len(target.script):
            target.done.set()
            return None
        step = target.script[len(target.syncs)]
        if step.spec_replicas is not None:
            target.replicas = step.spec_replicas
        status = target.replicas if step.status_replicas is None else step.status_replicas
        target.syncs.append(
            Sync(at_seconds=time.monotonic(), step=step, spec_replicas=target.replicas, status_replicas=status)
        )
        return self._scale(namespace, name, target, status)

    def metric(self, namespace: str, metric: str, target_name: str) -> dict[str, Any]:
        """Answer a metric of the sync under way."""
        sync = self._targets[namespace, target_name].syncs[-1]
        sync.asked.append(metric)
        sync.at_seconds = time.monotonic()
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return external_metric(metric, sync.step.metrics.get(metric, ()), time=now)

    def write(self, namespace: str, name: str, replicas: int) -> dict[str, Any]:
        """Answer ``PUT /scale``."""
        target = self._targets[namespace, name]
        target.syncs[-1].written = target.replicas = replicas
        return self._scale(namespace, name, target, target.syncs[-1].status_replicas)

    @staticmethod
    def _scale(namespace: str, name: str, target: Target, status_replicas: int) -> dict[str, Any]:
        return {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {"namespace": namespace, "name": name, "resourceVersion": str(1 + len(target.syncs))},
            "spec": {"replicas": target.replicas},
            "status": {"replicas": status_replicas, "selector": target.selector},
        }

    def _answer(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any] | None:
        url = urlsplit(path)
        scale, metric = _SCALE.fullmatch(url.path), _METRIC.fullmatch(url.path)
        if scale and body is not None:
            # Zero replicas are left out of the JSON.
            return self.write(scale[1], scale[2], replicas=body["spec"].get("replicas", 0))
        if scale and method == "GET":
            return self.begin_sync(scale[1], scale[2])
        if metric and method == "GET":
            selector = parse_qs(url.query).get("labelSelector", [""])[0]
            return self.metric(metric[1], metric[2], target_name=selector.removeprefix(f"{TARGET_LABEL}="))
        return None


_RESOURCES: Final[Mapping[Group, Sequence[Mapping[str, Any]]]] = {
    # An external metric is looked up by its name; there is no list of them.
    METRICS_GROUP: [],
    # Nothing can be listed or watched: garbage collection and quota leave the kind alone.
    (TARGET_GROUP, TARGET_VERSION): [
        {"name": "targets", "singularName": "target", "namespaced": True, "kind": TARGET_KIND, "verbs": ["get"]},
        {
            "name": "targets/scale",
            "singularName": "",
            "namespaced": True,
            "group": "autoscaling",
            "version": "v1",
            "kind": "Scale",
            "verbs": ["get", "update"],
        },
    ],
}
_SCALE: Final = re.compile(rf"/apis/{TARGET_GROUP}/{TARGET_VERSION}/namespaces/([^/]+)/targets/([^/]+)/scale")
_METRIC: Final = re.compile(rf"/apis/{'/'.join(METRICS_GROUP)}/namespaces/([^/]+)/([^/]+)")
