"""The samples as a user applies them, on a real API server: every field is known, and the operator does what they promise.

Nothing runs in the pods here: KWOK says that they are ready, and simulated engines with the sizes of each sample's
own flags write their metrics.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from longtail_e2e import Cluster
from longtail_e2e.foreign import established, serving_definitions
from longtail_e2e.helm import Manifest
from longtail_e2e.keda import KedaStandIn
from longtail_e2e.operator import OPERATOR, Engines, Operator, apply_definition
from longtail_e2e.prometheus import Target
from longtail_e2e.world import World

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"
FILES = sorted(path.name for path in SAMPLES.glob("*.yaml"))
BUSY = 1.8
"""Requests a second, at the engines' speed of 50, that keep one slot busy."""


def read(file: str) -> list[Manifest]:
    return list(yaml.safe_load_all((SAMPLES / file).read_text()))


def of_kind(manifests: list[Manifest], kind: str) -> Manifest:
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found


def pod_templates(manifest: Manifest) -> list[dict[str, Any]]:
    """The templates of the pods that a workload makes; none of other kinds."""
    spec = manifest["spec"]
    if manifest["kind"] == "LeaderWorkerSet":
        return [spec["leaderWorkerTemplate"][template] for template in ("leaderTemplate", "workerTemplate")]
    return [spec["template"]] if "template" in spec else []


def slots(manifests: list[Manifest]) -> int:
    """What the sample tells its engine, which must be what it tells longtail."""
    flags = [
        argument
        for manifest in manifests
        for template in pod_templates(manifest)
        for argument in template["spec"]["containers"][0]["args"]
    ]
    sizes = {int(flag.partition("=")[2]) for flag in flags if re.match("--max-(num-seqs|running-requests)=", flag)}
    serving = of_kind(manifests, "ReasoningServing")["spec"]
    assert sizes == {serving["capacity"]["maxConcurrentRequests"]}
    return sizes.pop()


@pytest.fixture(scope="module")
def kinds(cluster: Cluster) -> Iterator[None]:
    apply_definition(cluster, crds=ROOT / "crds")
    with established(cluster.kubectl, serving_definitions()):
        yield


@pytest.fixture(scope="module")
def operator(cluster: Cluster, engines: Engines, kinds: None) -> Iterator[Operator]:
    nodes = cluster.nodes.add(count=2, gpus=8, prefix="sample")
    running = Operator(cluster)
    source = {"url": cluster.prometheus_url, "scrapeIntervalSeconds": 1.0}
    running.start(kubeconfig=running.install(), sources={"default": source})
    yield running
    cluster.processes.stop(OPERATOR)
    cluster.nodes.remove(*nodes)


def test_every_sample_is_explained_in_the_readme() -> None:
    readme = (SAMPLES / "README.md").read_text()
    assert set(re.findall(r"\]\(([a-z-]+\.yaml)\)", readme)) == set(FILES)


@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize("file", FILES)
class TestTheApiServer:
    def test_knows_every_field(self, cluster: Cluster, namespace: str, file: str) -> None:
        manifests = read(file)
        strictly = ("apply", "--dry-run=server", "--validate=strict", "-n", namespace, "-f")
        taken = cluster.kubectl(*strictly, str(SAMPLES / file))
        assert taken.count("(server dry run)") == len(manifests)
        # Foreign kinds take any pod template; a pod is something that the API server knows.
        for number, template in enumerate(template for each in manifests for template in pod_templates(each)):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": template.get("metadata", {}) | {"name": f"p{number}"}}
            cluster.kubectl(*strictly, "-", manifests=pod | {"spec": template["spec"]})

    def test_would_refuse_a_misspelt_one(self, cluster: Cluster, namespace: str, file: str) -> None:
        manifests = read(file)
        for manifest in manifests:
            manifest["spec"] |= {"misspelt": 1}
        refused = cluster.kubectl.run(
            *("apply", "--dry-run=server", "--validate=strict", "-n", namespace, "-f", "-"), manifests=manifests
        )
        assert refused.stderr.count('unknown field "spec.misspelt"') == len(manifests)


def start(world: World, manifests: list[Manifest], *, pool: str = "", **engine: Any) -> str:
    """Apply a sample and run its engines; return the name of its resource.

    The engines are ``pool`` in the simulator, if that is what the gateway calls them.
    """
    name: str = of_kind(manifests, "ReasoningServing")["metadata"]["name"]
    definition = {"namespace": world.namespace, "selector": f"app={name}", "slots": slots(manifests)}
    world.engines.put(pool or world.service(name), **definition | engine)
    for manifest in manifests:
        for template in pod_templates(manifest):
            # KWOK keeps a deleted pod, and its GPUs, for up to its grace period, empty or not. preStop needs 15 s.
            template["spec"]["terminationGracePeriodSeconds"] = 16
    with world.together():
        for manifest in manifests:
            world.apply(manifest)
    return name


