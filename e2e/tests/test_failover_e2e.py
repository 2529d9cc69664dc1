"""Three operators and one Lease: a leader that dies, stops or freezes, and what the audit log says of the writers.

A resource is edited all the time, so that there is always a status to write, and a scale of a Deployment without
pods. Whoever wrote what is told by its service account. The Lease has its default durations: 15, 10 and 2 s.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from longtail_e2e import Cluster, wait_until
from longtail_e2e.freezable import FREEZE_SECONDS
from longtail_e2e.operator import NAMESPACE, Operator, apply_definition

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
TAKEOVER_SECONDS = 20.0
FREEZE = 30.0


class Editor:
    """Edits one resource again and again; every edit is one replica more to ask for."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._edit, name="editor")

    def __enter__(self) -> None:
        labels = {"app": "r1"}
        containers = [{"name": "engine", "image": "none"}]
        self._apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "r1"},
                "spec": {
                    # Its replicas are a number and nothing more: no ReplicaSet is ever made.
                    "paused": True,
                    "replicas": 1,
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
                },
            }
        )
        self._serve(minimum=1)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _edit(self) -> None:
        for minimum in itertools.count(2):
            if self._stop.wait(0.7):
                return
            self._serve(minimum=minimum)

    def _serve(self, *, minimum: int) -> None:
        behavior = {"scaleUp": {"policies": [{"type": "Pods", "value": 50, "periodSeconds": 1}]}}
        spec = {
            "mode": "Active",
            "scaleTargetRef": {"name": "r1"},
            "minReplicas": minimum,
            "maxReplicas": 1000,
            "behavior": behavior,
        }
        metadata = {"name": "r1"}
        self._apply(
            {"apiVersion": "longtail.dev/v1alpha1", "kind": "ReasoningServing", "metadata": metadata, "spec": spec}
        )

    def _apply(self, manifest: dict[str, Any]) -> None:
        self._cluster.kubectl("apply", "-n", self._namespace, "-f", "-", manifests=manifest)


class Operators:
    """Operators by name, and what they wrote."""

    def __init__(self, cluster: Cluster, *names: str) -> None:
        self._cluster = cluster
        self._members = {name: Operator(cluster, name=name, flags=["--status-interval-seconds=0"]) for name in names}

    def start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(FREEZE_SECONDS, str(FREEZE))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        source = {"url": self._cluster.prometheus_url, "scrapeIntervalSeconds": 1.0}
        for operator in self._members.values():
            operator.start(
                kubeconfig=operator.install(),
                sources={"default": source},
                program=[sys.executable, "-m", "longtail_e2e.freezable"],
            )

    def stop(self, name: str) -> None:
        del self._members[name]
        self._cluster.processes.stop(name)

    def stop_all(self) -> None:
        for name in list(self._members):
            self.stop(name)

    def signal(self, name: str, number: signal.Signals) -> None:
        self._cluster.processes[name].popen.send_signal(number)

    def leader(self, *, besides: str = "") -> str:
        """Wait until one leads."""
        found: list[str] = []

        def leads() -> bool:
            # One that is frozen does not answer, and is not asked.
            found[:] = [name for name, operator in self._members.items() if name != besides and operator.leads()]
            return bool(found)

        wait_until(leads, timeout_seconds=30.0, what="a leader", interval_seconds=0.2)
        return found[0]

    def writes(self) -> list[tuple[float, str]]:
        """Return when each write of an operator arrived, in this order, and whose it was."""
        prefix = f"system:serviceaccount:{NAMESPACE}:fail-"
        return sorted(
            (
                datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp(),
                event["user"]["username"][len(prefix) :],
            )
            for event in self._cluster.control_plane.audit_events()
            if event["user"]["username"].startswith(prefix) and event["verb"] not in {"get", "list", "watch"}
        )

    def next_writer(self, *, since: float, besides: str) -> float:
        """Wait for a write of somebody else; return how many seconds after ``since`` it came."""
        found: list[float] = []

        def wrote() -> bool:
            found[:] = [at for at, name in self.writes() if at > since and f"fail-{name}" != besides]
            return bool(found)

        wait_until(wrote, timeout_seconds=40.0, what="the next writer", interval_seconds=0.2)
        return found[0] - since


@pytest.fixture
def operators(cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operators]:
    apply_definition(cluster, crds=ROOT / "crds")
    running = Operators(cluster, "fail-a", "fail-b", "fail-c")
    try:
        running.start(monkeypatch)
        with Editor(cluster, namespace):
            yield running
    finally:
        running.stop_all()


def test_whatever_befalls_the_leader_another_follows_and_no_two_ever_write(
    operators: Operators, cluster: Cluster, namespace: str
) -> None:
    took: dict[str, float] = {}
    order = [operators.leader()]
    operators.next_writer(since=time.time(), besides="")

    # The whole process stands still, for twice the time of a Lease.
    stopped_at, stopped = time.time(), order[-1]
    operators.signal(stopped, signal.SIGSTOP)
    took["stopped process"] = operators.next_writer(since=stopped_at, besides=stopped)
    order.append(operators.leader(besides=stopped))

    # Its successor's event loop stands still; the first one wakes up meanwhile and believes that it leads.
    frozen_at, frozen = time.time(), order[-1]
    operators.signal(frozen, signal.SIGUSR1)
    wait_until(lambda: time.time() > stopped_at + FREEZE, timeout_seconds=FREEZE, what="the end of the freeze")
    operators.signal(stopped, signal.SIGCONT)
    took["frozen event loop"] = operators.next_writer(since=frozen_at, besides=frozen)
    order.append(operators.leader(besides=frozen))

    # Killed while the frozen one wakes up.
    killed_at, killed = time.time(), order[-1]
    operators.signal(killed, signal.SIGKILL)
    operators.stop(killed)
    took["killed"] = operators.next_writer(since=killed_at, besides=killed)
    order.append(operators.leader())

    # An orderly stop gives the Lease back.
    wait_until(lambda: time.time() > frozen_at + FREEZE, timeout_seconds=FREEZE, what="the end of the freeze")
    ended_at, ended = time.time(), order[-1]
    operators.stop(ended)
    took["orderly stop"] = operators.next_writer(since=ended_at, besides=ended)
    order.append(operators.leader())

    print(json.dumps({event: round(seconds, 1) for event, seconds in took.items()}))
    assert all(seconds < TAKEOVER_SECONDS for seconds in took.values()), took
    assert took["orderly stop"] < 5.0
    # Each wrote in one piece, and never again until it led again.
    writers = [f"fail-{name}" for name, _ in itertools.groupby(name for _, name in operators.writes())]
    assert writers == order
    # And what was written is what was asked for.
    status = cluster.kubectl.get("rsv", "r1", "-n", namespace)["status"]
    assert status["replicas"]["desired"] > 10
