"""Pools on one quota: never more than there is, nobody killed, and better than a fixed half each."""

import json
from dataclasses import replace

import numpy as np
import pytest

from longtail.workbench.bench_budget import Outcome, Pair, Plan, Use, always_on, opposite_days, run_plan
from longtail.workbench.bench_budget_report import draw_use, render
from longtail.workbench.fleet.setting import ReplicaSize
from longtail.workbench.traces.trace import Trace

HOUR = 3600.0


def swinging(phase: float, *, seed: int, hours: int = 2) -> Trace:
    """Between 0.4 and 3.6 requests a second, up and down within an hour; each stays for 20 s: 1 to 9 replicas' work."""
    rng = np.random.default_rng(seed)
    at = np.arange(hours * HOUR)
    rate = 2.0 + 1.6 * np.sin(2 * np.pi * (at / HOUR + phase))
    arrived = np.sort(np.repeat(at, rng.poisson(rate)) + rng.random())
    lengths = np.full(len(arrived), 400)
    return Trace("swinging", arrived, np.full(len(arrived), 100), lengths)


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    """Two services with opposite peaks on 2 x 6 and on 12 replicas; and on 8, which are too few."""
    plan = Plan(
        halves=(6,),
        quotas=(8, 12),
        duration_seconds=2 * HOUR,
        measured_from_seconds=0.5 * HOUR,
        size=ReplicaSize(slots=8, gpus=4),
        cold_start_seconds=60.0,
        max_output_tokens=2000.0,
    )
    return run_plan((swinging(0.0, seed=1), swinging(0.5, seed=2)), plan)


def test_a_quota_is_never_exceeded_and_nobody_is_killed_for_it(outcome: Outcome) -> None:
    for pair in outcome.shared:
        used = outcome.uses[pair.replicas].gpus.sum(axis=1)
        assert len(used) == 480
        assert used.max() == pair.most_gpus
        assert pair.most_gpus <= 4 * pair.replicas
        assert pair.killed_requests == 0
    assert outcome.shared[0].most_gpus == 4 * 8, "it binds"


def test_each_has_more_than_half_of_the_quota_at_its_peak_and_both_fare_better(outcome: Outcome) -> None:
    (half,), (_, shared) = outcome.halves, outcome.shared
    assert (half.replicas, shared.replicas) == (12, 12)
    assert all((outcome.uses[12].gpus.max(axis=0) > 4 * 6).tolist())
    assert max(half.attainment) < 0.5
    assert min(shared.attainment) > 0.85


def test_too_small_a_quota_hurts_both_alike_and_they_do_not_flap(outcome: Outcome) -> None:
    small, enough = outcome.shared
    assert small.attainment == pytest.approx((0.0, 0.0), abs=0.05)
    assert small.direction_changes < enough.direction_changes


def test_the_figures_are_told_with_the_bar(outcome: Outcome) -> None:
    pytest.importorskip("matplotlib")
    text = render(outcome)
    assert "| 2 × 24 |" in text
    assert "| 48 |" in text
    assert json.loads(json.dumps(outcome.as_dict()))["judged_half_replicas"] == 12
    assert draw_use(outcome).startswith(b"\x89PNG")


def pair(replicas: int, one: float, other: float, *, shared: bool = True) -> Pair:
    return Pair(replicas, shared, (one, other), 1.0, 8, 0, 0)


@pytest.mark.parametrize(
    ("shared", "least"),
    [
        pytest.param([pair(6, 0.98, 0.99), pair(8, 0.99, 0.99), pair(10, 1.0, 0.99)], 8, id="the-least"),
        pytest.param([pair(6, 0.98, 0.99), pair(8, 0.9885, 0.99), pair(10, 1.0, 0.99)], 8, id="but-for-the-scatter"),
        pytest.param([pair(6, 0.99, 0.99), pair(8, 0.99, 0.98), pair(10, 0.99, 0.99)], 10, id="not-by-luck"),
        pytest.param([pair(6, 1.0, 0.98), pair(8, 1.0, 0.98)], None, id="both-must"),
    ],
)
def test_the_least_quota_is_the_smallest_that_serves_both_as_well_and_so_does_the_next(outcome, shared, least) -> None:
    halves = [pair(9, 0.9, 0.9, shared=False), pair(10, 0.99, 0.99, shared=False), pair(40, 0.991, 0.99, shared=False)]
    drawn = replace(outcome, halves=halves, shared=shared, uses={1: Use(np.zeros(1), np.zeros((1, 2)))})
    match = drawn.judged
    assert match.half.replicas == 10, "the smallest that costs nothing"
    assert (match.quota.replicas if match.quota else None) == least
    assert match.saving_percent == pytest.approx(0.0 if least is None else 100 * (1 - least / 10))


def test_without_scaling_one_pool_for_opposite_peaks_takes_fewer_replicas_than_two(outcome: Outcome) -> None:
    two, one = always_on((swinging(0.0, seed=1), swinging(0.5, seed=2)), outcome.plan)
    assert two % 2 == 0
    assert outcome.plan.quotas[0] <= one < 0.8 * two
    assert "all replicas always on" in render(replace(outcome, always_on=(two, one)))


def test_the_second_day_is_another_draw_of_the_first_twelve_hours_later() -> None:
    morning = np.sort(np.random.default_rng(0).uniform(0, 6 * HOUR, 4000))
    day = Trace("day", morning, np.full(4000, 1), np.full(4000, 1))
    one, other = opposite_days(day, share=0.5, seed=0, warm_up_seconds=2 * HOUR)
    assert np.histogram(one.arrival_seconds, bins=[0, 2 * HOUR, 8 * HOUR, 26 * HOUR])[0][[0, 2]].tolist() == [0, 0]
    assert np.histogram(other.arrival_seconds, bins=[0, 14 * HOUR, 20 * HOUR, 26 * HOUR])[0][[0, 2]].tolist() == [0, 0]
    assert abs(len(one) - 2000) < 150
    assert one.arrival_seconds[0] + 12 * HOUR != other.arrival_seconds[0]
