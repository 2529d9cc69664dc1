"""Conditions and status: what they say in every situation that has a name."""

from dataclasses import replace

import pytest

from longtail.api.status import ConditionStatus
from longtail.cluster.records import pod_record, serving_record, workload_record
from longtail.cluster.routing import Routing
from longtail.cluster.snapshot import ServingView
from longtail.cluster.targets import Problem
from longtail.control.conditions import conditions
from longtail.control.outcome import Outcome
from longtail.control.report import build_status
from longtail.demand.estimate import Capacity, Demand, Lengths, Startup
from longtail.demand.observation import MISSING, Observation, Quality, Signal
from longtail.errors import ClusterUnavailable, MetricsUnavailable, SpecError
from longtail.policy.decision import Decision, LadderStep, Placement, Reason, Rung
from longtail_fakes.manifests import deployment, pod, serving

TIME = "2026-11-24T08:00:00Z"
DEMAND = Demand(
    capacity=Capacity(slots_per_replica=8.4, kv_tokens_per_replica=149_726, bound_by="KVCache"),
    lengths=Lengths(mean_tokens=1526, p50_tokens=792, p99_tokens=12_607, tail_share=0.004),
    startup=Startup(p50_seconds=171, p90_seconds=236),
    slots_now=96.4,
    kv_now_tokens=None,
    owed_tokens=123_456,
    queued_reasoning_tokens=45_678,
    attainment=0.987,
)
STEP = LadderStep(rung=Rung.REACTIVE, replicas=4, because="96 running need 12 replicas")
DECISION = Decision(
    current=2, desired=4, hold=False, reason=Reason.SCALE_UP, message="2 → 4", ladder=(STEP,), demand=DEMAND
)
FRESH = Observation(
    at_seconds=0, running_requests=Signal(96), waiting_requests=Signal(12), ready_pods=2, reporting_pods=2
)
STALE = replace(FRESH, running_requests=Signal(96, age_seconds=90, quality=Quality.STALE), reporting_pods=0)


def hold(reason: Reason) -> Decision:
    return Decision(current=2, desired=2, hold=True, reason=reason, message="held", demand=DEMAND)


def outcome(*, mode: str = "Active", **changes) -> Outcome:
    view = ServingView(
        record=serving_record(serving(mode=mode), previous=None),
        target=workload_record(deployment(), group="apps", kind="Deployment"),
        problem=None,
        conflict=None,
        pods=(
            pod_record(pod("r1-0"), previous=None),
            pod_record(pod("r1-1", ready=False), previous=None),
            pod_record(pod("r1-2", deleting=True), previous=None),
        ),
    )
    view_changes = {key: changes.pop(key) for key in ("problem", "conflict", "target") if key in changes}
    return replace(Outcome(view=replace(view, **view_changes), decision=DECISION, observation=FRESH), **changes)


