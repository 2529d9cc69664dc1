"""The product as users meet it: an image, a Helm release, and pods that really run on a real kubelet.

Pods of the pool run one simulated engine each, which answers real HTTP requests through a real Service as slowly as a
GPU would. Prometheus scrapes what the chart's monitors select. Both namespaces enforce the standard "restricted".
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from longtail_e2e import Cluster, wait_until
from longtail_e2e.clients import Answers, Clients, ask
from longtail_e2e.foreign import established, monitoring_definitions
from longtail_e2e.helm import CHARTS, Helm
from longtail_e2e.image import ensure_image
from longtail_e2e.node import Node

pytestmark = pytest.mark.e2e

CHART = str(CHARTS / "longtail")
HOME = "longtail-system"
SLOTS = 4
PORT = 8000
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


@pytest.fixture
def pool_namespace(cluster: Cluster) -> Iterator[str]:
    name = f"pool-{uuid.uuid4().hex[:8]}"
    _create_namespace(cluster, name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def home(cluster: Cluster) -> Iterator[str]:
    """The release's namespace."""
    _create_namespace(cluster, HOME)
    yield HOME
    cluster.kubectl("delete", "namespace", HOME, "--timeout=60s")


@pytest.fixture(scope="module", autouse=True)
def monitoring(cluster: Cluster) -> Iterator[None]:
    with established(cluster.kubectl, monitoring_definitions()):
        yield


@pytest.mark.usefixtures("monitored")
def test_a_release_from_its_installation_to_its_end(
    cluster: Cluster, node: Node, helm: Helm, home: str, pool_namespace: str
) -> None:
    pool = Pool(cluster, pool_namespace)
    helm("install", "longtail", CHART, f"--namespace={home}", "--wait", "--timeout=120s", values=values(cluster))
    assert _ready_operators(cluster, home) == 2
    node.name("longtail", home)
    told = helm("test", "longtail", f"--namespace={home}", "--logs", "--timeout=120s")
    assert told.count("ok  ") == 4, told

    pool.create()
    with pool.clients() as clients:
        clients.crowd(2 * SLOTS)
        grown = pool.wait_for_ready(lambda ready: ready >= 3)
        clients.crowd(0)
        a_cordoned_pod_leaves_the_service_while_its_stream_goes_on(pool, ready=grown)
        pool.wait_for_ready(lambda ready: ready == 1)
        assert clients.answers.cut == []
        assert clients.answers.refused == []

        # Load that rises while the operators are replaced one after the other is met as ever.
        since = time.time()
        clients.crowd(2 * SLOTS)
        changed = values(cluster) | {"logLevel": "DEBUG", "podAnnotations": {"example.org/change": "1"}}
        helm("upgrade", "longtail", CHART, f"--namespace={home}", "--wait", "--timeout=120s", values=changed)
        pool.wait_for_ready(lambda ready: ready >= 3)
        helm("rollback", "longtail", "1", f"--namespace={home}", "--wait", "--timeout=120s")
        assert _ready_operators(cluster, home) == 2
        template = cluster.kubectl.get("deployment", "longtail", "-n", home)["spec"]["template"]
        assert "example.org/change" not in template["metadata"]["annotations"]
        # Two handovers, each of a leader that gives its Lease back: the next one takes it within a retry or two.
        assert _longest_without_leader(cluster, since=since) <= 6.0
        clients.crowd(0)
    pool.wait_for_ready(lambda ready: ready == 1)
    assert clients.answers.whole > 20
    assert clients.answers.cut == []
    assert clients.answers.refused == []

    helm("uninstall", "longtail", f"--namespace={home}", "--wait", "--timeout=60s")
    assert _left(cluster, home) == ""
    cluster.kubectl("get", "crd/reasoningservings.longtail.dev")
    cluster.kubectl("get", "rsv/r1", "-n", pool_namespace)


