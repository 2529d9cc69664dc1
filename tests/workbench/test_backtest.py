"""A recorded load under pools of other sizes: the balance of requests, who decides on them, and what it comes to."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.demand.observation import MISSING, Observation, Quality, Signal
from longtail.demand.parameters import Objective, ServiceParameters
from longtail.policy.fleet import Limits, Mode, Pod, Service, ServiceKey
from longtail.workbench.backtest import Candidate, Learned, Look, backtest, better, learn
from longtail.workbench.backtest_scores import Row
from longtail.workbench.fluid import Interval, Pool, intervals
from longtail.workbench.peers.hpa import External, Hpa, HpaSpec
from longtail.workbench.peers.queries import running_requests

EPOCH = 1_700_000_000.0
STEP = 60.0
LEARNED = Learned(
    slots_per_replica=10.0, bound_by="Spec", cold_start_seconds=120.0, cold_start_p90_seconds=150.0, mean_tokens=2000.0
)


def service(**limits: int) -> Service:
    return Service(
        key=ServiceKey("ml", "r1"),
        mode=Mode.ACTIVE,
        parameters=ServiceParameters(objective=Objective(queue_wait_seconds=10.0, attainment=0.95)),
        limits=Limits(**{"min_replicas": 1, "max_replicas": 20, **limits}),
        target=None,
    )


def recording(running: Sequence[float], *, replicas: int = 10, churn: float = 0.2) -> list[Look]:
    """``running`` requests at each step; a fifth of them ends in each, and others take their place."""
    looks = []
    for step, level in enumerate(running):
        before = running[step - 1] if step else level
        looks.append(
            Look(
                Observation(
                    at_seconds=EPOCH + STEP * step,
                    interval_seconds=STEP if step else 0.0,
                    running_requests=Signal(level),
                    waiting_requests=Signal(0.0),
                    first_tokens=Signal(max(level - before + churn * before, 0.0)) if step else MISSING,
                    generated_tokens=Signal(before * STEP / 0.05) if step else MISSING,
                    ready_pods=replicas,
                    reporting_pods=replicas,
                ),
                [Pod(f"p{n}", EPOCH - 9000.0, ready_at=EPOCH - 8900.0, ready=True) for n in range(replicas)],
            )
        )
    return looks


def wave(steps: int = 360) -> list[float]:
    return [30 + 20 * math.sin(2 * math.pi * step / 120) for step in range(steps)]


# --------------------------------------------------------------------- the load


@given(levels=st.lists(st.floats(0, 500), min_size=2, max_size=40), churn=st.floats(0, 1))
def test_a_pool_as_large_as_the_recorded_one_has_the_recorded_requests(levels: list[float], churn: float) -> None:
    load = intervals([look.observation for look in recording(levels, churn=churn)])
    pool = Pool(slots=1000, cold_start_seconds=60, replicas=1, requests=load[0].requests, at_seconds=EPOCH, drains=True)
    for one in load[1:]:
        pool.follow(one)
        # Below one request in service the share that finishes is not known, so as many finish as did.
        assert pool.requests == pytest.approx(one.requests, abs=1e-6 * max(levels) + 1e-6)


@given(
    levels=st.lists(st.floats(0, 500), min_size=2, max_size=30),
    sizes=st.lists(st.integers(0, 30), min_size=30, max_size=30),
    drains=st.booleans(),
)
@settings(max_examples=60)
def test_no_request_is_lost_or_made(levels: list[float], sizes: list[int], drains: bool) -> None:
    load = intervals([look.observation for look in recording(levels)])
    pool = Pool(slots=10, cold_start_seconds=90, replicas=3, requests=load[0].requests, at_seconds=EPOCH, drains=drains)
    for one, replicas in zip(load[1:], sizes, strict=False):
        before = pool.requests
        pool.follow(one)
        assert pool.requests == pytest.approx(before + pool.arrived - pool.finished)
        assert pool.requests >= -1e-9
        assert pool.running <= pool.capacity
        assert pool.wait_seconds >= 0
        pool.ask(replicas, service_seconds=one.service_seconds)
        assert pool.paid >= pool.serving >= pool.ready


def test_requests_beyond_the_slots_wait_as_long_as_the_queue_takes() -> None:
    pool = Pool(slots=10, cold_start_seconds=60, replicas=1, requests=30.0, at_seconds=0.0, drains=True)
    pool.follow(Interval(60.0, 60.0, known=True, running_before=30, arrived=0, finished=6, service_seconds=300.0))
    # A third of the recorded requests is in service, so a third of the recorded number finishes.
    assert pool.requests == pytest.approx(28.0)
    assert pool.wait_seconds == pytest.approx(18 * 300 / 10)


def test_a_replica_comes_a_cold_start_after_it_was_asked_for() -> None:
    pool = Pool(slots=10, cold_start_seconds=120, replicas=1, requests=30.0, at_seconds=0.0, drains=True)
    pool.ask(3, service_seconds=60.0)
    for at, ready in ((60.0, 1), (120.0, 3)):
        pool.follow(Interval(at, 60.0, known=True))
        assert (pool.ready, pool.serving, pool.paid) == (ready, 3, 3)
    assert pool.replica_seconds == 360.0


def test_a_replica_that_drains_is_paid_for_and_comes_back_at_once() -> None:
    pool = Pool(slots=10, cold_start_seconds=600, replicas=5, requests=20.0, at_seconds=0.0, drains=True)
    pool.ask(1, service_seconds=1000.0)
    assert (pool.serving, pool.paid) == (4, 5)  # a fifth of the pool at a time
    pool.ask(5, service_seconds=1000.0)
    assert (pool.serving, pool.ready, pool.paid) == (5, 5, 5)
    assert pool.cut_requests == 0


def test_a_peer_cuts_what_the_replica_held() -> None:
    pool = Pool(slots=10, cold_start_seconds=600, replicas=4, requests=20.0, at_seconds=0.0, drains=False)
    pool.ask(1, service_seconds=1000.0)
    assert (pool.serving, pool.paid) == (1, 1)
    assert pool.cut_requests == pytest.approx(15.0)


def test_what_happened_in_a_gap_is_not_known_and_not_invented() -> None:
    looks = recording([10.0, 12.0, 11.0, 30.0, 31.0])
    looks[2] = Look(Observation(at_seconds=looks[2].observation.at_seconds), looks[2].pods)
    load = intervals([look.observation for look in looks])
    assert [one.known for one in load] == [False, True, False, False, True]
    assert (load[2].jump, load[3].jump) == (0.0, 18.0)


@pytest.mark.parametrize("quality", [Quality.PARTIAL, Quality.MISSING])
def test_a_part_of_the_requests_is_not_the_load(quality: Quality) -> None:
    looks = recording([10.0, 12.0])
    signal = MISSING if quality is Quality.MISSING else Signal(3.0, quality=quality)
    seen = replace(looks[1].observation, running_requests=signal)
    assert not intervals([looks[0].observation, seen])[1].known


# --------------------------------------------------------------------- who decides


def test_every_candidate_and_peer_gets_a_row_and_the_recording_comes_first() -> None:
    peer = Hpa((External(running_requests, 7.0),), HpaSpec(1, 20), name="hpa-running")
    more = Candidate("more", service(min_replicas=8), {"spec.minReplicas": 8})
    progress: list[float] = []
    result = backtest(
        recording(wave()), [Candidate("longtail", service()), more], [peer], LEARNED, progress=progress.append
    )
    assert [row.name for row in result.rows] == ["as recorded", "longtail", "hpa-running", "more"]
    recorded, ours, hpa, floor = result.rows
    # Ten replicas all the time, one GPU each, over the scored part.
    assert recorded.gpu_hours == pytest.approx(10 * result.scored_hours)
    assert recorded.attainment_percent == 100.0
    assert ours.gpu_hours < recorded.gpu_hours
    assert ours.attainment_percent >= 95.0
    assert ours.cut_requests == 0
    assert hpa.cut_requests > 0
    assert floor.gpu_hours >= 8 * result.scored_hours
    assert progress[-1] == pytest.approx(1.0)


def test_gpus_are_counted_by_replica() -> None:
    one = backtest(recording(wave(60)), [Candidate("longtail", service())], [], LEARNED)
    eight = backtest(recording(wave(60)), [Candidate("longtail", service())], [], LEARNED, gpus_per_replica=8.0)
    assert [row.gpu_hours * 8 for row in one.rows] == pytest.approx([row.gpu_hours for row in eight.rows])


def test_candidates_do_not_disturb_each_other() -> None:
    looks = recording(wave(120))
    alone = backtest(looks, [Candidate("longtail", service())], [], LEARNED).rows[1]
    others = [Candidate(f"{n}", service(min_replicas=n), {"spec.minReplicas": n}) for n in (2, 5)]
    among = backtest(looks, [Candidate("longtail", service()), *others], [], LEARNED).rows[1]
    assert among == alone


def test_a_pool_without_room_is_short_of_slots_and_late() -> None:
    tight = Candidate("longtail", service(max_replicas=2))
    row = backtest(recording(wave()), [tight], [], LEARNED).rows[1]
    assert row.under_capacity_percent > 50
    assert row.attainment_percent < 50
    assert row.p99_wait_seconds > row.mean_wait_seconds > 10


def test_times_that_are_not_known_are_not_scored() -> None:
    looks = recording(wave())
    for step in range(200, 260):
        looks[step] = Look(Observation(at_seconds=looks[step].observation.at_seconds), looks[step].pods, partial=True)
    result = backtest(looks, [Candidate("longtail", service())], [], LEARNED)
    # Of 323 steps after the warm-up 60 are missing, and the one after them is the first look of a new series.
    assert result.unknown_percent == pytest.approx(100 * 61 / 323, abs=0.5)


def test_a_replay_teaches_what_a_replica_can_do() -> None:
    learned = learn(recording(wave(120), replicas=3), service())
    assert learned.cold_start_p90_seconds == pytest.approx(180.0, rel=0.01)
    assert learned.slots_per_replica > 0


@pytest.mark.parametrize(
    ("looks", "candidates", "says"),
    [
        pytest.param([], [Candidate("longtail", service())], "not known", id="no-recording"),
        pytest.param(recording(wave(5)), [], "no candidate", id="no-candidate"),
    ],
)
def test_nothing_to_compare_is_an_error(looks, candidates, says) -> None:
    with pytest.raises(ValueError, match=says):
        backtest(looks, candidates, [], LEARNED)


@given(st.lists(st.tuples(st.floats(1, 100), st.floats(80, 100)), min_size=2, max_size=12))
def test_better_never_costs_more_for_a_promise_that_was_kept_anyway(figures: list[tuple[float, float]]) -> None:
    rows = [Row(f"{n}", hours, 0, percent, 0, 0, 0, 0, 0) for n, (hours, percent) in enumerate(figures)]
    base = rows[0]
    for row in better(rows, base, promised=95.0):
        assert row is not base
        if base.attainment_percent >= 95.0:
            assert row.attainment_percent >= 95.0
            assert row.gpu_hours < base.gpu_hours
        else:
            assert row.attainment_percent > base.attainment_percent
