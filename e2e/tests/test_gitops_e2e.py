"""Manifests that are applied again, by whatever tool, and whose number of replicas it is then (docs/gitops.md).

What a tool makes of a manifest is in its answer. The pools have no engines: that longtail asks for three replicas is
because of minReplicas, which is also why a number below it does not stay.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from longtail_e2e import ChartTools, Cluster, wait_until
from longtail_e2e.helm import Helm
from longtail_e2e.operator import Engines, Operator
from longtail_e2e.world import World

pytestmark = pytest.mark.e2e

ASKED = 3
"""What longtail asks for; the manifests say 1 or nothing."""

CLIENT, SERVER, ARGO_CD, FLUX = "kubectl", "kubectl-server-side", "argo-cd", "flux"
HOW: Mapping[str, tuple[str, ...]] = {
    CLIENT: (),
    SERVER: ("--server-side",),
    # As these two apply on the server's side: under their names, and whatever others own is theirs.
    ARGO_CD: ("--server-side", "--force-conflicts", "--field-manager=argocd-controller"),
    FLUX: ("--server-side", "--force-conflicts", "--field-manager=kustomize-controller"),
}
MANAGER = {CLIENT: "kubectl-client-side-apply", ARGO_CD: "argocd-controller", FLUX: "kustomize-controller"}


@pytest.fixture
def world(cluster: Cluster, operator: Operator, namespace: str) -> World:
    return World(cluster=cluster, operator=operator, engines=Engines(cluster, speed=1.0), namespace=namespace)


def deployment(name: str, *, revision: int, replicas: int | None = None) -> dict[str, Any]:
    """A manifest in git; its revision is in the pod template, so that each makes a rollout."""
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels, "annotations": {"revision": str(revision)}},
        "spec": {"containers": [{"name": "engine", "image": "none"}], "terminationGracePeriodSeconds": 0},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": template}
        | ({} if replicas is None else {"replicas": replicas}),
    }


def applied(world: World, tool: str, manifest: dict[str, Any]) -> int:
    """Apply a manifest as a tool does; return the replicas that it made of it."""
    answer = world.cluster.kubectl(
        *("apply", *HOW[tool], "-n", world.namespace, "-o", "json", "-f", "-"), manifests=manifest
    )
    replicas: int = json.loads(answer)["spec"]["replicas"]
    return replicas


def put_in_charge(world: World, *names: str) -> None:
    """Let longtail scale these Deployments, and wait until their number is its own."""
    with world.together():
        for name in names:
            world.serve(name, minReplicas=ASKED)
    wait_for_longtail(world, *names)


def wait_for_longtail(world: World, *names: str) -> None:
    wanted = dict.fromkeys(names, ASKED)
    wait_until(lambda: world.replicas_of(names) == wanted, timeout_seconds=60, what=f"{wanted}", interval_seconds=0.2)


def last_applied(world: World, name: str) -> dict[str, Any]:
    """The manifest of a ReasoningServing."""
    text = world.get("rsv", name)["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
    manifest: dict[str, Any] = json.loads(text)
    return manifest


def test_without_replicas_in_the_manifest_they_stay_whoever_applies(world: World) -> None:
    made = {tool: applied(world, tool, deployment(tool, revision=1)) for tool in HOW}
    assert made == dict.fromkeys(HOW, 1), "the API server's default"
    put_in_charge(world, *HOW)
    for tool, how in HOW.items():
        for kind, manifest in (("deployment", deployment(tool, revision=1)), ("rsv", last_applied(world, tool))):
            tried = ("apply", *how, "--dry-run=server", "-n", world.namespace, "-o", "json", "-f", "-")
            answer = json.loads(world.cluster.kubectl(*tried, manifests=manifest))
            assert answer["spec"] == world.get(kind, tool)["spec"]

    again = {tool: applied(world, tool, deployment(tool, revision=2)) for tool in HOW}
    assert again == dict.fromkeys(HOW, ASKED)
    world.operator.wait_for_ticks(2)
    assert {tool: world.condition("Conflict", tool)["status"] for tool in HOW} == dict.fromkeys(HOW, "False")


def test_with_replicas_in_the_manifest_they_are_taken_back_and_longtail_says_by_whom(world: World) -> None:
    forceful = (CLIENT, ARGO_CD, FLUX)
    for tool in HOW:
        applied(world, tool, deployment(tool, revision=1, replicas=1))
    put_in_charge(world, *HOW)
    # Three make a contest. Times are whole seconds: the first may pass for older than the resource, made a moment ago.
    for revision in (2, 3, 4, 5):
        taken = {tool: applied(world, tool, deployment(tool, revision=revision, replicas=1)) for tool in forceful}
        assert taken == dict.fromkeys(forceful, 1)
        # minReplicas is an order too, and wins.
        wait_for_longtail(world, *forceful)
    for tool in forceful:
        contested = world.wait_for_condition("Conflict", "True", tool)
        assert contested["reason"] == "ReplicasContested"
        assert contested["message"].startswith(f"{MANAGER[tool]} keeps setting")

    # Without force the server's side refuses, and nothing of the manifest is applied.
    refused = world.cluster.kubectl.run(
        *("apply", *HOW[SERVER], "-n", world.namespace, "-f", "-"), manifests=deployment(SERVER, revision=2, replicas=1)
    )
    assert refused.returncode != 0
    assert 'conflict with "longtail"' in refused.stderr
    assert ".spec.replicas" in refused.stderr
    assert world.replicas(SERVER) == ASKED
    assert world.condition("Conflict", SERVER)["status"] == "False"


def test_replicas_can_be_taken_out_of_a_manifest_where_longtail_has_set_them(world: World) -> None:
    """But on the client's side only after they were taken out of what was last applied, too."""
    careful = "kubectl-careful"
    names = (*HOW, careful)
    for name in names:
        applied(world, CLIENT if name == careful else name, deployment(name, revision=1, replicas=1))
    put_in_charge(world, *names)

    without = {name: deployment(name, revision=2) for name in names}
    last = yaml.safe_dump(without[careful])
    world.cluster.kubectl("apply", "set-last-applied", "-n", world.namespace, "-f", "-", manifests=last)
    left = {name: applied(world, CLIENT if name == careful else name, without[name]) for name in names}
    assert left == {CLIENT: 1, SERVER: ASKED, ARGO_CD: ASKED, FLUX: ASKED, careful: ASKED}

    early = "before-longtail"
    assert applied(world, SERVER, deployment(early, revision=1, replicas=2)) == 2
    assert applied(world, SERVER, deployment(early, revision=2)) == 1


