"""What services cost, from tick to tick: counters of the leader, the last day, metrics and status."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from longtail.cluster.records import pod_record, serving_record, workload_record
from longtail.cluster.snapshot import ServingView
from longtail.control.accounts import Accounts
from longtail.control.cost_metrics import cost_families
from longtail.control.cost_status import cost_status
from longtail.control.outcome import Outcome
from longtail.control.prices import Prices
from longtail.demand.estimate import Capacity, Demand, Lengths, Startup
from longtail.demand.observation import Buckets, Observation, Signal
from longtail.policy.decision import Decision, Reason
from longtail.policy.fleet import ServiceKey
from longtail_fakes.manifests import deployment, pod, serving

START = 1_795_507_200.0  # 2026-11-24T08:00:00Z, when the pods were made; they were ready at 08:03
LATER = START + 3600
PRICES = Prices("USD", {"H100": Decimal("3.60")})
H100 = {
    "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
    "containers": [{"resources": {"limits": {"nvidia.com/gpu": 2}}}],
}
DEMAND = Demand(
    capacity=Capacity(slots_per_replica=8.0, kv_tokens_per_replica=None, bound_by="Prior"),
    lengths=Lengths(mean_tokens=1526.0, p50_tokens=792.0, p99_tokens=12_607.0, tail_share=0.004),
    startup=Startup(p50_seconds=171.0, p90_seconds=236.0),
    slots_now=8.0,
    kv_now_tokens=None,
    owed_tokens=123_456.0,
    queued_reasoning_tokens=None,
)
OBSERVATION = Observation(
    at_seconds=LATER,
    interval_seconds=15.0,
    running_requests=Signal(8.0),
    generated_tokens=Signal(3000.0),
    reasoning_share=Signal(0.8),
    gpu_active_ratio=Signal(0.75),
    finished_output_tokens=Buckets((float("inf"),), (2.0,)),
)


def outcome(
    *,
    pods: Sequence[dict[str, Any]] = (pod("r1-0"), pod("r1-1")),
    observation: Observation | None = OBSERVATION,
    template: dict[str, Any] = H100,
    uid: str | None = None,
    **spec: Any,
) -> Outcome:
    """Two replicas of two GPUs each, half of their slots used."""
    workload = deployment()
    workload["spec"]["template"]["spec"] = template
    view = ServingView(
        record=serving_record(serving(uid=uid, **spec), previous=None),
        target=workload_record(workload, group="apps", kind="Deployment"),
        problem=None,
        conflict=None,
        pods=tuple(pod_record(body, previous=None) for body in pods),
    )
    decision = Decision(current=2, desired=2, hold=False, reason=Reason.DESIRED_WITHIN_RANGE, message="", demand=DEMAND)
    return Outcome(view=view, decision=decision, observation=observation)


KEY = ServiceKey("inference", "r1")


def settled(accounts: Accounts, *outcomes: Outcome, every: float = 15.0, start: float = LATER) -> Outcome:
    """The last of some ticks, the first of which only opens the book."""
    for number, each in enumerate(outcomes):
        found = accounts.settle({KEY: each}, now=start + number * every)
    return found[KEY]


def scraped(*outcomes: Outcome) -> dict[str, float]:
    return {
        "/".join(
            [
                sample.name.removeprefix("longtail_"),
                *(sample.labels[label] for label in ("gpu_class", "phase", "currency") if label in sample.labels),
            ]
        ): sample.value
        for family in cost_families(outcomes)
        for sample in family.samples
    }


def always() -> bool:
    return True


def test_the_leader_counts_gpu_seconds_and_money_by_phase() -> None:
    found = scraped(settled(Accounts(prices=PRICES, leads=always), *[outcome()] * 3))
    expected = {
        "gpus/H100": 4,
        "gpu_seconds_total/H100/serving": 60,
        "gpu_seconds_total/H100/headroom": 60,
        "gpu_seconds_total/H100/starting": 0,
        "gpu_idle_seconds_total": 30,
        "answered_requests_total": 4,
        "output_tokens_total": 6000,
        "reasoning_tokens_total": 4800,
        "hourly_cost/H100/USD": 14.4,
        "cost_total/H100/headroom/USD": 0.06,
        "gpu_hourly_cost/H100/USD": 3.6,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_seconds_are_counted_by_one_operator_only() -> None:
    leading = False
    accounts = Accounts(prices=PRICES, leads=lambda: leading)
    found = settled(accounts, *[outcome()] * 3)
    # Series that are there at 0 lose none of their first growth to `increase`.
    assert scraped(found)["gpu_seconds_total/H100/serving"] == 0
    assert scraped(found)["cost_total/H100/serving/USD"] == 0
    assert "answered_requests_total" not in scraped(found)
    assert found.cost is not None
    assert found.cost.day.gpu_seconds == 120
    leading = True
    found = accounts.settle({KEY: outcome()}, now=LATER + 45)[KEY]
    assert scraped(found)["gpu_seconds_total/H100/serving"] == 30


def test_starts_and_drains_are_told_apart() -> None:
    bodies = [pod("r1-0"), pod("r1-1", ready=False, ready_since=""), pod("r1-2", deleting=True)]
    found = scraped(settled(Accounts(prices=None, leads=always), *[outcome(pods=bodies)] * 2))
    assert found["gpu_seconds_total/H100/serving"] == 30
    assert found["gpu_seconds_total/H100/starting"] == 30
    assert found["gpu_seconds_total/H100/draining"] == 30


def test_without_prices_hours_are_counted_and_no_money_is_told() -> None:
    last = settled(Accounts(prices=None, leads=always), *[outcome()] * 2)
    assert not [name for name in scraped(last) if "cost" in name]
    status = cost_status(last.cost)
    assert status is not None
    assert (status.currency, status.hourly_amount) == (None, None)
    assert status.last_day is not None
    assert status.last_day.gpu_hours == "0.017"
    assert status.last_day.amount is None


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(outcome(template={}), id="nobody-says-how-many-gpus"),
        pytest.param(replace(outcome(), view=replace(outcome().view, target=None)), id="no-target"),
    ],
)
def test_what_is_not_known_costs_nothing_that_could_be_told(given: Outcome) -> None:
    last = settled(Accounts(prices=PRICES, leads=always), given, given)
    assert last.cost is None
    assert cost_status(last.cost) is None
    assert scraped(last) == {}


def test_a_target_that_was_out_of_sight_comes_back_to_its_sums() -> None:
    accounts = Accounts(prices=PRICES, leads=always)
    settled(accounts, outcome(), outcome())
    hidden = replace(outcome(), view=replace(outcome().view, target=None))
    accounts.settle({KEY: hidden}, now=LATER + 30)
    last = accounts.settle({KEY: outcome()}, now=LATER + 45)[KEY]
    assert scraped(last)["gpu_seconds_total/H100/serving"] == 90


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(outcome(uid="another"), id="another-resource-of-the-name"),
        pytest.param(outcome(gpus={"perReplica": 1}), id="other-gpus"),
    ],
)
def test_the_sums_of_one_are_not_those_of_another(other: Outcome) -> None:
    last = settled(Accounts(prices=PRICES, leads=always), outcome(), outcome(), other)
    assert last.cost is not None
    assert last.cost.counted.gpu_seconds == 0
    assert last.cost.day.gpu_seconds == 0


def test_a_deleted_resource_leaves_nothing() -> None:
    accounts = Accounts(prices=PRICES, leads=always)
    settled(accounts, outcome(), outcome())
    assert accounts.settle({}, now=LATER + 30) == {}
    assert settled(accounts, outcome(), start=LATER + 45).cost.counted.gpu_seconds == 0  # type: ignore[union-attr]


def test_status_tells_the_day_in_decimal_strings() -> None:
    status = cost_status(settled(Accounts(prices=PRICES, leads=always), *[outcome()] * 481).cost)
    assert status is not None
    # Two hours of four GPUs at 3.60 an hour; two answers and 3,000 tokens each 15 s.
    assert status.model_dump(by_alias=True, exclude_none=True) == {
        "gpuClass": "H100",
        "gpus": 4,
        "currency": "USD",
        "hourlyAmount": "14.4",
        "lastDay": {
            "knownHours": 2,
            "gpuHours": "8",
            "amount": "29",
            "amountPerThousandAnswers": "30",
            "amountPerMillionOutputTokens": "20",
            "amountPerMillionReasoningTokens": "25",
            "headroomPercent": 50,
            "startingPercent": 0,
            "drainingPercent": 0,
            "idlePercent": 25,
        },
    }


def test_the_day_forgets_what_is_older_than_a_day() -> None:
    accounts = Accounts(prices=PRICES, leads=always)
    last = settled(accounts, *[outcome()] * (26 * 12 + 1), every=300.0)
    assert last.cost is not None
    assert 23 * 3600 <= last.cost.day_seconds <= 24 * 3600
    assert last.cost.day.gpu_seconds == pytest.approx(4 * last.cost.day_seconds)
    assert last.cost.counted.gpu_seconds == pytest.approx(4 * 26 * 3600)


def test_gpus_of_an_unknown_class_have_the_default_price() -> None:
    template = {"containers": H100["containers"]}
    prices = Prices("EUR", {}, Decimal(2))
    last = settled(Accounts(prices=prices, leads=always), *[outcome(template=template)] * 2)
    status = cost_status(last.cost)
    assert status is not None
    assert (status.gpu_class, status.hourly_amount, status.currency) == (None, "8", "EUR")
    assert scraped(last)["hourly_cost/UNKNOWN/EUR"] == 8
