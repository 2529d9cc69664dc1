"""No thought is cut: pools that rise and fall all the time on a real API server, and an operator that is killed.

Many small pools side by side: a replica holds four requests, engines are 50 times as fast as real ones, and a long
thought takes some ten seconds. What happened is read from the engines (requests killed, tokens lost) and from the
API server's audit log (who was written, in which order).
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from longtail_e2e import Cluster, wait_until
from longtail_e2e.drains import LABEL, Account, account
from longtail_e2e.errors import NotYetError
from longtail_e2e.kwok import startup_annotations
from longtail_e2e.operator import ENGINES, NAMESPACE, OPERATOR, USER, Engines, Operator, apply_definition
from longtail_e2e.pools import Pools
from longtail_e2e.world import World

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
POOLS = int(os.environ.get("LONGTAIL_E2E_DRAIN_POOLS", "25"))
CYCLES = int(os.environ.get("LONGTAIL_E2E_DRAIN_CYCLES", "200"))
KILLS = int(os.environ.get("LONGTAIL_E2E_DRAIN_KILLS", "50"))
OPERATORS = 3  # are killed side by side, each with a namespace of its own: most of a restart is waiting
KILLED_POOLS = 3  # of each
LOOKS = 6  # a life ends before the operator has looked so often; from a cordon to a deletion it takes five
# Per kill: else too little was written in these lives, or too many ended at rest, for the test to have shown anything.
# With a load of 15 on two cores it were 0.8 cordons, 0.4 uncordons and 0.4 lowerings; eight in ten died with a replica
# cordoned, one in ten with a replica that was marked for deletion and still there.
LEAST = {"cordons": 0.4, "uncordons": 0.2, "lowered": 0.1, "died with one cordoned": 0.4, "died with one marked": 0.04}
SLOTS = 4
HIGH, LOW = 20.0, 2.0  # requests per second: about 11 at a time, three replicas' work, and 1
WORK = 3  # replicas


@pytest.fixture(scope="module")
def engines(cluster: Cluster) -> Iterator[Engines]:
    running = Engines(cluster, speed=50.0)
    running.start()
    cluster.prometheus.set_http_discovery(f"{running.url}/sd")
    yield running
    cluster.prometheus.set_http_discovery()
    cluster.processes.stop(ENGINES)


@pytest.fixture(scope="module")
def operator(cluster: Cluster, engines: Engines) -> Iterator[Operator]:
    apply_definition(cluster, crds=ROOT / "crds")
    # Without an election: a killed operator is followed by its successor at once, not after its Lease has run out.
    running = Operator(cluster, interval_seconds=1.0, flags=["--no-leader-elect"])
    source = {"url": cluster.prometheus_url, "scrapeIntervalSeconds": 1.0}
    running.start(kubeconfig=running.install(), sources={"default": source})
    yield running
    cluster.processes.stop(OPERATOR)


@pytest.fixture
def pools(world: World) -> Pools:
    """Pools at work."""
    return at_work(world, POOLS)


def at_work(world: World, count: int) -> Pools:
    """Pools with the work of all the three replicas that they may have."""
    names = [f"p{number}" for number in range(count)]
    with world.together():
        for name in names:
            world.deploy(name, replicas=WORK, gpus=0, slots=SLOTS, seed=int(name[1:]))
            serve(world, name, minReplicas=WORK, maxReplicas=WORK)
    made = Pools(world, names)
    made.wait(lambda: all(made.serving(name) >= WORK for name in names), "all pools at work", seconds=90)
    for name in names:
        world.engines.rate(world.service(name), HIGH)
    with world.together():
        for name in names:
            serve(world, name, maxReplicas=WORK)
    return made


def serve(world: World, name: str = "r1", **spec: Any) -> None:
    """A resource that shrinks as soon as it may, and is content to be right most of the time."""
    world.serve(
        name,
        **{
            "capacity": {"maxConcurrentRequests": SLOTS},
            "objective": {"attainmentPercent": 50},
            "behavior": {
                "scaleUp": {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 1}]},
                "scaleDown": {"stabilizationWindowSeconds": 1},
            },
        }
        | spec,
    )


def cycle(pools: Pools, name: str, *, chance: random.Random) -> bool:
    """Let the load of a pool fall until a replica leaves routing, and rise again; whether it rose within the drain."""
    engines, service = pools.world.engines, pools.world.service(name)
    engines.rate(service, LOW)
    pools.wait(lambda: bool(pools.cordoned(name)), f"{name} to shrink", seconds=60)
    time.sleep(chance.uniform(0.0, 4.0))
    within = bool(pools.cordoned(name))
    engines.rate(service, HIGH)
    pools.wait(lambda: pools.serving(name) >= WORK, f"{name} to be back", seconds=60)
    return within


def test_load_that_comes_and_goes_cuts_no_thought_and_is_met_by_those_who_were_leaving(pools: Pools) -> None:
    each = -(-CYCLES // POOLS)

    def drive(name: str) -> list[bool]:
        chance = random.Random(name)
        return [cycle(pools, name, chance=chance) for _ in range(each)]

    with ThreadPoolExecutor(POOLS) as threads:
        within = [one for some in threads.map(drive, pools.names) for one in some]

    written = account(pools.world.cluster.control_plane.audit_events(), namespace=pools.world.namespace, user=USER)
    assert pools.lost() == (0, 0)
    assert written.wrong == []
    assert (written.cordons >= CYCLES, len(within) >= CYCLES) == (True, True), written
    assert written.uncordons >= CYCLES // 2, written


def test_a_stateful_set_gives_up_its_highest_index_and_no_other(world: World) -> None:
    deploy_stateful_set(world, replicas=3)
    world.engines.rate(world.service(), HIGH)
    # No more than three: on a busy machine a queue builds up, and the highest index would be another.
    target = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "r1"}
    serve(world, scaleTargetRef=target, minReplicas=1, maxReplicas=3)
    pools = Pools(world, ["r1"])
    pools.wait(lambda: pools.serving("r1") == 3, "three replicas at work", seconds=60)
    world.wait_for_condition("DrainReady", "True")
    world.engines.rate(world.service(), LOW)
    pools.wait(lambda: bool(pools.cordoned("r1")), "a replica to leave routing", seconds=60)
    assert pools.cordoned("r1") == {"r1-2"}
    world.wait(lambda: world.get("statefulset")["spec"]["replicas"] == 2, "the last one to go", seconds=60)
    assert pools.lost() == (0, 0)


def test_without_a_switch_it_says_what_to_add_and_only_the_idle_go(world: World) -> None:
    world.deploy(replicas=2, gpus=0, slots=SLOTS, switch=False, routing="pack")
    serve(world, maxReplicas=2)
    ready = world.wait_for_condition("DrainReady", "False")
    assert ready["reason"] == "NoRoutingLabel"
    assert f'label the pod template of Deployment r1 with {LABEL}: "true"' in ready["message"]
    assert "selector of Service r1" in ready["message"]
    # One request at a time or two: they fit into one replica, and the other one is idle.
    world.engines.rate(world.service(), LOW)
    world.wait_for_replicas(lambda replicas: replicas == 1)
    assert Pools(world, ["r1"]).lost() == (0, 0)
    assert "patch/pods" in world.writes()


def test_a_rollout_and_a_hand_in_the_middle_of_a_drain_leave_nothing_behind(world: World) -> None:
    world.deploy(replicas=3, gpus=0, slots=SLOTS)
    world.engines.rate(world.service(), HIGH)
    serve(world, maxReplicas=4)
    pools = Pools(world, ["r1"])
    pools.wait(lambda: pools.serving("r1") >= 3, "three replicas at work", seconds=60)
    world.engines.rate(world.service(), LOW)
    pools.wait(lambda: bool(pools.cordoned("r1")), "a replica to leave routing", seconds=60)
    (first, *_) = pools.cordoned("r1")
    world.cluster.kubectl("delete", "pod", first, "-n", world.namespace, "--wait=false")
    world.cluster.kubectl("rollout", "restart", "deployment", "r1", "-n", world.namespace)
    world.cluster.kubectl("rollout", "status", "deployment", "r1", "-n", world.namespace, "--timeout=60s")
    world.wait_for_replicas(lambda replicas: replicas == 1)
    pools.wait(lambda: not pools.cordoned("r1") and pools.marks() == [], "no mark of ours", seconds=30)


def test_a_deletion_cost_of_somebody_else_is_left_alone(world: World) -> None:
    world.deploy(replicas=2, gpus=0, slots=SLOTS)
    world.cluster.kubectl(
        "annotate", "pods", "-l", "app=r1", "-n", world.namespace, "controller.kubernetes.io/pod-deletion-cost=7"
    )
    serve(world, maxReplicas=2)
    assert world.wait_for_condition("DrainReady", "False")["reason"] == "DeletionCostOwned"
    world.operator.wait_for_ticks(5)
    assert world.replicas() == 2
    world.cluster.kubectl(
        "annotate", "pods", "-l", "app=r1", "-n", world.namespace, "controller.kubernetes.io/pod-deletion-cost-"
    )
    world.wait_for_replicas(lambda replicas: replicas == 1)


def test_a_resource_that_is_switched_off_gives_back_what_it_took(world: World) -> None:
    world.deploy(replicas=3, gpus=0, slots=SLOTS)
    world.engines.rate(world.service(), HIGH)
    serve(world, maxReplicas=3)
    pools = Pools(world, ["r1"])
    pools.wait(lambda: pools.serving("r1") == 3, "three replicas at work", seconds=60)
    world.engines.rate(world.service(), LOW)
    pools.wait(lambda: bool(pools.cordoned("r1")), "a replica to leave routing", seconds=60)
    world.cluster.kubectl("delete", "rsv", "r1", "-n", world.namespace)
    pools.wait(lambda: not pools.cordoned("r1") and pools.marks() == [], "all back in routing", seconds=20)


def test_an_operator_that_is_killed_at_any_moment_is_finished_by_the_next_one(cluster: Cluster, world: World) -> None:
    # The one that serves all namespaces would be a second writer.
    cluster.processes.stop(OPERATOR)
    unharmed, *others = names = [f"{world.namespace}-{number}" for number in range(1 + OPERATORS)]
    try:
        for name in names:
            cluster.kubectl("create", "namespace", name)
        with ThreadPoolExecutor(len(names)) as threads:
            never_killed = threads.submit(lambda: come_to_rest(of_its_own(world, unharmed)))
            killed = [threads.submit(killed_again_and_again, world, name, -(-KILLS // OPERATORS)) for name in others]
            lives = sum((one.result()[0] for one in killed), Counter[str]())
        # Nothing is asked of those who follow the killed but what one comes to whom nobody has killed.
        assert [one.result()[1] for one in killed] == [never_killed.result()] * OPERATORS
    finally:
        for name in names:
            cluster.processes.stop(name)
            cluster.kubectl("delete", "namespace", name, "--wait=false")
    print(f"in {lives['kills']} lives: {dict(lives)}")
    assert lives["kills"] >= KILLS
    assert {what for what, per_kill in LEAST.items() if lives[what] < int(per_kill * KILLS)} == set(), lives


def killed_again_and_again(world: World, namespace: str, kills: int) -> tuple[Counter[str], dict[str, Any]]:
    """Kill an operator at random moments while its pools rise and fall; see that it leaves nothing behind.

    Returns:
        What was written in these lives and how many ended in the middle of a drain; the state that all comes to rest in.
    """
    pools, chance, lives = of_its_own(world, namespace), random.Random(namespace[-1]), Counter[str]()
    processes = world.cluster.processes
    for _ in range(kills):
        live(pools, chance=chance)
        processes[namespace].popen.kill()
        lives += died_while(pools)
        turn(pools, chance=chance)
        command = processes.stop(namespace)
        assert command is not None
        processes.start(command)
    written = accounted(pools)
    assert (pools.lost(), written.wrong) == ((0, 0), [])
    lives += Counter(cordons=written.cordons, uncordons=written.uncordons, lowered=written.lowered)
    state = come_to_rest(pools)
    assert (pools.lost(), accounted(pools).wrong) == ((0, 0), [])
    return lives, state


def of_its_own(world: World, namespace: str) -> Pools:
    """Pools at work, and an operator for their namespace alone.

    It looks at them less often than others here do: on a busy machine sources answer late, and one that is silent for
    45 % of the interval is not believed. And its pools have no long past that it could read back after each start.
    """
    cluster = world.cluster
    flags = ["--no-leader-elect", f"--namespaces={namespace}", "--backfill-seconds=60"]
    operator = Operator(cluster, interval_seconds=2.0, name=namespace, flags=flags)
    source = {"url": cluster.prometheus_url, "scrapeIntervalSeconds": 1.0}
    operator.start(kubeconfig=operator.install(), sources={"default": source})
    return at_work(World(cluster=cluster, operator=operator, engines=world.engines, namespace=namespace), KILLED_POOLS)


def live(pools: Pools, *, chance: random.Random) -> None:
    """Let an operator live until it has just changed something about the pods, or else for a few looks.

    Both are counted in what it does and not in seconds: what it gets done in a second depends on the machine.
    """
    operator, looks, found = pools.world.operator, chance.randrange(LOOKS), seen(pools)

    def looked() -> bool:
        return (operator.value("longtail_ticks_total", result="done") or 0.0) >= looks

    if chance.random() < 0.5:
        wait_until(looked, timeout_seconds=60.0, what=f"{looks} looks", interval_seconds=0.2)
    else:
        with suppress(NotYetError):  # nothing was left to be done
            wait_until(lambda: seen(pools) != found, timeout_seconds=15.0, what="a change", interval_seconds=0.2)
    time.sleep(chance.uniform(0.0, 0.5))


def seen(pools: Pools) -> list[tuple[set[str], set[str], int]]:
    """Of each pool who is out of routing, who is marked for deletion, and how many pods there are."""
    return [(pools.cordoned(name), pools.condemned(name), len(pools.pods(name))) for name in pools.names]


def turn(pools: Pools, *, chance: random.Random) -> None:
    """Turn the load of some pools while nobody looks: who is large is so in vain, who is small or shrinks is needed."""
    for name in pools.names:
        shrinks = bool(pools.cordoned(name))
        if chance.random() < (0.25 if shrinks else 0.5):  # most drains are to get on, over several lives
            rate = HIGH if shrinks or pools.serving(name) < 2 else LOW
            pools.world.engines.rate(pools.world.service(name), rate)


def died_while(pools: Pools) -> Counter[str]:
    """Which step of a drain somebody died in the middle of."""
    pools.look()
    cordoned, condemned = (any(of(name) for name in pools.names) for of in (pools.cordoned, pools.condemned))
    return Counter({"kills": 1, "died with one cordoned": int(cordoned), "died with one marked": int(condemned)})


def come_to_rest(pools: Pools) -> dict[str, Any]:
    """End all load and return what the operator has left of the pools, once it has stayed so for some looks."""
    own = pools.world
    for name in pools.names:
        own.engines.silence(own.service(name))

    def at_rest() -> bool:
        return set(own.replicas_of(pools.names).values()) == {1} and pools.marks() == []

    what = "every pool at its one replica, and no mark of ours on any pod"
    try:
        pools.wait(at_rest, what, seconds=120)
    except NotYetError as late:
        sizes = own.replicas_of(pools.names)
        largest = max(sizes, key=lambda name: sizes[name])
        raise NotYetError(f"{late}: {sizes}, {pools.marks()}\n{own.explain(largest)}") from late
    own.operator.wait_for_ticks(3)
    return pools.state()


def accounted(pools: Pools) -> Account:
    """What the operator of a namespace has written so far."""
    own = pools.world
    user = f"system:serviceaccount:{NAMESPACE}:{own.namespace}"
    return account(own.cluster.control_plane.audit_events(), namespace=own.namespace, user=user)


def deploy_stateful_set(world: World, *, replicas: int) -> None:
    """A pool of simulated engines as a StatefulSet, with a routing label and a Service that selects by it."""
    labels = {"app": "r1"}
    world.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "r1"},
            "spec": {"selector": labels | {LABEL: "true"}, "ports": [{"port": 8000}]},
        }
    )
    world.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "r1"},
            "spec": {
                "replicas": replicas,
                "serviceName": "r1",
                "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {
                        "labels": labels | {LABEL: "true"},
                        "annotations": startup_annotations(ready_seconds=1.0),
                    },
                    "spec": {
                        "containers": [{"name": "engine", "image": "none"}],
                        "terminationGracePeriodSeconds": 0,
                    },
                },
            },
        }
    )
    world.engines.put(
        world.service(), namespace=world.namespace, selector="app=r1", service="r1", slots=SLOTS, engine="vllm"
    )
