"""The chart's rights on a real API server: the operator lives on them alone, and needs each of them.

The operator is a process here that has the service account of the chart.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from longtail_e2e import Cluster, wait_until
from longtail_e2e.foreign import established, serving_definitions
from longtail_e2e.helm import CHARTS, Helm, Manifest
from longtail_e2e.operator import OPERATOR, Engines, Operator, apply_definition
from longtail_e2e.rights import KINDS, Right, asked, operators_own, written
from longtail_e2e.world import World

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
HOME = "longtail-chart"
ACCOUNT = f"system:serviceaccount:{HOME}:longtail"


def install_rights(cluster: Cluster, helm: Helm, values: dict[str, Any]) -> Path:
    """Apply the account and the roles of the chart, and nothing else; return the account's kubeconfig."""
    rights = operators_own(helm.template(values, namespace=HOME))
    cluster.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME}}, *rights)
    return cluster.service_account_kubeconfig(HOME, "longtail")


def start(cluster: Cluster, kubeconfig: Path, *flags: str) -> Operator:
    operator = Operator(cluster, lease_namespace=HOME, flags=flags)
    source = {"url": cluster.prometheus_url, "scrapeIntervalSeconds": 1.0}
    operator.start(kubeconfig=kubeconfig, sources={"default": source})
    return operator


def stop(cluster: Cluster) -> None:
    cluster.processes.stop(OPERATOR)
    # The rights of one mode must not help the other.
    cluster.kubectl("delete", "clusterrolebinding", f"{HOME}-longtail", "--ignore-not-found")


def refused(cluster: Cluster) -> set[Right]:
    return asked(cluster.control_plane, ACCOUNT, allowed=False)


def every_right(manifests: Sequence[Manifest]) -> list[Right]:
    return written(rule for manifest in operators_own(manifests) for rule in manifest.get("rules", ()))


@pytest.fixture(scope="class")
def operator(cluster: Cluster, engines: Engines, helm: Helm) -> Iterator[Operator]:
    apply_definition(cluster, crds=ROOT / "crds")
    with established(cluster.kubectl, serving_definitions()):
        yield start(cluster, install_rights(cluster, helm, {}))
        stop(cluster)


class TestRights:
    """The operator as the service account of the chart, in the whole cluster."""

    def test_they_are_enough_and_each_of_them_is_needed(self, world: World, helm: Helm) -> None:
        with world.together():
            world.deploy()
            # Levels that all limit something, so that there is something to publish in calm times.
            levels = [{"name": "high", "thinkingTokens": 16384}, {"name": "low", "thinkingTokens": 2048}]
            world.serve(effort={"policy": "Publish", "levels": levels})
            for kind, name in (("StatefulSet", "s1"), ("LeaderWorkerSet", "l1")):
                api_version = {"StatefulSet": "apps/v1", "LeaderWorkerSet": "leaderworkerset.x-k8s.io/v1"}[kind]
                world.apply(workload(kind, api_version=api_version, name=name))
                target = {"apiVersion": api_version, "kind": kind, "name": name}
                world.serve(name, scaleTargetRef=target, minReplicas=2)
            gated = workload("Deployment", api_version="apps/v1", name="gated")
            gated["spec"]["template"]["spec"]["readinessGates"] = [{"conditionType": "longtail.dev/in-service"}]
            world.apply(gated)
            world.serve("gated", mode="Advise")
        selector = {"status": {"hpaPodSelector": "app=l1"}}
        world.patch("leaderworkerset", "l1", selector, subresource="status")

        world.engines.rate(world.service(), 45.0)
        grown = world.wait_for_replicas(lambda replicas: replicas >= 3)
        for kind, name in (("statefulset", "s1"), ("leaderworkerset", "l1")):
            where = (kind, name, "-n", world.namespace)
            world.cluster.kubectl.wait_until(lambda body: body["spec"]["replicas"] == 2, *where, timeout_seconds=60)
        world.engines.silence(world.service())
        world.wait_for_replicas(lambda replicas: replicas < grown, seconds=120)
        assert "New size: " in world.cluster.kubectl("get", "events", "-n", world.namespace)
        lease = world.cluster.kubectl.get("lease", "longtail", "-n", HOME)
        assert lease["spec"]["holderIdentity"]

        def unused() -> set[Right]:
            return rights - asked(world.cluster.control_plane, ACCOUNT, allowed=True)

        every = every_right(helm.template({}, namespace=HOME))
        rights = set(every)
        assert len(every) == len(rights), "a right is given twice: taking one rule away would change nothing"
        unlogged = {right for right in rights if right[1] in {"leases", "events"}}
        # To look again after somebody else has changed a pod meanwhile: tests/cluster/test_cordon.py.
        only_after_a_conflict = {("", "pods", "get")}
        # An apply that makes an object needs the right to create it, and is logged as a patch.
        within_an_apply = {("", "configmaps", "create")}
        excused = unlogged | only_after_a_conflict | within_an_apply
        wait_until(lambda: unused() <= excused, timeout_seconds=30, what=f"use of {unused()}")
        assert refused(world.cluster) == set()

    @pytest.mark.usefixtures("operator")
    def test_nobody_else_gives_them(self, cluster: Cluster, helm: Helm, namespace: str) -> None:
        """What the operator asks for is refused without the chart's rules: each was used, each is given once."""
        stranger = f"system:serviceaccount:{HOME}:stranger"
        rights = sorted(set(every_right(helm.template({}, namespace=HOME))))
        answer = cluster.kubectl(
            *("create", "-f", "-", "-o", "json"), manifests=[review(stranger, right, namespace) for right in rights]
        )
        reviews = objects(answer)
        assert len(reviews) == len(rights)
        assert [each["status"]["allowed"] for each in reviews] == [False] * len(rights)

    def test_without_the_right_to_write_scale_nothing_is_scaled(self, world: World) -> None:
        role = world.cluster.kubectl.get("clusterrole", f"{HOME}-longtail")
        less = [rule for rule in role["rules"] if not any("/scale" in each for each in rule["resources"])]
        world.cluster.kubectl(
            "patch", "clusterrole", f"{HOME}-longtail", "--type=merge", "-p", json.dumps({"rules": less})
        )
        try:
            world.deploy()
            world.serve(minReplicas=2)
            assert world.wait_for_condition("AbleToScale", "False")["reason"] == "FailedUpdateScale"
            assert world.replicas() == 1
        finally:
            patch = json.dumps({"rules": role["rules"]})
            world.cluster.kubectl("patch", "clusterrole", f"{HOME}-longtail", "--type=merge", "-p", patch)
        world.wait_for_replicas(lambda replicas: replicas == 2)

    def test_what_helm_test_runs_passes_and_finds_what_is_missing(
        self, world: World, helm: Helm, tmp_path: Path
    ) -> None:
        values = {"watchNamespaces": [world.namespace]}
        manifests = helm.template(values, namespace=HOME, hooks=True)
        hook = [manifest for manifest in manifests if manifest["metadata"]["name"] == "longtail-test"]
        (pod,) = (manifest for manifest in hook if manifest["kind"] == "Pod")
        world.cluster.kubectl.apply(*(manifest for manifest in hook if manifest["kind"] in KINDS))
        token = tmp_path / "token"
        token.write_text(world.cluster.kubectl("create", "token", "longtail-test", "-n", HOME))
        environment = {variable["name"]: variable["value"] for variable in pod["spec"]["containers"][0]["env"]}
        environment |= {
            "READY_URL": f"{world.operator.url}/readyz",
            "SOURCES_FILE": str(world.operator.sources_file),
            "API_URL": world.cluster.api_url,
            "API_TOKEN_FILE": str(token),
            "API_CA_FILE": str(world.cluster.control_plane.certificate_authority),
        }
        passed = run_test(environment)
        assert passed.returncode == 0, passed.stdout + passed.stderr
        assert passed.stdout.count("ok  ") == 4
        assert world.cluster.kubectl("get", "rsv", "-n", world.namespace, "-o", "name") == ""

        (role,) = (manifest for manifest in hook if manifest["kind"] == "Role")
        for rule in role["rules"]:
            world.cluster.kubectl.apply(role | {"rules": [other for other in role["rules"] if other != rule]})
            assert run_test(environment).returncode == 1, f"passes without {rule}"
        world.cluster.kubectl.apply(role)

        rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
        failed = run_test(environment | {"RULES": json.dumps([rule])})
        assert failed.returncode == 1
        assert f"{ACCOUNT} may not: get secrets" in failed.stdout
        assert failed.stdout.count("ok  ") == 3


