"""What objects say about failures and about each other's writers, in the words of whoever said it. Pure."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from longtail.policy.fleet import ReplicasWriter

PAUSE_ANNOTATION: Final = "longtail.dev/pause"
"""``"true"`` on a ReasoningServing: the number is still published, and nothing is written."""

_FAILING: Final = frozenset(
    {
        "CrashLoopBackOff",
        "ImagePullBackOff",
        "ErrImagePull",
        "ErrImageNeverPull",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
"""Reasons of a waiting container that do not pass by themselves; "ContainerCreating" and "PodInitializing" do."""


def is_paused(metadata: Mapping[str, Any]) -> bool:
    """Whether the resource asks to be left alone.

    >>> is_paused({"annotations": {"longtail.dev/pause": "true"}}), is_paused({})
    (True, False)
    """
    return (metadata.get("annotations") or {}).get(PAUSE_ANNOTATION) == "true"


def failure_message(status: Mapping[str, Any]) -> str:
    """Why a container of a pod does not start, as the kubelet says it; empty when none is known to fail.

    >>> waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image none"}
    >>> failure_message({"containerStatuses": [{"name": "engine", "state": {"waiting": waiting}}]})
    'container engine: ImagePullBackOff: Back-off pulling image none'
    """
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _FAILING:
            said = ": ".join(filter(None, (waiting["reason"], waiting.get("message", ""))))
            return f"container {container.get('name', '')}: {said}"[:512]
    return ""


def unplaced_message(condition: Mapping[str, Any]) -> str:
    """Why a pod has no node, from its PodScheduled condition; empty when it has one, or nobody has looked yet.

    A pod behind a scheduling gate (Kueue's admission, say) waits for capacity too, though nobody calls it so.

    >>> unplaced_message({"status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available"})
    '0/2 nodes are available'
    """
    if condition.get("status") != "False" or condition.get("reason") not in {"Unschedulable", "SchedulingGated"}:
        return ""
    return str(condition.get("message") or condition["reason"])[:512]


def refused_message(status: Mapping[str, Any]) -> str:
    """Why a controller may not create pods: a Deployment says so in its ReplicaFailure condition.

    >>> refused_message({"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]})
    'exceeded quota'
    """
    for condition in status.get("conditions") or ():
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return str(condition.get("message") or condition.get("reason") or "pods cannot be created")[:512]
    return ""


def replicas_writer(metadata: Mapping[str, Any], *, ours: str) -> ReplicasWriter | None:
    """Who set ``spec.replicas`` last, from managedFields; None where they do not say.

    Several managers own the field when they applied the same value: the latest of them counts, and we, when we
    are one of them, because then the number is ours as well. Whoever made the object has set its first number, not
    changed one, and is not told.
    """
    created = metadata.get("creationTimestamp", "")
    owners = [
        entry
        for entry in metadata.get("managedFields") or ()
        if entry.get("subresource", "") in {"", "scale"}
        and "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
        # RFC 3339 in UTC is in the order of the alphabet. A write through /scale has no time: it came later.
        and ("time" not in entry or entry["time"] > created)
    ]
    if not owners:
        return None
    writers = [
        ReplicasWriter(
            name=entry.get("manager", ""),
            at=datetime.fromisoformat(entry["time"]).timestamp() if "time" in entry else None,
            ours=entry.get("manager") == ours,
        )
        for entry in owners
    ]
    return max(writers, key=lambda writer: (writer.ours, math.inf if writer.at is None else writer.at))
