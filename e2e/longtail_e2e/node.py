"""A real node: containerd, kubelet and kube-proxy, on a machine whose network, mounts and processes are our own.

For use inside `longtail_e2e.sandbox`: what is made here (mounts, interfaces, rules of iptables, containers) is gone
with it. There are no images but those that are imported, and no way out to the internet.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from longtail_e2e.build import NodeComponents
from longtail_e2e.cluster import Cluster
from longtail_e2e.errors import CommandError
from longtail_e2e.processes import Command

ADDRESS: Final = "10.198.0.1"
"""Of the node: the API server, Prometheus and the name server listen there."""
CGROUP: Final = "longtail-e2e-"
"""Folders of pods in each hierarchy of cgroups, which are the machine's: the sandbox's process id follows."""
CGROUP_VARIABLE: Final = "LONGTAIL_E2E_CGROUP"
"""Where the sandbox says the name of its own."""
PAUSE_IMAGE: Final = "localhost/pause:e2e"
NAME: Final = "node-1"
_POD_RANGE: Final = "10.199.0.0/24"
_DOMAIN: Final = "cluster.local"
_BRIDGE: Final = "node0"
_CONTAINERD: Final = "containerd"
_SOCKET: Final = "/run/containerd/containerd.sock"


def make_network() -> None:
    """Give the machine one interface with an address, and a default route."""
    for arguments in (
        "link set lo up",
        # A bridge without ports: link type dummy is not in every kernel.
        f"link add {_BRIDGE} type bridge",
        f"address add {ADDRESS}/24 dev {_BRIDGE}",
        f"link set {_BRIDGE} up",
        # Nobody is there. Without a route packets to the addresses of Services are refused before iptables sees them.
        "route add default via 10.198.0.254",
    ):
        _run("ip", *arguments.split())
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


class Node:
    """The processes that make a node of this machine."""

    def __init__(self, cluster: Cluster, *, components: NodeComponents) -> None:
        self._cluster = cluster
        self._components = components
        self._directory = cluster.directory / "node"
        self._names = self._directory / "names"

    def start(self, *images: Path, gpus: int) -> None:
        """Start it with these images (archives as `docker save` writes them); return when it takes pods.

        Raises:
            ProcessError: a process did not come up; the message ends with its log.
            CommandError: an image was refused.
        """
        for folder in (self._directory, self._names, self._directory / "cni"):
            folder.mkdir()
        self._start_containerd()
        for image in images:
            self.ctr("images", "import", str(image))
        self._start_names()
        self._start_kubelet()
        self._start_proxy()
        for state in ("create", "condition=Ready"):
            self._cluster.kubectl("wait", f"--for={state}", f"node/{NAME}", "--timeout=60s")
        amounts = {"nvidia.com/gpu": str(gpus)}
        patch = json.dumps({"status": {"capacity": amounts, "allocatable": amounts}})
        # Extended resources of nobody's plugin: kubelet keeps them, and admits pods by them.
        self._cluster.kubectl("patch", "node", NAME, "--subresource=status", "--type=merge", "-p", patch)

    def name(self, service: str, namespace: str) -> None:
        """Let pods find a Service by its name, as a cluster's DNS does."""
        found = self._cluster.kubectl.get("service", service, "-n", namespace)
        line = f"{found['spec']['clusterIP']} {service}.{namespace}.svc.{_DOMAIN}\n"
        (self._names / f"{namespace}.{service}").write_text(line)

    def ctr(self, *arguments: str) -> str:
        """Run a command of containerd's own client."""
        return _run("ctr", f"--address={_SOCKET}", "--namespace=k8s.io", *arguments)

    def _start_containerd(self) -> None:
        # Every pod has a pair of interfaces of its own and is routed to, so that replies pass the rules of kube-proxy:
        # on a bridge, a pod that reaches a neighbour through a Service would get them past these.
        network = {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "ptp",
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": _POD_RANGE}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                        "dataDir": str(self._directory / "addresses"),
                    },
                }
            ],
        }
        (self._directory / "cni" / "10-pods.conflist").write_text(json.dumps(network))
        configuration = self._directory / "containerd.toml"
        configuration.write_text(
            f"""version = 2
root = "{self._directory / "containerd"}"
state = "/run/containerd"
[grpc]
address = "{_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
# A score below that of the parent needs CAP_SYS_RESOURCE, which root need not have.
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{self._directory / "cni"}"
"""
        )
        self._cluster.processes.start(
            Command(
                name=_CONTAINERD,
                arguments=[_CONTAINERD, f"--config={configuration}"],
                ready=_answers,
            )
        )

    def _start_names(self) -> None:
        self._cluster.processes.start(
            Command(
                name="dnsmasq",
                arguments=[
                    "dnsmasq",
                    "--keep-in-foreground",
                    "--conf-file=/dev/null",
                    "--no-resolv",
                    "--no-hosts",
                    "--user=root",
                    "--pid-file=",
                    "--bind-interfaces",
                    f"--listen-address={ADDRESS}",
                    f"--local=/{_DOMAIN}/",
                    # Read anew whenever a file of it changes.
                    f"--hostsdir={self._names}",
                ],
            )
        )

    def _start_kubelet(self) -> None:
        group = os.environ[CGROUP_VARIABLE]
        resolve = self._directory / "resolv.conf"
        resolve.write_text(f"nameserver {ADDRESS}\n")
        for hierarchy in Path("/sys/fs/cgroup").iterdir():
            if (hierarchy / "cgroup.procs").exists():
                (hierarchy / group).mkdir(exist_ok=True)
        settings = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{_SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{group}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "enforceNodeAllocatable": [],
            # The machine's disk and memory are somebody else's too: nothing is evicted because of them.
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "podLogsDir": str(self._directory / "pod-logs"),
            "resolvConf": str(resolve),
            "clusterDNS": [ADDRESS],
            "clusterDomain": _DOMAIN,
            "readOnlyPort": 0,
            # Inside the sandbox there is nobody to keep out; kubectl logs needs no certificate then.
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
        }
        self._start_part(
            "kubelet",
            settings,
            f"--root-dir={self._directory / 'kubelet'}",
            f"--hostname-override={NAME}",
            f"--node-ip={ADDRESS}",
        )

    def _start_proxy(self) -> None:
        settings = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "hostnameOverride": NAME,
            "clientConnection": {"kubeconfig": str(self._cluster.control_plane.kubeconfig("kube-proxy"))},
            # The limits of connection tracking are the machine's, not this network's.
            "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }
        self._start_part("kube-proxy", settings)

    def _start_part(self, name: str, settings: Mapping[str, Any], *flags: str) -> None:
        file = self._directory / f"{name}.yaml"
        file.write_text(yaml.safe_dump(dict(settings)))
        if name == "kubelet":
            flags = (*flags, f"--kubeconfig={self._cluster.control_plane.kubeconfig(name)}")
        arguments = [*self._components.command(name), f"--config={file}", *flags]
        self._cluster.processes.start(Command(name=name, arguments=arguments))


def _answers() -> bool:
    command = ["ctr", f"--address={_SOCKET}", "version"]
    return subprocess.run(command, check=False, capture_output=True, timeout=10.0).returncode == 0


def _run(*arguments: str) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120.0)
    if done.returncode != 0:
        raise CommandError(f"{' '.join(arguments)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