LOST = {"problem": Problem("TargetNotFound", "Deployment r1 does not exist"), "target": None}
RIVAL = Problem("HorizontalPodAutoscalerPresent", "an HPA scales it")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(
            outcome(),
            {
                "Ready": "True Ready",
                "AbleToScale": "True ReadyForNewScale",
                "ScalingActive": "True ValidMetricFound",
                "ScalingLimited": "False DesiredWithinRange",
                "MetricsAvailable": "True MetricsFresh",
                "Conflict": "False NoConflict",
            },
            id="all-is-well",
        ),
        pytest.param(outcome(asked=4), {"AbleToScale": "True SucceededRescale"}, id="just-scaled"),
        pytest.param(
            outcome(scale_error=ClusterUnavailable("503")),
            {"Ready": "False FailedUpdateScale", "AbleToScale": "False FailedUpdateScale"},
            id="could-not-scale",
        ),
        pytest.param(
            outcome(decision=replace(DECISION, reason=Reason.SCALE_DOWN_STABILIZED)),
            {"AbleToScale": "True ScaleDownStabilized"},
            id="stabilised",
        ),
        pytest.param(
            outcome(decision=replace(DECISION, limited_by=Reason.TOO_MANY_REPLICAS)),
            {"ScalingLimited": "True TooManyReplicas", "Ready": "True Ready"},
            id="limited",
        ),
        pytest.param(
            outcome(**LOST, decision=hold(Reason.TARGET_UNAVAILABLE), observation=None),
            {
                "Ready": "False TargetNotFound",
                "AbleToScale": "False FailedGetScale",
                "ScalingActive": "False TargetNotFound",
                "ScalingLimited": "Unknown NotDecided",
                "MetricsAvailable": "Unknown TargetUnavailable",
            },
            id="target-lost",
        ),
        pytest.param(
            outcome(
                problem=Problem("InvalidSpec", "spec.maxReplicas"),
                target=None,
                decision=None,
                observation=None,
            ),
            {
                "Ready": "False InvalidSpec",
                "AbleToScale": "Unknown InvalidSpec",
                "ScalingActive": "False InvalidSpec",
            },
            id="spec-unusable",
        ),
        pytest.param(
            outcome(conflict=RIVAL),
            {
                "Ready": "False HorizontalPodAutoscalerPresent",
                "Conflict": "True HorizontalPodAutoscalerPresent",
                "ScalingActive": "True ValidMetricFound",
            },
            id="second-writer",
        ),
        pytest.param(
            outcome(mode="Off", decision=hold(Reason.SCALING_DISABLED), observation=None),
            {
                "Ready": "True ScalingDisabled",
                "ScalingActive": "False ScalingDisabled",
                "MetricsAvailable": "Unknown ScalingDisabled",
            },
            id="off",
        ),
        pytest.param(
            outcome(
                observation=Observation(at_seconds=0, ready_pods=2),
                decision=hold(Reason.METRICS_MISSING),
                metrics_error=MetricsUnavailable("Connection refused"),
            ),
            {
                "Ready": "False MetricsMissing",
                "MetricsAvailable": "False MetricsMissing",
                "ScalingActive": "False FailedGetExternalMetric",
            },
            id="prometheus-down",
        ),
        pytest.param(
            outcome(observation=STALE, decision=hold(Reason.METRICS_STALE)),
            {"MetricsAvailable": "False MetricsStale", "Ready": "False MetricsStale"},
            id="metrics-stale",
        ),
        pytest.param(
            outcome(
                observation=replace(FRESH, running_requests=MISSING),
                metrics_error=SpecError("no such source"),
            ),
            {"Ready": "False UnknownMetricsSource", "MetricsAvailable": "False UnknownMetricsSource"},
            id="unknown-source",
        ),
        pytest.param(
            outcome(decision=None, observation=None),
            {"Ready": "Unknown NotReadYet", "ScalingActive": "Unknown NotDecidedYet"},
            id="nothing-yet",
        ),
    ],
)
def test_every_situation_has_its_words(given: Outcome, expected: dict[str, str]) -> None:
    said = {c.type: f"{c.status} {c.reason}" for c in conditions(given)}
    assert {kind: said[kind] for kind in expected} == expected
    assert len(said) == 11


def drain_ready(*, policy: str = "Reversible", owner: str = "ReplicaSet", cost: str | None = None, **view) -> str:
    spec = serving(drain={"policy": policy})
    annotations = {} if cost is None else {"controller.kubernetes.io/pod-deletion-cost": cost}
    pods = (pod_record(pod("r1-0", owner=(owner, "any"), annotations=annotations), previous=None),)
    given = outcome(decision=replace(DECISION, placement=Placement(asked=2, replicas=1, commit=("r1-0",))))
    changed = replace(given.view, record=serving_record(spec, previous=None), pods=pods, **view)
    (said,) = [c for c in conditions(replace(given, view=changed)) if c.type == "DrainReady"]
    return f"{said.status} {said.reason}"


