"""One service at one tick: what is decided, why, and how it is told."""

from dataclasses import replace
from typing import Any

import pytest

from longtail.demand.observation import Observation, Signal
from longtail.policy.behavior import Recommendation
from longtail.policy.decision import Reason, Rung
from longtail.policy.fleet import Behavior, Mode
from longtail.policy.memory import ServiceMemory

from .worlds import AT_ONCE, KV_TOKENS, NOW, WATCHED, decided, demand, rules, rung, seen, service, stale, unseen


def ladder(*args: Any, **kwargs: Any) -> dict[str, int]:
    return {step.rung.value: step.replicas for step in decided(*args, **kwargs).ladder}


# What is settled before the first rung


def test_mode_off_leaves_a_pool_alone() -> None:
    decision = decided(service(4, mode=Mode.OFF, max_replicas=2), seen(100))
    assert (decision.desired, decision.hold, decision.reason) == (4, True, Reason.SCALING_DISABLED)


def test_advise_decides_like_active() -> None:
    assert decided(service(mode=Mode.ADVISE), seen(60)) == decided(service(mode=Mode.ACTIVE), seen(60))


def test_a_target_at_zero_is_paused_by_somebody() -> None:
    decision = decided(service(0), seen(100))
    assert (decision.desired, decision.hold, decision.reason) == (0, True, Reason.SCALING_DISABLED)
    assert "pause" in decision.message


def test_without_a_target_the_last_known_count_is_held() -> None:
    decision = decided(service(None), seen(100), memory=replace(WATCHED, current=7))
    assert (decision.current, decision.desired, decision.hold) == (7, 7, True)
    assert decision.reason is Reason.TARGET_UNAVAILABLE


@pytest.mark.parametrize("observation", [pytest.param(seen(), id="idle"), pytest.param(unseen(), id="blind")])
def test_too_few_replicas_go_to_the_minimum_at_once_and_need_no_data(observation: Observation) -> None:
    slow = Behavior(scale_up=rules(window=3600))
    decision = decided(service(1, min_replicas=9, behavior=slow), observation)
    assert (decision.desired, decision.reason, decision.limited_by) == (
        9,
        Reason.SCALE_UP,
        Reason.TOO_FEW_REPLICAS,
    )


def test_too_many_replicas_go_to_the_maximum_at_once() -> None:
    # No window, no rate and no warm-up: a ceiling is an order, not a conclusion from what was seen.
    decision = decided(service(12, max_replicas=5), seen(96), memory=ServiceMemory())
    assert (decision.desired, decision.reason, decision.limited_by) == (
        5,
        Reason.SCALE_DOWN,
        Reason.TOO_MANY_REPLICAS,
    )
    assert decision.message == "12 → 5 replicas: 12 are more than maxReplicas 5"


@pytest.mark.parametrize(
    ("observation", "reason"),
    [
        pytest.param(unseen(), Reason.METRICS_MISSING, id="missing"),
        pytest.param(seen(stale(90), stale(0)), Reason.METRICS_STALE, id="stale"),
        pytest.param(seen(90, reporting_pods=3), Reason.METRICS_PARTIAL, id="partial"),
    ],
)
def test_no_replica_above_the_maximum_is_removed_blind(observation: Observation, reason: Reason) -> None:
    decision = decided(service(12, max_replicas=5), observation)
    assert (decision.desired, decision.hold, decision.reason) == (12, True, reason)
    assert "12 are more than maxReplicas 5, but" in decision.message
    assert rung(decision, Rung.SAFETY).replicas == 12


# Up and down on good data


def test_each_rung_leaves_its_number() -> None:
    assert ladder(service(4, min_replicas=2, max_replicas=10), seen(20, 100)) == {
        "Reactive": 15,
        "Floor": 15,
        "Ceiling": 10,
        "Behavior": 8,
        "Supply": 8,
        "Safety": 8,
        "Placement": 8,
    }


def test_growth_is_told_with_its_figures_and_its_last_limit() -> None:
    decision = decided(service(4, max_replicas=10), seen(20, 100))
    assert decision.message == (
        "4 → 8 replicas: 20 running at target speed + 100 waiting need 120 slots; a replica has 8: 15 replicas; "
        "behavior allows the larger of 100 % in 15 s and 4 pods in 15 s to grow: 8 of 10 replicas"
    )
    assert (decision.reason, decision.limited_by) == (Reason.SCALE_UP, Reason.SCALE_UP_LIMIT)


def test_a_pool_shrinks_to_what_is_needed() -> None:
    decision = decided(service(4, behavior=AT_ONCE), seen(9))
    assert (decision.desired, decision.hold, decision.reason) == (2, False, Reason.SCALE_DOWN)


