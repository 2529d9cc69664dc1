"""From kubectl apply to replicas: the operator as a process of its own, with its own small role, on a real API
server, a real Prometheus and simulated engines that write the true names.

The operator looks every second and the engines are 50 times as fast as real ones, so that a rise and a fall take
seconds. What is waited for is a state, with a deadline; where nothing may happen, ticks of the operator are
counted, and the API server's audit log tells what it wrote.
"""

from __future__ import annotations

import os
import time
from functools import partial

import pytest

from longtail_e2e import wait_until
from longtail_e2e.operator import OPERATOR
from longtail_e2e.world import World

pytestmark = pytest.mark.e2e

# 40 looks at the fleet; the five minutes that the operator must sit out are 20 looks at its default of 15 s.
OUTAGE_SECONDS = float(os.environ.get("LONGTAIL_E2E_OUTAGE_SECONDS", "40"))
BUSY = 45.0  # requests per second: about 25 at a time, where a replica has 8 slots


def test_advise_publishes_the_number_and_writes_nothing(world: World) -> None:
    world.deploy()
    world.serve(mode="Advise")
    world.engines.rate(world.service(), BUSY)
    wait_until(
        lambda: (world.operator.value("longtail_desired_replicas", namespace=world.namespace, name="r1") or 0) >= 3,
        timeout_seconds=60,
        what="advice to grow",
    )
    world.operator.wait_for_ticks(3)
    assert world.replicas() == 1
    assert world.get("rsv")["status"]["replicas"]["desired"] >= 3
    assert set(world.writes()) <= {"patch/reasoningservings/status", "create/events"}


def test_off_does_nothing_and_says_so(world: World) -> None:
    world.deploy()
    world.serve(mode="Off", minReplicas=2)
    assert world.wait_for_condition("ScalingActive", "False")["reason"] == "ScalingDisabled"
    world.operator.wait_for_ticks(2)
    assert world.replicas() == 1
    assert world.operator.value("longtail_desired_replicas", namespace=world.namespace, name="r1") is None


def test_a_deleted_resource_leaves_nothing_behind(world: World) -> None:
    world.deploy()
    before = world.get("deployment")["metadata"]["annotations"]
    world.serve(minReplicas=2)
    world.wait_for_replicas(lambda replicas: replicas == 2)
    world.wait_for_condition("Ready", "True")
    resource = world.get("rsv")
    assert "finalizers" not in resource["metadata"]
    assert set(resource["metadata"]["annotations"]) == {"kubectl.kubernetes.io/last-applied-configuration"}

    world.cluster.kubectl("delete", "rsv", "r1", "-n", world.namespace, "--timeout=10s")
    world.operator.wait_for_ticks(2)

    assert world.replicas() == 2
    assert world.get("deployment")["metadata"]["annotations"] == before
    assert "finalizers" not in world.get("deployment")["metadata"]
    assert world.operator.value("longtail_desired_replicas", namespace=world.namespace, name="r1") is None
    # What a finalizer or an annotation would have needed never happened, on any object:
    assert set(world.writes()) <= {
        "patch/deployments/scale",
        "patch/reasoningservings/status",
        "create/events",
    }


def test_resources_that_cannot_work_say_why_and_hurt_nobody(world: World) -> None:
    kubectl = world.cluster.kubectl
    world.serve("no-target")
    world.serve("no-scale", scaleTargetRef={"apiVersion": "v1", "kind": "ConfigMap", "name": "any"})
    world.serve("no-kind", scaleTargetRef={"apiVersion": "nowhere.io/v1", "kind": "Thing", "name": "any"})
    world.deploy("no-source")
    world.serve("no-source", metricsSource="nobody-configured-this")
    world.deploy("with-hpa")
    kubectl("autoscale", "deployment", "with-hpa", "--max=3", "-n", world.namespace)
    world.serve("with-hpa", minReplicas=2)
    world.deploy("healthy")
    world.serve("healthy", minReplicas=2)
    world.serve("younger", scaleTargetRef={"name": "healthy"}, minReplicas=5)

    expected = {
        "no-target": "TargetNotFound",
        "no-scale": "TargetNotScalable",
        "no-kind": "TargetKindUnknown",
        "no-source": "UnknownMetricsSource",
        "with-hpa": "HorizontalPodAutoscalerPresent",
        "younger": "TargetOwnedByAnother",
    }
    for name, reason in expected.items():
        assert world.wait_for_condition("Ready", "False", name)["reason"] == reason
    world.wait_for_condition("Ready", "True", "healthy")
    assert world.replicas("healthy") == 2
    assert world.replicas("with-hpa") == 1
    assert world.condition("Conflict", "with-hpa")["status"] == "True"
    assert world.condition("Conflict", "healthy")["status"] == "False"

    kubectl("delete", "hpa", "with-hpa", "-n", world.namespace)
    world.wait_for_replicas(lambda replicas: replicas == 2, "with-hpa")


