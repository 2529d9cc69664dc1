"""What objects say about failures and about each other's writers."""

from typing import Any

import pytest

from longtail.cluster.records import pod_record, serving_record, workload_record
from longtail.policy.fleet import ReplicasWriter
from longtail_fakes.manifests import deployment, pod, serving

SINCE = "2026-11-24T08:30:00Z"
SINCE_UNIX = 1_795_509_000.0


def owns(manager: str, field: str = "f:replicas", *, subresource: str = "", at: str = SINCE) -> dict[str, Any]:
    """An entry as Kubernetes 1.36 writes it: without a time where it was written through /scale."""
    entry = {"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": {field: {}}}}
    return (
        entry | ({"subresource": subresource} if subresource else {}) | ({} if subresource == "scale" else {"time": at})
    )


def writer_of(*entries: dict[str, Any]) -> ReplicasWriter | None:
    body = deployment()
    body["metadata"]["managedFields"] = list(entries)
    return workload_record(body, group="apps", kind="Deployment").writer


@pytest.mark.parametrize(
    ("entries", "name", "ours"),
    [
        pytest.param([owns("kubectl", subresource="scale")], "kubectl", False, id="kubectl-scale"),
        pytest.param([owns("argocd-controller")], "argocd-controller", False, id="gitops"),
        pytest.param([owns("longtail", subresource="scale")], "longtail", True, id="ourselves"),
        pytest.param(
            [owns("longtail", subresource="scale"), owns("argocd-controller", at="2026-11-24T09:00:00Z")],
            "longtail",
            True,
            id="somebody-applied-our-own-number",
        ),
        pytest.param(
            [owns("helm", at="2026-11-24T09:00:00Z"), owns("kubectl", subresource="scale")],
            "kubectl",
            False,
            id="the-latest-of-two",
        ),
    ],
)
def test_the_writer_of_replicas_is_whoever_owns_the_field(entries: list[dict[str, Any]], name: str, ours: bool) -> None:
    writer = writer_of(*entries)
    assert writer is not None
    assert (writer.name, writer.ours) == (name, ours)


def test_the_time_of_a_write_is_told() -> None:
    assert writer_of(owns("kubectl-edit")) == ReplicasWriter(name="kubectl-edit", at=SINCE_UNIX)


def test_a_write_through_scale_has_no_time() -> None:
    assert writer_of(owns("kubectl", subresource="scale")) == ReplicasWriter(name="kubectl", at=None)


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([], id="nobody"),
        pytest.param([owns("kubectl-client-side-apply", at="2020-01-01T00:00:00Z")], id="whoever-made-it"),
        pytest.param([owns("kubectl", "f:template")], id="only-the-template"),
        pytest.param([owns("kube-controller-manager", subresource="status")], id="only-the-status"),
    ],
)
def test_who_owns_something_else_did_not_write_replicas(entries: list[dict[str, Any]]) -> None:
    assert writer_of(*entries) is None


def test_a_deployment_says_why_its_pods_are_refused() -> None:
    body = deployment()
    body.setdefault("status", {})["conditions"] = [
        {"type": "Available", "status": "True"},
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: gpus"},
    ]
    assert workload_record(body, group="apps", kind="Deployment").refused_message == "exceeded quota: gpus"
    body["status"]["conditions"][1]["status"] = "False"
    assert workload_record(body, group="apps", kind="Deployment").refused_message == ""


def failing(reason: str) -> dict[str, Any]:
    body = pod(ready=False)
    body["status"]["containerStatuses"] = [
        {"name": "engine", "restartCount": 3, "state": {"waiting": {"reason": reason, "message": "details"}}}
    ]
    return body


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "ErrImagePull", "CrashLoopBackOff", "InvalidImageName"])
def test_a_container_that_does_not_start_says_why(reason: str) -> None:
    assert pod_record(failing(reason), previous=None).pod.failure_message == f"container engine: {reason}: details"


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_a_container_that_is_being_made_does_not_fail(reason: str) -> None:
    assert pod_record(failing(reason), previous=None).pod.failure_message == ""


def test_a_pod_behind_a_scheduling_gate_waits_for_capacity_too() -> None:
    body = pod(ready=False, unschedulable="Scheduling is blocked due to non-empty scheduling gates")
    scheduled = next(each for each in body["status"]["conditions"] if each["type"] == "PodScheduled")
    scheduled["reason"] = "SchedulingGated"
    assert "gates" in pod_record(body, previous=None).pod.unschedulable_message
    scheduled["reason"] = "Pending"
    assert pod_record(body, previous=None).pod.unschedulable_message == ""


def test_a_pause_is_seen_although_it_does_not_change_the_spec() -> None:
    body = serving()
    known = serving_record(body, previous=None)
    assert not known.paused
    body["metadata"]["annotations"] = {"longtail.dev/pause": "true"}
    assert serving_record(body, previous=known).paused
    body["metadata"]["annotations"] = {"longtail.dev/pause": "yes"}
    assert not serving_record(body, previous=known).paused