def test_in_a_list_of_namespaces_it_scales_there_and_sees_nothing_else(
    cluster: Cluster, engines: Engines, helm: Helm, namespace: str
) -> None:
    apply_definition(cluster, crds=ROOT / "crds")
    before = refused(cluster)
    kubeconfig = install_rights(cluster, helm, {"watchNamespaces": [namespace], "crds": {"install": False}})
    cluster.kubectl("delete", "clusterrolebinding", f"{HOME}-longtail", "--ignore-not-found")
    operator = start(cluster, kubeconfig, f"--namespaces={namespace}")
    try:
        world = World(cluster=cluster, operator=operator, engines=engines, namespace=namespace)
        world.deploy()
        world.serve(minReplicas=2)
        world.wait_for_replicas(lambda replicas: replicas == 2)
        world.wait_for_condition("Ready", "True")
        assert refused(cluster) == before
        elsewhere = cluster.kubectl.using(kubeconfig).run("get", "pods", "-n", "default")
        assert "forbidden" in elsewhere.stderr
    finally:
        stop(cluster)


def workload(kind: str, *, api_version: str, name: str) -> Manifest:
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "engine", "image": "none"}], "terminationGracePeriodSeconds": 0},
    }
    selector = {"selector": {"matchLabels": labels}}
    spec: dict[str, Any] = {
        "Deployment": {"replicas": 1, **selector, "template": template},
        "StatefulSet": {"replicas": 1, **selector, "serviceName": name, "template": template},
        "LeaderWorkerSet": {"replicas": 1, "leaderWorkerTemplate": {"size": 1, "workerTemplate": template}},
    }[kind]
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec}


def review(user: str, right: Right, namespace: str) -> Manifest:
    group, resource, verb = right
    kind, _, subresource = resource.partition("/")
    attributes = {"namespace": namespace, "group": group, "resource": kind, "subresource": subresource, "verb": verb}
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{HOME}", "system:authenticated"]
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": groups, "resourceAttributes": attributes},
    }


def objects(text: str) -> list[dict[str, Any]]:
    """kubectl writes a List, or one object after another."""
    decoder, at = json.JSONDecoder(), 0
    found: list[dict[str, Any]] = []
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        each, at = decoder.raw_decode(text, at)
        found += each["items"] if each["kind"] == "List" else [each]
    return found


def run_test(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(CHARTS / "longtail/files/test.py")],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
