"""Two variants of one model on a real API server: what the cheap one cannot have, the dear one serves.

The cheap one has a node of its own with two GPUs. No gateway stands in front here: the load is the cheap one's, and what
is looked at is who is asked for how much, and that both say why.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from longtail_e2e import Cluster
from longtail_e2e.drains import account
from longtail_e2e.kwok import gpu_node
from longtail_e2e.operator import OPERATOR, USER, Engines, Operator, apply_definition
from longtail_e2e.world import World

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 180.0
LOAD = 40.0  # requests per second: about 22 at a time, three replicas' work


@pytest.fixture(scope="module")
def operator(cluster: Cluster, engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The operator with prices."""
    assert engines.url
    apply_definition(cluster, crds=ROOT / "crds")
    prices = tmp_path_factory.mktemp("variants") / "prices.yaml"
    prices.write_text(yaml.safe_dump({"currency": "USD", "gpuHour": {"CHEAP-1": "1.00", "DEAR-1": "2.00"}}))
    running = Operator(cluster, flags=[f"--prices-file={prices}"])
    source = {"url": cluster.prometheus_url, "scrapeIntervalSeconds": 1.0}
    running.start(kubeconfig=running.install(), sources={"default": source})
    yield running
    cluster.processes.stop(OPERATOR)


def test_what_the_cheap_variant_cannot_have_is_served_by_the_dear_one(world: World) -> None:
    nodes = f"cheap-{world.namespace}"
    taint = {"key": "nodes", "value": nodes, "effect": "NoSchedule"}
    world.cluster.kubectl.apply(gpu_node(name=nodes, gpus=2, labels={"nodes": nodes}) | {"spec": {"taints": [taint]}})
    with world.together():
        world.deploy("cheap", nodes=nodes)
        world.deploy("dear")
        world.serve("cheap", variantOf="r1", gpus={"class": "CHEAP-1"})
        world.serve("dear", variantOf="r1", gpus={"class": "DEAR-1"})
    for name in ("cheap", "dear"):
        world.wait(lambda name=name: world.sees(name, 1), f"{name} to be seen", seconds=60, name=name)  # type: ignore[misc]
    world.engines.rate(world.service("cheap"), LOAD)
    world.wait_for_condition("CapacityPending", "True", "cheap", seconds=PATIENCE_SECONDS)
    world.wait(lambda: world.replicas("dear") > 1, "the dear one to grow", seconds=PATIENCE_SECONDS, name="dear")
    assert world.replicas("cheap") > 2, "it keeps on asking"
    # Not while a new pod has not been scraped yet: then it holds.
    why = "as cheap cannot have what is needed"
    world.wait(lambda: why in world.explain("dear"), "it to say so", seconds=60, name="dear")

    # Two GPUs more: the cheap one has all that it needs, and the dear one leaves again.
    more = f"{nodes}-more"
    world.cluster.kubectl.apply(gpu_node(name=more, gpus=6, labels={"nodes": nodes}) | {"spec": {"taints": [taint]}})
    world.wait_for_condition("CapacityPending", "False", "cheap", seconds=PATIENCE_SECONDS)
    world.wait(lambda: world.replicas("dear") == 1, "the dear one to leave", seconds=PATIENCE_SECONDS, name="dear")
    written = account(world.cluster.control_plane.audit_events(), namespace=world.namespace, user=USER)
    assert written.wrong == []
    world.engines.silence(world.service("cheap"))
    world.cluster.kubectl(
        "delete", "rsv/cheap", "rsv/dear", "deployment/cheap", "deployment/dear", "-n", world.namespace
    )
    world.cluster.nodes.remove(nodes, more)
