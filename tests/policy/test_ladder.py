"""One service at one tick: what is decided, why, and how it is told."""

from dataclasses import replace
from typing import Any

import pytest

from longtail.demand.estimate import Cascade
from longtail.demand.observation import MISSING, Observation, Quality, Signal
from longtail.policy.behavior import Recommendation, ScaleEvent
from longtail.policy.decision import Reason, Rung
from longtail.policy.fleet import Behavior, Mode
from longtail.policy.ladder import decide
from longtail.policy.memory import ServiceMemory
from longtail.policy.trust import FORGET_SECONDS, GAP_SECONDS

from .worlds import (
    AT_ONCE,
    KV_TOKENS,
    NOW,
    TICK,
    WATCHED,
    decided,
    demand,
    partial,
    plain,
    pods,
    rules,
    rung,
    seen,
    service,
    stale,
    unseen,
)


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


# Safety


@pytest.mark.parametrize(
    ("observation", "reason", "words"),
    [
        pytest.param(unseen(), Reason.METRICS_MISSING, "running and waiting requests is missing", id="nothing-read"),
        pytest.param(seen(0, MISSING), Reason.METRICS_MISSING, "number of waiting requests", id="waiting-missing"),
        pytest.param(seen(stale(0), 0), Reason.METRICS_STALE, "120 s old", id="old"),
        pytest.param(seen(partial(0), 0), Reason.METRICS_PARTIAL, "only 4 of 4 ready pods", id="a-part"),
        pytest.param(seen(0, reporting_pods=3), Reason.METRICS_PARTIAL, "only 3 of 4 ready pods", id="a-pod-silent"),
        pytest.param(
            seen(0, ready_pods=0, reporting_pods=0),
            Reason.METRICS_MISSING,
            "no pod is ready",
            id="none-ready",
        ),
        pytest.param(
            seen(0, gpu_active_ratio=Signal(value=0.4)),
            Reason.GPU_BUSY,
            "GPUs are busy 40 % of the time",
            id="gpu-busy",
        ),
    ],
)
def test_doubt_forbids_shrinking_and_says_why(observation: Observation, reason: Reason, words: str) -> None:
    decision = decided(service(4, behavior=AT_ONCE), observation)
    assert (decision.desired, decision.hold, decision.reason) == (4, True, reason)
    assert words in decision.message


def test_while_answers_time_out_nobody_goes_and_the_floor_still_makes_the_pool_grow() -> None:
    cascade = Cascade(
        since=NOW,
        aborted_per_second=9.0,
        finished_per_second=2.0,
        arrivals_per_second=30.0,
        distinct_per_second=8.0,
        patience_seconds=120.0,
        queue_limit=40.0,
    )
    held = decided(service(4, behavior=AT_ONCE), seen(3), demand(3.0, cascade=cascade))
    assert (held.desired, held.hold, held.reason) == (4, True, Reason.TIMEOUT_CASCADE)
    assert "9 requests a second are given up, 2 are answered" in held.message
    grown = decided(service(4, behavior=AT_ONCE), seen(32, 30), demand(62.0, cascade=cascade))
    assert (grown.desired, grown.reason) == (8, Reason.SCALE_UP)


def test_a_busy_gpu_does_not_doubt_engines_that_report_work() -> None:
    decision = decided(service(4, behavior=AT_ONCE), seen(3, gpu_active_ratio=Signal(value=0.4)))
    assert decision.desired == 1


def test_a_gpu_that_idles_is_no_witness_of_work() -> None:
    decision = decided(service(4, behavior=AT_ONCE), seen(0, gpu_active_ratio=Signal(value=0.01)))
    assert decision.desired == 1


def test_a_blind_pool_at_its_right_size_still_holds() -> None:
    decision = decided(service(4), unseen())
    assert (decision.hold, decision.reason, decision.limited_by) == (True, Reason.METRICS_MISSING, None)


