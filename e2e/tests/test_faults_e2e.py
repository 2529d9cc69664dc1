"""What must not happen when the world around the operator breaks, and what must still happen.

All pools live at the same time, each with its own fault, and each test waits for its own. Long faults are counted in
looks at the fleet, here one every three seconds: half an hour without Prometheus is 120 looks at the default of 15 s.
Nothing that the operator decides by is older than a scale-down window, here 5 s, so 14 looks are eight windows where
half an hour is six. `LONGTAIL_E2E_FAULT_LOOKS` makes them as many as anybody has patience for.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from longtail_e2e import Cluster, CommandError
from longtail_e2e.kwok import gpu_node
from longtail_e2e.metrics_faults import FaultyMetrics, MetricsFault
from longtail_e2e.operator import OPERATOR, Engines, Operator, apply_definition
from longtail_e2e.world import World

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
LOOKS = int(os.environ.get("LONGTAIL_E2E_FAULT_LOOKS", "14"))
TICK_SECONDS = 3.0
"""Three metrics sources and ten pools, on two cores."""
CALM, BUSY = 6.0, 26.0
"""Requests a second: about 3 and 14 at a time, of 8 that a replica holds: far from what one serves, below what two do."""
OVER = 35.0
"""About 19 at a time, of 16 that two hold. Who queues is no accident: 14 at a time are now and then no more than 8."""
FLOOD = 80.0
"""About 44 at a time, more than any pool here may serve: the largest gets four replicas that hold 32."""
ONE_A_LOOK: dict[str, Any] = {
    "scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 3}]},
    "scaleDown": {"stabilizationWindowSeconds": 5},
}
PATIENCE_SECONDS = 300.0
"""For a state to come: what is slow here is the machine, and a forecast that has seen a flood."""
BROKEN, DOOR = "broken", "door"
"""Metrics sources that break."""
METRICS_FAULTS = (MetricsFault.STALE, *(f for f in MetricsFault if f not in {MetricsFault.NONE, MetricsFault.STALE}))
"""Stale first: until what it shows is old, it is what was true as it began, and that must not be an idle pool."""

Scenario = Callable[[World, FaultyMetrics], None]


@pytest.fixture(scope="module")
def faulty(cluster: Cluster) -> Iterator[FaultyMetrics]:
    with FaultyMetrics(prometheus_url=cluster.prometheus_url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def operator(cluster: Cluster, engines: Engines, faulty: FaultyMetrics) -> Iterator[Operator]:
    apply_definition(cluster, crds=ROOT / "crds")
    running = Operator(cluster, interval_seconds=TICK_SECONDS)
    sources = {"default": cluster.prometheus_url} | {name: faulty.url(name) for name in (BROKEN, DOOR)}
    running.start(
        kubeconfig=running.install(),
        sources={name: {"url": url, "scrapeIntervalSeconds": 1.0} for name, url in sources.items()},
    )
    yield running
    cluster.processes.stop(OPERATOR)


@pytest.fixture(scope="module")
def scenarios(
    request: pytest.FixtureRequest, cluster: Cluster, operator: Operator, engines: Engines, faulty: FaultyMetrics
) -> Iterator[dict[Scenario, Future[None]]]:
    """The scenarios of the tests that were selected, all at once, each in a namespace of its own."""
    selected = {item.callspec.id for item in request.session.items if hasattr(item, "callspec")}
    wanted = [scenario for scenario in SCENARIOS if scenario.__name__ in selected]
    nodes = cluster.nodes.add(count=2, gpus=16, prefix="faults")
    worlds = [
        World(cluster=cluster, operator=operator, engines=engines, namespace=f"fault-{uuid.uuid4().hex[:8]}")
        for _ in wanted
    ]
    for world in worlds:
        cluster.kubectl("create", "namespace", world.namespace)
    with ThreadPoolExecutor(len(wanted)) as pool:
        yield {scenario: pool.submit(scenario, world, faulty) for scenario, world in zip(wanted, worlds, strict=True)}
    for world in worlds:
        cluster.kubectl("delete", "namespace", world.namespace, "--wait=false")
    cluster.nodes.remove(*nodes)


def whatever_is_wrong_with_the_metrics_no_replica_goes(world: World, faulty: FaultyMetrics) -> None:
    """One fault after the other, LOOKS in all; one pool loses its load unseen, another gets more."""
    names = ("quiet", "loud")
    for name in names:
        world.deploy(name)
        serve(world, name, metricsSource=BROKEN, maxReplicas=2)
        world.engines.rate(world.service(name), OVER)
    for name in names:
        wait(world, partial(world.sees, name, 2), f"{name} to be seen at 2", name)
    for fault in METRICS_FAULTS:
        faulty.set(BROKEN, fault)
        wait(world, lambda: world.condition("MetricsAvailable", "quiet")["status"] == "False", f"{fault} to be noticed")
        if fault is METRICS_FAULTS[0]:
            world.engines.silence(world.service("quiet"))
        for _ in range(math.ceil(LOOKS / len(METRICS_FAULTS))):
            world.operator.wait_for_ticks(1)
            assert world.replicas("quiet") == 2, f"{fault}: {world.explain('quiet')}"
    # What is fresh still counts: the pod that reports is full, and others wait at it.
    faulty.set(BROKEN, MetricsFault.PARTIAL)
    serve(world, "loud", metricsSource=BROKEN, maxReplicas=4)
    world.engines.rate(world.service("loud"), FLOOD)
    wait(world, lambda: world.replicas("loud") > 2, "loud to grow by what is fresh", "loud")
    assert world.scaled_down() == [], "the audit log shows a scale-down"
    world.engines.silence(world.service("loud"))
    faulty.set(BROKEN, MetricsFault.NONE)
    for name in names:
        wait(world, partial(_is_small, world, name), f"{name} to shrink again", name)


def _is_small(world: World, name: str) -> bool:
    return world.replicas(name) == 1


def capacity_that_cannot_be_had_is_neither_counted_nor_asked_for_again(world: World, _: FaultyMetrics) -> None:
    """Four GPUs on two nodes for a pool that needs more; then one node is lost, and comes back."""
    label = f"short-{world.namespace}"
    first, second = f"{label}-0", f"{label}-1"

    def add(*names: str) -> None:
        taint = {"key": "nodes", "value": label, "effect": "NoSchedule"}
        manifests = (gpu_node(name=name, gpus=2, labels={"nodes": label}) for name in names)
        world.cluster.kubectl.apply(*(node | {"spec": {"taints": [taint]}} for node in manifests))

    def ready() -> int:
        return int(world.get("rsv").get("status", {}).get("replicas", {}).get("ready", 0))

    def told() -> str:
        return str(world.condition("CapacityPending").get("message", ""))

    add(first, second)
    world.deploy(nodes=label)
    serve(world, "r1", maxReplicas=30, startup={"seconds": 5}, behavior=ONE_A_LOOK)
    wait(world, lambda: ready() == 1, "the first to be ready")
    world.engines.rate(world.service(), FLOOD)
    wait(world, lambda: "no more replicas are asked for" in told(), "longtail to stop asking")
    condition = world.condition("CapacityPending")
    assert (condition["status"], condition["reason"]) == ("True", "Unschedulable")
    assert "Insufficient nvidia.com/gpu" in condition["message"]
    assert world.operator.value("longtail_supply_short", namespace=world.namespace, name="r1") == 1.0
    wait(world, lambda: ready() == 4, "all four GPUs to be in use")
    asked = world.replicas()
    assert 4 < asked < 30
    _hold(world, asked)

    lost = world.cluster.kubectl.get("pods", "-n", world.namespace, f"--field-selector=spec.nodeName={second}")
    world.cluster.nodes.remove(second)
    pods = [f"pod/{pod['metadata']['name']}" for pod in lost["items"]]
    world.cluster.kubectl("delete", *pods, "-n", world.namespace, "--force", "--grace-period=0")
    wait(world, lambda: ready() == 2, "no more than two to be believed")
    _hold(world, asked)

    add(second)
    wait(world, lambda: ready() == 4, "four to be there again")
    world.engines.silence(world.service())
    wait(world, lambda: world.condition("CapacityPending")["status"] == "False", "nothing to be pending")
    wait(world, lambda: world.replicas() == 1, "the pool to shrink")
    world.cluster.kubectl("delete", "rsv/r1", "deployment/r1", "-n", world.namespace)
    world.cluster.nodes.remove(first, second)


def _hold(world: World, asked: int) -> None:
    for _ in range(LOOKS // 2):
        world.operator.wait_for_ticks(1)
        assert world.replicas() == asked, "what Kubernetes tries anew by itself is not asked for again"


def an_image_that_cannot_be_pulled_is_told_and_probed_ever_more_rarely(world: World, _: FaultyMetrics) -> None:
    """The image of the first replica is there. Those that are asked for later cannot pull it, for a while."""
    world.deploy(create_seconds=45.0)
    wait(world, lambda: world.get("deployment").get("status", {}).get("readyReplicas") == 1, "the first to be ready")
    serve(world, "r1", maxReplicas=30, startup={"seconds": 5}, behavior=ONE_A_LOOK)
    wait(world, partial(world.sees, "r1", 1), "r1 to be seen at 1")
    world.engines.rate(world.service(), FLOOD)

    def stopped_asking() -> bool:
        _fail_to_pull(world)
        condition = world.condition("CapacityPending")
        return (
            condition["reason"] == "ContainerNotStarting" and "no more replicas are asked for" in condition["message"]
        )

    wait(world, stopped_asking, "longtail to stop asking")
    assert "ImagePullBackOff" in world.condition("CapacityPending")["message"]
    asked = world.replicas()
    assert 1 < asked < 30
    for _look in range(4):
        world.operator.wait_for_ticks(1)
        _fail_to_pull(world)
    # Probes, after 5 and 10 s and ever more rarely. KWOK has the image pulled after 45 s.
    most = world.replicas()
    assert most <= asked + 2
    world.engines.silence(world.service())
    # How far is up to the forecast: having seen starts of half a minute and more, it remembers the flood for minutes.
    wait(world, lambda: world.replicas() < most, "the pool to shrink")


def _fail_to_pull(world: World) -> None:
    """Say what a kubelet says of an image that is not there, of every pod that has a node and has not started."""
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "none"'}
    container = {
        "name": "engine",
        "image": "none",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": {"waiting": waiting},
    }
    patch = {"status": {"containerStatuses": [container]}}
    for pod in world.cluster.kubectl.get("pods", "-n", world.namespace)["items"]:
        if not pod["status"].get("containerStatuses") and pod["spec"].get("nodeName"):
            # It may be gone by now: a start that was taken back.
            with contextlib.suppress(CommandError):
                world.patch("pod", pod["metadata"]["name"], patch, subresource="status")


def metrics_that_lie_are_bounded_and_recovered_from(world: World, _: FaultyMetrics) -> None:
    """Every number is 10⁶, which no engine can hold, or stays what it was at the height of the load."""
    for name in ("million", "freeze"):
        world.deploy(name)
        serve(world, name, maxReplicas=3)
        world.engines.rate(world.service(name), CALM)
    for name in ("million", "freeze"):
        wait(world, partial(world.sees, name, 1), f"{name} to be seen at 1", name)
    world.engines.rate(world.service("freeze"), BUSY)
    wait(world, lambda: world.replicas("freeze") > 1, "freeze to grow", "freeze")
    for name in ("million", "freeze"):
        world.engines.fault(world.service(name), name)
    world.engines.silence(world.service("freeze"))
    for _look in range(LOOKS):
        world.operator.wait_for_ticks(1)
        assert max(world.replicas_of(["million", "freeze"]).values()) <= 3
    for name in ("million", "freeze"):
        world.engines.fault(world.service(name), "none")
        world.engines.silence(world.service(name))
    for name in ("million", "freeze"):
        wait(world, partial(_is_small, world, name), f"{name} to recover", name)


def a_pool_sleeps_when_idle_and_wakes_for_whoever_waits_at_the_door(world: World, faulty: FaultyMetrics) -> None:
    door = 'sum(llm_d_epp_flow_control_queue_size{{inference_pool="{}"}})'.format
    names = ("by-query", "by-gateway")
    for name in (*names, "blind"):
        world.deploy(name, gateway=True)
    sleep: dict[str, Any] = {"idleSeconds": 12}
    query = {"activation": {"query": door(world.service("by-query"))}}
    serve(world, "by-query", minReplicas=0, scaleToZero=sleep | query)
    serve(world, "by-gateway", minReplicas=0, scaleToZero=sleep, gateway={"inferencePool": world.service("by-gateway")})
    query = {"activation": {"query": door(world.service("blind"))}}
    fallback = {"afterSeconds": 6, "replicas": 2}
    serve(world, "blind", metricsSource=DOOR, minReplicas=0, scaleToZero=sleep | query, fallback=fallback)
    for name in names:
        world.engines.rate(world.service(name), CALM)
    wait(world, lambda: world.replicas("blind") == 0, "the idle pool to sleep", "blind")
    # Long thoughts are not idleness.
    assert min(world.replicas_of(names).values()) >= 1

    faulty.set(DOOR, MetricsFault.GONE)
    wait(world, lambda: world.replicas("blind") == 2, "the pool that nobody can wake to wake by itself", "blind")

    for name in names:
        world.engines.rate(world.service(name), 0.0)
    wait(world, lambda: world.replicas_of(names) == dict.fromkeys(names, 0), "both to sleep")
    assert world.condition("ScalingActive", "by-query")["status"] == "True"
    for name in names:
        world.engines.rate(world.service(name), CALM)
    for name in names:
        wait(world, partial(_serves, world, name), f"{name} to serve those who waited at the door", name)
        truth = world.engines.truth(world.service(name))
        assert (truth["killed_requests"], truth["lost_tokens"]) == (0, 0)


def _serves(world: World, name: str) -> bool:
    truth = world.engines.truth(world.service(name))
    return bool(truth["running_requests"] > 0 and truth["door_requests"] == 0)


def other_hands_are_respected_and_a_contest_is_told_once(world: World, _: FaultyMetrics) -> None:
    names = ("launch", "paused", "contested")
    for name in names:
        world.deploy(name)
        serve(world, name, manualScalingGraceSeconds=30)
    for name in names:
        wait(world, partial(world.sees, name, 1), f"{name} to be seen", name)
    kubectl = partial(world.cluster.kubectl, "-n", world.namespace)
    kubectl("annotate", "rsv", "paused", "longtail.dev/pause=true")
    wait(world, lambda: world.condition("Ready", "paused")["reason"] == "Paused", "the pause to be noticed", "paused")
    world.engines.rate(world.service("paused"), FLOOD)

    kubectl("scale", "deployment", "launch", "--replicas=3")
    since = time.monotonic()
    wait(world, partial(_mentions, world, "launch", "kubectl set 3 replicas"), "the hand to be noticed", "launch")
    while time.monotonic() - since < 25.0:
        world.operator.wait_for_ticks(1)
        assert world.replicas("launch") == 3
    wait(world, lambda: world.replicas("launch") == 1, "the grace to end", "launch")

    for replicas in (2, 3, 2):
        kubectl("scale", "deployment", "contested", f"--replicas={replicas}")
        world.operator.wait_for_ticks(2)
    contest = partial(world.condition, "Conflict", "contested")
    wait(world, lambda: contest()["reason"] == "ReplicasContested", "the contest to be told", "contested")
    assert contest()["status"] == "True"
    assert "kubectl keeps setting" in contest()["message"]
    world.operator.wait_for_ticks(3)
    events = kubectl("get", "events.v1.events.k8s.io", "--field-selector=reason=ReplicasContested", "-o", "name")
    assert len(events.split()) <= 1, "told once, not every tick (and a tick that is cut short tells nothing)"

    assert world.replicas("paused") == 1
    kubectl("annotate", "rsv", "paused", "longtail.dev/pause-")
    wait(world, lambda: world.replicas("paused") > 1, "the pause to end", "paused")


def _mentions(world: World, name: str, words: str) -> bool:
    """Whether the last decision says so on any of its rungs."""
    ladder = world.get("rsv", name).get("status", {}).get("decision", {}).get("ladder", [])
    return any(words in step["because"] for step in ladder)


def serve(world: World, name: str, **spec: Any) -> None:
    """A resource that keeps no margin for a forecast: what is tried here is not the forecast."""
    world.serve(name, objective={"attainmentPercent": 50}, **spec)


def wait(world: World, condition: Callable[[], bool], what: str, name: str = "r1") -> None:
    world.wait(condition, what, seconds=PATIENCE_SECONDS, name=name)


SCENARIOS: tuple[Scenario, ...] = (
    whatever_is_wrong_with_the_metrics_no_replica_goes,
    capacity_that_cannot_be_had_is_neither_counted_nor_asked_for_again,
    an_image_that_cannot_be_pulled_is_told_and_probed_ever_more_rarely,
    metrics_that_lie_are_bounded_and_recovered_from,
    a_pool_sleeps_when_idle_and_wakes_for_whoever_waits_at_the_door,
    other_hands_are_respected_and_a_contest_is_told_once,
)


@pytest.mark.parametrize("scenario", [pytest.param(each, id=each.__name__) for each in SCENARIOS])
def test_under_faults(scenario: Scenario, scenarios: dict[Scenario, Future[None]]) -> None:
    scenarios[scenario].result()
