"""CapacityPending, pauses, contests and sleep: what conditions say of them."""

from dataclasses import replace
from typing import Any

import pytest

from longtail.cluster.records import PodRecord, pod_record, serving_record, workload_record
from longtail.cluster.snapshot import ServingView
from longtail.control.conditions import conditions
from longtail.control.fleet import effective_mode
from longtail.control.outcome import Outcome
from longtail.demand.estimate import Capacity, Cascade, Demand, Lengths, Startup
from longtail.demand.observation import Observation, Signal
from longtail.policy.decision import Decision, Reason, Shortage, ShortageReason
from longtail.policy.fleet import Mode
from longtail_fakes.manifests import deployment, pod, serving

NO_GPU = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
DECISION = Decision(current=3, desired=3, hold=False, reason=Reason.DESIRED_WITHIN_RANGE, message="3 replicas")
SHORTAGE = Shortage(ShortageReason.UNSCHEDULABLE, NO_GPU, since=1_795_507_200.0, declared_at=0.0, retry_at=0.0)
FRESH = Observation(
    at_seconds=0, running_requests=Signal(1), waiting_requests=Signal(0), ready_pods=1, reporting_pods=1
)


def seen(*pods: dict[str, Any], decision: Decision = DECISION, refused: str = "", paused: bool = False) -> Outcome:
    body = serving(mode="Active")
    body["metadata"]["annotations"] = {"longtail.dev/pause": "true"} if paused else {}
    target = workload_record(deployment(), group="apps", kind="Deployment")
    records: list[PodRecord] = [pod_record(each, previous=None) for each in pods]
    view = ServingView(
        record=serving_record(body, previous=None),
        target=replace(target, replicas=3, refused_message=refused),
        problem=None,
        conflict=None,
        pods=records,
    )
    return Outcome(view=view, decision=decision, observation=FRESH)


def demand(*, cascade: Cascade | None) -> Demand:
    return Demand(
        capacity=Capacity(slots_per_replica=24.0, kv_tokens_per_replica=None, bound_by="Spec"),
        lengths=Lengths(mean_tokens=2000, p50_tokens=1000, p99_tokens=20_000, tail_share=0.0),
        startup=Startup(p50_seconds=180.0, p90_seconds=240.0),
        slots_now=20.0,
        kv_now_tokens=None,
        owed_tokens=None,
        queued_reasoning_tokens=None,
        cascade=cascade,
    )


def said(outcome: Outcome, kind: str) -> tuple[str, str, str]:
    (found,) = (each for each in conditions(outcome) if each.type == kind)
    return found.status.value, found.reason, found.message


def unschedulable(name: str) -> dict[str, Any]:
    return pod(name, ready=False, unschedulable=NO_GPU, phase="Pending")


@pytest.mark.parametrize(
    ("outcome", "status", "reason"),
    [
        pytest.param(seen(pod("r1-0")), "False", "NothingPending", id="all-there"),
        pytest.param(seen(pod("r1-0"), pod("r1-1", ready=False)), "False", "Starting", id="loading"),
        pytest.param(seen(pod("r1-0"), unschedulable("r1-1")), "True", "Unschedulable", id="no-gpu"),
        pytest.param(seen(pod("r1-0"), refused="exceeded quota: gpus"), "True", "FailedCreate", id="quota"),
        pytest.param(
            seen(pod("r1-0"), decision=replace(DECISION, shortage=SHORTAGE)), "True", "Unschedulable", id="given-up"
        ),
    ],
)
def test_capacity_that_is_pending_is_told_with_its_reason(outcome: Outcome, status: str, reason: str) -> None:
    assert said(outcome, "CapacityPending")[:2] == (status, reason)


def test_the_schedulers_own_words_are_told_and_since_when() -> None:
    _, _, message = said(seen(pod("r1-0"), unschedulable("r1-1"), unschedulable("r1-2")), "CapacityPending")
    assert message.startswith("2 replicas, the first asked for at 20")
    assert message.endswith(NO_GPU)


def test_when_asking_has_stopped_that_is_told_too() -> None:
    outcome = seen(unschedulable("r1-1"), decision=replace(DECISION, shortage=SHORTAGE))
    assert said(outcome, "CapacityPending")[2] == (
        f"no more replicas are asked for: Unschedulable since 2026-11-24T08:00:00Z: {NO_GPU}"
    )


def test_a_pause_writes_nothing_and_says_so() -> None:
    outcome = seen(pod("r1-0"), paused=True)
    assert effective_mode(outcome.view) is Mode.ADVISE
    assert said(outcome, "Ready")[:2] == ("True", "Paused")
    assert said(outcome, "ScalingActive")[:2] == ("False", "Paused")


def test_a_contest_names_who_and_what_to_do() -> None:
    status, reason, message = said(
        seen(pod("r1-0"), decision=replace(DECISION, contested_by="argocd-controller")), "Conflict"
    )
    assert (status, reason) == ("True", "ReplicasContested")
    assert "argocd-controller keeps setting" in message
    assert "take spec.replicas out" in message


def test_a_sleeper_that_nobody_can_wake_is_not_active() -> None:
    lost = Decision(current=0, desired=0, hold=False, reason=Reason.ACTIVATION_MISSING, message="not known for 60 s")
    assert said(seen(decision=lost), "ScalingActive") == ("False", "ActivationMissing", "not known for 60 s")
    assert said(seen(decision=lost), "Ready")[1] == "ActivationMissing"
    asleep = replace(lost, reason=Reason.SCALED_TO_ZERO)
    assert said(seen(decision=asleep), "ScalingActive")[0] == "True"


CASCADE = Cascade(
    since=1_795_507_200.0,
    aborted_per_second=61.2,
    finished_per_second=2.75,
    arrivals_per_second=70.3,
    distinct_per_second=25.4,
    patience_seconds=119.8,
    queue_limit=127.6,
)


TOLD = (
    "since 2026-11-24T08:00:00Z: 61.2 requests a second are given up and 2.8 are answered; of 70.3 that arrive about "
    "25.4 are new, and the others asked again; no replica is taken away meanwhile. Clients wait for about 120 s; 128 "
    "waiting requests can be answered by then: limit the queue to that, at the gateway or in the engines (vLLM: "
    "--max-num-queued-reqs, for each replica its part)"
)


@pytest.mark.parametrize(
    ("cascade", "expected"),
    [
        pytest.param(None, ("False", "NoCascade", "answers are not asked for again"), id="none"),
        pytest.param(
            CASCADE,
            (
                "True",
                "AnswersTimeOut",
                TOLD,
            ),
            id="on",
        ),
    ],
)
def test_a_timeout_cascade_is_told_with_its_figures_and_a_remedy(
    cascade: Cascade | None, expected: tuple[str, str, str]
) -> None:
    outcome = seen(pod("r1-0"), decision=replace(DECISION, demand=demand(cascade=cascade)))
    assert said(outcome, "TimeoutCascade") == expected
