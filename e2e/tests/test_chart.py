"""The charts without a cluster: what they render, what they refuse, and what their rules make of figures."""

from __future__ import annotations

import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from longtail.control.budgets import read_budgets
from longtail.control.prices import Price
from longtail.control.settings import load_settings
from longtail.control.sources import read_sources
from longtail.policy.fleet import GpuBudget
from longtail.signals.sources import BasicFile, BearerFile
from longtail_e2e import ChartTools
from longtail_e2e.helm import CHARTS, Helm, Manifest

NAMESPACE = "longtail-system"


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def pod_spec(manifests: list[Manifest]) -> dict[str, Any]:
    (deployment,) = of_kind(manifests, "Deployment")
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("chart", ["longtail", "longtail-crds"])
def test_lint_finds_nothing(helm: Helm, chart: str) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHARTS / chart))


@pytest.mark.parametrize(
    ("values", "blames"),
    [
        pytest.param({"replicaCont": 2}, "additional properties 'replicaCont' not allowed", id="misspelt"),
        pytest.param(
            {"metricsSources": {"default": {"uri": "http://prometheus:9090"}}},
            "at '/metricsSources/default': additional properties 'uri' not allowed",
            id="misspelt-in-a-source",
        ),
        pytest.param({"logLevel": "LOUD"}, "at '/logLevel': value must be one of 'DEBUG'", id="unknown-level"),
        pytest.param(
            {"gpuBudgets": [{"class": "H100", "gpus": "64"}]}, "at '/gpuBudgets/0/gpus': got string", id="not-a-number"
        ),
        pytest.param({"gpuBudgets": [{"gpus": 64}]}, "at '/gpuBudgets/0': missing property 'class'", id="of-no-class"),
        pytest.param({"intervalSeconds": "15s"}, "at '/intervalSeconds': got string, want number", id="unit"),
        pytest.param({"image": {"digest": "latest"}}, "at '/image/digest'", id="not-a-digest"),
        pytest.param(
            {"metricsSources": {"default": {"url": "https://me:secret@prometheus"}}},
            "at '/metricsSources/default/url'",
            id="credentials-in-a-url",
        ),
        pytest.param(
            {"metricsSources": {"default": {"serviceAccountToken": True, "basicAuth": {"username": "me"}}}},
            "at '/metricsSources/default/basicAuth': missing property 'passwordSecretRef'",
            id="password-without-its-secret",
        ),
        pytest.param(
            {
                "metricsSources": {
                    "default": {"serviceAccountToken": True, "bearerTokenSecretRef": {"name": "a", "key": "b"}}
                }
            },
            "at '/metricsSources/default'",
            id="two-ways-to-authenticate",
        ),
        pytest.param({"prices": {"gpuHour": {"H100": -1}}}, "at '/prices/gpuHour/H100'", id="negative-price"),
        pytest.param({"prices": {"currency": "dollars"}}, "at '/prices/currency'", id="no-currency"),
        pytest.param({"rbac": {"scaleTargets": []}}, "at '/rbac/scaleTargets'", id="nothing-to-scale"),
        pytest.param(
            {"prometheusRule": {"alerts": {"disabled": ["LongtailNoLeder"]}}},
            "at '/prometheusRule/alerts/disabled/0'",
            id="no-such-alert",
        ),
    ],
)
def test_values_that_cannot_be_meant_are_refused_by_name(helm: Helm, values: dict[str, Any], blames: str) -> None:
    refusal = helm.run("template", "longtail", str(CHARTS / "longtail"), values=values)
    assert refusal.returncode != 0
    assert blames in refusal.stderr


SOURCES: dict[str, Any] = {
    "default": {
        "url": "https://thanos:9091",
        "serviceAccountToken": True,
        "tls": {"caConfigMapRef": {"name": "service-ca", "key": "service-ca.crt"}},
    },
    "tenant-a": {
        "url": "https://mimir/prometheus",
        "basicAuth": {"username": "longtail", "passwordSecretRef": {"name": "mimir", "key": "password"}},
        "headers": {"X-Scope-OrgID": "tenant-a"},
    },
    "edge": {
        "url": "https://edge",
        "bearerTokenSecretRef": {"name": "edge", "key": "token"},
        "tls": {"caSecretRef": {"name": "edge", "key": "ca.crt"}, "certSecretName": "edge-client"},
        "labels": {"namespace": "kubernetes_namespace", "pod": "kubernetes_pod_name"},
        "scrapeIntervalSeconds": 30,
        "timeoutSeconds": 5,
    },
}