def test_the_gateway_alone_may_grow_a_blind_pool() -> None:
    decision = decided(service(4), unseen(gateway_waiting_requests=Signal(value=50.0)))
    assert (decision.desired, decision.hold, decision.reason) == (7, False, Reason.SCALE_UP)


def test_the_gateway_alone_never_shrinks_a_blind_pool() -> None:
    decision = decided(service(4, behavior=AT_ONCE), unseen(gateway_waiting_requests=Signal(value=1.0)))
    assert (decision.desired, decision.hold) == (4, True)
    assert {step.replicas for step in decision.ladder} == {4}


def test_old_numbers_grow_nothing() -> None:
    decision = decided(service(4), seen(stale(200), stale(200)))
    assert (decision.desired, decision.hold) == (4, True)


def test_a_forecast_without_eyes_grows_nothing() -> None:
    decision = decided(service(4), unseen(), demand(None, **UP))
    assert (decision.desired, decision.reason) == (4, Reason.METRICS_MISSING)


def test_a_part_of_the_pods_may_grow_a_pool_and_the_silent_ones_count_as_full() -> None:
    decision = decided(service(4), seen(partial(24), partial(0), reporting_pods=2))
    assert rung(decision, Rung.REACTIVE).replicas == 5
    assert (decision.desired, decision.reason) == (5, Reason.SCALE_UP)


def test_a_pod_that_has_just_become_ready_is_not_silent_yet() -> None:
    # Else every growth would feed itself: new pods report nothing for a scrape interval, and count as full.
    fresh = service(4)
    assert fresh.target is not None
    fresh = replace(fresh, target=replace(fresh.target, pods=(*pods(2), *pods(2, age=70.0, prefix="new"))))
    decision = decided(fresh, seen(partial(24), partial(0), reporting_pods=2))
    assert rung(decision, Rung.REACTIVE).replicas == 3
    assert (decision.desired, decision.reason) == (4, Reason.METRICS_PARTIAL)


def test_known_requests_of_unknown_size_hold_a_pool() -> None:
    decision = decided(service(4, behavior=AT_ONCE), seen(3), demand(None))
    assert (decision.desired, decision.hold, decision.reason) == (4, True, Reason.METRICS_MISSING)


def test_a_signal_that_was_there_and_is_gone_forbids_shrinking() -> None:
    memory = replace(WATCHED, reported_at={"KV cache use": NOW - 60})
    decision = decided(service(4, behavior=AT_ONCE), seen(3), memory=memory)
    assert (decision.desired, decision.reason) == (4, Reason.METRICS_PARTIAL)
    assert "KV cache use: last known 60 s ago, now Missing" in decision.message


def test_a_signal_that_has_been_gone_for_long_is_not_missed() -> None:
    memory = replace(WATCHED, reported_at={"gateway queue": NOW - FORGET_SECONDS - 1})
    assert decided(service(4, behavior=AT_ONCE), seen(3), memory=memory).desired == 1


def test_a_signal_that_never_was_is_not_missed() -> None:
    assert decided(service(4, behavior=AT_ONCE), seen(3)).desired == 1


# Warm-up and memory


def run(
    observations: list[Observation], *, replicas: int = 4, behavior: Behavior = AT_ONCE
) -> tuple[list[Reason], ServiceMemory]:
    """Fold over ticks of 15 s from a cold start, the target never following."""
    memory, reasons = ServiceMemory(), []
    for tick, observation in enumerate(observations):
        decision, memory = decide(
            service=service(replicas, behavior=behavior),
            observation=observation,
            demand=plain(observation),
            memory=memory,
            now=NOW + TICK * tick,
        )
        reasons.append(decision.reason)
    return reasons, memory


def test_nothing_shrinks_before_a_whole_window_was_watched() -> None:
    minute = Behavior(scale_down=replace(Behavior().scale_down, stabilization_window_seconds=60))
    reasons, _ = run([seen(3)] * 5, behavior=minute)
    assert reasons == [Reason.WARMING_UP] * 4 + [Reason.SCALE_DOWN]


def test_growth_needs_no_warm_up() -> None:
    assert decided(service(4), seen(60), memory=ServiceMemory()).desired == 8


