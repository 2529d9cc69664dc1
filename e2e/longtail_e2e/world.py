"""A namespace with pools of simulated engines and the resources that scale them: shorthand for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from longtail_e2e.cluster import Cluster
from longtail_e2e.errors import NotYetError
from longtail_e2e.kwok import startup_annotations
from longtail_e2e.operator import OPERATOR, USER, Engines, Operator
from longtail_e2e.processes import wait_until


class World:
    """Shorthand for what the tests do with a namespace."""

    def __init__(self, *, cluster: Cluster, operator: Operator, engines: Engines, namespace: str) -> None:
        self.cluster = cluster
        self.operator = operator
        self.engines = engines
        self.namespace = namespace
        self._together: list[dict[str, Any]] | None = None

    def deploy(
        self,
        name: str = "r1",
        *,
        replicas: int = 1,
        create_seconds: float = 0.0,
        ready_seconds: float = 1.0,
        nodes: str | None = None,
        switch: bool = True,
        gpus: int = 1,
        **engine: Any,
    ) -> None:
        """Run a pool of simulated engines.

        Args:
            name: of the Deployment, and of its pods' label app.
            replicas: to begin with.
            create_seconds: how long a pod pulls its image.
            ready_seconds: how long it loads from then on until it is ready.
            nodes: run on nodes that are labelled and tainted ``nodes=<this>``, and on no others.
            gpus: of each replica.
            switch: with a routing label, and a Service that selects by it; without, one that selects the app alone.
            engine: more of the simulator's ServiceDefinition.
        """
        labels = {"app": name}
        startup = startup_annotations(create_seconds=create_seconds, ready_seconds=ready_seconds)
        routing = {"longtail.dev/route": "true"} if switch else {}
        toleration = {"key": "nodes", "operator": "Equal", "value": nodes, "effect": "NoSchedule"}
        where = {"nodeSelector": {"nodes": nodes}, "tolerations": [toleration]} if nodes else {}
        container = {"name": "engine", "image": "none", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
        self.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name},
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {
                            "labels": labels | routing,
                            "annotations": startup,
                        },
                        # Gone at once: the GPUs of a test that has ended are the next one's.
                        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0} | where,
                    },
                },
            }
        )
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name},
                "spec": {"selector": labels | routing, "ports": [{"port": 8000}]},
            }
        )
        definition: dict[str, Any] = {
            "namespace": self.namespace,
            "selector": f"app={name}",
            "service": name,
            "slots": 8,
        }
        self.engines.put(self.service(name), **definition | engine)

    def service(self, name: str = "r1") -> str:
        """Name of a pool in the simulator."""
        return f"{self.namespace}-{name}"

    def serve(self, name: str = "r1", **spec: Any) -> None:
        """Apply a ReasoningServing, quick to shrink and with a known capacity unless told otherwise."""
        defaults: dict[str, Any] = {
            "mode": "Active",
            "scaleTargetRef": {"name": name},
            "minReplicas": 1,
            "maxReplicas": 6,
            "capacity": {"maxConcurrentRequests": 8},
            "startup": {"seconds": 2},
            "behavior": {
                "scaleUp": {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 1}]},
                "scaleDown": {"stabilizationWindowSeconds": 5},
            },
        }
        self.apply(
            {
                "apiVersion": "longtail.dev/v1alpha1",
                "kind": "ReasoningServing",
                "metadata": {"name": name},
                "spec": defaults | spec,
            }
        )

    def apply(self, manifest: dict[str, Any]) -> None:
        """Apply a manifest in the namespace."""
        if self._together is not None:
            self._together.append(manifest)
        else:
            self.cluster.kubectl("apply", "-n", self.namespace, "-f", "-", manifests=manifest)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Apply with one command, at its end, all that is applied in the block: kubectl takes a second each time."""
        manifests: list[dict[str, Any]] = []
        self._together = manifests
        try:
            yield
        finally:
            self._together = None
        self.cluster.kubectl("apply", "-n", self.namespace, "-f", "-", manifests=manifests)

    def get(self, kind: str, name: str = "r1") -> dict[str, Any]:
        """Return an object of the namespace."""
        return self.cluster.kubectl.get(kind, name, "-n", self.namespace)

    def replicas(self, name: str = "r1") -> int:
        """Return what the Deployment asks for."""
        found: int = self.get("deployment", name)["spec"]["replicas"]
        return found

    def wait(self, condition: Callable[[], bool], what: str, *, seconds: float, name: str = "r1") -> None:
        """Wait for a state; when it does not come, say what the operator thinks of it."""
        try:
            wait_until(condition, timeout_seconds=seconds, what=what, interval_seconds=0.2)
        except NotYetError as late:
            log = self.cluster.processes[OPERATOR].log_tail()
            raise NotYetError(f"{late}\n{self.explain(name)}\n{log}") from late

    def wait_for_replicas(self, condition: Callable[[int], bool], name: str = "r1", *, seconds: float = 60) -> int:
        """Wait until the Deployment asks for replicas that suit, and return them."""
        self.wait(lambda: condition(self.replicas(name)), f"replicas of {name}", seconds=seconds, name=name)
        return self.replicas(name)

    def explain(self, name: str = "r1") -> str:
        """What a person on call sees."""
        plugin = str(Path(sys.executable).with_name("kubectl-longtail"))
        kubeconfig = f"--kubeconfig={self.cluster.kubeconfig}"
        answer = subprocess.run(
            [plugin, "explain", f"{self.namespace}/{name}", kubeconfig],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"COLUMNS": "200"},
            timeout=30,
        )
        return answer.stdout

    def condition(self, kind: str, name: str = "r1") -> dict[str, Any]:
        """Return a condition of the resource; with status None where it has none yet."""
        conditions = self.get("rsv", name).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), {"status": None, "reason": None})

    def wait_for_condition(self, kind: str, status: str, name: str = "r1", *, seconds: float = 40) -> dict[str, Any]:
        """Wait until a condition is so, and return it."""
        self.wait(
            lambda: self.condition(kind, name)["status"] == status,
            f"{kind} of {name} to be {status}",
            seconds=seconds,
            name=name,
        )
        return self.condition(kind, name)

    def sees(self, name: str, ready: int) -> bool:
        """Whether the operator sees so many ready pods, all of them reporting."""
        status = self.get("rsv", name).get("status", {})
        available = {"type": "MetricsAvailable", "status": "True"}
        reports = any(available.items() <= condition.items() for condition in status.get("conditions", []))
        return reports and status["replicas"]["ready"] == ready

    def wait_for_reason(self, kind: str, reasons: set[str], name: str, *, seconds: float = 40) -> None:
        """Wait until a condition has one of the reasons."""
        self.wait(
            lambda: self.condition(kind, name)["reason"] in reasons,
            f"{kind} of {name} to be one of {sorted(reasons)}",
            seconds=seconds,
            name=name,
        )

    def writes(self) -> list[str]:
        """What the operator wrote in this namespace: verb, resource and subresource."""
        return [
            "/".join(filter(None, (e["verb"], e["objectRef"]["resource"], e["objectRef"].get("subresource"))))
            for e in self.cluster.control_plane.audit_events()
            if e["user"]["username"] == USER
            and e["verb"] not in {"get", "list", "watch"}
            and e["objectRef"].get("namespace") == self.namespace
        ]

    def growths(self, name: str = "r1") -> list[str]:
        """Why the operator asked for more replicas, each time, by its log."""
        decided = {"message": "decided", "service": f"{self.namespace}/{name}", "reason": "ScaleUp"}
        lines = self.cluster.processes[OPERATOR].log.read_text().splitlines()
        # The last line may not be whole yet.
        records = (json.loads(line) for line in lines if line.startswith("{") and line.endswith("}"))
        return [record["why"] for record in records if decided.items() <= record.items()]

    def replicas_of(self, names: Sequence[str]) -> dict[str, int]:
        """Return what several Deployments ask for, at one time."""
        found = self.cluster.kubectl.get("deployments", "-n", self.namespace)["items"]
        sizes = {each["metadata"]["name"]: each["spec"]["replicas"] for each in found}
        return {name: sizes[name] for name in names}

    def patch(self, kind: str, name: str, patch: Mapping[str, Any], *, subresource: str = "") -> None:
        """Patch an object of the namespace."""
        which = [f"--subresource={subresource}"] if subresource else []
        self.cluster.kubectl("patch", kind, name, "-n", self.namespace, "--type=merge", "-p", json.dumps(patch), *which)

    def scaled_down(self) -> list[str]:
        """Return the Deployments of this namespace that the operator ever asked for fewer replicas, per audit log."""
        asked: dict[str, int] = {}
        lowered = []
        for event in self.cluster.control_plane.audit_events():
            where, request = event.get("objectRef") or {}, event.get("requestObject") or {}
            replicas = (request.get("spec") or {}).get("replicas")
            ours = event["user"]["username"] == USER
            mine = (where.get("namespace"), where.get("resource")) == (self.namespace, "deployments")
            if not mine or replicas is None:
                continue
            name = where.get("name") or request["metadata"]["name"]
            if ours and replicas < asked.get(name, 0):
                lowered.append(name)
            asked[name] = replicas
        return lowered
