"""What a user would apply: the servers, and one ReasoningServing."""

from __future__ import annotations

from typing import Any, Final

from longtail_e2e.kwok import startup_annotations

NAME: Final = "r1"
NAMESPACE: Final = "longtail-demo"
MAX_REPLICAS: Final = 14
_IN_ROUTING: Final = {"longtail.dev/route": "true"}
"""In the template and in the Service's selector, not in the Deployment's: how a replica leaves without being cut."""
_START_SECONDS: Final = (8.0, 12.0)
"""Image, weights and warm-up of a 32B model take 80 to 120 s; the demo runs ten times as fast."""


def namespace() -> dict[str, Any]:
    """Return the demo's namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}


def service() -> dict[str, Any]:
    """Return what sends requests to the servers: to those whose routing label says "true"."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {"selector": {"app": NAME} | _IN_ROUTING, "ports": [{"port": 8000}]},
    }


def deployment(*, simulated: bool) -> dict[str, Any]:
    """Return the servers: one GPU each on simulated nodes, a sleeping container in a real cluster."""
    labels = {"app": NAME}
    least_seconds, most_seconds = _START_SECONDS
    container: dict[str, Any] = {"name": "engine"}
    annotations: dict[str, str] = {}
    if simulated:
        annotations = startup_annotations(
            create_seconds=1.0, ready_seconds=least_seconds - 1.0, ready_seconds_at_most=most_seconds - 1.0
        )
        container |= {"image": "none", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    else:
        probe = {"exec": {"command": ["true"]}, "initialDelaySeconds": round(least_seconds)}
        container |= {"image": "busybox:stable", "command": ["sleep", "3600"], "readinessProbe": probe}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels | _IN_ROUTING, "annotations": annotations},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
        },
    }


def serving() -> dict[str, Any]:
    """Return the ReasoningServing, with the times of a tenfold time lapse."""
    return {
        "apiVersion": "longtail.dev/v1alpha1",
        "kind": "ReasoningServing",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "mode": "Active",
            "scaleTargetRef": {"name": NAME},
            "minReplicas": 1,
            "maxReplicas": MAX_REPLICAS,
            "objective": {
                "queueWaitSeconds": 1,
                "attainmentPercent": 90,
                "timePerOutputTokenMilliseconds": 3,
            },
            "startup": {"seconds": 12},
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 20}},
        },
    }
