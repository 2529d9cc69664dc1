"""An API server that refuses, stalls, hangs up and forgets: the operator is back within two looks at the fleet.

Looks are counted from the end of each fault. The operator reaches the API server through a proxy that fails on demand;
everybody else does not, so that what it wrote is told by the audit log and what it sees by its metrics.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from longtail_e2e import Cluster, wait_until
from longtail_e2e.controlplane import API_SERVER
from longtail_e2e.faults import Asked, Fault, FaultyApi
from longtail_e2e.operator import NAMESPACE, Operator, apply_definition

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
NAME = "api-faults"
INTERVAL_SECONDS = 2.0
"""Two looks are 4 s: a watch tries again every 2 s."""
TICKS = 2


class Fleet:
    """A Deployment without pods whose number follows ``minReplicas``, and the operator behind the proxy."""

    def __init__(self, *, cluster: Cluster, operator: Operator, proxy: FaultyApi, namespace: str) -> None:
        self.cluster = cluster
        self.operator = operator
        self.proxy = proxy
        self.namespace = namespace
        self.wanted = 1

    def deploy(self, name: str = "r1") -> None:
        labels = {"app": name}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "engine", "image": "none"}]}}
        self.cluster.kubectl(
            "apply",
            "-n",
            self.namespace,
            "-f",
            "-",
            manifests={
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name},
                # Paused from the start: its replicas are a number, no pod is ever made.
                "spec": {
                    "paused": True,
                    "replicas": 1,
                    "selector": {"matchLabels": labels},
                    "template": template,
                },
            },
        )

    def ask(self, minimum: int, name: str = "r1") -> None:
        behavior = {"scaleUp": {"policies": [{"type": "Pods", "value": 50, "periodSeconds": 1}]}}
        spec = {
            "mode": "Active",
            "scaleTargetRef": {"name": name},
            "minReplicas": minimum,
            "maxReplicas": 1000,
            "behavior": behavior,
        }
        self.cluster.kubectl(
            "apply",
            "-n",
            self.namespace,
            "-f",
            "-",
            manifests={
                "apiVersion": "longtail.dev/v1alpha1",
                "kind": "ReasoningServing",
                "metadata": {"name": name},
                "spec": spec,
            },
        )

    def ask_for_more(self) -> int:
        self.wanted += 1
        self.ask(self.wanted)
        return self.wanted

    def replicas(self, name: str = "r1") -> int:
        found: int = self.cluster.kubectl.get("deployment", name, "-n", self.namespace)["spec"]["replicas"]
        return found

    def ticks_until_met(self, what: str, *, since: float) -> float:
        """Wait until the target is as large as it was last asked to be; return how many looks that took."""
        wait_until(lambda: self.replicas() == self.wanted, timeout_seconds=40.0, what=what, interval_seconds=0.1)
        return self.operator.ticks() - since

    def scales(self) -> list[int]:
        """Every number that the operator asked for, in this order."""
        user = f"system:serviceaccount:{NAMESPACE}:{NAME}"
        return [
            event["requestObject"]["spec"]["replicas"]
            for event in self.cluster.control_plane.audit_events()
            if event["user"]["username"] == user
            # Discovery is about no object.
            and event.get("objectRef", {}).get("namespace") == self.namespace
            and event["objectRef"].get("subresource") == "scale"
            and event["verb"] == "patch"
            and event["responseStatus"]["code"] == 200
        ]


@pytest.fixture(scope="module")
def proxy(cluster: Cluster) -> Iterator[FaultyApi]:
    authority = cluster.control_plane.certificate_authority
    with FaultyApi(api_url=cluster.api_url, certificate_authority=authority, port=cluster.ports.take()) as running:
        yield running


@pytest.fixture(scope="module")
def operator(cluster: Cluster, proxy: FaultyApi) -> Iterator[Operator]:
    apply_definition(cluster, crds=ROOT / "crds")
    running = Operator(cluster, name=NAME, interval_seconds=INTERVAL_SECONDS)
    source = {"url": cluster.prometheus_url, "scrapeIntervalSeconds": 1.0}
    running.start(kubeconfig=proxy.kubeconfig(running.install()), sources={"default": source})
    yield running
    cluster.processes.stop(NAME)


@pytest.fixture
def fleet(cluster: Cluster, operator: Operator, proxy: FaultyApi, namespace: str) -> Fleet:
    fleet = Fleet(cluster=cluster, operator=operator, proxy=proxy, namespace=namespace)
    fleet.deploy()
    fleet.ask_for_more()
    fleet.ticks_until_met("the first size", since=operator.ticks())
    return fleet


def _anything(asked: Asked) -> bool:
    return not asked.watch


def _a_scale(asked: Asked) -> bool:
    return asked.method == "PATCH" and asked.path.endswith("/scale")


FAULTS = {
    "429": Fault(concerns=_anything, status=429, retry_after_seconds=1),
    "500": Fault(concerns=_anything, status=500),
    "409 on every scale": Fault(concerns=_a_scale, status=409),
    "connections dropped": Fault(concerns=_anything, drop=True),
    "no answer in time": Fault(concerns=_a_scale, delay_seconds=30.0, drop=True),
}


def test_a_fault_of_the_api_server_delays_a_write_and_nothing_else(fleet: Fleet) -> None:
    took: dict[str, float] = {}
    for name, fault in FAULTS.items():
        before = fleet.replicas()
        with fleet.proxy.fault(fault):
            fleet.ask_for_more()
            # Met by the fault in the middle of what it was about to do.
            wait_until(
                lambda: fleet.proxy.struck("PATCH", "/scale") + fleet.proxy.struck("GET", "/scale") > 0,
                timeout_seconds=20.0,
                what=f"{name} to be met",
            )
            assert fleet.replicas() == before
        took[name] = fleet.ticks_until_met(f"recovery from {name}", since=fleet.operator.ticks())
    print(took)
    assert all(ticks <= TICKS for ticks in took.values()), took
    assert fleet.operator.leads()
    # Each size was asked for once, in order: no retry wrote twice, and nothing was taken back.
    assert fleet.scales() == list(range(2, fleet.wanted + 1))


def test_what_is_deleted_while_no_watch_looks_is_forgotten(fleet: Fleet) -> None:
    fleet.deploy("ghost")
    fleet.ask(2, "ghost")
    wait_until(lambda: fleet.replicas("ghost") == 2, timeout_seconds=20.0, what="ghost to be served")

    def desired() -> float | None:
        return fleet.operator.value("longtail_desired_replicas", namespace=fleet.namespace, name="ghost")

    assert desired() == 2
    # No watch gets through, and when one does, what it had seen last is too old: it has to list anew.
    with fleet.proxy.fault(Fault(concerns=lambda asked: asked.watch, drop=True)):
        assert fleet.proxy.cut_streams() > 5
        fleet.cluster.kubectl("delete", "rsv", "ghost", "-n", fleet.namespace)
        fleet.operator.wait_for_ticks(1)
        assert desired() is not None
    with fleet.proxy.fault(Fault(concerns=lambda asked: asked.watch, gone=True)):
        wait_until(
            lambda: fleet.proxy.struck("GET", "/reasoningservings") > 0, timeout_seconds=20.0, what="410 to be told"
        )
    since = fleet.operator.ticks()
    fleet.ask_for_more()
    wait_until(lambda: desired() is None, timeout_seconds=30.0, what="the ghost to vanish", interval_seconds=0.1)
    forgotten = fleet.operator.ticks() - since
    seen = fleet.ticks_until_met("the watch to be back", since=since)
    print({"ghost forgotten": forgotten, "edit seen": seen})
    assert forgotten <= TICKS
    assert seen <= TICKS
    assert (fleet.operator.value("longtail_ghosts_total", kind="ReasoningServing") or 0.0) >= 1.0
    assert fleet.replicas("ghost") == 2


def test_a_restarted_api_server_is_taken_up_again(fleet: Fleet) -> None:
    plane = fleet.cluster.control_plane
    with plane.stop(API_SERVER):
        since = fleet.operator.ticks()
        wait_until(lambda: fleet.operator.ticks() > since, timeout_seconds=20.0, what="a look at nothing")
    fleet.ask_for_more()
    took = fleet.ticks_until_met("recovery from the restart", since=fleet.operator.ticks())
    print({"API server restarted": took})
    assert took <= TICKS
    assert fleet.scales() == [2, 3]