@pytest.mark.usefixtures("monitored", "node")
def test_a_release_for_one_namespace_scales_there_and_may_do_nothing_in_the_cluster(
    cluster: Cluster, helm: Helm, home: str, pool_namespace: str
) -> None:
    pool = Pool(cluster, pool_namespace)
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CHARTS.parent / "crds"))
    own = values(cluster) | {"watchNamespaces": [pool_namespace], "crds": {"install": False}}
    helm("install", "longtail", CHART, f"--namespace={home}", "--wait", "--timeout=120s", values=own)
    assert "longtail" not in cluster.kubectl("get", "clusterrole,clusterrolebinding", "-o", "name")
    account = f"--as=system:serviceaccount:{home}:longtail"
    assert cluster.kubectl.run("auth", "can-i", "list", "pods", "-n", "default", account).stdout.strip() == "no"
    pool.create(minReplicas=2)
    pool.wait_for_ready(lambda ready: ready == 2)
    helm("uninstall", "longtail", f"--namespace={home}", "--wait", "--timeout=60s")
    assert _left(cluster, home) == ""
    assert _left(cluster, pool_namespace) == ""


def a_cordoned_pod_leaves_the_service_while_its_stream_goes_on(pool: Pool, *, ready: int) -> None:
    """A long answer on every pod, no other load: the pool shrinks under open streams."""
    addresses = pool.addresses()
    assert len(addresses) >= ready
    answers, lock = Answers(), threading.Lock()
    streams = {
        pod: threading.Thread(
            target=ask,
            args=(f"http://{address}:{PORT}/v1/completions",),
            # 14 ms a token: a minute.
            kwargs={"tokens": 4000, "answers": answers, "lock": lock},
        )
        for pod, address in addresses.items()
    }
    for stream in streams.values():
        stream.start()
    wait_until(lambda: pool.draining() != set(), timeout_seconds=60.0, what="a replica to be cordoned")
    cordoned = next(iter(pool.draining()))
    wait_until(lambda: cordoned not in pool.endpoints(), timeout_seconds=10.0, what="it to leave the Service")
    assert streams[cordoned].is_alive(), "its answer ended before it was cordoned"
    for stream in streams.values():
        stream.join(120.0)
    assert answers.cut + answers.refused == []
    assert answers.whole == len(streams)


