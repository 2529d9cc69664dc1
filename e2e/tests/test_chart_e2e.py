"""The chart on a real API server: every manifest is taken, and what is installed is also gone again.

Nothing runs in the pods here; KWOK says that they are ready.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from longtail_e2e import ChartTools, Cluster
from longtail_e2e.foreign import established, monitoring_definitions
from longtail_e2e.helm import CHARTS, Helm
from longtail_e2e.operator import apply_definition

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


@pytest.fixture(scope="module")
def installer(cluster: Cluster, chart_tools: ChartTools, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(chart_tools, home=tmp_path_factory.mktemp("helm"), kubeconfig=cluster.kubeconfig)


@pytest.fixture(scope="module")
def monitoring(cluster: Cluster) -> Iterator[None]:
    with established(cluster.kubectl, monitoring_definitions()):
        yield


class TestEveryManifestIsTaken:
    """Rendered for a table of values, tried on the API server's own schemas in a restricted namespace."""

    @pytest.mark.parametrize(
        "values",
        [
            pytest.param({}, id="defaults"),
            pytest.param(
                {"watchNamespaces": ["default"], "crds": {"install": False}, "networkPolicy": {"enabled": True}},
                id="a-list-of-namespaces",
            ),
            pytest.param(
                {
                    "serviceMonitor": {"enabled": True, "labels": {"release": "kube-prometheus-stack"}},
                    "podMonitors": {
                        "enabled": True,
                        "pools": [
                            {
                                "name": "r1",
                                "namespaces": ["inference"],
                                "selector": {"matchLabels": {"app": "r1"}},
                                "port": "http",
                            }
                        ],
                    },
                    "prometheusRule": {"alerts": {"enabled": True}, "recording": {"enabled": True}},
                    "dashboards": {"enabled": True, "annotations": {"grafana_folder": "longtail"}},
                },
                id="monitoring",
            ),
            pytest.param(
                {
                    "metricsSources": {
                        "default": {
                            "url": "https://prometheus.example",
                            "bearerTokenSecretRef": {"name": "prometheus", "key": "token"},
                            "tls": {"caSecretRef": {"name": "ca", "key": "ca.crt"}, "certSecretName": "client"},
                        },
                        "tenant-a": {
                            "url": "https://mimir.example/prometheus",
                            "basicAuth": {"username": "longtail", "passwordSecretRef": {"name": "m", "key": "p"}},
                        },
                    }
                },
                id="credentials",
            ),
            pytest.param(
                {
                    "replicaCount": 1,
                    "priorityClassName": "system-cluster-critical",
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "tolerations": [{"key": "control", "operator": "Exists"}],
                    "affinity": {
                        "nodeAffinity": {
                            "requiredDuringSchedulingIgnoredDuringExecution": {
                                "nodeSelectorTerms": [
                                    {"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}
                                ]
                            }
                        }
                    },
                    "topologySpreadConstraints": [
                        {
                            "maxSkew": 1,
                            "topologyKey": "kubernetes.io/hostname",
                            "whenUnsatisfiable": "DoNotSchedule",
                            "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "longtail"}},
                        }
                    ],
                    "podLabels": {"team": "serving"},
                    "podAnnotations": {"example.org/note": "1"},
                    "imagePullSecrets": [{"name": "registry"}],
                    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
                    "extraVolumes": [{"name": "extra", "emptyDir": {}}],
                    "extraVolumeMounts": [{"name": "extra", "mountPath": "/extra"}],
                },
                id="scheduling",
            ),
            pytest.param(
                {
                    "networkPolicy": {
                        "enabled": True,
                        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
                        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
                    },
                    "rbac": {"scaleTargets": [{"apiGroup": "*", "resource": "*"}], "aggregateToDefaultRoles": False},
                    "extraObjects": [
                        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-extra"}},
                        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: text}\n",
                    ],
                },
                id="any-target-and-extra-objects",
            ),
            pytest.param(
                {"serviceAccount": {"create": False, "name": "mine"}, "rbac": {"create": False}}, id="own-account"
            ),
        ],
    )
    @pytest.mark.usefixtures("monitoring")
    def test_by_the_api_server(self, cluster: Cluster, namespace: str, helm: Helm, values: dict[str, Any]) -> None:
        cluster.kubectl("label", "namespace", namespace, RESTRICTED)
        manifests = helm.template(values, namespace=namespace, hooks=True)
        (deployment,) = (manifest for manifest in manifests if manifest["kind"] == "Deployment")
        template = deployment["spec"]["template"]
        # A Deployment that breaks the standard is taken with a warning; its pods are what is refused. The account
        # of a pod must be there, and nothing is made here.
        pods = [manifest for manifest in manifests if manifest["kind"] == "Pod"]
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "longtail-1", **template["metadata"]}})
        pods[-1]["spec"] = template["spec"]
        for pod in pods:
            pod["metadata"]["namespace"] = namespace
            pod["spec"] |= {"serviceAccountName": "default"}
        rest = [manifest for manifest in manifests if manifest["kind"] != "Pod"]
        cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=60s")
        taken = cluster.kubectl("apply", "--dry-run=server", "-f", "-", manifests=[*rest, *pods])
        assert taken.count("(server dry run)") == len(rest) + len(pods)

    def test_the_chart_of_the_definitions(self, cluster: Cluster, namespace: str, helm: Helm) -> None:
        (definition,) = helm.template({}, namespace=namespace, chart="longtail-crds")
        assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        cluster.kubectl(
            "apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", "-", manifests=definition
        )


