"""Objects as the API server shows them, for tests: say what matters, the rest is filled in."""

from __future__ import annotations

from typing import Any

CREATED = "2026-11-24T08:00:00Z"
READY = "2026-11-24T08:03:00Z"


def serving(
    name: str = "r1",
    *,
    namespace: str = "inference",
    created: str = CREATED,
    generation: int = 1,
    uid: str | None = None,
    target: dict[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A ReasoningServing; `target` is its scaleTargetRef."""
    return {
        "apiVersion": "longtail.dev/v1alpha1",
        "kind": "ReasoningServing",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"serving-{namespace}-{name}",
            "generation": generation,
            "creationTimestamp": created,
        },
        "spec": {"mode": "Active", "scaleTargetRef": target or {"name": name}, "maxReplicas": 8, **spec},
    }


def deployment(
    name: str = "r1",
    *,
    namespace: str = "inference",
    replicas: int = 2,
    kind: str = "Deployment",
    api_version: str = "apps/v1",
    labels: dict[str, str] | None = None,
    template_labels: dict[str, str] | None = None,
) -> dict[str, Any]:
    """A Deployment, or anything that looks like one; `labels` are those it selects by."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"{kind}-{namespace}-{name}",
            "creationTimestamp": CREATED,
            "resourceVersion": "1",
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels or {"app": name}},
            "template": {"metadata": {"labels": template_labels or labels or {"app": name}}},
        },
        "status": {},
    }


def pod(
    name: str = "r1-0",
    *,
    namespace: str = "inference",
    labels: dict[str, str] | None = None,
    ready: bool = True,
    ready_since: str = READY,
    restarts: int = 0,
    deleting: bool = False,
    phase: str = "Running",
    unschedulable: str = "",
    uid: str | None = None,
    annotations: dict[str, str] | None = None,
    gate: bool = False,
    owner: tuple[str, str] = ("ReplicaSet", "r1-abc"),
) -> dict[str, Any]:
    """A pod of the Deployment that its name begins with, unless `labels` say otherwise.

    With `gate` it has longtail's readiness gate.
    """
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": CREATED}
    if unschedulable:
        scheduled = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": unschedulable,
        }
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": uid or f"pod-{namespace}-{name}",
        "creationTimestamp": CREATED,
        "labels": labels or {"app": name.rsplit("-", 1)[0]},
        "ownerReferences": [{"kind": owner[0], "name": owner[1], "controller": True}],
        "annotations": annotations or {},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata | ({"deletionTimestamp": READY} if deleting else {}),
        "spec": {"readinessGates": [{"conditionType": "longtail.dev/in-service"}]} if gate else {},
        "status": {
            "phase": phase,
            "conditions": [
                scheduled,
                {"type": "Ready", "status": str(ready), "lastTransitionTime": ready_since},
            ],
            "containerStatuses": [{"restartCount": restarts}],
        },
    }


def service(
    name: str = "r1", *, namespace: str = "inference", selector: dict[str, str] | None = None
) -> dict[str, Any]:
    """A Service; by default it selects the pods of the Deployment of its name that are in routing."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "uid": f"service-{namespace}-{name}"},
        "spec": {"selector": {"app": name, "longtail.dev/route": "true"} if selector is None else selector},
    }


def scaler(
    kind: str = "HorizontalPodAutoscaler", *, target: str = "r1", namespace: str = "inference"
) -> dict[str, Any]:
    """Somebody else's autoscaler on a Deployment."""
    api_version = {"HorizontalPodAutoscaler": "autoscaling/v2", "ScaledObject": "keda.sh/v1alpha1"}[kind]
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": f"{target}-scaler", "namespace": namespace, "uid": f"{kind}-{target}"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}},
    }