class Pool:
    """A Deployment of simulated engines behind a Service, and the resource that scales it."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace

    def create(self, **spec: Any) -> None:
        """Apply all three, and wait until one replica answers."""
        labels = {"app": "r1"}
        routing = labels | {"longtail.dev/route": "true"}
        command = ["python", "-m", "longtail.workbench.engine.serve", "--host=0.0.0.0"]
        restricted = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        container = {
            "name": "engine",
            "image": ensure_image().name,
            "command": [*command, f"--port={PORT}", f"--slots={SLOTS}"],
            "ports": [{"name": "http", "containerPort": PORT}],
            "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 5},
            # As docs/install.md says: whoever has not heard yet that a pod goes may still send it something.
            "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
            "securityContext": restricted,
            "resources": {"limits": {"nvidia.com/gpu": "1"}},
        }
        template = {"metadata": {"labels": routing}, "spec": {"containers": [container], "enableServiceLinks": False}}
        behavior = {
            "scaleUp": {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 1}]},
            "scaleDown": {"stabilizationWindowSeconds": 5},
        }
        serving = {
            "mode": "Active",
            "scaleTargetRef": {"name": "r1"},
            "minReplicas": 1,
            "maxReplicas": 4,
            # A burst is remembered the longer, the more of 100 requests are to be in time.
            "objective": {"attainmentPercent": 90},
            "capacity": {"maxConcurrentRequests": SLOTS},
            "startup": {"seconds": 5},
            "behavior": behavior,
        }
        self._apply("apps/v1", "Deployment", {"selector": {"matchLabels": labels}, "template": template})
        self._apply("v1", "Service", {"selector": routing, "ports": [{"port": PORT}]})
        self._apply("longtail.dev/v1alpha1", "ReasoningServing", serving | spec)
        self.wait_for_ready(lambda ready: ready >= 1)

    def clients(self) -> Clients:
        """Those of the Service, who ask for two to four seconds each."""
        address = self._cluster.kubectl.get("service", "r1", "-n", self._namespace)["spec"]["clusterIP"]
        return Clients(f"http://{address}:{PORT}", tokens=(120, 280))

    def wait_for_ready(self, condition: Any, *, seconds: float = 120.0) -> int:
        """Wait until so many replicas are asked for and ready as suits; return how many."""
        where = ("deployment", "r1", "-n", self._namespace)

        def suits(body: Mapping[str, Any]) -> bool:
            ready: int = body["status"].get("readyReplicas", 0)
            return ready == body["spec"]["replicas"] and bool(condition(ready))

        found = self._cluster.kubectl.wait_until(suits, *where, timeout_seconds=seconds)
        count: int = found["spec"]["replicas"]
        return count

    def addresses(self) -> dict[str, str]:
        """Pods that serve, with their addresses."""
        return {
            pod["metadata"]["name"]: pod["status"]["podIP"]
            for pod in self._pods()
            if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("podIP")
        }

    def draining(self) -> set[str]:
        """Pods that are out of routing."""
        return {
            pod["metadata"]["name"]
            for pod in self._pods()
            if pod["metadata"]["labels"]["longtail.dev/route"] == "draining"
        }

    def endpoints(self) -> set[str]:
        """Pods in the EndpointSlices of the Service."""
        label = "kubernetes.io/service-name=r1"
        slices = self._cluster.kubectl.get("endpointslices", "-n", self._namespace, "-l", label)["items"]
        return {each["targetRef"]["name"] for piece in slices for each in piece.get("endpoints") or ()}

    def _pods(self) -> list[dict[str, Any]]:
        pods: list[dict[str, Any]] = self._cluster.kubectl.get("pods", "-n", self._namespace, "-l", "app=r1")["items"]
        return pods

    def _apply(self, api_version: str, kind: str, spec: Mapping[str, Any]) -> None:
        manifest = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "r1"}, "spec": spec}
        self._cluster.kubectl("apply", "-n", self._namespace, "-f", "-", manifests=manifest)


def values(cluster: Cluster) -> dict[str, Any]:
    """Those of the chart: the image that was built here, and a look at the fleet every second."""
    repository, _, tag = ensure_image().name.rpartition(":")
    return {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "metricsSources": {"default": {"url": cluster.prometheus_url, "scrapeIntervalSeconds": 1}},
        "intervalSeconds": 1,
        "serviceMonitor": {"enabled": True},
        "podMonitors": {"enabled": True},
        "prometheusRule": {"alerts": {"enabled": True}, "recording": {"enabled": True}},
        "dashboards": {"enabled": True},
    }


def _create_namespace(cluster: Cluster, name: str) -> None:
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, RESTRICTED)
    # Without its account the API server refuses every pod of it.
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=30s")


def _ready_operators(cluster: Cluster, namespace: str) -> int:
    found: int = cluster.kubectl.get("deployment", "longtail", "-n", namespace)["status"].get("readyReplicas", 0)
    return found


def _left(cluster: Cluster, namespace: str) -> str:
    """What a release has left in a namespace, or in the cluster but for the definitions."""
    kinds = "deployment,service,configmap,serviceaccount,role,rolebinding,poddisruptionbudget,podmonitor,servicemonitor"
    label = ("-l", "app.kubernetes.io/instance=longtail", "-o", "name")
    here = cluster.kubectl("get", kinds, "-n", namespace, *label)
    return here + cluster.kubectl("get", "clusterrole,clusterrolebinding", *label)


def _longest_without_leader(cluster: Cluster, *, since: float) -> float:
    """Seconds, as Prometheus saw it: once a second it asks every operator whether it leads."""
    leads = cluster.prometheus.query(f"max_over_time(max(longtail_leader)[{time.time() - since:.0f}s:1s])")
    assert leads, "the operators are not scraped"
    without = cluster.prometheus.query(
        # A sample that is older than two seconds says nothing of now.
        f"(max(last_over_time(longtail_leader[2s])) or vector(0))[{time.time() - since:.0f}s:1s]"
    )
    longest = current = 0
    for _, value in without[0]["values"]:
        current = 0 if value == "1" else current + 1
        longest = max(longest, current)
    return float(longest)