def test_looking_away_for_long_starts_the_warm_up_again() -> None:
    minute = Behavior(scale_down=replace(Behavior().scale_down, stabilization_window_seconds=60))
    blind_ticks = int(GAP_SECONDS / TICK)
    reasons, _ = run([seen(3)] * 6 + [unseen()] * blind_ticks + [seen(3)] * 5, behavior=minute)
    assert reasons[5] is Reason.SCALE_DOWN
    assert reasons[6 : 6 + blind_ticks] == [Reason.METRICS_MISSING] * blind_ticks
    assert reasons[-5:] == [Reason.WARMING_UP] * 4 + [Reason.SCALE_DOWN]


def test_a_lost_scrape_does_not_start_the_warm_up_again() -> None:
    minute = Behavior(scale_down=replace(Behavior().scale_down, stabilization_window_seconds=60))
    reasons, _ = run([seen(3)] * 6 + [unseen()] + [seen(3)], behavior=minute)
    assert reasons[-2:] == [Reason.METRICS_MISSING, Reason.SCALE_DOWN]


def test_a_blind_tick_leaves_no_recommendation() -> None:
    _, memory = run([seen(30), unseen(), seen(stale(0), stale(0))], behavior=Behavior())
    assert [each.replicas for each in memory.recommendations] == [4]


def test_a_contradictory_tick_recommends_what_there_is() -> None:
    _, memory = run([seen(0, gpu_active_ratio=Signal(value=0.4))], behavior=Behavior())
    assert [each.replicas for each in memory.recommendations] == [4]


def test_what_windows_can_no_longer_see_is_forgotten() -> None:
    _, memory = run([seen(30)] * 100, behavior=Behavior())
    assert len(memory.recommendations) == 300 / TICK


def test_a_change_that_was_carried_out_uses_up_the_rate() -> None:
    slow = Behavior(scale_up=rules(policies=AT_ONCE.scale_up.policies[1:]))  # 4 pods in 15 s
    first, memory = decide(
        service=service(4, behavior=slow),
        observation=seen(200),
        demand=demand(200.0),
        memory=WATCHED,
        now=NOW,
    )
    assert first.desired == 8
    second, memory = decide(
        service=service(8, behavior=slow),
        observation=seen(200),
        demand=demand(200.0),
        memory=memory,
        now=NOW + 10,
    )
    assert memory.events == (ScaleEvent(at=NOW, change=4),)
    assert (second.desired, second.reason) == (8, Reason.SCALE_UP_LIMIT)


def test_a_change_that_was_not_carried_out_uses_up_nothing() -> None:
    _, memory = decide(service=service(4), observation=seen(200), demand=demand(200.0), memory=WATCHED, now=NOW)
    again, memory = decide(service=service(4), observation=seen(200), demand=demand(200.0), memory=memory, now=NOW + 10)
    assert (again.desired, memory.events) == (8, ())


def test_a_change_in_the_other_direction_is_somebody_elses() -> None:
    _, memory = decide(service=service(4), observation=seen(200), demand=demand(200.0), memory=WATCHED, now=NOW)
    _, memory = decide(service=service(2), observation=seen(200), demand=demand(200.0), memory=memory, now=NOW + 15)
    assert memory.events == ()


def test_a_change_made_while_the_target_was_out_of_sight_still_counts() -> None:
    _, memory = decide(service=service(4), observation=seen(200), demand=demand(200.0), memory=WATCHED, now=NOW)
    for tick, replicas in enumerate((None, 8), start=1):
        _, memory = decide(
            service=service(replicas),
            observation=seen(200),
            demand=demand(200.0),
            memory=memory,
            now=NOW + 5 * tick,
        )
    assert memory.events == (ScaleEvent(at=NOW, change=4),)


def test_quality_ranks_are_what_the_doubts_assume() -> None:
    assert [*Quality] == [Quality.FRESH, Quality.PARTIAL, Quality.STALE, Quality.MISSING]
