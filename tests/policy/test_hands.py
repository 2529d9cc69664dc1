"""Other hands on the same number."""

from dataclasses import replace
from typing import Any

import pytest

from longtail.policy.decision import Decision, Reason, Rung
from longtail.policy.fleet import MANUAL_GRACE_SECONDS, Mode, ReplicasWriter, Service
from longtail.policy.hands import CONTEST_SECONDS
from longtail.policy.ladder import decide
from longtail.policy.memory import ServiceMemory

from .worlds import AT_ONCE, NOW, TICK, WATCHED, plain, rung, seen, service, unseen


def set_by(writer: ReplicasWriter | None, replicas: int = 8, **over: Any) -> Service:
    of = replace(service(replicas, behavior=AT_ONCE), created_at=NOW - 86_400, **over)
    assert of.target is not None
    return replace(of, target=replace(of.target, writer=writer))


def by_hand(ago: float = 60.0, name: str = "kubectl") -> ReplicasWriter:
    return ReplicasWriter(name=name, at=NOW - ago)


def decided(of: Service, running: float = 3.0, waiting: float = 0.0, memory: ServiceMemory = WATCHED) -> Decision:
    observation = seen(running, waiting, ready_pods=8, reporting_pods=8)
    return decide(service=of, observation=observation, demand=plain(observation), memory=memory, now=NOW)[0]


def test_who_scales_up_for_a_launch_is_not_shrunk_within_the_grace() -> None:
    decision = decided(set_by(by_hand()))
    assert (decision.desired, decision.hold, decision.reason) == (8, True, Reason.MANUAL_SCALING)
    assert "kubectl set 8 replicas 60 s ago, which stand for 600 s" in decision.message


def test_after_the_grace_the_pool_is_ours_again() -> None:
    assert decided(set_by(by_hand(MANUAL_GRACE_SECONDS))).desired == 1


def test_who_scales_down_in_an_incident_is_not_fought_while_nobody_waits() -> None:
    decision = decided(set_by(by_hand(), replicas=2), running=40.0)
    assert (decision.desired, decision.reason) == (2, Reason.MANUAL_SCALING)
    assert rung(decision, Rung.SAFETY).because.startswith("not grown: kubectl set 2 replicas")


def test_requests_that_wait_are_served_whoever_set_the_number() -> None:
    assert decided(set_by(by_hand(), replicas=2), running=16.0, waiting=24.0).desired == 5


def test_a_hand_above_the_maximum_has_its_grace_too() -> None:
    of = set_by(by_hand(), replicas=30)
    assert (decided(of).desired, decided(of).reason) == (30, Reason.MANUAL_SCALING)
    assert decided(set_by(by_hand(700.0), replicas=30)).desired == 20


def test_a_hand_below_the_minimum_is_corrected_at_once() -> None:
    of = set_by(by_hand(), replicas=1)
    assert decided(replace(of, limits=replace(of.limits, min_replicas=3))).desired == 3


@pytest.mark.parametrize(
    "writer",
    [
        pytest.param(None, id="nobody-knows-who"),
        pytest.param(ReplicasWriter(name="longtail", at=NOW - 5, ours=True), id="ourselves"),
        pytest.param(by_hand(90_000.0), id="before-the-resource-was-made"),
    ],
)
def test_what_was_not_set_against_us_has_no_grace(writer: ReplicasWriter | None) -> None:
    assert decided(set_by(writer)).desired == 1


def test_who_follows_our_advice_does_not_stop_it() -> None:
    """An HPA that acts on longtail_desired_replicas writes the target each time: that is the intended use."""
    assert decided(set_by(by_hand(1.0, "kube-controller-manager"), replicas=2), running=40.0).desired == 2
    advised = replace(set_by(by_hand(1.0, "kube-controller-manager"), replicas=2), mode=Mode.ADVISE)
    assert decided(advised, running=40.0).desired == 5
    assert decided(advised, running=40.0).contested_by == ""


def test_no_grace_can_be_asked_for() -> None:
    assert decided(set_by(by_hand(1.0), manual_grace_seconds=0.0)).desired == 1


def test_a_blind_pool_says_both() -> None:
    observation = unseen()
    decision, _ = decide(
        service=set_by(by_hand()), observation=observation, demand=plain(observation), memory=WATCHED, now=NOW
    )
    assert (decision.desired, decision.reason) == (8, Reason.METRICS_MISSING)
    assert "kubectl" in decision.message


