"""What a scrape tells about a service: known figures, and conditions that are not as they should be."""

from dataclasses import replace

import pytest

from longtail.cluster.records import pod_record, serving_record, workload_record
from longtail.cluster.snapshot import ServingView
from longtail.cluster.targets import Problem
from longtail.control.fleet_metrics import fleet_families
from longtail.control.outcome import Outcome
from longtail.demand.estimate import Capacity, Demand, LengthChange, Lengths, Startup
from longtail.demand.observation import MISSING, Observation, Signal
from longtail.policy.decision import Decision, LadderStep, Reason, Rung
from longtail_fakes.manifests import deployment, pod, serving

DEMAND = Demand(
    capacity=Capacity(slots_per_replica=8.0, kv_tokens_per_replica=None, bound_by="Prior"),
    lengths=Lengths(mean_tokens=1526.0, p50_tokens=792.0, p99_tokens=12_607.0, tail_share=0.004),
    startup=Startup(p50_seconds=171.0, p90_seconds=236.0),
    slots_now=9.6,
    kv_now_tokens=None,
    owed_tokens=123_456.0,
    queued_reasoning_tokens=None,
    slots_forecast=12.0,
    slots_upper=15.5,
    quantile=0.95,
    coverage=0.91,
)
DECISION = Decision(current=2, desired=3, hold=False, reason=Reason.SCALE_UP, message="2 → 3", demand=DEMAND)
OBSERVATION = Observation(
    at_seconds=0.0, running_requests=Signal(9.0), waiting_requests=Signal(2.0), ready_pods=1, reporting_pods=1
)


def outcome(*, decision: Decision | None = DECISION, observation: Observation | None = OBSERVATION, **spec) -> Outcome:
    view = ServingView(
        record=serving_record(serving(**spec), previous=None),
        target=workload_record(deployment(), group="apps", kind="Deployment"),
        problem=None,
        conflict=None,
        pods=tuple(
            pod_record(body, previous=None)
            for body in (
                pod("r1-0"),
                pod("r1-1", ready=False),
                pod("r1-2", deleting=True),
                pod("r1-3", ready=False, unschedulable="0/2 nodes: Insufficient nvidia.com/gpu"),
            )
        ),
    )
    return Outcome(view=view, decision=decision, observation=observation)


def scraped(*outcomes: Outcome) -> dict[str, float]:
    """Series of service r1 by what differs among them: the name, or type and reason of a condition."""
    samples = [sample for family in fleet_families(outcomes) for sample in family.samples]
    assert all((s.labels["namespace"], s.labels["name"]) == ("inference", "r1") for s in samples)
    return {
        "/".join([s.name, *(s.labels[key] for key in ("type", "reason") if key in s.labels)]): s.value for s in samples
    }


def test_every_known_figure_is_published() -> None:
    found = scraped(outcome(minReplicas=1, maxReplicas=24))
    expected = {
        "desired_replicas": 3,
        "current_replicas": 2,
        "min_replicas": 1,
        "max_replicas": 24,
        "ready_replicas": 1,
        "pending_replicas": 2,
        "draining_replicas": 0,
        "fallback_active": 0,
        "running_requests": 9,
        "waiting_requests": 2,
        "demand_slots": 9.6,
        "demand_slots_forecast": 12,
        "demand_slots_upper": 15.5,
        "forecast_quantile": 0.95,
        "forecast_coverage_ratio": 0.91,
        "output_length_mean_tokens": 1526,
        "cold_start_p90_seconds": 236,
    }
    assert {name: found[f"longtail_{name}"] for name in expected} == expected


def test_what_is_not_known_has_no_series() -> None:
    blind = replace(OBSERVATION, running_requests=MISSING, waiting_requests=MISSING)
    found = scraped(outcome(decision=replace(DECISION, demand=None), observation=blind))
    for name in ("running_requests", "kv_used_tokens", "demand_slots_upper", "owed_tokens", "attainment_ratio"):
        assert f"longtail_{name}" not in found
    assert found["longtail_desired_replicas"] == 3


def test_a_change_of_lengths_is_published_while_it_is_news() -> None:
    assert not [name for name in scraped(outcome()) if "length_change" in name]
    change = LengthChange(factor=2.4, since=1.8e9, before_tokens=1800.0, requests_per_second=1.2, replicas=15.3)
    found = scraped(
        outcome(decision=replace(DECISION, demand=replace(DEMAND, lengths=replace(DEMAND.lengths, change=change))))
    )
    assert found["longtail_output_length_change_ratio"] == 2.4
    assert found["longtail_output_length_change_replicas"] == 15.3
    assert found["longtail_status_condition/LengthsChanged/LongerAnswers"] == 1


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(outcome(mode="Off", decision=None, observation=None), id="off"),
        pytest.param(outcome(decision=None, observation=None), id="not-decided-yet"),
    ],
)
def test_a_service_without_a_number_has_no_figures(given: Outcome) -> None:
    assert "longtail_desired_replicas" not in scraped(given)


def test_fallback_shows_while_it_decides() -> None:
    step = LadderStep(rung=Rung.FALLBACK, replicas=6, because="not seen for 200 s of 180 s: at least 6 replicas")
    assert scraped(outcome(decision=replace(DECISION, ladder=(step,))))["longtail_fallback_active"] == 1


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        pytest.param(
            outcome(decision=replace(DECISION, limited_by=Reason.TOO_MANY_REPLICAS)),
            "ScalingLimited/TooManyReplicas",
            id="at-maximum",
        ),
        pytest.param(
            outcome(decision=replace(DECISION, contested_by="argocd-controller")),
            "Conflict/ReplicasContested",
            id="contested",
        ),
        pytest.param(outcome(), "CapacityPending/Unschedulable", id="gpus-pending"),
        pytest.param(
            outcome(observation=replace(OBSERVATION, running_requests=MISSING)),
            "MetricsAvailable/MetricsMissing",
            id="blind",
        ),
        pytest.param(
            replace(
                outcome(decision=None, observation=None),
                view=replace(outcome().view, target=None, problem=Problem("TargetNotFound", "no such Deployment")),
            ),
            "Ready/TargetNotFound",
            id="target-lost",
        ),
    ],
)
def test_a_condition_that_is_not_as_it_should_be_shows_with_its_reason(given: Outcome, wrong: str) -> None:
    assert scraped(given)[f"longtail_status_condition/{wrong}"] == 1


def test_a_healthy_service_shows_no_condition() -> None:
    well = outcome()
    well = replace(well, view=replace(well.view, pods=well.view.pods[:1]))
    shown = {name for name in scraped(well) if "condition/" in name}
    # Nothing selects its pods by the routing label, and that it says.
    assert {name for name in shown if "DrainReady" not in name} == set()


def test_a_service_that_is_off_shows_no_condition() -> None:
    off = outcome(mode="Off", decision=None, observation=None)
    off = replace(off, view=replace(off.view, pods=off.view.pods[:1]))
    assert {name for name in scraped(off) if "DrainReady" not in name} == set()
