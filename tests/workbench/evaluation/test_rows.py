from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.workbench.evaluation.rows import HINDSIGHT, Row, at_attainment, frontier_of

ONE = Row(
    trace="t",
    policy="p",
    seed=0,
    knob=1.0,
    attainment_percent=99.0,
    gpu_hours=10.0,
    serving_gpu_hours=8.0,
    starting_gpu_hours=1.0,
    draining_gpu_hours=1.0,
    bound_gpu_hours=5.0,
    cost_over_bound=2.0,
    wasted_tokens=0.0,
    killed_requests=0.0,
    scaling_actions=4.0,
    direction_changes=1.0,
    wait_p50_seconds=0.0,
    wait_p95_seconds=1.0,
    wait_p99_seconds=9.0,
)


def run(attainment, hours, knob=1.0):
    return replace(ONE, attainment_percent=attainment, gpu_hours=hours, cost_over_bound=hours / 5.0, knob=knob)


def test_a_run_that_another_beats_in_both_is_not_on_the_frontier():
    beaten = run(98.0, 12.0)
    frontier = frontier_of([beaten, run(99.0, 11.0), run(95.0, 8.0)])
    assert [row.gpu_hours for row in frontier] == [8.0, 11.0]


def test_between_two_runs_cost_goes_with_the_logarithm_of_the_misses():
    # 97.5 % misses 2.5 %, 99.6 % misses 0.4 %; 1 % is the geometric mean of both
    found = at_attainment([run(97.5, 10.0, knob=2.0), run(99.6, 14.0, knob=1.0)], 99.0)
    assert found.gpu_hours == pytest.approx(12.0)
    assert found.cost_over_bound == pytest.approx(2.4)
    assert found.knob == pytest.approx(1.5)
    assert (found.attainment_percent, found.attainment_target_percent, found.tuned) == (99.0, 99.0, HINDSIGHT)


@pytest.mark.parametrize(
    ("runs", "hours"),
    [
        pytest.param([(98.9, 10.0)], None, id="nobody reaches it"),
        pytest.param([(99.9, 12.0), (99.5, 11.0)], 11.0, id="the cheapest is already better"),
        pytest.param([(0.0, 5.0), (100.0, 11.0)], 11.0, id="from nobody to everybody in one step"),
        pytest.param([(99.0, 11.0), (95.0, 10.0)], 11.0, id="exactly there"),
        pytest.param([(99.5, 9.0), (98.0, 10.0)], 9.0, id="more for less is not made worse"),
    ],
)
def test_cost_at_an_attainment(runs, hours):
    found = at_attainment([run(*one) for one in runs], 99.0)
    assert hours is None if found is None else found.gpu_hours == pytest.approx(hours)


points = st.lists(st.tuples(st.floats(0, 100), st.floats(1, 100)), min_size=1, max_size=8)


@given(points, st.sampled_from([95.0, 99.0, 99.5]))
def test_hindsight_is_never_dearer_than_a_run_that_did_it_nor_cheaper_than_any(pairs, target):
    runs = [run(*pair) for pair in pairs]
    found = at_attainment(runs, target)
    reached = [row.gpu_hours for row in runs if row.attainment_percent >= target]
    assert (found is None) == (not reached)
    if found is not None:
        assert min(row.gpu_hours for row in runs) - 1e-9 <= found.gpu_hours <= min(reached) + 1e-9


@given(points)
def test_more_attainment_never_costs_less(pairs):
    runs = [run(*pair) for pair in pairs]
    costs = [found.gpu_hours for target in (95.0, 99.0, 99.5) if (found := at_attainment(runs, target)) is not None]
    assert costs == pytest.approx(sorted(costs))


def test_a_row_survives_json():
    assert Row.from_json(asdict(ONE)) == ONE
