"""A whole cluster as one context: control plane, simulated GPU nodes and Prometheus, on loopback."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from longtail_e2e.build import Components, ensure_components
from longtail_e2e.controlplane import ControlPlane
from longtail_e2e.errors import HarnessError
from longtail_e2e.kubectl import Kubectl
from longtail_e2e.kwok import FakeNodes
from longtail_e2e.ports import LOOPBACK, PortReservation
from longtail_e2e.processes import ProcessGroup
from longtail_e2e.progress import Progress, silent
from longtail_e2e.prometheus import Prometheus


class Cluster:
    """A running cluster; made by `Cluster.start`.

    Attributes:
        directory: Where everything is written: logs/, pids/, kubeconfigs, databases.
        processes: Starts and stops processes; add your own (the operator), and they end with the cluster.
        ports: Hands out further free loopback ports.
        control_plane: etcd, API server, controllers and scheduler; can stop and restart each.
        nodes: The simulated nodes.
        kubectl: The real kubectl as administrator.
    """

    def __init__(
        self, *, components: Components, directory: Path, ports: PortReservation, host: str, audit: bool
    ) -> None:
        self.directory = directory
        self.components = components
        self.ports = ports
        self.processes = ProcessGroup(directory)
        self.control_plane = ControlPlane(
            components=components, processes=self.processes, ports=ports, directory=directory, host=host, audit=audit
        )
        self.kubectl = Kubectl(
            command=components.command("kubectl"),
            kubeconfig=self.control_plane.kubeconfig(),
            cache=directory / "kubectl-cache",
        )
        self.nodes = FakeNodes(
            components=components,
            processes=self.processes,
            kubectl=self.kubectl,
            kubeconfig=self.control_plane.kubeconfig("kwok"),
        )
        self._prometheus: Prometheus | None = None

    @property
    def prometheus(self) -> Prometheus:
        """The cluster's Prometheus.

        Raises:
            HarnessError: the cluster was started without one.
        """
        if self._prometheus is None:
            raise HarnessError("this cluster was started with prometheus=False")
        return self._prometheus

    @property
    def api_url(self) -> str:
        """The API server's address."""
        return self.control_plane.url

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.control_plane.kubeconfig()

    @property
    def prometheus_url(self) -> str:
        """The address of Prometheus."""
        return self.prometheus.url

    def service_account_kubeconfig(self, namespace: str, name: str, *, valid_seconds: int = 86_400) -> Path:
        """Write a kubeconfig that makes its reader no more than this service account; return its path."""
        token = self.kubectl("create", "token", name, "-n", namespace, f"--duration={valid_seconds}s").strip()
        path = self.directory / f"{namespace}-{name}.kubeconfig"
        return self.control_plane.write_kubeconfig(path, user=f"system:serviceaccount:{namespace}:{name}", token=token)

    @classmethod
    @contextmanager
    def start(
        cls,
        *,
        workdir: Path | None = None,
        host: str = LOOPBACK,
        nodes: int | None = 0,
        gpus_per_node: int = 8,
        prometheus: bool = True,
        scrape_interval_seconds: float = 5.0,
        http_discovery: Sequence[str] = (),
        audit: bool = False,
        progress: Progress = silent,
    ) -> Iterator[Cluster]:
        """Build what is missing, start a cluster, and stop all of it when the block ends, however it does.

        Args:
            workdir: An empty folder that stays afterwards, with logs and databases; by default a temporary
                one that is removed.
            host: Address of the API server and of Prometheus: one that pods reach, where there are real ones.
            nodes: Number of simulated nodes to begin with; `cluster.nodes.add` adds more. None: every node that
                there will be is real.
            gpus_per_node: `nvidia.com/gpu` of each.
            prometheus: Whether to run Prometheus.
            scrape_interval_seconds: How often it scrapes every target.
            http_discovery: Addresses that Prometheus asks for targets (http_sd).
            audit: Whether the API server writes an audit log, see `control_plane.audit_events`.
            progress: Told what is going on.

        Raises:
            BuildError: the components cannot be built here.
            ProcessError: a component did not come up; the message ends with its log.
        """
        components = ensure_components(progress=progress)
        with ExitStack() as cleanup:
            ports = PortReservation()
            cleanup.callback(ports.release)
            directory = _new_directory(workdir, cleanup)
            cluster = cls(components=components, directory=directory, ports=ports, host=host, audit=audit)
            cleanup.callback(cluster.processes.stop_all)
            if prometheus:
                cluster._prometheus = Prometheus(
                    components=components,
                    processes=cluster.processes,
                    ports=ports,
                    directory=directory / "prometheus",
                    host=host,
                    scrape_interval_seconds=scrape_interval_seconds,
                    http_discovery=http_discovery,
                )
            cluster._bring_up(nodes=nodes, gpus_per_node=gpus_per_node, progress=progress)
            yield cluster

    def _bring_up(self, *, nodes: int | None, gpus_per_node: int, progress: Progress) -> None:
        step = "Starting the cluster"
        progress(step, "control plane")
        self.control_plane.start()
        if nodes is not None:
            progress(step, "simulated nodes")
            self.nodes.start()
            self.nodes.add(count=nodes, gpus=gpus_per_node)
        if self._prometheus is not None:
            progress(step, "Prometheus")
            self._prometheus.start()
        progress(step, self.api_url, done=True)


def _new_directory(workdir: Path | None, cleanup: ExitStack) -> Path:
    if workdir is None:
        temporary = Path(tempfile.mkdtemp(prefix="longtail-cluster-"))
        # etcd and Prometheus may still unlink files of their own while they end.
        cleanup.callback(shutil.rmtree, temporary, ignore_errors=True)
        return temporary
    workdir.mkdir(parents=True, exist_ok=True)
    if any(workdir.iterdir()):
        raise HarnessError(f"workdir {workdir} is not empty: a cluster starts from nothing")
    workdir.chmod(0o700)  # it will hold administrators' tokens
    return workdir.resolve()
