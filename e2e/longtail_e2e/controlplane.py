"""A real Kubernetes control plane: etcd, API server, controllers, scheduler; on loopback, without root."""

from __future__ import annotations

import json
import secrets
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from longtail_e2e.build import Components
from longtail_e2e.kubectl import Kubectl
from longtail_e2e.ports import LOOPBACK, PortReservation, wait_until_free
from longtail_e2e.processes import Command, Outage, ProcessGroup, wait_until

ETCD: Final = "etcd"
API_SERVER: Final = "kube-apiserver"
CONTROLLERS: Final = "kube-controller-manager"
SCHEDULER: Final = "kube-scheduler"
_STARTED: Final = (ETCD, API_SERVER, CONTROLLERS, SCHEDULER)

# Everybody here may do everything; the names tell the writers apart in managedFields and in the audit log.
_USERS: Final = ("admin", "controller-manager", "scheduler", "kwok", "kubelet", "kube-proxy")
_AUDIT_POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        # Leases and Events are written all the time and would bury the rest.
        {
            "level": "None",
            "resources": [
                {"group": "coordination.k8s.io"},
                {"group": "events.k8s.io"},
                {"group": "", "resources": ["events"]},
            ],
        },
        {"level": "Request", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
        {"level": "Metadata"},
    ],
}