def hasten(world: World, name: str) -> None:
    """Shrink after five seconds, where the samples wait five minutes."""
    world.patch("rsv", name, {"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}}}})


def test_vllm_follows_its_load_and_no_request_is_cut(world: World) -> None:
    name = start(world, read("vllm.yaml"), service="qwen3-32b")
    world.wait_for_condition("Ready", "True", name)
    drain = world.wait_for_condition("DrainReady", "True", name)
    assert "by which Service qwen3-32b selects" in drain["message"]

    world.engines.ramp(world.service(name), since=0.0, until=2.5 * 32 * BUSY, seconds=10.0)
    sizes = [world.wait_for_replicas(lambda replicas: replicas >= 3, name, seconds=90)]
    hasten(world, name)
    world.engines.rate(world.service(name), 0.5 * 32 * BUSY)

    def shrinks() -> bool:
        sizes.append(world.replicas(name))
        return sizes[-1] < max(sizes)

    # A simulated GPU is idle by its own account half a minute after its last request.
    world.wait(shrinks, f"{name} to shrink", seconds=120, name=name)
    assert "Cordoned" in world.cluster.kubectl("get", "events", "-n", world.namespace)
    assert world.engines.truth(world.service(name))["killed_requests"] == 0


def test_sglang_is_recognised_and_follows_its_load(world: World) -> None:
    name = start(world, read("sglang.yaml"), engine="sglang")
    world.wait_for_condition("Ready", "True", name)
    drain = world.wait_for_condition("DrainReady", "True", name)
    assert "by which Service qwen3-32b-sglang selects" in drain["message"]
    world.engines.rate(world.service(name), 1.5 * 48 * BUSY)
    world.wait_for_replicas(lambda replicas: replicas >= 2, name, seconds=90)


def test_an_llm_d_pool_drains_through_its_pool_sleeps_and_is_woken_by_its_queue(world: World) -> None:
    name = start(world, read("llm-d.yaml"), pool="r1-distill-8b", gateway=True)
    world.wait_for_condition("Ready", "True", name)
    drain = world.wait_for_condition("DrainReady", "True", name)
    assert "by which InferencePool r1-distill-8b selects" in drain["message"]
    # The sample's half an hour, in a test's time.
    hasten(world, name)
    world.patch("rsv", name, {"spec": {"scaleToZero": {"idleSeconds": 10}}})
    world.wait_for_replicas(lambda replicas: replicas == 0, name, seconds=120)
    world.engines.rate("r1-distill-8b", 5.0)
    world.wait_for_replicas(lambda replicas: replicas >= 1, name, seconds=60)


def test_groups_of_a_leader_worker_set_follow_their_load(world: World) -> None:
    manifests = read("leaderworkerset.yaml")
    groups = of_kind(manifests, "LeaderWorkerSet")
    leaders = {
        "leaderworkerset.sigs.k8s.io/name": groups["metadata"]["name"],
        "leaderworkerset.sigs.k8s.io/worker-index": "0",
    }
    selector = ",".join(f"{key}={value}" for key, value in leaders.items())
    name = start(world, [*manifests, stateful_set(groups, leaders)], selector=selector)
    # The rest of what its controller does.
    status = {"replicas": 1, "readyReplicas": 1, "updatedReplicas": 1, "observedGeneration": 1}
    world.patch("leaderworkerset", name, {"status": status | {"hpaPodSelector": selector}}, subresource="status")
    world.wait_for_condition("Ready", "True", name)
    drain = world.wait_for_condition("DrainReady", "True", name)
    assert f"by which Service {name}-api selects" in drain["message"]
    world.engines.rate(world.service(name), 1.5 * 64 * BUSY)
    world.wait(
        lambda: world.get("leaderworkerset", name)["spec"]["replicas"] >= 2, "a second group", seconds=90, name=name
    )


def stateful_set(groups: Manifest, leaders: dict[str, str]) -> Manifest:
    """What the LeaderWorkerSet controller makes of a set first: a StatefulSet of its leaders."""
    name = groups["metadata"]["name"]
    template = groups["spec"]["leaderWorkerTemplate"]["leaderTemplate"]
    metadata = {"labels": template["metadata"]["labels"] | leaders}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "serviceName": name,
            "selector": {"matchLabels": leaders},
            "template": {"metadata": metadata, "spec": template["spec"]},
        },
    }


@pytest.fixture
def scraped(cluster: Cluster, operator: Operator) -> Iterator[None]:
    """The operator's own metrics are in Prometheus, as by the chart's ServiceMonitor."""
    cluster.prometheus.set_targets([Target(url=f"{operator.url}/metrics")])
    yield
    cluster.prometheus.set_targets([])


@pytest.mark.usefixtures("scraped")
def test_keda_acts_on_advice_and_longtail_writes_nothing(world: World) -> None:
    manifests = read("keda.yaml")
    scaled = of_kind(manifests, "ScaledObject")
    metadata = scaled["spec"]["triggers"][0]["metadata"]
    metadata["query"] = metadata["query"].replace('namespace="inference"', f'namespace="{world.namespace}"')
    name = start(world, manifests)
    world.wait_for_condition("Ready", "True", name)
    assert world.condition("Conflict", name)["status"] == "False"

    def advised() -> int:
        advice: int = world.get("rsv", name)["status"]["replicas"]["desired"]
        return advice

    with KedaStandIn(world.cluster, scaled, namespace=world.namespace):
        world.engines.rate(world.service(name), 2.5 * 32 * BUSY)
        world.wait_for_replicas(lambda replicas: replicas >= 3, name, seconds=90)
        world.wait_for_replicas(lambda replicas: replicas == advised(), name, seconds=60)
    assert world.condition("Conflict", name)["status"] == "False"
    assert set(world.writes()) <= {"patch/reasoningservings/status", "create/events"}
