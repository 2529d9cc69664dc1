"""What is said when answers have become longer or shorter: condition, status, Events."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from longtail.api.status import Condition
from longtail.cluster.client import KubernetesApi
from longtail.cluster.events import EventRecorder
from longtail.cluster.records import serving_record, workload_record
from longtail.cluster.snapshot import ServingView
from longtail.cluster.status import stamp
from longtail.control.announcer import Announcer, Flip
from longtail.control.costs import Cost
from longtail.control.lengths_changed import in_words, lengths_changed
from longtail.control.outcome import Outcome
from longtail.control.prices import Price
from longtail.control.report import build_status
from longtail.demand.estimate import Capacity, Demand, LengthChange, Lengths, Startup
from longtail.policy.accounting import Account
from longtail.policy.decision import Decision, Reason
from longtail.policy.fleet import GpuShape
from longtail_fakes.kubernetes import KubernetesFake
from longtail_fakes.manifests import deployment, serving

TIME = "2026-11-24T10:00:00Z"
LONGER = LengthChange(factor=2.41, since=1795513200.0, before_tokens=1790.0, requests_per_second=1.21, replicas=15.3)
SHORTER = LengthChange(factor=0.347, since=1795516800.0, before_tokens=4300.0, requests_per_second=1.2, replicas=-16.0)
STEADY = Lengths(mean_tokens=4312.0, p50_tokens=2100.0, p99_tokens=19_000.0, tail_share=0.0, watched=True)


def outcome(lengths: Lengths | None = STEADY, *, mode: str = "Active", **changes) -> Outcome:
    view = ServingView(
        record=serving_record(serving(mode=mode), previous=None),
        target=workload_record(deployment(), group="apps", kind="Deployment"),
        problem=None,
        conflict=None,
        pods=(),
    )
    demand = None if lengths is None else Demand(
        capacity=Capacity(slots_per_replica=24.0, kv_tokens_per_replica=None, bound_by="Spec"),
        lengths=lengths,
        startup=Startup(p50_seconds=171, p90_seconds=236),
        slots_now=20.0,
        kv_now_tokens=None,
        owed_tokens=None,
        queued_reasoning_tokens=None,
    )  # fmt: skip
    decision = Decision(
        current=2, desired=2, hold=False, reason=Reason.DESIRED_WITHIN_RANGE, message="2", demand=demand
    )
    return Outcome(view=view, decision=replace(decision, **changes))


def changed(change: LengthChange, **changes) -> Outcome:
    return outcome(replace(STEADY, change=change), **changes)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(changed(LONGER), "True LongerAnswers", id="longer"),
        pytest.param(changed(SHORTER), "True ShorterAnswers", id="shorter"),
        pytest.param(outcome(), "False LengthsSteady", id="steady"),
        pytest.param(outcome(replace(STEADY, watched=False)), "Unknown NotLearnedYet", id="too-few-answers"),
        pytest.param(outcome(None), "Unknown NotDecidedYet", id="nothing-seen"),
        pytest.param(outcome(None, mode="Off"), "Unknown ScalingDisabled", id="off"),
        pytest.param(
            replace(outcome(), view=replace(outcome().view, target=None)), "Unknown TargetUnavailable", id="no-target"
        ),
    ],
)
def test_every_situation_has_its_reason(given: Outcome, expected: str) -> None:
    said = lengths_changed(given)
    assert f"{said.status} {said.reason}" == expected
    assert said.message


def test_the_words_say_by_how_much_since_when_and_what_it_costs() -> None:
    assert in_words(LONGER) == (
        "answers have become 2.4 times as long since 09:40 UTC (1,800 → 4,300 tokens): "
        "at 1.2 requests a second that is 15 replicas more, 370 replica-hours a day"
    )
    assert in_words(SHORTER) == (
        "answers have become 0.35 times as long since 10:40 UTC (4,300 → 1,500 tokens): "
        "at 1.2 requests a second that is 16 replicas less, 380 replica-hours a day"
    )


def test_money_is_said_where_prices_are_known() -> None:
    cost = Cost(
        gpus=GpuShape(gpu_class="H100", per_replica=8),
        held_gpus=16,
        price=Price(Decimal("2.50"), "EUR"),
        day=Account(),
        day_seconds=0.0,
        counted=Account(),
        amounts=(),
    )
    priced = lengths_changed(replace(changed(LONGER), cost=cost)).message
    assert priced.endswith("15 replicas more, 370 replica-hours, 7,300 EUR, a day")
    unpriced = lengths_changed(replace(changed(LONGER), cost=replace(cost, price=None))).message
    assert unpriced.endswith("370 replica-hours a day")


def test_the_status_has_the_change_while_it_is_news() -> None:
    status = build_status(changed(SHORTER), conditions=(), previous=None, time=TIME)
    said = status.model_dump(mode="json", by_alias=True, exclude_none=True)["lengths"]
    assert said["change"] == {
        "since": "2026-11-24T10:40:00Z",
        "percent": 35,
        "beforeTokens": 4300,
        "replicaHoursPerDay": -380,
    }
    assert build_status(outcome(), conditions=(), previous=None, time=TIME).lengths.change is None


def shown(given: Outcome) -> Sequence[Condition]:
    return stamp([lengths_changed(given)], previous=(), generation=1, time=TIME)


def events(server: KubernetesFake) -> list[tuple[str, str]]:
    posted = [request.body for request in server.sent("POST") if request.path.endswith("/events")]
    return [(body["reason"], body["type"]) for body in posted]


async def test_every_change_is_one_event_and_so_is_the_end_of_it(
    server: KubernetesFake, api: KubernetesApi, clock
) -> None:
    announcer = Announcer(events=EventRecorder(api=api, instance="longtail-0"), clock=clock)
    before: dict[str, str] = {}
    later = replace(LONGER, since=LONGER.since + 7200)
    unknown = outcome(replace(STEADY, watched=False))
    story = [unknown, outcome(), changed(LONGER), changed(LONGER), changed(later), changed(SHORTER), outcome(), unknown]
    for given in story:
        clock.now += 3600
        await announcer.flipped(Flip(given, shown(given), before))
        before = {condition.type: str(condition.status) for condition in shown(given)}
    assert events(server) == [
        ("LongerAnswers", "Warning"),
        ("LongerAnswers", "Warning"),
        ("ShorterAnswers", "Warning"),
        ("LengthsSteady", "Normal"),
    ]


async def test_an_operator_that_comes_later_does_not_tell_an_old_change_again(
    server: KubernetesFake, api: KubernetesApi, clock
) -> None:
    announcer = Announcer(events=EventRecorder(api=api, instance="longtail-1"), clock=clock)
    await announcer.flipped(Flip(changed(LONGER), shown(changed(LONGER)), {"LengthsChanged": "True"}))
    assert events(server) == []