class ControlPlane:
    """The four processes. All they write is inside `directory`.

    All they listen on is loopback, but for an API server that pods are to reach: that one listens on `host`.
    """

    def __init__(
        self,
        *,
        components: Components,
        processes: ProcessGroup,
        ports: PortReservation,
        directory: Path,
        host: str = LOOPBACK,
        audit: bool = False,
    ) -> None:
        self._host = host
        self._components = components
        self._processes = processes
        self._port = {name: ports.take() for name in _STARTED}
        self._etcd_peer_port = ports.take()
        self._directory = directory
        self._audit = audit
        self._tokens = {user: secrets.token_hex(16) for user in _USERS}
        self._certificates = directory / "certificates"
        self._service_account_key = directory / "service-account.key"

    @property
    def url(self) -> str:
        """The API server's address."""
        return f"https://{self._host}:{self._port[API_SERVER]}"

    @property
    def certificate_authority(self) -> Path:
        """The file that verifies the API server: its own self-signed certificate."""
        return self._certificates / "apiserver.crt"

    @property
    def audit_log(self) -> Path:
        """Where the API server writes its audit events, one JSON object a line, if `audit` was asked for."""
        return self._directory / "audit.log"

    def kubeconfig(self, user: str = "admin") -> Path:
        """Path of the kubeconfig of one of the built-in users, such as admin."""
        return self._directory / f"{user}.kubeconfig"

    def start(self) -> None:
        """Start all four and return when objects can be created and pods be scheduled.

        Raises:
            ProcessError: one of them did not come up; the message ends with its log.
        """
        self._write_files()
        self._processes.start(self._etcd())
        self._processes.start(self._api_server())
        self._write_kubeconfigs()
        self._processes.start(self._controllers())
        self._processes.start(self._scheduler())
        self._wait_for_default_service_account()

    def restart(self, name: str) -> None:
        """Stop one of the four, make sure that nothing answers on its port any more, and start it again."""
        self.stop(name).start_again()

    def stop(self, name: str) -> Outage:
        """Stop one of the four; the returned outage ends it."""
        command = self._processes.stop(name)
        if command is None:
            raise KeyError(name)
        wait_until_free(self._port[name])
        return Outage(processes=self._processes, command=command)

    def write_kubeconfig(self, path: Path, *, user: str, token: str) -> Path:
        """Write a kubeconfig for a bearer token, such as one of `kubectl create token`."""
        named = {"name": user}
        cluster = {"server": self.url, "certificate-authority": str(self.certificate_authority)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "longtail-e2e", "cluster": cluster}],
            "users": [named | {"user": {"token": token}}],
            "contexts": [named | {"context": {"cluster": "longtail-e2e", "user": user}}],
            "current-context": user,
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(content))
        return path

    def audit_events(self, *, since_bytes: int = 0) -> Iterator[dict[str, Any]]:
        """Yield what the audit log holds by now, oldest first (audit.k8s.io/v1 Events).

        Args:
            since_bytes: skip so much, such as the size of the log when a test began.
        """
        with self.audit_log.open("rb") as lines:
            if since_bytes:
                # From the end of the line before, or of the one in whose midst that is.
                lines.seek(since_bytes - 1)
                lines.readline()
            for line in lines:
                # A line that is being written has no end yet.
                if line.endswith(b"\n"):
                    yield json.loads(line)

    def _write_files(self) -> None:
        tokens = self._directory / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text("".join(f"{token},{user},{user},system:masters\n" for user, token in self._tokens.items()))
        (self._directory / "audit-policy.yaml").write_text(yaml.safe_dump(_AUDIT_POLICY))
        key = subprocess.run(self._components.command("service-account-key"), check=True, capture_output=True)
        self._service_account_key.touch(mode=0o600)
        self._service_account_key.write_bytes(key.stdout)

    def _write_kubeconfigs(self) -> None:
        for user, token in self._tokens.items():
            self.write_kubeconfig(self.kubeconfig(user), user=user, token=token)

    def _etcd(self) -> Command:
        client = f"http://{LOOPBACK}:{self._port[ETCD]}"
        peer = f"http://{LOOPBACK}:{self._etcd_peer_port}"
        return Command(
            name=ETCD,
            arguments=[
                *self._components.command(ETCD),
                f"--data-dir={self._directory / 'etcd'}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                # Nobody needs this cluster's data after a power failure.
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
            ready=lambda: _answers_ok(f"{client}/health"),
        )

    def _api_server(self) -> Command:
        arguments = [
            *self._components.command(API_SERVER),
            f"--etcd-servers=http://{LOOPBACK}:{self._port[ETCD]}",
            f"--bind-address={self._host}",
            f"--advertise-address={self._host}",
            f"--secure-port={self._port[API_SERVER]}",
            # Else it insists on an address that pods could reach, which loopback is not.
            *(["--endpoint-reconciler-type=none"] if self._host == LOOPBACK else []),
            # Of pods' logs: nobody resolves a node's name.
            "--kubelet-preferred-address-types=InternalIP",
            f"--cert-dir={self._certificates}",
            f"--token-auth-file={self._directory / 'tokens.csv'}",
            "--authorization-mode=RBAC,Node",
            f"--service-account-key-file={self._service_account_key}",
            f"--service-account-signing-key-file={self._service_account_key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            # Short waits: a test that restarts the API server waits for exactly this.
            "--shutdown-delay-duration=0s",
        ]
        if self._audit:
            arguments += [
                f"--audit-policy-file={self._directory / 'audit-policy.yaml'}",
                f"--audit-log-path={self.audit_log}",
            ]
        return Command(
            name=API_SERVER,
            arguments=arguments,
            ready=lambda: _answers_ok(f"{self.url}/readyz", certificate_authority=self.certificate_authority),
            # On SIGTERM it waits a minute for the watches of its clients to end, which they never do. What it has
            # answered is in etcd, so that being killed loses nothing.
            stop_seconds=1.0,
        )

    def _controllers(self) -> Command:
        return Command(
            name=CONTROLLERS,
            arguments=[
                *self._client(CONTROLLERS, user="controller-manager"),
                f"--root-ca-file={self.certificate_authority}",
                f"--service-account-private-key-file={self._service_account_key}",
                # It publishes the API server's authority, and would complain for ever that a self-signed one is none.
                "--controllers=*,-kube-apiserver-serving-clustertrustbundle-publisher-controller",
                # The default of 20 requests a second makes a Deployment of a hundred replicas take half a minute.
                "--kube-api-qps=200",
                "--kube-api-burst=400",
                # The scripted metrics API sets the pace of an HPA's syncs and makes each wait for its time.
                "--horizontal-pod-autoscaler-sync-period=200ms",
                "--concurrent-horizontal-pod-autoscaler-syncs=40",
            ],
            ready=lambda: _answers_ok(f"https://{LOOPBACK}:{self._port[CONTROLLERS]}/healthz"),
        )

    def _scheduler(self) -> Command:
        return Command(
            name=SCHEDULER,
            arguments=self._client(SCHEDULER, user="scheduler"),
            ready=lambda: _answers_ok(f"https://{LOOPBACK}:{self._port[SCHEDULER]}/readyz"),
        )

    def _client(self, component: str, *, user: str) -> list[str]:
        kubeconfig = self.kubeconfig(user)
        return [
            *self._components.command(component),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            # The configuration to look up exists where the API server trusts client certificates; here are tokens only.
            "--authentication-skip-lookup",
            "--leader-elect=false",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={self._port[component]}",
        ]

    def _wait_for_default_service_account(self) -> None:
        """Wait for the controllers' first visible work; without it the API server refuses every pod."""
        kubectl = Kubectl(
            command=self._components.command("kubectl"),
            kubeconfig=self.kubeconfig(),
            cache=self._directory / "kubectl-cache",
        )
        wait_until(
            lambda: kubectl.run("get", "serviceaccount", "default").returncode == 0,
            timeout_seconds=60.0,
            what="the service account of namespace default",
        )


def _answers_ok(url: str, *, certificate_authority: Path | None = None) -> bool:
    """Whether `url` answers 200; without an authority its certificate is not verified."""
    context = None
    if url.startswith("https:"):
        context = ssl.create_default_context(cafile=certificate_authority)
        if certificate_authority is None:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    with opener.open(url, timeout=2.0) as answer:
        return bool(answer.status == 200)
