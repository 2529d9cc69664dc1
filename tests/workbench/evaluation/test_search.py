import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.workbench.evaluation.search import Search, Tried


def fly(search, attained):
    """Runs of a policy whose attainment and cost are functions of the knob."""
    while (knob := search.next()) is not None:
        assert knob not in search.tried, "a run is never made twice"
        search.tell(Tried(knob, *attained(knob)))
    return search


def falling(knob):
    """A threshold: the higher it is, the fewer replicas."""
    return max(100.0 - 2.0 * knob**3, 0.0), 20.0 / knob


def rising(knob):
    """A quantile: the higher it is, the more replicas."""
    return min(90.0 + 10.0 * knob, 100.0), 10.0 / (1.001 - knob) ** 0.2


FACTORS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
QUANTILES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)


@pytest.mark.parametrize(
    ("grid", "policy"),
    [pytest.param(FACTORS, falling, id="dearer downwards"), pytest.param(QUANTILES, rising, id="dearer upwards")],
)
def test_the_first_target_gets_a_close_bracket_within_nine_runs(grid, policy):
    search = fly(Search(grid, [99.0, 95.0, 99.5]), policy)
    runs = sorted(search.tried.values(), key=lambda run: run.cost)
    above = next(run for run in runs if run.attainment_percent >= 99.0)
    below = max((run for run in runs if run.attainment_percent < 99.0), key=lambda run: run.cost)
    assert above.cost - below.cost <= 0.12 * above.cost
    assert len(search.tried) <= 9


def test_a_target_beyond_the_grid_ends_at_its_dear_end():
    search = fly(Search(FACTORS, [99.0]), lambda knob: (50.0, 10.0 / knob))
    assert min(search.tried) == 0.25
    assert len(search.tried) <= 5


def test_a_policy_that_always_reaches_its_target_is_followed_to_its_cheap_end():
    search = fly(Search(FACTORS, [99.0]), lambda knob: (100.0, 10.0 / knob))
    assert max(search.tried) == 4.0


def test_a_knob_that_acts_as_a_step_is_not_narrowed_further():
    search = fly(Search((1.0, 2.0), [99.0]), lambda knob: (100.0, 4.4) if knob < 1.9 else (0.0, 0.1))
    assert sorted(search.tried) == [1.0, 1.5, 1.75, 2.0]


def test_the_knobs_of_another_seed_are_tried_first():
    search = Search(FACTORS, [99.0], start=[0.6, 0.8], most_runs=4)
    assert search.next() == 0.6
    search.tell(Tried(0.6, 99.5, 12.0))
    assert search.next() == 0.8
    fly(search, falling)
    assert len(search.tried) <= 4


@settings(deadline=None)
@given(st.data(), st.integers(2, 9))
def test_the_search_ends_whatever_the_runs_say(data, most):
    def noise(knob):
        return data.draw(st.floats(0, 100)), data.draw(st.floats(0.1, 100))

    search = fly(Search(FACTORS, [99.0, 95.0], most_runs=most), noise)
    assert len(search.tried) <= max(most, 2)
    assert all(math.isfinite(knob) and 0.25 <= knob <= 4.0 for knob in search.tried)