def test_the_operator_understands_its_flags_and_its_sources(helm: Helm, tmp_path: Path) -> None:
    values = {
        "metricsSources": SOURCES,
        "watchNamespaces": ["team-a", "team-b"],
        "podLabelSelector": "longtail.dev/route",
        "extraArgs": ["--backfill-seconds=3600"],
        "prices": {"currency": "EUR", "gpuHour": {"default": 2, "H100": "2.99", "L40S": 1.1}},
    }
    manifests = helm.template(values, namespace=NAMESPACE)
    (container,) = pod_spec(manifests)["containers"]
    command, *flags = container["args"]
    assert command == "run"
    given = dict(_named(flag) for flag in flags)
    file = tmp_path / "metrics-sources.yaml"
    (config,) = of_kind(manifests, "ConfigMap")
    file.write_text(config["data"]["metrics-sources.yaml"])
    prices_file = tmp_path / Path(given["prices_file"]).name
    prices_file.write_text(config["data"][prices_file.name])
    files = {"metrics_sources_file": file, "prices_file": prices_file}
    settings = load_settings(environment={"LONGTAIL_INSTANCE": "pod"}, flags=given | files)
    assert settings.namespaces == ("team-a", "team-b")
    assert settings.lease_namespace == NAMESPACE
    assert settings.backfill_seconds == 3600

    prices = settings.prices()
    assert prices is not None
    assert [prices.of(gpu_class) for gpu_class in ("H100", "L40S", "T4")] == [
        Price(Decimal(amount), "EUR") for amount in ("2.99", "1.1", "2")
    ]

    sources = {source.name: source for source in read_sources(file)}
    assert isinstance(sources["default"].authentication, BearerFile)
    assert isinstance(sources["tenant-a"].authentication, BasicFile)
    assert sources["tenant-a"].headers == {"X-Scope-OrgID": "tenant-a"}
    assert sources["edge"].labels.pod == "kubernetes_pod_name"
    assert sources["edge"].scrape_interval_seconds == 30


def test_without_prices_there_is_no_file_of_them(helm: Helm) -> None:
    manifests = helm.template({}, namespace=NAMESPACE)
    (config,) = of_kind(manifests, "ConfigMap")
    assert set(config["data"]) == {"metrics-sources.yaml"}
    assert not [flag for flag in pod_spec(manifests)["containers"][0]["args"] if "prices" in flag]


def test_the_operator_understands_its_gpu_budgets(helm: Helm, tmp_path: Path) -> None:
    given = [{"class": "H100", "gpus": 64}, {"class": "h100", "gpus": 8, "namespace": "team-a"}]
    manifests = helm.template({"gpuBudgets": given}, namespace=NAMESPACE)
    (config,) = of_kind(manifests, "ConfigMap")
    file = tmp_path / "gpu-budgets.yaml"
    file.write_text(config["data"]["gpu-budgets.yaml"])
    assert read_budgets(file) == (GpuBudget("H100", 64), GpuBudget("H100", 8, namespace="team-a"))
    (container,) = pod_spec(manifests)["containers"]
    flags = dict(_named(flag) for flag in container["args"][1:])
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert flags["gpu_budgets_file"] == f"{mounts['config']}/gpu-budgets.yaml"
    (other,) = pod_spec(helm.template({}, namespace=NAMESPACE))["containers"]
    assert not [flag for flag in other["args"] if "budgets" in flag]


def _named(flag: str) -> tuple[str, str]:
    """Name of the setting and value of a flag."""
    name, _, value = flag.removeprefix("--").partition("=")
    return name.replace("-", "_"), value


def test_every_file_that_a_source_names_is_mounted_from_its_secret(helm: Helm) -> None:
    manifests = helm.template({"metricsSources": SOURCES}, namespace=NAMESPACE)
    spec = pod_spec(manifests)
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    (mount,) = (m for m in spec["containers"][0]["volumeMounts"] if m["name"] == "credentials")
    mounted = {
        f"{mount['mountPath']}/{item['path']}"
        for projection in volumes["credentials"]["projected"]["sources"]
        for source in projection.values()
        for item in source["items"]
    }
    (config,) = of_kind(manifests, "ConfigMap")
    named = {
        value
        for source in yaml.safe_load(config["data"]["metrics-sources.yaml"])["sources"].values()
        for key, value in {**source, **source.get("basic", {}), **source.get("mTLS", {})}.items()
        if key.endswith("File")
    }
    assert named == mounted | {"/var/run/secrets/kubernetes.io/serviceaccount/token"}


def test_no_secret_can_be_read_through_the_api(helm: Helm) -> None:
    manifests = helm.template({"metricsSources": SOURCES}, namespace=NAMESPACE, hooks=True)
    roles = of_kind(manifests, "ClusterRole") + of_kind(manifests, "Role")
    resources = {resource for role in roles for rule in role["rules"] for resource in rule["resources"]}
    assert "reasoningservings" in resources
    assert not resources & {"secrets", "*", "*/*"}