def contest(name: str, *, every: float, writes: int, dated: bool = True) -> Decision:
    memory = replace(WATCHED, number_set=("longtail", 5))
    for number in range(writes):
        now = NOW + every * number
        of = set_by(ReplicasWriter(name=name, at=now - 1 if dated else None), replicas=8 + number % 2)
        observation = seen(3, ready_pods=8, reporting_pods=8)
        for look in range(3):  # the same write is seen by several ticks
            decision, memory = decide(
                service=of, observation=observation, demand=plain(observation), memory=memory, now=now + TICK * look
            )
    return decision


@pytest.mark.parametrize("dated", [pytest.param(True, id="applied"), pytest.param(False, id="through-scale")])
def test_who_keeps_setting_the_number_is_named(dated: bool) -> None:
    assert contest("argocd-controller", every=180.0, writes=3, dated=dated).contested_by == "argocd-controller"


def undated(*, first: bool, waits: float) -> Decision:
    """kubectl scale from 5 to 8 leaves no time: it is when we first saw it, if we had seen another number before."""
    memory = WATCHED if first else replace(WATCHED, number_set=("longtail", 5))
    of = set_by(ReplicasWriter(name="kubectl"))
    for now in (NOW, NOW + waits):
        observation = seen(3, ready_pods=8, reporting_pods=8)
        decision, memory = decide(
            service=of, observation=observation, demand=plain(observation), memory=memory, now=now
        )
    return decision


def test_a_write_without_a_time_has_its_grace_from_when_it_was_seen() -> None:
    assert undated(first=False, waits=590.0).reason is Reason.MANUAL_SCALING
    assert undated(first=False, waits=600.0).desired == 1


def test_the_first_hand_on_a_pool_as_it_was_made_is_noticed() -> None:
    memory, observation = WATCHED, seen(3, ready_pods=8, reporting_pods=8)
    for of in (set_by(None, replicas=1), set_by(ReplicasWriter(name="kubectl"))):
        decision, memory = decide(
            service=of, observation=observation, demand=plain(observation), memory=memory, now=NOW
        )
    assert (decision.desired, decision.reason) == (8, Reason.MANUAL_SCALING)


def test_what_is_there_at_first_sight_and_has_no_time_is_how_it_was_found() -> None:
    assert undated(first=True, waits=15.0).desired == 1


@pytest.mark.parametrize(
    ("replicas", "named"),
    [
        pytest.param(1, "argocd-controller", id="a-number-below-the-minimum-that-we-corrected"),
        pytest.param(8, "", id="a-number-that-stands-and-is-applied-with-other-things"),
    ],
)
def test_who_puts_the_same_number_back_faster_than_we_look_is_named(replicas: int, named: str) -> None:
    memory = replace(WATCHED, number_set=("longtail", 3))
    for look in range(4):
        now = NOW + TICK * look
        of = set_by(ReplicasWriter(name="argocd-controller", at=now - 5), replicas=replicas)
        of = replace(of, limits=replace(of.limits, min_replicas=3))
        observation = seen(1, ready_pods=replicas, reporting_pods=replicas)
        decision, memory = decide(
            service=of, observation=observation, demand=plain(observation), memory=memory, now=now
        )
    assert decision.contested_by == named


def test_a_correction_or_two_are_no_contest() -> None:
    assert contest("kubectl", every=180.0, writes=2).contested_by == ""


def test_corrections_of_one_a_day_are_no_contest() -> None:
    assert contest("kubectl", every=CONTEST_SECONDS, writes=9).contested_by == ""


def test_a_running_pool_is_adopted_without_a_step() -> None:
    """Twelve replicas, three of them needed: nothing moves before a whole window has been watched."""
    of, memory, sizes = replace(service(12), created_at=NOW), ServiceMemory(), []
    observation = seen(20, ready_pods=12, reporting_pods=12)
    for tick in range(25):
        decision, memory = decide(
            service=of, observation=observation, demand=plain(observation), memory=memory, now=NOW + TICK * tick
        )
        sizes.append(decision.desired)
    assert sizes[:20] == [12] * 20  # 300 s
    assert sizes[-1] == 3


def test_an_adopted_pool_that_is_too_small_grows_at_once() -> None:
    assert decided(replace(service(2), created_at=NOW), running=16.0, waiting=40.0, memory=ServiceMemory()).desired > 2