READY = Routing(problem=None, message="pods are switched by longtail.dev/route")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({"routing": READY}, "True RoutingLabel", id="by-label"),
        pytest.param({"routing": replace(READY, by_gate=True)}, "True ReadinessGate", id="by-gate"),
        pytest.param(
            {"routing": Routing(problem=Problem("NoRoutingLabel", ""))}, "False NoRoutingLabel", id="no-label"
        ),
        pytest.param({"routing": Routing(problem=Problem("NoPods", ""))}, "Unknown NoPods", id="nothing-to-look-at"),
        pytest.param({"routing": READY, "policy": "Immediate"}, "False PolicyImmediate", id="not-wanted"),
        pytest.param({"routing": READY, "owner": "RayCluster"}, "False VictimUnknown", id="nobody-knows-who-goes"),
        pytest.param({"routing": READY, "cost": "7"}, "False DeletionCostOwned", id="cost-of-somebody-else"),
        pytest.param({"routing": None}, "Unknown TargetUnavailable", id="not-looked-at"),
    ],
)
def test_whether_replicas_can_leave_without_being_cut_is_said(given: dict, expected: str) -> None:
    assert drain_ready(**given) == expected


def test_the_cause_is_in_the_message() -> None:
    given = outcome(
        observation=Observation(at_seconds=0, ready_pods=2),
        metrics_error=MetricsUnavailable("Connection refused"),
    )
    said = {c.type: c.message for c in conditions(given)}
    assert said["MetricsAvailable"] == "0 of 2 ready pods report; Connection refused"


def report(given: Outcome, previous=None, time: str = TIME):
    return build_status(given, conditions=(), previous=previous, time=time)


def test_a_status_is_rounded_and_has_no_floats() -> None:
    status = report(outcome()).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert status["replicas"] == {"current": 2, "ready": 1, "pending": 1, "draining": 0, "desired": 4}
    assert status["demand"] == {
        "runningRequests": 96,
        "waitingRequests": 12,
        "queuedReasoningTokens": 46_000,
        "owedTokens": 120_000,
        "slotsNow": 96,
        "knownPercent": 100,
        "attainmentPercent": 98,
    }
    assert status["lengths"] == {"meanTokens": 1500, "p50Tokens": 790, "p99Tokens": 13_000, "tailPercent": 0}
    assert status["capacity"] == {"slotsPerReplica": 8, "kvTokensPerReplica": 150_000, "boundBy": "KVCache"}
    assert status["summary"] == "96 running, 12 waiting, 120000 tokens owed"
    assert status["decision"]["ladder"] == [{"rung": "Reactive", "replicas": 4, "because": STEP.because}]


def test_what_is_not_known_is_absent_and_not_zero() -> None:
    status = report(outcome(observation=Observation(at_seconds=0, ready_pods=2), decision=None))
    assert status.demand.running_requests is None
    assert status.summary == "? running, ? waiting, ? tokens owed"
    assert status.replicas is None


def test_a_decision_keeps_its_time_while_it_stands() -> None:
    later = "2026-11-24T09:00:00Z"
    first = report(outcome())
    assert report(outcome(), first, later).decision.time == TIME
    assert report(outcome(decision=replace(DECISION, desired=5)), first, later).decision.time == later
    assert report(outcome(decision=hold(Reason.METRICS_STALE)), first, later).decision.time == later


def test_the_last_scale_time_survives_ticks_and_restarts() -> None:
    scaled = report(outcome(asked=4))
    assert scaled.last_scale_time == TIME
    assert report(outcome(), scaled, "2026-11-24T09:00:00Z").last_scale_time == TIME
    body = serving() | {"status": {"lastScaleTime": TIME}}
    found = outcome()
    restarted = replace(found, view=replace(found.view, record=serving_record(body, previous=None)))
    assert report(restarted, None, "2026-11-24T10:00:00Z").last_scale_time == TIME


def test_a_long_message_is_cut_to_what_the_api_holds() -> None:
    wordy = replace(DECISION, message="x" * 5000, ladder=(replace(STEP, because="y" * 5000),) * 30)
    status = report(outcome(decision=wordy))
    assert (len(status.decision.message), len(status.decision.ladder)) == (1024, 16)


def test_conditions_that_a_person_reads_as_bad_are_never_true_together_with_ready() -> None:
    for given in (outcome(conflict=RIVAL), outcome(**LOST), outcome(scale_error=ClusterUnavailable("503"))):
        (ready,) = (c for c in conditions(given) if c.type == "Ready")
        assert ready.status is not ConditionStatus.TRUE