@pytest.fixture(scope="module")
def installer(cluster: Cluster, chart_tools: ChartTools, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(chart_tools, home=tmp_path_factory.mktemp("helm"), kubeconfig=cluster.kubeconfig)


@pytest.fixture
def chart(tmp_path: Path) -> str:
    """One with pools of a team's own. The manifests are values here; where a chart leaves out replicas, it has an `if`."""
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: pools, version: 0.1.0}")
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "pools.yaml").write_text("{{ range .Values.pools }}{{ toYaml . }}\n---\n{{ end }}")
    return str(tmp_path)


def test_replicas_in_a_chart_are_a_conflict_or_taken_back(world: World, installer: Helm, chart: str) -> None:
    client, server = "--server-side=false", "--server-side=true"
    cases: dict[str, tuple[int | None, str, int | None, str, int]] = {
        # What the chart says of replicas and who merges, at first and at the upgrade; and what replicas are then.
        "free": (None, server, None, server, ASKED),
        "dropped": (1, server, None, server, ASKED),
        "free-client-side": (None, client, None, client, ASKED),
        "dropped-client-side": (1, client, None, client, 1),
        "dropped-migrating": (1, client, None, server, ASKED),
        "held-client-side": (1, client, 1, client, 1),
    }

    def release(verb: str, name: str, replicas: int | None, *flags: str, revision: int) -> str:
        values = {"pools": [deployment(name, revision=revision, replicas=replicas)]}
        result = installer.run(verb, name, chart, f"--namespace={world.namespace}", *flags, values=values)
        return "" if result.returncode == 0 else result.stderr

    names = (*cases, "held")
    for name, (replicas, side, _, _, _) in (cases | {"held": (1, server, 1, server, 1)}).items():
        assert release("install", name, replicas, side, revision=1) == ""
    put_in_charge(world, *names)
    leave(world, *names)

    for name, (_, _, replicas, side, _) in cases.items():
        assert release("upgrade", name, replicas, side, revision=2) == ""
    assert world.replicas_of(tuple(cases)) == {name: case[-1] for name, case in cases.items()}

    assert 'conflict with "longtail"' in release("upgrade", "held", 1, revision=2)
    assert world.replicas("held") == ASKED
    assert release("upgrade", "held", 1, "--force-conflicts", revision=2) == ""
    assert world.replicas("held") == 1


def leave(world: World, *names: str) -> None:
    """Let longtail be content with any number from now on: without metrics it shrinks nothing, and nothing waits."""
    with world.together():
        for name in names:
            world.serve(name, minReplicas=1)

    def seen() -> bool:
        resources = world.cluster.kubectl.get("rsv", "-n", world.namespace)["items"]
        return all(r["status"].get("observedGeneration") == r["metadata"]["generation"] for r in resources)

    wait_until(seen, timeout_seconds=60, what="the fields to be seen", interval_seconds=0.2)
