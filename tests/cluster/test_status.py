"""Status and Events: written when it is news, in the words that people grep for, and never more often."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.api.status import (
    ConditionStatus,
    DecisionStatus,
    DemandStatus,
    ReasoningServingStatus,
    ReplicasStatus,
)
from longtail.cluster.client import KubernetesApi
from longtail.cluster.events import EventRecorder, ObjectReference
from longtail.cluster.records import serving_record
from longtail.cluster.status import ConditionValue, StatusWriter, quantise, stamp
from longtail.errors import Conflict, NotFound
from longtail_fakes.kubernetes import KubernetesFake
from longtail_fakes.manifests import serving

EARLIER, NOW = "2026-11-24T08:00:00Z", "2026-11-24T09:00:00Z"
READY = ConditionValue("Ready", ConditionStatus.TRUE, "Ready")
UNREADY = ConditionValue("Ready", ConditionStatus.FALSE, "TargetNotFound", "no such Deployment")


def status(
    *,
    desired: int = 2,
    owed: int = 1000,
    condition: ConditionValue = READY,
    reason: str = "DesiredWithinRange",
):
    return ReasoningServingStatus(
        observed_generation=1,
        conditions=stamp([condition], previous=[], generation=1, time=EARLIER),
        replicas=ReplicasStatus(current=2, ready=2, pending=0, desired=desired),
        demand=DemandStatus(owed_tokens=owed),
        decision=DecisionStatus(reason=reason, message="m", time=EARLIER),
    )


@pytest.fixture
def record(server: KubernetesFake):
    return serving_record(server.put(serving()), previous=None)


@pytest.fixture
def writer(api: KubernetesApi) -> StatusWriter:
    return StatusWriter(api=api, quiet_seconds=60)


@pytest.mark.parametrize(
    ("changed", "after", "due"),
    [
        pytest.param(status(), 3600, False, id="nothing-changed"),
        pytest.param(status(owed=1100), 59, False, id="figures-drift-within-the-minute"),
        pytest.param(status(owed=1100), 60, True, id="figures-drift-after-a-minute"),
        pytest.param(status(desired=3), 0, True, id="another-number"),
        pytest.param(status(reason="TooManyReplicas"), 0, True, id="another-reason"),
        pytest.param(status(condition=UNREADY), 0, True, id="a-condition-flips"),
    ],
)
async def test_a_status_is_written_when_it_is_news(record, writer, changed, after, due) -> None:
    assert writer.due(record, status(), now=100)
    await writer.write(record, status(), now=100)
    assert writer.due(record, changed, now=100 + after) is due


async def test_status_is_applied_as_our_own_field_manager_and_guarded_by_the_uid(server, record, writer) -> None:
    await writer.write(record, status(), now=0)
    (patch,) = server.sent("PATCH")
    assert patch.path == "/apis/longtail.dev/v1alpha1/namespaces/inference/reasoningservings/r1/status"
    assert patch.query == {"fieldManager": "longtail", "force": "true"}
    assert patch.headers["Content-Type"] == "application/apply-patch+yaml"
    assert patch.body["metadata"] == {"namespace": "inference", "name": "r1", "uid": record.uid}
    assert patch.body["status"]["replicas"] == {"current": 2, "ready": 2, "pending": 0, "draining": 0, "desired": 2}
    assert "runningRequests" not in patch.body["status"]["demand"]


async def test_a_part_of_which_nothing_is_known_is_left_out(server, record, writer) -> None:
    unknown = status().model_copy(update={"demand": DemandStatus()})
    await writer.write(record, unknown, now=0)
    assert "demand" not in server.objects[server.path_of(serving())]["status"]


async def test_a_failed_write_is_due_again(server, record, writer) -> None:
    server.objects.clear()
    with pytest.raises(NotFound):
        await writer.write(record, status(), now=0)
    assert writer.due(record, status(), now=1)


async def test_a_successor_of_the_same_name_does_not_get_its_predecessors_status(server, record, writer) -> None:
    server.put(serving(uid="somebody-else"))
    with pytest.raises(Conflict):
        await writer.write(record, status(), now=0)


async def test_a_resource_that_is_gone_is_forgotten(record, writer) -> None:
    await writer.write(record, status(), now=0)
    writer.forget_all_but([])
    assert writer.last(record) is None


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    first = stamp([UNREADY], previous=[], generation=1, time=EARLIER)
    another_reason = stamp(
        [ConditionValue("Ready", ConditionStatus.FALSE, "NoMetrics")], previous=first, generation=2, time=NOW
    )
    assert (another_reason[0].last_transition_time, another_reason[0].observed_generation) == (EARLIER, 2)
    assert stamp([READY], previous=first, generation=2, time=NOW)[0].last_transition_time == NOW


def test_after_a_restart_a_condition_keeps_the_time_that_the_object_shows(writer) -> None:
    body = serving() | {"status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": EARLIER}]}}
    record = serving_record(body, previous=None)
    assert stamp([READY], previous=writer.conditions(record), generation=1, time=NOW)[0].last_transition_time == EARLIER


@given(st.floats(0, 1e12))
def test_rounding_keeps_two_digits_and_stays_within_five_percent(value: float) -> None:
    rounded = quantise(value)
    assert len(str(rounded).rstrip("0")) <= 2
    assert abs(rounded - value) <= max(0.5, 0.05 * value)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")], ids=str)
def test_what_is_not_a_number_is_not_known(value) -> None:
    assert quantise(value) is None


SERVING = ObjectReference("longtail.dev/v1alpha1", "ReasoningServing", "inference", "r1", "u1")
TARGET = ObjectReference("apps/v1", "Deployment", "inference", "r1", "u2")


async def test_a_scale_change_is_reported_on_the_resource_and_on_its_target(server, api) -> None:
    recorder = EventRecorder(api=api, instance="longtail-0")
    await recorder.rescaled(serving=SERVING, target=TARGET, desired=4, reason="the floor rose", time=NOW)
    bodies = [request.body for request in server.sent("POST")]
    assert len([path for path in server.objects if "/events/" in path]) == 2
    assert [body["regarding"]["kind"] for body in bodies] == ["ReasoningServing", "Deployment"]
    assert {body["note"] for body in bodies} == {"New size: 4; reason: the floor rose"}
    assert {(body["reason"], body["type"], body["reportingInstance"]) for body in bodies} == {
        ("SuccessfulRescale", "Normal", "longtail-0")
    }


async def test_a_condition_that_flaps_is_reported_once_in_the_quiet_time(server, api) -> None:
    recorder = EventRecorder(api=api, instance="longtail-0", quiet_seconds=300)
    for now in (0, 10, 299, 300):
        await recorder.flipped(serving=SERVING, reason="MetricsStale", note="n", warning=True, time=NOW, now=now)
    assert len(server.sent("POST")) == 2
