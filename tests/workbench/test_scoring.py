import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from longtail.workbench.scoring import pinball, rolling_upper, root, score, worst_coverage

demands = hnp.arrays(float, st.integers(30, 80), elements=st.integers(0, 500).map(float))


@given(demands)
def test_persistence_scores_one_against_itself(demand):
    upper = np.nan_to_num(rolling_upper(demand, horizon_ticks=3, level=0.9))
    figures = score(demand, demand, upper, horizon_ticks=3, warm_up_ticks=10, level=0.9)
    assert figures.sqrt_rmse_ratio == pytest.approx(1.0)
    assert figures.pinball_ratio == pytest.approx(1.0)
    assert figures.coverage == figures.baseline_coverage


@given(demands)
def test_an_oracle_scores_zero_and_always_holds(demand):
    ahead = np.concatenate([demand[3:], np.zeros(3)])
    figures = score(demand, ahead, ahead, horizon_ticks=3, warm_up_ticks=5, level=0.9)
    assert figures.sqrt_rmse == 0
    assert figures.sqrt_bias == 0
    assert figures.coverage == 1
    assert figures.worst_4h_coverage == 1


def test_a_perfect_baseline_cannot_be_beaten_only_equalled():
    demand = np.full(30, 4.0)
    assert score(demand, demand, demand, horizon_ticks=3, warm_up_ticks=5, level=0.9).sqrt_rmse_ratio == 1.0
    assert score(demand, demand + 1, demand, horizon_ticks=3, warm_up_ticks=5, level=0.9).sqrt_rmse_ratio == math.inf


def test_a_forecast_for_another_moment_is_not_taken_for_this_one():
    # demand jumps at tick 10; a forecast that knows the jump says so 3 ticks earlier, not 2
    demand = np.where(np.arange(20) < 10, 0.0, 100.0)
    told = np.where(np.arange(20) < 7, 0.0, 100.0)
    late = np.where(np.arange(20) < 8, 0.0, 100.0)
    assert score(demand, told, told, horizon_ticks=3, warm_up_ticks=4, level=0.9).sqrt_rmse == 0
    assert score(demand, late, late, horizon_ticks=3, warm_up_ticks=4, level=0.9).coverage < 1


def test_a_missing_forecast_is_an_error_and_not_a_miss():
    demand = np.ones(30)
    silent = np.where(np.arange(30) == 20, math.nan, 1.0)
    with pytest.raises(ValueError, match="1 of 17 forecasts are missing"):
        score(demand, silent, demand, horizon_ticks=3, warm_up_ticks=10, level=0.9)


def test_what_was_said_during_warm_up_does_not_count():
    demand = np.ones(30)
    wild = np.where(np.arange(30) < 10, math.nan, 1.0)
    assert score(demand, wild, wild, horizon_ticks=3, warm_up_ticks=10, level=0.9).coverage == 1


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 50))
def test_the_worst_window_is_the_least_of_all_windows(held, window):
    held = np.asarray(held)
    window_used = min(window, len(held))
    windows = [held[start : start + window_used].mean() for start in range(len(held) - window_used + 1)]
    assert worst_coverage(held, window) == pytest.approx(min(windows))


@given(demands, st.integers(1, 6), st.integers(2, 20))
def test_the_rolling_quantile_uses_only_errors_known_by_then(demand, horizon, window):
    upper = rolling_upper(demand, horizon_ticks=horizon, level=0.9, window=window)
    assert np.isnan(upper[:horizon]).all()
    roots = root(demand)
    for tick in range(horizon, len(demand)):
        made = range(max(tick - horizon - window + 1, 0), tick - horizon + 1)
        errors = [roots[at + horizon] - roots[at] for at in made]
        expected = max(max(roots[tick] + np.quantile(errors, 0.9), 0.0) ** 2 - 0.25, 0.0)
        assert upper[tick] == pytest.approx(expected)


def test_the_rolling_quantile_covers_as_often_as_it_says_when_errors_do_not_change():
    demand = np.random.default_rng(1).poisson(100, 6000).astype(float)
    upper = rolling_upper(demand, horizon_ticks=1, level=0.95, window=500)
    assert (demand[601:] <= upper[600:-1]).mean() == pytest.approx(0.95, abs=0.01)


@given(demands, st.floats(0.5, 0.99))
def test_the_true_quantile_has_the_least_pinball_loss(sample, level):
    best = np.quantile(sample, level, method="inverted_cdf")
    losses = [pinball(sample, np.full(len(sample), other), level) for other in (best - 5, best, best + 5)]
    assert losses[1] <= min(losses) + 1e-9