@pytest.fixture
def returned_definitions(cluster: Cluster) -> Iterator[None]:
    """Helm applies as a field manager of its own; the other tests apply the definitions as kubectl."""
    yield
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))


@pytest.mark.usefixtures("returned_definitions")
def test_install_upgrade_rollback_and_uninstall(cluster: Cluster, namespace: str, installer: Helm) -> None:
    cluster.kubectl("label", "namespace", namespace, RESTRICTED)
    chart = str(CHARTS / "longtail")
    release = ("longtail", f"--namespace={namespace}")

    def operators() -> int:
        found: int = cluster.kubectl.get("deployment", "longtail", "-n", namespace)["status"].get("readyReplicas", 0)
        return found

    # As where the definitions were applied without Helm before: kubectl owns their fields.
    apply_definition(cluster, crds=ROOT / "crds")
    theirs = ("--take-ownership", "--force-conflicts")
    notes = installer("install", *release, chart, *theirs, "--wait", "--timeout=60s")
    assert operators() == 2
    assert f"helm test longtail --namespace {namespace}" in notes
    cluster.kubectl("get", "poddisruptionbudget", "longtail", "-n", namespace)

    one = {"replicaCount": 1}
    installer("upgrade", *release, chart, "--wait", "--timeout=60s", values=one)
    assert operators() == 1
    assert cluster.kubectl("get", "poddisruptionbudget", "-n", namespace, "-o", "name") == ""
    installer("rollback", "longtail", "1", f"--namespace={namespace}", "--wait", "--timeout=60s")
    assert operators() == 2

    serving = {
        "apiVersion": "longtail.dev/v1alpha1",
        "kind": "ReasoningServing",
        "metadata": {"name": "r1"},
        "spec": {"scaleTargetRef": {"name": "r1"}, "maxReplicas": 4},
    }
    cluster.kubectl("create", "-n", namespace, "-f", "-", manifests=serving)
    installer("uninstall", "longtail", f"--namespace={namespace}", "--wait", "--timeout=60s")
    cluster.kubectl("get", "rsv", "r1", "-n", namespace)
    left = cluster.kubectl(
        *("get", "deployment,service,configmap,serviceaccount,role,rolebinding,poddisruptionbudget"),
        *("-n", namespace, "-l", "app.kubernetes.io/instance=longtail", "-o", "name"),
    )
    assert left == ""
    assert f"{namespace}-longtail" not in cluster.kubectl("get", "clusterrole,clusterrolebinding", "-o", "name")
