"""What is not known well enough forbids a pool to shrink, and of what is known it may still grow."""

from dataclasses import replace

import pytest

from longtail.demand.estimate import Cascade
from longtail.demand.observation import MISSING, Observation, Quality, Signal
from longtail.policy.decision import Reason, Rung
from longtail.policy.trust import FORGET_SECONDS

from .worlds import AT_ONCE, NOW, WATCHED, decided, demand, partial, pods, rung, seen, service, stale, unseen


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
    decision = decided(service(4), unseen(), demand(None, slots_upper=60.0, slots_peak=70.0))
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


def test_quality_ranks_are_what_the_doubts_assume() -> None:
    assert [*Quality] == [Quality.FRESH, Quality.PARTIAL, Quality.STALE, Quality.MISSING]
