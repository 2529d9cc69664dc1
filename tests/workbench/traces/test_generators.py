from math import gamma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.workbench.traces import arrivals
from longtail.workbench.traces.arrivals import GapLaw, constant, poisson, renewal, weibull_shape
from longtail.workbench.traces.lengths import (
    HEAVY_TAIL,
    PARAMETRIC_INPUT,
    PARAMETRIC_R1,
    CappedLognormals,
    Empirical,
    Scaled,
)

LAWS = [
    pytest.param(PARAMETRIC_R1, id="R1"),
    pytest.param(HEAVY_TAIL, id="heavy tail"),
    pytest.param(PARAMETRIC_INPUT, id="input"),
    pytest.param(Scaled(PARAMETRIC_R1, 3.0, 32_768), id="three times R1"),
    pytest.param(Empirical(np.array([1, 10, 1000]), np.array([5.0, 3.0, 2.0])), id="empirical"),
    pytest.param(Scaled(Empirical(np.array([1, 10, 1000]), np.ones(3)), 2.0, 500), id="twice empirical"),
]


@pytest.mark.parametrize("law", LAWS)
def test_the_stated_mean_and_cap_are_those_of_the_draws(law):
    drawn = law.sample(200_000, np.random.default_rng(1))
    assert drawn.min() >= 1
    assert drawn.max() <= law.max_tokens
    # four standard errors, and a token for rounding
    assert abs(drawn.mean() - law.mean_tokens) < 4 * drawn.std() / np.sqrt(len(drawn)) + 1


@pytest.mark.parametrize("law", LAWS)
def test_the_same_seed_draws_the_same_lengths(law):
    first, second = (law.sample(50, np.random.default_rng(3)) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_parametric_r1_has_the_published_quantiles():
    drawn = PARAMETRIC_R1.sample(400_000, np.random.default_rng(2))
    median, p90, p99 = np.percentile(drawn, [50, 90, 99])
    # R1 day: 792, 3,432, 12,607
    assert median == pytest.approx(792, rel=0.02)
    assert p90 == pytest.approx(3432, rel=0.06)
    assert p99 == pytest.approx(12_607, rel=0.06)


def test_heavy_tail_has_the_published_median_and_mean_before_its_cap():
    uncapped = CappedLognormals(HEAVY_TAIL.weights, HEAVY_TAIL.mu, HEAVY_TAIL.sigma, 1e12)
    assert np.exp(HEAVY_TAIL.mu[0]) == pytest.approx(1665, rel=0.001)
    assert uncapped.mean_tokens == pytest.approx(3651, rel=0.002)


@settings(max_examples=30)
@given(st.sampled_from(GapLaw), st.floats(0.3, 4.0), st.integers(0, 1000))
def test_renewals_ascend_inside_the_trace_and_repeat_by_seed(law, cv, seed):
    rate = constant(600, 0.5)
    drawn, again = (renewal(rate, cv, np.random.default_rng(seed), law=law) for _ in range(2))
    assert drawn.tolist() == again.tolist()
    assert (np.diff(drawn) >= 0).all()
    assert ((drawn >= 0) & (drawn <= 600)).all()


@pytest.mark.parametrize("law", list(GapLaw))
@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_renewals_have_the_asked_rate_and_variation(law, cv):
    drawn = renewal(constant(100_000, 1.0), cv, np.random.default_rng(5), law=law)
    gaps = np.diff(drawn)
    # the count of a renewal process over t has a standard deviation of cv sqrt(t)
    assert abs(len(drawn) - 100_000) < 4 * max(cv, 1) * np.sqrt(100_000)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.08)


@pytest.mark.parametrize("cv", [0.2, 0.5, 1.0, 2.0, 5.0])
def test_the_weibull_shape_gives_back_its_variation(cv):
    shape = weibull_shape(cv)
    mean = gamma(1 + 1 / shape)
    assert np.sqrt(gamma(1 + 2 / shape) - mean**2) / mean == pytest.approx(cv, rel=1e-6)


def test_nothing_arrives_where_the_rate_is_zero():
    rate = arrivals.outage(constant(3000, 5.0), 1000, 500)
    for drawn in (
        poisson(rate, np.random.default_rng(1)),
        renewal(rate, 2.0, np.random.default_rng(1)),
    ):
        assert not ((drawn > 1000) & (drawn < 1500)).any()
        assert (drawn < 1000).sum() > 4000
        assert (drawn > 1500).sum() > 4000


def test_an_outage_brings_half_of_the_lost_back_by_default():
    rate = constant(4000, 2.0)
    assert arrivals.outage(rate, 1000, 500).sum() == pytest.approx(rate.sum() - 0.5 * 1000)
    assert arrivals.outage(rate, 1000, 500, returning=1.0).sum() == pytest.approx(rate.sum())


@pytest.mark.parametrize(
    ("rate", "at", "expected"),
    [
        pytest.param(arrivals.stepped(constant(100, 2.0), 50, 3.0), 75, 6.0, id="three times"),
        pytest.param(arrivals.stepped(constant(100, 3.0), 50, 1 / 3), 75, 1.0, id="a third"),
        pytest.param(arrivals.burst(constant(900, 1.0), 300, 300, 6.0), 450, 6.0, id="in the burst"),
        pytest.param(arrivals.burst(constant(900, 1.0), 300, 300, 6.0), 601, 1.0, id="after the burst"),
        pytest.param(arrivals.ramp(constant(100, 1.0), 20, 40, 5.0), 40, 3.0, id="half-way up the ramp"),
        pytest.param(arrivals.day_shape(86_400, 2.0, swing=0.5), 15 * 3600, 3.0, id="at the peak of the day"),
    ],
)
def test_rates_are_what_their_names_say(rate, at, expected):
    assert rate[at] == pytest.approx(expected)


def test_poisson_counts_vary_like_their_mean():
    drawn = poisson(constant(50_000, 2.0), np.random.default_rng(9))
    counts = np.histogram(drawn, np.arange(0, 50_001, 50))[0]
    assert counts.mean() == pytest.approx(100, rel=0.02)
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.2)
