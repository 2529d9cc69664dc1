"""Where the demo runs: a control plane of its own on loopback, or a cluster that exists already.

In an existing cluster nothing runs inside but sleeping pods: Prometheus, the simulated servers and the
operator are processes on this machine, and the namespace (and the definition, if it was not there) go with
the demo.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from longtail_demo import manifests
from longtail_e2e import Cluster
from longtail_e2e.build import ensure_components
from longtail_e2e.kubectl import Kubectl
from longtail_e2e.operator import Engines, Operator, apply_definition
from longtail_e2e.ports import PortReservation
from longtail_e2e.processes import ProcessGroup
from longtail_e2e.progress import Progress
from longtail_e2e.prometheus import Prometheus

SCRAPE_SECONDS = 1.0
SPEED = 10.0
_DEFINITION = "customresourcedefinition/reasoningservings.longtail.dev"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A running demo, before any load."""

    kubectl: Kubectl
    engines: Engines
    operator: Operator


@contextmanager
def own_cluster(*, crds: Path, progress: Progress) -> Iterator[Place]:
    """Start a control plane with simulated GPU nodes, and all the rest; stop it at the end."""
    with Cluster.start(nodes=2, gpus_per_node=8, scrape_interval_seconds=SCRAPE_SECONDS, progress=progress) as cluster:
        operator = Operator(cluster)
        apply_definition(cluster, crds=crds)
        yield _start(cluster, operator=operator, kubeconfig=operator.install(), simulated=True)


@contextmanager
def existing_cluster(context: str, *, crds: Path, progress: Progress) -> Iterator[Place]:
    """Use a cluster from the user's kubeconfig, and remove at the end what was put there."""
    components = ensure_components(progress=progress)
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="longtail-demo-")))
        directory.chmod(0o700)
        borrowed = _Borrowed(context=context, command=components.command("kubectl"), directory=directory)
        cleanup.callback(borrowed.ports.release)
        cleanup.callback(borrowed.processes.stop_all)
        borrowed.prometheus = Prometheus(
            components=components,
            processes=borrowed.processes,
            ports=borrowed.ports,
            directory=directory / "prometheus",
            scrape_interval_seconds=SCRAPE_SECONDS,
        )
        borrowed.prometheus.start()
        if borrowed.kubectl.run("get", _DEFINITION).returncode != 0:
            cleanup.callback(borrowed.kubectl.run, "delete", _DEFINITION)
        apply_definition(borrowed, crds=crds)
        cleanup.callback(borrowed.kubectl.run, "delete", "namespace", manifests.NAMESPACE, timeout_seconds=90)
        yield _start(
            borrowed,
            operator=Operator(borrowed, lease_namespace=manifests.NAMESPACE),
            kubeconfig=borrowed.kubeconfig,
            simulated=False,
        )


class _Borrowed:
    """The parts of ``Cluster`` that operator and engines need, for a cluster that is not ours."""

    prometheus: Prometheus

    def __init__(self, *, context: str, command: list[str], directory: Path) -> None:
        self.directory = directory
        self.ports = PortReservation()
        self.processes = ProcessGroup(directory)
        self._kubeconfig = directory / "kubeconfig"
        self._kubeconfig.write_text(_kubeconfig_of(context, command=command, cache=directory / "cache"))
        self.kubectl = Kubectl(command=command, kubeconfig=self._kubeconfig, cache=directory / "cache")

    @property
    def kubeconfig(self) -> Path:
        return self._kubeconfig

    @property
    def prometheus_url(self) -> str:
        return self.prometheus.url

    def service_account_kubeconfig(self, namespace: str, name: str, *, valid_seconds: int = 86_400) -> Path:
        """Return the user's own rights: the demo grants none in a cluster that is not its own."""
        del namespace, name, valid_seconds
        return self.kubeconfig


def _kubeconfig_of(context: str, *, command: list[str], cache: Path) -> str:
    home = Path.home() / ".kube" / "config"
    users = Kubectl(command=command, kubeconfig=_first_kubeconfig() or home, cache=cache)
    return users("config", "view", "--raw", "--minify", "--flatten", f"--context={context}")


def _first_kubeconfig() -> Path | None:
    first = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    return Path(first) if first else None


def _start(cluster: Cluster | _Borrowed, *, operator: Operator, kubeconfig: Path, simulated: bool) -> Place:
    cluster.kubectl.apply(manifests.namespace())
    engines = Engines(cluster, speed=SPEED)
    engines.start()
    cluster.prometheus.set_http_discovery(f"{engines.url}/sd")
    cluster.kubectl.apply(manifests.service(), manifests.deployment(simulated=simulated))
    engines.put(
        manifests.NAME,
        namespace=manifests.NAMESPACE,
        selector=f"app={manifests.NAME}",
        service=manifests.NAME,
    )
    source = {"url": cluster.prometheus_url, "scrapeIntervalSeconds": SCRAPE_SECONDS}
    operator.start(kubeconfig=kubeconfig, sources={"default": source})
    cluster.kubectl.apply(manifests.serving())
    return Place(kubectl=cluster.kubectl, engines=engines, operator=operator)