def test_a_list_of_namespaces_needs_no_right_in_the_cluster(helm: Helm) -> None:
    values = {"watchNamespaces": ["team-a", "team-b"], "crds": {"install": False}}
    manifests = helm.template(values, namespace=NAMESPACE, hooks=True)
    namespaced = {"team-a", "team-b", NAMESPACE}
    assert {manifest["metadata"].get("namespace") for manifest in manifests} == namespaced
    served = [role for role in of_kind(manifests, "Role") if "hook" not in str(role["metadata"].get("annotations"))]
    assert {role["metadata"]["namespace"] for role in served} == namespaced
    asked = {resource for role in served for rule in role["rules"] for resource in rule["resources"]}
    assert not asked & {"namespaces", "customresourcedefinitions"}


def test_two_releases_share_nothing_of_the_cluster(helm: Helm) -> None:
    def names(namespace: str) -> set[tuple[str, str]]:
        manifests = helm.template({"crds": {"install": False}}, namespace=namespace)
        return {(m["kind"], m["metadata"]["name"]) for m in manifests if "namespace" not in m["metadata"]}

    assert names("longtail-system")
    assert not names("longtail-system") & names("inference")


def test_a_digest_wins_over_the_tag(helm: Helm) -> None:
    digest = f"sha256:{'0' * 64}"
    values = {"image": {"repository": "registry.example/longtail", "tag": "1.0", "digest": digest}}
    (container,) = pod_spec(helm.template(values, namespace=NAMESPACE))["containers"]
    assert container["image"] == f"registry.example/longtail@{digest}"


def test_labels_and_annotations_for_all_are_on_all(helm: Helm) -> None:
    values = {**EVERYTHING, "commonLabels": {"team": "serving"}, "commonAnnotations": {"owner": "serving"}}
    for manifest in helm.template(values, namespace=NAMESPACE, hooks=True):
        if manifest["metadata"]["name"] == "extra":
            continue
        assert manifest["metadata"]["labels"]["team"] == "serving", manifest["kind"]
        assert manifest["metadata"]["annotations"]["owner"] == "serving", manifest["kind"]


EVERYTHING: dict[str, Any] = {
    "metricsSources": SOURCES,
    "networkPolicy": {"enabled": True},
    "serviceMonitor": {"enabled": True},
    "podMonitors": {"enabled": True},
    "prometheusRule": {"alerts": {"enabled": True}, "recording": {"enabled": True}},
    "dashboards": {"enabled": True},
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "extra"}}],
}


class TestRules:
    """Prometheus rules as the chart renders them, tried by promtool."""

    @pytest.fixture
    def rules(self, helm: Helm, tmp_path: Path) -> Path:
        manifests = helm.template(EVERYTHING, namespace=NAMESPACE)
        for manifest in of_kind(manifests, "PrometheusRule"):
            (tmp_path / f"{manifest['metadata']['name']}.yaml").write_text(yaml.safe_dump(manifest["spec"]))
        for test in (Path(__file__).parent / "rules").glob("*.yaml"):
            (tmp_path / test.name).write_text(test.read_text())
        return tmp_path

    def test_they_are_valid(self, chart_tools: ChartTools, rules: Path) -> None:
        files = [str(rules / f"longtail-{name}.yaml") for name in ("alerts", "recording")]
        checked = promtool(chart_tools, "check", "rules", "--lint=all", "--lint-fatal", *files)
        assert checked.returncode == 0, checked.stdout + checked.stderr

    @pytest.mark.parametrize("name", ["alerts", "recording"])
    def test_they_say_what_they_should(self, chart_tools: ChartTools, rules: Path, name: str) -> None:
        tested = promtool(chart_tools, "test", "rules", str(rules / f"{name}_test.yaml"))
        assert tested.returncode == 0, tested.stdout + tested.stderr

    def test_an_alert_can_be_left_out_and_labelled(self, helm: Helm) -> None:
        alerts = {"enabled": True, "disabled": ["LongtailFlapping"], "labels": {"team": "serving"}}
        (rule,) = of_kind(helm.template({"prometheusRule": {"alerts": alerts}}, namespace=NAMESPACE), "PrometheusRule")
        found = {each["alert"]: each for group in rule["spec"]["groups"] for each in group["rules"]}
        assert "LongtailFlapping" not in found
        assert found["LongtailNoLeader"]["labels"] == {"severity": "critical", "team": "serving"}
        assert found["LongtailNoLeader"]["annotations"]["runbook_url"].endswith("runbooks.md#longtailnoleader")


def promtool(tools: ChartTools, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(tools.promtool), *arguments], capture_output=True, text=True, check=False, timeout=60)
