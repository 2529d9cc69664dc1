"""The operator as a process with a service account of its own, and the simulated engines beside it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import requests
import yaml

from longtail_e2e.commands import PROGRAM
from longtail_e2e.kubectl import Kubectl
from longtail_e2e.ports import LOOPBACK, PortReservation
from longtail_e2e.processes import Command, ProcessGroup, wait_until

OPERATOR: Final = "longtail"
ENGINES: Final = "engines"
NAMESPACE: Final = "longtail-system"
USER: Final = f"system:serviceaccount:{NAMESPACE}:{OPERATOR}"

# All that the operator needs, and nothing else: the tests run it with exactly this.
_RULES: Final[tuple[Mapping[str, Any], ...]] = (
    {"apiGroups": ["longtail.dev"], "resources": ["reasoningservings"], "verbs": ["list", "watch"]},
    {"apiGroups": ["longtail.dev"], "resources": ["reasoningservings/status"], "verbs": ["patch"]},
    # Out of routing and back; get: to look again where somebody else has changed a pod meanwhile.
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "patch"]},
    # Only for pods with the readiness gate longtail.dev/in-service.
    {"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]},
    # Which pods get requests.
    {"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]},
    {
        "apiGroups": ["inference.networking.k8s.io"],
        "resources": ["inferencepools"],
        "verbs": ["list", "watch"],
    },
    {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets"], "verbs": ["list", "watch"]},
    {
        "apiGroups": ["leaderworkerset.x-k8s.io"],
        "resources": ["leaderworkersets"],
        "verbs": ["list", "watch"],
    },
    {"apiGroups": ["*"], "resources": ["*/scale"], "verbs": ["get", "patch"]},
    {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["list", "watch"]},
    {"apiGroups": ["keda.sh"], "resources": ["scaledobjects"], "verbs": ["list", "watch"]},
    # Levels of thinking.
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "patch"]},
    {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
    # Kopf follows definitions that come and go.
    {
        "apiGroups": ["apiextensions.k8s.io"],
        "resources": ["customresourcedefinitions"],
        "verbs": ["list", "watch"],
    },
)

# In the namespace of the Lease. Whom to create cannot be restricted by name.
_LEASE_RULES: Final[tuple[Mapping[str, Any], ...]] = (
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [OPERATOR],
        "verbs": ["get", "patch"],
    },
)


class Site(Protocol):
    """What operator and engines need of a cluster, be it `Cluster` or one that somebody else runs."""

    directory: Path
    ports: PortReservation
    processes: ProcessGroup
    kubectl: Kubectl

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        ...

    def service_account_kubeconfig(self, namespace: str, name: str, *, valid_seconds: int = 86_400) -> Path:
        """Write a kubeconfig that makes its reader no more than this service account."""
        ...


def apply_definition(cluster: Site, *, crds: Path) -> None:
    """Apply the CustomResourceDefinitions and wait until they are served."""
    cluster.kubectl("apply", "--server-side", "-f", str(crds))
    cluster.kubectl.wait_until_served("-f", str(crds))


class Operator:
    """One operator process. It sees the whole cluster and does no more than its role allows."""

    def __init__(
        self,
        cluster: Site,
        *,
        interval_seconds: float = 1.0,
        name: str = OPERATOR,
        lease_namespace: str = NAMESPACE,
        flags: Sequence[str] = (),
    ) -> None:
        """Name one.

        Args:
            cluster: where.
            interval_seconds: between two looks at the fleet.
            name: of its process and its service account, which tells it from others in the audit log. All of
                them stand for the same Lease.
            lease_namespace: where that is.
            flags: further ones for ``longtail run``.
        """
        self.name = name
        self._flags = [f"--instance={name}", f"--lease-namespace={lease_namespace}", *flags]
        self._cluster = cluster
        self._interval_seconds = interval_seconds
        self._port = cluster.ports.take()
        self._http = requests.Session()
        self._http.trust_env = False
        self.sources_file = cluster.directory / f"{name}-metrics-sources.yaml"

    @property
    def url(self) -> str:
        """Address of /livez, /readyz and /metrics."""
        return f"http://{LOOPBACK}:{self._port}"

    def install(self) -> Path:
        """Create namespace, service account and role; return a kubeconfig that is no more than them."""
        group = "rbac.authorization.k8s.io"
        # Several operators share the roles.
        accounts = {"apiGroup": group, "kind": "Group", "name": f"system:serviceaccounts:{NAMESPACE}"}
        rbac = f"{group}/v1"
        lease_role = {"name": f"{OPERATOR}-lease", "namespace": NAMESPACE}
        self._cluster.kubectl.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": self.name, "namespace": NAMESPACE},
            },
            {
                "apiVersion": rbac,
                "kind": "ClusterRole",
                "metadata": {"name": OPERATOR},
                "rules": list(_RULES),
            },
            {
                "apiVersion": rbac,
                "kind": "ClusterRoleBinding",
                "metadata": {"name": OPERATOR},
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": OPERATOR},
                "subjects": [accounts],
            },
            {"apiVersion": rbac, "kind": "Role", "metadata": lease_role, "rules": list(_LEASE_RULES)},
            {
                "apiVersion": rbac,
                "kind": "RoleBinding",
                "metadata": lease_role,
                "roleRef": {"apiGroup": group, "kind": "Role", "name": lease_role["name"]},
                "subjects": [accounts],
            },
        )
        return self._cluster.service_account_kubeconfig(NAMESPACE, self.name)

    def start(
        self,
        *,
        kubeconfig: Path,
        sources: Mapping[str, Any],
        program: Sequence[str] = (PROGRAM,),
        wait: bool = True,
    ) -> None:
        """Start it and return when it decides, or at once; ``program`` is what to run in place of ``longtail``."""
        self.sources_file.write_text(yaml.safe_dump({"sources": dict(sources)}))
        self._cluster.processes.start(
            Command(
                name=self.name,
                arguments=[
                    *program,
                    "run",
                    f"--kubeconfig={kubeconfig}",
                    f"--metrics-sources-file={self.sources_file}",
                    f"--interval-seconds={self._interval_seconds}",
                    # Figures in status follow within seconds: tests wait for them.
                    "--status-interval-seconds=3",
                    f"--health-host={LOOPBACK}",
                    f"--health-port={self._port}",
                    *self._flags,
                ],
                environment={"PYTHONWARNINGS": "error::ResourceWarning"},
                ready=self.is_ready if wait else None,
                ready_seconds=60.0,
                stop_seconds=20.0,
            )
        )

    def is_ready(self) -> bool:
        """Whether it says that it decides."""
        status = self._http.get(f"{self.url}/readyz", timeout=2.0).status_code
        return bool(status == requests.codes.ok)

    def value(self, name: str, /, **labels: str) -> float | None:
        """Return one of its own metrics; None when there is no such series."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        for line in self._http.get(f"{self.url}/metrics", timeout=5.0).text.splitlines():
            series, _, value = line.rpartition(" ")
            metric, _, rest = series.partition("{")
            if metric == name and wanted <= set(rest.removesuffix("}").split(",")):
                return float(value)
        return None

    def leads(self) -> bool:
        """Whether it writes; False where it does not answer."""
        try:
            return self.value("longtail_leader") == 1.0
        except requests.RequestException:
            return False

    def ticks(self) -> float:
        """How often it has looked at the fleet, start to end."""
        return sum(self.value("longtail_ticks_total", result=result) or 0.0 for result in ("done", "cut"))

    def wait_for_ticks(self, count: int, *, timeout_seconds: float = 60.0) -> None:
        """Return when it has looked at the fleet ``count`` more times, start to end."""
        # The tick that is under way may have begun before whatever the caller has just done.
        until = self.ticks() + count + 1
        wait_until(lambda: self.ticks() >= until, timeout_seconds=timeout_seconds, what=f"{count} ticks")


