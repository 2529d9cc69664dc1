"""The definition on a real API server: it is taken, it defaults, it refuses, it explains itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from longtail_e2e import Cluster
from longtail_e2e.operator import apply_definition

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
MANIFESTS: dict[str, dict[str, Any]] = yaml.safe_load(
    (ROOT / "tests" / "api" / "manifests.yaml").read_text(encoding="utf-8")
)
ACCEPTED = [pytest.param(spec, id=name) for name, spec in MANIFESTS["accepted"].items()]
REFUSED = [pytest.param(case, id=name) for name, case in MANIFESTS["refused"].items()]


@pytest.fixture(scope="module")
def definition(cluster: Cluster) -> dict[str, Any]:
    """The definition as the API server holds it."""
    apply_definition(cluster, crds=ROOT / "crds")
    return cluster.kubectl.get("crd", "reasoningservings.longtail.dev")


def serving(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "longtail.dev/v1alpha1",
        "kind": "ReasoningServing",
        "metadata": {"name": "r1"},
        "spec": spec,
    }


@pytest.mark.usefixtures("definition")
class TestManifests:
    """The table that the models are tried with, too."""

    @pytest.mark.parametrize("spec", ACCEPTED)
    def test_a_valid_spec_is_taken(self, cluster: Cluster, spec: dict[str, Any]) -> None:
        cluster.kubectl("create", "--dry-run=server", "-n", "default", "-f", "-", manifests=serving(spec))

    @pytest.mark.parametrize("case", REFUSED)
    def test_an_invalid_spec_is_refused_by_a_message_that_names_the_field(
        self, cluster: Cluster, case: dict[str, Any]
    ) -> None:
        refusal = cluster.kubectl.run(
            "create", "--dry-run=server", "-n", "default", "-f", "-", manifests=serving(case["spec"])
        )
        assert refusal.returncode != 0
        assert case["blames"] in refusal.stderr


def test_the_definition_is_structural(definition: dict[str, Any]) -> None:
    conditions = {each["type"]: each["status"] for each in definition["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"


def test_defaults_are_filled_in_at_every_level(cluster: Cluster, namespace: str, definition: dict[str, Any]) -> None:
    cluster.kubectl("create", "-n", namespace, "-f", "-", manifests=serving(MANIFESTS["accepted"]["the-smallest"]))
    spec = cluster.kubectl.get("rsv", "r1", "-n", namespace)["spec"]
    assert (spec["mode"], spec["minReplicas"], spec["metricsSource"]) == ("Advise", 1, "default")
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "r1"}
    assert spec["engine"] == {"type": "Auto"}
    assert spec["objective"] == {
        "queueWaitSeconds": 10,
        "attainmentPercent": 99,
        "timePerOutputTokenMilliseconds": 50,
    }
    assert spec["lengths"] == {"meanOutputTokens": 2000, "maxOutputTokens": 32768}
    assert spec["behavior"]["scaleDown"]["selectPolicy"] == "Max"
    assert len(spec["behavior"]["scaleUp"]["policies"]) == 2


def test_half_a_behavior_keeps_the_defaults_of_the_other_half(
    cluster: Cluster, namespace: str, definition: dict[str, Any]
) -> None:
    half = {
        "scaleTargetRef": {"name": "r1"},
        "maxReplicas": 4,
        "behavior": {"scaleUp": {"selectPolicy": "Min"}},
    }
    cluster.kubectl("create", "-n", namespace, "-f", "-", manifests=serving(half))
    behavior = cluster.kubectl.get("rsv", "r1", "-n", namespace)["spec"]["behavior"]
    assert behavior["scaleUp"]["selectPolicy"] == "Min"
    assert len(behavior["scaleUp"]["policies"]) == 2
    assert behavior["scaleDown"]["selectPolicy"] == "Max"


def test_an_unknown_field_is_named(cluster: Cluster, namespace: str, definition: dict[str, Any]) -> None:
    misspelt = {"scaleTargetRef": {"name": "r1"}, "maxReplicas": 4, "minReplica": 2}
    refusal = cluster.kubectl.run("create", "-n", namespace, "-f", "-", manifests=serving(misspelt))
    assert refusal.returncode != 0
    assert 'unknown field "spec.minReplica"' in refusal.stderr


def test_an_edit_that_breaks_a_rule_is_refused(cluster: Cluster, namespace: str, definition: dict[str, Any]) -> None:
    cluster.kubectl("create", "-n", namespace, "-f", "-", manifests=serving(MANIFESTS["accepted"]["the-smallest"]))
    refusal = cluster.kubectl.run(
        "patch", "rsv", "r1", "-n", namespace, "--type=merge", "-p", '{"spec":{"minReplicas":99}}'
    )
    assert refusal.returncode != 0
    assert "minReplicas must not exceed maxReplicas" in refusal.stderr


def test_the_target_may_change(cluster: Cluster, namespace: str, definition: dict[str, Any]) -> None:
    # As with HPA: a pool that is renamed keeps its settings and its history.
    cluster.kubectl("create", "-n", namespace, "-f", "-", manifests=serving(MANIFESTS["accepted"]["the-smallest"]))
    patch = '{"spec":{"scaleTargetRef":{"name":"r2"}}}'
    cluster.kubectl("patch", "rsv", "r1", "-n", namespace, "--type=merge", "-p", patch)
    columns = cluster.kubectl("get", "reasoningservings.longtail.dev", "-n", namespace)
    assert "r2" in columns


def test_status_is_written_apart_from_spec(cluster: Cluster, namespace: str, definition: dict[str, Any]) -> None:
    cluster.kubectl("create", "-n", namespace, "-f", "-", manifests=serving(MANIFESTS["accepted"]["the-smallest"]))
    status = (
        '{"status":{"replicas":{"current":3,"ready":2,"pending":1,"desired":5},"demand":{"owedTokens":41000},'
        '"conditions":[{"type":"Ready","status":"True","reason":"ScaleUp",'
        '"lastTransitionTime":"2026-11-24T08:00:00Z"}],'
        '"decision":{"reason":"ScaleUp","message":"3 → 5 replicas","time":"2026-11-24T08:00:00Z"}}}'
    )
    cluster.kubectl("patch", "rsv", "r1", "-n", namespace, "--subresource=status", "--type=merge", "-p", status)
    head, line = cluster.kubectl("get", "rsv", "-n", namespace).splitlines()
    assert head.split() == [
        *("NAME", "TARGET", "MODE", "MIN", "MAX", "CURRENT", "READY-PODS", "DESIRED"),
        *("OWED", "WAITING", "READY", "REASON", "AGE"),
    ]
    assert line.split()[:9] == ["r1", "r1", "Advise", "1", "24", "3", "2", "5", "41000"]
    assert "ScaleUp" in line
    assert cluster.kubectl.get("rsv", "r1", "-n", namespace)["metadata"]["generation"] == 1


def test_the_resource_is_in_the_category_of_autoscalers(
    cluster: Cluster, namespace: str, definition: dict[str, Any]
) -> None:
    listed = cluster.kubectl("api-resources", "--categories=autoscaling", "-o", "name", "--cached=false")
    assert "reasoningservings.longtail.dev" in listed


def test_kubectl_explains_every_field(cluster: Cluster, definition: dict[str, Any]) -> None:
    explained = cluster.kubectl("explain", "rsv.spec.objective")
    assert "Share of requests for which queueWaitSeconds should hold" in explained
    tree = cluster.kubectl("explain", "rsv", "--recursive")
    for field in ("stabilizationWindowSeconds", "queuedReasoningTokens", "because", "inferencePool"):
        assert field in tree