def test_an_idle_pool_shrinks_to_the_minimum_and_no_further() -> None:
    decision = decided(service(4, min_replicas=2, behavior=AT_ONCE), seen(0))
    assert (decision.desired, decision.limited_by) == (2, Reason.TOO_FEW_REPLICAS)


def test_a_pool_of_the_right_size_stays() -> None:
    decision = decided(service(4), seen(30))
    assert (decision.desired, decision.hold, decision.reason) == (4, False, Reason.DESIRED_WITHIN_RANGE)
    assert decision.message.startswith("stays at 4: 30 running at target speed")


def test_a_pool_at_its_maximum_says_that_it_wants_more() -> None:
    decision = decided(service(4, max_replicas=4), seen(100))
    assert (decision.desired, decision.reason, decision.limited_by) == (
        4,
        Reason.TOO_MANY_REPLICAS,
        Reason.TOO_MANY_REPLICAS,
    )
    assert decision.message.endswith("maxReplicas is 4")


def test_a_pool_at_its_minimum_says_that_it_needs_less() -> None:
    decision = decided(service(4, min_replicas=4), seen(8))
    assert (decision.desired, decision.reason) == (4, Reason.TOO_FEW_REPLICAS)


def test_a_recent_peak_keeps_a_pool() -> None:
    memory = replace(WATCHED, recommendations=(Recommendation(at=NOW - 200, replicas=4),))
    decision = decided(service(4), seen(8), memory=memory)
    assert (decision.desired, decision.hold, decision.reason) == (4, False, Reason.SCALE_DOWN_STABILIZED)


def test_the_kv_cache_alone_keeps_a_pool() -> None:
    observation = seen(8, kv_used_tokens=Signal(value=3.5 * KV_TOKENS))
    decision = decided(service(4, behavior=AT_ONCE), observation, demand(8.0, kv_now_tokens=3.5 * KV_TOKENS))
    assert decision.desired == 4


@pytest.mark.parametrize(
    ("running", "desired"),
    [pytest.param(34, 4, id="within"), pytest.param(36, 5, id="beyond")],
)
def test_a_shortage_within_the_tolerance_is_not_worth_a_replica(running: float, desired: int) -> None:
    tolerant = Behavior(scale_up=replace(Behavior().scale_up, tolerance=0.1))
    decision = decided(service(4, behavior=tolerant), seen(running))
    assert decision.desired == desired
    assert ("tolerance" in rung(decision, Rung.BEHAVIOR).because) == (desired == 4)


# Forecast

UP = {"slots_upper": 60.0, "slots_peak": 70.0}
DOWN = {"slots_upper": 9.0, "slots_peak": 12.0}


def test_a_forecast_grows_a_pool_before_the_demand_is_there() -> None:
    decision = decided(service(4), seen(20), demand(20.0, **UP))
    assert (rung(decision, Rung.REACTIVE).replicas, rung(decision, Rung.FORECAST).replicas) == (3, 8)
    assert decision.desired == 8
    assert decision.message == (
        "4 → 8 replicas: one cold start ahead (180 s), at most, requests will need 60 slots; a replica has 8: 8 replicas"
    )


def test_a_forecast_alone_never_removes_a_replica() -> None:
    decision = decided(service(4, behavior=AT_ONCE), seen(30), demand(30.0, **DOWN))
    assert rung(decision, Rung.FORECAST).replicas == 4
    assert decision.desired == 4


def test_a_pool_shrinks_no_further_than_the_peak_that_is_expected() -> None:
    decision = decided(service(4, behavior=AT_ONCE), seen(3), demand(3.0, **DOWN))
    assert (rung(decision, Rung.REACTIVE).replicas, decision.desired) == (1, 2)


def test_between_quantile_and_peak_the_forecast_has_no_say() -> None:
    decision = decided(service(4, behavior=AT_ONCE), seen(3), demand(3.0, slots_upper=9.0, slots_peak=40.0))
    assert (rung(decision, Rung.FORECAST).replicas, decision.desired) == (4, 4)


def test_a_forecast_without_a_peak_lowers_nothing() -> None:
    decision = decided(service(4, behavior=AT_ONCE), seen(3), demand(3.0, slots_upper=9.0))
    assert decision.desired == 4


def test_a_floor_above_the_forecast_decides() -> None:
    decision = decided(service(4, behavior=AT_ONCE), seen(60), demand(60.0, **DOWN))
    assert decision.desired == 8
    assert decision.message.startswith("4 → 8 replicas: 60 running at target speed")
    assert rung(decision, Rung.FORECAST).because.endswith("2 replicas, no reason to differ from the reactive number")