def test_any_kind_with_a_scale_subresource_can_be_a_target(world: World) -> None:
    properties = {
        "spec": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
        "status": {
            "type": "object",
            "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}},
        },
    }
    scale = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    world.cluster.kubectl.apply(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "rollouts.e2e.longtail.dev"},
            "spec": {
                "group": "e2e.longtail.dev",
                "scope": "Namespaced",
                "names": {"kind": "Rollout", "plural": "rollouts"},
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
                        "subresources": {"status": {}, "scale": scale},
                    }
                ],
            },
        }
    )
    world.cluster.kubectl.wait_until_served("crd/rollouts.e2e.longtail.dev")
    rollout = {"apiVersion": "e2e.longtail.dev/v1", "kind": "Rollout"}
    world.apply(rollout | {"metadata": {"name": "r1"}, "spec": {"replicas": 1}})
    world.serve(scaleTargetRef=rollout | {"name": "r1"}, minReplicas=3)
    assert world.wait_for_condition("Ready", "False")["reason"] == "SelectorRequired"

    selector = '{"status": {"selector": "app=r1"}}'
    world.cluster.kubectl(
        "patch",
        "rollout",
        "r1",
        "-n",
        world.namespace,
        "--subresource=status",
        "--type=merge",
        "-p",
        selector,
    )
    world.cluster.kubectl.wait_until(
        lambda body: body["spec"]["replicas"] == 3, "rollout", "r1", "-n", world.namespace, timeout_seconds=40
    )


@pytest.fixture
def busy(world: World) -> World:
    """Pools that have grown under load; their names are the faults that await them."""
    for name in FAULTS:
        world.deploy(name)
        world.serve(name, maxReplicas=4)
        world.engines.rate(world.service(name), BUSY)
    for name in FAULTS:
        # As large as it may be and seen as a whole: from here on there is nothing but shrinking left.
        world.wait(partial(world.sees, name, 4), f"{name} to be seen at 4", seconds=60, name=name)
    return world


FAULTS = ("nan", "html", "negative")
QUIET_TICKS = 10
"""Twice the time that these pools take to shrink with good data."""


def test_malformed_metrics_never_remove_a_replica(busy: World) -> None:
    for kind in FAULTS:
        busy.engines.fault(busy.service(kind), kind)
    held = {}
    for kind in FAULTS:
        busy.wait_for_reason("MetricsAvailable", {"MetricsMissing", "MetricsStale"}, kind)
        held[kind] = busy.replicas(kind)
        # The load ends unseen: whoever took nonsense for "no load" would shrink now.
        busy.engines.silence(busy.service(kind))
    busy.operator.wait_for_ticks(QUIET_TICKS)
    assert {kind: busy.replicas(kind) for kind in FAULTS} == held

    for kind in FAULTS:
        busy.engines.fault(busy.service(kind), "none")
    for kind in FAULTS:
        busy.wait_for_replicas(held[kind].__gt__, kind)


def test_an_outage_of_prometheus_changes_nothing_not_even_across_a_restart(busy: World) -> None:
    name = FAULTS[0]
    conflict = busy.condition("Conflict", name)
    outage = busy.cluster.prometheus.outage()
    try:
        since = time.monotonic()
        busy.wait_for_reason("MetricsAvailable", {"MetricsMissing", "MetricsStale"}, name)
        held = {each: busy.replicas(each) for each in FAULTS}
        writes = busy.writes().count("patch/deployments/scale")
        for each in FAULTS:
            busy.engines.silence(busy.service(each))

        def unchanged_until(seconds: float) -> None:
            while time.monotonic() - since < seconds:
                busy.operator.wait_for_ticks(1)
                assert {each: busy.replicas(each) for each in FAULTS} == held

        unchanged_until(OUTAGE_SECONDS / 2)
        # A new process has no memory, and what it reads is nothing.
        busy.cluster.processes.restart(OPERATOR)
        unchanged_until(OUTAGE_SECONDS)
        assert busy.writes().count("patch/deployments/scale") == writes
        # The time of a condition outlives the process that wrote it.
        assert busy.condition("Conflict", name) == conflict
    finally:
        outage.start_again()
    busy.wait_for_condition("MetricsAvailable", "True", name)
    busy.wait_for_replicas(lambda replicas: replicas < held[name], name)
