"""What is read of pods and workloads for a drain."""

import pytest

from longtail.cluster.records import pod_record, workload_record
from longtail_fakes.manifests import deployment, pod


def statuses(*states: str) -> dict:
    body = pod()
    body["status"]["containerStatuses"] = [{"restartCount": 0, "state": {state: {}}} for state in states]
    return body


@pytest.mark.parametrize(
    ("body", "stopped"),
    [
        pytest.param(statuses("running"), False, id="at-work"),
        pytest.param(statuses("waiting"), True, id="crashed-or-without-an-image"),
        pytest.param(statuses("terminated", "running"), False, id="one-of-two"),
        pytest.param(statuses(), False, id="nothing-is-said"),
    ],
)
def test_a_pod_without_a_running_container_holds_nothing(body: dict, stopped: bool) -> None:
    assert pod_record(body, previous=None).pod.stopped is stopped


@pytest.mark.parametrize(
    ("body", "index"),
    [
        pytest.param(pod("r1-7", owner=("StatefulSet", "r1")), 7, id="by-its-name"),
        pytest.param(
            pod("r1-7", owner=("StatefulSet", "r1"), labels={"apps.kubernetes.io/pod-index": "3"}), 3, id="by-its-label"
        ),
        pytest.param(pod("r1-2", labels={"leaderworkerset.sigs.k8s.io/group-index": "2"}), 2, id="leader-worker-set"),
        pytest.param(pod("r1-abc-7"), None, id="of-a-replica-set"),
        pytest.param(pod("r1-x", owner=("StatefulSet", "r1")), None, id="a-name-without-a-number"),
    ],
)
def test_pods_of_a_row_have_their_place_in_it(body: dict, index: int | None) -> None:
    assert pod_record(body, previous=None).pod.index == index


@pytest.mark.parametrize(
    ("generation", "spec", "status", "rolling"),
    [
        pytest.param(3, {}, {"observedGeneration": 3, "replicas": 4, "updatedReplicas": 4}, False, id="steady"),
        pytest.param(3, {}, {"observedGeneration": 2, "replicas": 4, "updatedReplicas": 4}, True, id="not-looked-at"),
        pytest.param(3, {}, {"observedGeneration": 3, "replicas": 5, "updatedReplicas": 1}, True, id="in-the-middle"),
        pytest.param(3, {}, {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2}, False, id="waits-for-gpus"),
        pytest.param(
            3,
            {"updateStrategy": {"type": "OnDelete"}},
            {"observedGeneration": 3, "replicas": 4, "updatedReplicas": 1},
            False,
            id="two-revisions-on-purpose",
        ),
        pytest.param(
            3,
            {"updateStrategy": {"rollingUpdate": {"partition": 2}}},
            {"observedGeneration": 3, "replicas": 4, "updatedReplicas": 2},
            False,
            id="partitioned",
        ),
    ],
)
def test_a_rollout_is_seen_and_a_start_that_waits_is_none(generation, spec, status, rolling: bool) -> None:
    body = deployment(replicas=4)
    body["metadata"]["generation"] = generation
    body["spec"] |= spec
    body["status"] = status
    assert workload_record(body, group="apps", kind="Deployment").rolling is rolling


@pytest.mark.parametrize(
    ("status", "rolling"),
    [
        pytest.param({"replicas": 4, "updatedReplicas": 4}, False, id="does-not-say-what-it-has-looked-at"),
        pytest.param({"replicas": 4, "updatedReplicas": 1}, True, id="in-the-middle"),
        pytest.param({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 4}, True, id="not-looked-at"),
    ],
)
def test_an_old_leader_worker_set_is_not_rolling_for_ever(status, rolling: bool) -> None:
    body = {"metadata": {"namespace": "inference", "name": "l1", "uid": "1", "generation": 3}, "status": status}
    assert workload_record(body, group="leaderworkerset.x-k8s.io", kind="LeaderWorkerSet").rolling is rolling
