"""A quota of GPUs on a real API server: the more important pool grows while the other one leaves without a cut thought.

Each replica takes one GPU, holds four requests, and engines are 50 times as fast as real ones. What happened is read
from the engines (requests killed, tokens lost) and from the API server's audit log (pods made and deleted).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from longtail_e2e import Cluster
from longtail_e2e.drains import account
from longtail_e2e.operator import OPERATOR, USER, Engines, Operator, apply_definition
from longtail_e2e.pools import Pools
from longtail_e2e.world import World

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
CLASS, QUOTA = "E2E-GPU", 4
SLOTS = 4
HIGH, LOW = 20.0, 2.0  # requests per second: about 11 at a time, three replicas' work, and 1


@pytest.fixture(scope="module")
def operator(cluster: Cluster, engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The operator with a budget for all pools of one class of GPU."""
    assert engines.url
    apply_definition(cluster, crds=ROOT / "crds")
    budgets = tmp_path_factory.mktemp("budget") / "gpu-budgets.yaml"
    budgets.write_text(yaml.safe_dump({"budgets": [{"class": CLASS, "gpus": QUOTA}]}))
    running = Operator(cluster, flags=[f"--gpu-budgets-file={budgets}"])
    source = {"url": cluster.prometheus_url, "scrapeIntervalSeconds": 1.0}
    running.start(kubeconfig=running.install(), sources={"default": source})
    yield running
    cluster.processes.stop(OPERATOR)


def serve(world: World, name: str, **spec: Any) -> None:
    """A resource that is content to be right most of the time, of pools that may grow beyond the quota."""
    behavior = {
        "scaleUp": {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 1}]},
        "scaleDown": {"stabilizationWindowSeconds": 1},
    }
    fields = {"maxReplicas": QUOTA, "capacity": {"maxConcurrentRequests": SLOTS}, "gpus": {"class": CLASS}}
    world.serve(name, **fields, objective={"attainmentPercent": 50}, behavior=behavior, **spec)


def test_the_more_important_pool_grows_while_the_other_leaves_and_both_stay_within_the_quota(world: World) -> None:
    with world.together():
        world.deploy("batch", replicas=3, slots=SLOTS)
        world.deploy("chat", replicas=1, slots=SLOTS)
        serve(world, "batch")
        serve(world, "chat", priority=100)
    pools = Pools(world, ["batch", "chat"])
    world.engines.rate(world.service("batch"), HIGH)
    world.engines.rate(world.service("chat"), LOW)
    pools.wait(lambda: pools.serving("batch") == 3 and pools.serving("chat") == 1, "four replicas", seconds=60)

    # Nothing is free: who needs more is told whose the GPUs are.
    world.engines.rate(world.service("batch"), 2 * HIGH)
    world.wait_for_reason("ScalingLimited", {"GPUBudget"}, "batch")
    limited = world.condition("ScalingLimited", "batch")
    assert f"GPU budget of {CLASS}: 1 of {QUOTA} GPUs are others'" in limited["message"], limited
    assert world.replicas("batch") == 3
    world.engines.rate(world.service("batch"), HIGH)

    world.engines.rate(world.service("chat"), HIGH)
    pools.wait(lambda: pools.serving("chat") == 3, "the more important pool to have grown", seconds=240)
    assert pools.serving("batch") == 1
    assert "GPUBudget" in {step["rung"] for step in world.get("rsv", "batch")["status"]["decision"]["ladder"]}

    # And back, once what has queued up there is done, which takes the longer the busier this machine is.
    world.engines.rate(world.service("chat"), LOW)
    pools.wait(lambda: pools.serving("batch") > 1, "the other pool to grow again", seconds=300)

    written = account(world.cluster.control_plane.audit_events(), namespace=world.namespace, user=USER)
    assert (pools.lost(), written.wrong) == ((0, 0), [])
    assert written.cordons >= 3
    most = most_pods(world.cluster.control_plane.audit_events(), namespace=world.namespace)
    assert most == QUOTA


def most_pods(events: Iterable[Mapping[str, Any]], *, namespace: str) -> int:
    """Most pods that a namespace ever had at a time, by the audit log. Names of new ones are not known to it."""
    made, gone, most = 0, set[str](), 0
    for event in events:
        where = event.get("objectRef") or {}
        pods = (where.get("namespace"), where.get("resource"), where.get("subresource")) == (namespace, "pods", None)
        if pods and event.get("responseStatus", {}).get("code", 0) < 300:
            if event["verb"] == "create":
                made += 1
            elif event["verb"] == "delete":
                gone.add(where["name"])
            most = max(most, made - len(gone))
    return most
