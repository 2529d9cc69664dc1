"""The cluster is a real one: what the demo and the other end-to-end tests rest on."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from longtail_e2e import Cluster, Target, startup_annotations, wait_until
from longtail_e2e.errors import CommandError
from longtail_e2e.processes import is_alive

pytestmark = pytest.mark.e2e


def gpu_deployment(*, name: str, replicas: int, gpus: int, annotations: dict[str, str]) -> dict[str, Any]:
    container = {
        "name": "engine",
        "image": "none",
        "resources": {"limits": {"nvidia.com/gpu": str(gpus)}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": annotations},
                "spec": {"containers": [container]},
            },
        },
    }


def condition(pod: dict[str, Any], kind: str) -> dict[str, Any] | None:
    return next((c for c in pod.get("status", {}).get("conditions", []) if c["type"] == kind), None)


def since(pod: dict[str, Any], kind: str) -> datetime:
    found = condition(pod, kind)
    assert found is not None
    return datetime.fromisoformat(found["lastTransitionTime"])


def is_ready(pod: dict[str, Any]) -> bool:
    found = condition(pod, "Ready")
    return found is not None and found["status"] == "True"


def test_the_api_server_is_ready_and_knows_its_version(cluster: Cluster) -> None:
    assert cluster.kubectl("get", "--raw", "/readyz") == "ok"
    assert '"gitVersion": "v1.' in cluster.kubectl("get", "--raw", "/version")


def test_pods_start_after_the_asked_delay_and_one_that_does_not_fit_stays_pending(
    cluster: Cluster, namespace: str
) -> None:
    # Two nodes of 8 GPUs hold two pods of 8; the third finds no place.
    deployment = gpu_deployment(
        name="r1", replicas=3, gpus=8, annotations=startup_annotations(create_seconds=1.0, ready_seconds=3.0)
    )
    cluster.kubectl("apply", "-n", namespace, "-f", "-", manifests=deployment)

    pods = cluster.kubectl.wait_until(
        lambda found: sum(map(is_ready, found["items"])) == 2, "pods", "-n", namespace, timeout_seconds=60
    )["items"]

    for pod in filter(is_ready, pods):
        # Conditions have whole seconds: a delay of 4 s shows as 3 s to 5 s, and KWOK adds its own reaction time.
        started = (since(pod, "Ready") - since(pod, "PodScheduled")).total_seconds()
        assert 3 <= started <= 8
    (unfit,) = (pod for pod in pods if not is_ready(pod))
    assert unfit["status"]["phase"] == "Pending"
    scheduled = condition(unfit, "PodScheduled")
    assert scheduled is not None
    assert scheduled["status"] == "False"
    assert scheduled["reason"] == "Unschedulable"
    assert "Insufficient nvidia.com/gpu" in scheduled["message"]


def test_a_bad_object_is_refused_in_the_api_servers_own_words(cluster: Cluster, namespace: str) -> None:
    deployment = gpu_deployment(name="r1", replicas=-1, gpus=1, annotations={})
    with pytest.raises(CommandError, match=r"spec\.replicas"):
        cluster.kubectl("apply", "-n", namespace, "-f", "-", manifests=deployment)


def test_a_service_account_may_do_no_more_than_its_role(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "serviceaccount", "operator", "-n", namespace)
    operator = cluster.kubectl.using(cluster.service_account_kubeconfig(namespace, "operator"))
    refused = operator.run("get", "pods", "-n", namespace)
    assert refused.returncode != 0
    assert f'User "system:serviceaccount:{namespace}:operator" cannot list resource "pods"' in refused.stderr

    cluster.kubectl(
        "create",
        "rolebinding",
        "operator",
        "-n",
        namespace,
        "--clusterrole=view",
        f"--serviceaccount={namespace}:operator",
    )
    wait_until(
        lambda: operator.run("get", "pods", "-n", namespace).returncode == 0,
        timeout_seconds=10,
        what="the role binding to take effect",
    )


def test_the_audit_log_names_who_wrote_what(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "configmap", "written", "-n", namespace)

    def writers() -> set[str]:
        return {
            event["user"]["username"]
            for event in cluster.control_plane.audit_events()
            if event["verb"] == "create" and event["objectRef"].get("resource") == "configmaps"
            if event["objectRef"].get("namespace") == namespace and event["responseStatus"]["code"] == 201
            if event["requestObject"]["metadata"]["name"] == "written"
        }

    wait_until(lambda: writers() == {"admin"}, timeout_seconds=10, what="the audit log")


def test_objects_survive_a_restart_of_the_api_server(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "configmap", "kept", "-n", namespace)
    before = cluster.processes["kube-apiserver"].pid
    cluster.control_plane.restart("kube-apiserver")
    assert cluster.processes["kube-apiserver"].pid != before
    assert cluster.kubectl.get("configmap", "kept", "-n", namespace)["metadata"]["name"] == "kept"


class Exporter(http.server.BaseHTTPRequestHandler):
    """Two simulated pods on one server, as the paths /a and /b."""

    def do_GET(self) -> None:
        body = f'pod_path_info{{path="{self.path}"}} 1\n'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (overridden)
        pass


@pytest.fixture
def exporter() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exporter) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_prometheus_follows_its_targets_and_keeps_its_data_over_an_outage(cluster: Cluster, exporter: str) -> None:
    prometheus = cluster.prometheus
    prometheus.set_targets(
        Target(url=f"{exporter}/{pod}", labels={"namespace": "inference", "pod": pod}) for pod in ("a", "b")
    )
    wait_until(
        lambda: prometheus.value('sum(pod_path_info{namespace="inference"})') == 2,
        timeout_seconds=30,
        what="both pods to be scraped",
    )
    assert prometheus.value('pod_path_info{pod="b", path="/b"}') == 1

    prometheus.set_targets([Target(url=f"{exporter}/a", labels={"namespace": "inference", "pod": "a"})])
    wait_until(
        lambda: prometheus.value('sum(up{namespace="inference"})') == 1,
        timeout_seconds=30,
        what="the removed target to go stale",
    )

    asked_unix_seconds = time.time()
    with prometheus.outage(), pytest.raises(OSError, match="refused"):
        prometheus.query("up")
    assert prometheus.query('pod_path_info{pod="a"}', at_unix_seconds=asked_unix_seconds)

    prometheus.set_targets([])


def test_a_second_cluster_starts_beside_the_first_from_the_same_build_and_leaves_no_process(
    cluster: Cluster,
) -> None:
    steps: set[str] = set()

    def note(step: str, detail: str = "", *, done: bool = False) -> None:
        steps.add(step)

    with Cluster.start(nodes=1, gpus_per_node=1, progress=note) as second:
        assert second.api_url != cluster.api_url
        assert second.components.directory == cluster.components.directory
        assert [node["metadata"]["name"] for node in second.kubectl.get("nodes")["items"]] == ["gpu-0"]
        started = second.processes.history
        assert {name for name, _ in started} == {
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kwok",
            "prometheus",
        }
        assert all(is_alive(pid) for _, pid in started)
        directory = second.directory

    assert steps == {"Starting the cluster"}
    assert [name for name, pid in started if is_alive(pid)] == []
    assert not directory.exists()
    assert cluster.kubectl("get", "--raw", "/readyz") == "ok"