class Engines:
    """The process of simulated inference servers."""

    def __init__(self, cluster: Site, *, speed: float) -> None:
        self._cluster = cluster
        self._speed = speed
        self._port = cluster.ports.take()
        self._http = requests.Session()
        self._http.trust_env = False

    @property
    def url(self) -> str:
        """Its address; ``/sd`` lists its pods for Prometheus."""
        return f"http://{LOOPBACK}:{self._port}"

    def start(self) -> None:
        """Start without services."""
        empty = self._cluster.directory / "services.json"
        empty.write_text("[]")
        self._cluster.processes.start(
            Command(
                name=ENGINES,
                arguments=[
                    sys.executable,
                    "-m",
                    "longtail.workbench.engine.live",
                    f"--port={self._port}",
                    f"--kubeconfig={self._cluster.kubeconfig}",
                    f"--speed={self._speed}",
                    f"--services={empty}",
                    "--max-seconds=3600",
                ],
                environment={"PYTHONPATH": os.pathsep.join(sys.path)},
                ready=lambda: self._http.get(f"{self.url}/truth", timeout=2.0).status_code == requests.codes.ok,
            )
        )

    def put(self, service: str, /, **definition: Any) -> None:
        """Add a service; see ``longtail.workbench.engine.service.ServiceDefinition``."""
        self._ask("PUT", f"/services/{service}", definition)

    def rate(self, service: str, requests_per_second: float) -> None:
        """Let clients send so many requests from now on."""
        self._ask("POST", f"/services/{service}/rate", {"points": [[0.0, requests_per_second / self._speed]]})

    def ramp(self, service: str, *, since: float, until: float, seconds: float) -> None:
        """Let the rate rise or fall evenly from now on, then stay; in requests per second, as `rate`."""
        points = [[0.0, since / self._speed], [seconds * self._speed, until / self._speed]]
        self._ask("POST", f"/services/{service}/rate", {"points": points})

    def silence(self, service: str) -> None:
        """End all load: no new requests, and everybody who waits or runs gives up."""
        self.rate(service, 0.0)
        self._ask("POST", f"/services/{service}/abort", {"share": 1.0})

    def fault(self, service: str, kind: str) -> None:
        """Break the metrics of a service ("none" mends them)."""
        self._ask("POST", f"/services/{service}/fault", {"kind": kind})

    def truth(self, service: str) -> dict[str, Any]:
        """Return what is really going on."""
        answer = self._http.get(f"{self.url}/truth", timeout=5.0)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()["services"][service]
        return found

    def _ask(self, method: str, path: str, body: Mapping[str, Any]) -> None:
        answer = self._http.request(method, f"{self.url}{path}", json=body, timeout=5.0)
        if not answer.ok:
            raise ValueError(f"{method} {path}: {answer.status_code} {answer.text}")
