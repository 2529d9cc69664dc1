"""Arrivals and lengths: the figures they claim, and the same draws whatever happens around them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.workbench.engine.workload import R1_OUTPUT, R1_PROMPT, Arrivals, RateProfile


def test_output_lengths_have_the_published_quantiles():
    drawn = R1_OUTPUT.sample(np.random.default_rng(7), 200_000)
    assert np.mean(drawn) == pytest.approx(1526, rel=0.05)
    assert np.percentile(drawn, 50) == pytest.approx(792, rel=0.05)
    assert np.percentile(drawn, 99) == pytest.approx(12_607, rel=0.08)
    assert drawn.max() == 32_768
    assert drawn.min() >= 1


def test_prompt_lengths_have_the_published_median_and_mean():
    drawn = R1_PROMPT.sample(np.random.default_rng(7), 400_000)
    assert np.percentile(drawn, 50) == pytest.approx(208, rel=0.03)
    assert np.mean(drawn) == pytest.approx(1268, rel=0.1)
    assert drawn.max() <= 57_284


PROFILES = [
    pytest.param(RateProfile.steady(2.0), id="steady"),
    pytest.param(RateProfile.step(low=1.0, high=5.0, at_seconds=30.0), id="step"),
    pytest.param(RateProfile.step(low=0.0, high=5.0, at_seconds=30.0), id="step from nothing"),
    pytest.param(RateProfile.burst(low=1.0, high=9.0, at_seconds=20.0, seconds=5.0), id="burst"),
    pytest.param(
        RateProfile.rise_and_fall(low=0.5, high=6.0, lead_seconds=10, ramp_seconds=20, plateau_seconds=30),
        id="rise and fall",
    ),
    pytest.param(RateProfile(points=((5.0, 1.0), (10.0, 3.0), (20.0, 0.0)), repeat=True), id="repeated"),
]


@pytest.mark.parametrize("profile", PROFILES)
def test_expected_arrivals_are_the_integral_of_the_rate(profile):
    grid = np.linspace(0, 200, 200_001)
    rates = np.array([profile.rate(t) for t in grid[:-1] + 0.0005])
    for seconds in (0.0, 7.0, 23.0, 31.0, 65.5, 130.0, 200.0):
        summed = rates[: round(seconds * 1000)].sum() * 0.001
        assert profile.expected(seconds) == pytest.approx(summed, abs=0.02)


@pytest.mark.parametrize("profile", PROFILES)
def test_when_inverts_expected(profile):
    for arrivals in np.linspace(0.01, 150, 97):
        assert profile.expected(profile.when(float(arrivals))) == pytest.approx(arrivals, rel=1e-9)


@pytest.mark.parametrize(
    "profile",
    [
        pytest.param(RateProfile.steady(0.0), id="steady nothing"),
        pytest.param(RateProfile(points=((0.0, 0.0), (10.0, 0.0)), repeat=True), id="repeated nothing"),
        pytest.param(RateProfile(points=((0.0, 1.0), (10.0, 0.0))), id="ends in nothing"),
    ],
)
def test_what_never_comes_comes_at_infinity(profile):
    assert profile.when(1e6) == math.inf


@pytest.mark.parametrize(
    ("points", "named"),
    [
        pytest.param((), "points", id="none"),
        pytest.param(((5.0, 1.0), (1.0, 1.0)), "ascending", id="unordered"),
        pytest.param(((0.0, -1.0),), "-1.0", id="negative"),
        pytest.param(((0.0, math.nan),), "nan", id="not a number"),
    ],
)
def test_an_impossible_profile_is_refused(points, named):
    with pytest.raises(ValueError, match=named):
        RateProfile(points=points)


def take_until(source: Arrivals, seconds: float) -> list[float]:
    times = []
    while source.next_seconds <= seconds:
        times.append(source.take().arrived_seconds)
    return times


@pytest.mark.parametrize(("gap_cv", "expected"), [(1.0, 1.0), (2.28, 2.28), (0.3, 0.3)])
def test_gaps_have_the_mean_and_variation_asked_for(gap_cv, expected):
    times = take_until(Arrivals(profile=RateProfile.steady(4.0), seed=3, gap_cv=gap_cv), 10_000.0)
    gaps = np.diff(times)
    assert np.mean(gaps) == pytest.approx(0.25, rel=0.05)
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(expected, rel=0.06)


def test_arrivals_follow_the_rate():
    profile = RateProfile.rise_and_fall(low=1.0, high=20.0, lead_seconds=1000, ramp_seconds=1000, plateau_seconds=1000)
    times = np.array(take_until(Arrivals(profile=profile, seed=5), 6000.0))
    counts, _ = np.histogram(times, bins=[0, 1000, 2000, 3000, 4000, 5000, 6000])
    assert counts == pytest.approx([1000, 10_500, 20_000, 10_500, 1000, 1000], rel=0.12)


def test_the_same_seed_gives_the_same_requests_and_another_seed_others():
    def draw(seed: int) -> list[object]:
        source = Arrivals(profile=RateProfile.steady(1.0), seed=seed)
        return [source.take() for _ in range(50)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@given(seed=st.integers(0, 1000), longest=st.integers(2, 5000))
def test_every_request_fits_the_model(seed, longest):
    source = Arrivals(profile=RateProfile.steady(1.0), seed=seed, max_model_len_tokens=longest)
    for _ in range(20):
        request = source.take()
        assert request.prompt_tokens + request.max_tokens <= longest
        assert request.output_tokens <= request.max_tokens


def test_a_pause_stops_arrivals_and_a_resume_goes_on_where_it_stopped():
    paused, plain = (Arrivals(profile=RateProfile.step(low=1.0, high=9.0, at_seconds=30.0), seed=4) for _ in "ab")
    take_until(paused, 20.0)
    take_until(plain, 20.0)
    paused.pause(at_seconds=20.0)
    assert paused.next_seconds == math.inf
    paused.resume(at_seconds=120.0)
    assert take_until(paused, 160.0) == pytest.approx([t + 100 for t in take_until(plain, 60.0)])


def test_another_rate_counts_from_now_and_keeps_what_is_left_of_the_gap():
    source = Arrivals(profile=RateProfile.steady(1.0), seed=4)
    take_until(source, 50.0)
    left = source.next_seconds - 50.0
    source.follow(RateProfile.steady(10.0), at_seconds=50.0)
    assert source.next_seconds == pytest.approx(50.0 + left / 10)
    source.follow(RateProfile.steady(0.0), at_seconds=50.0)
    assert source.next_seconds == math.inf
    source.follow(RateProfile.steady(1.0), at_seconds=70.0)
    assert source.next_seconds == pytest.approx(70.0 + left)


def test_a_rate_set_during_a_pause_begins_at_the_resume():
    source = Arrivals(profile=RateProfile.steady(1.0), seed=4)
    source.pause(at_seconds=0.0)
    source.follow(RateProfile.step(low=0.0, high=1000.0, at_seconds=10.0), at_seconds=5.0)
    assert source.next_seconds == math.inf
    source.resume(at_seconds=100.0)
    assert 110.0 <= source.next_seconds < 110.1


def test_a_faster_profile_has_the_same_arrivals_in_less_time():
    profile = RateProfile.rise_and_fall(low=1, high=5, lead_seconds=60, ramp_seconds=60, plateau_seconds=60)
    slow = take_until(Arrivals(profile=profile, seed=9), 300.0)
    fast = take_until(Arrivals(profile=profile.faster(10), seed=9), 30.0)
    assert fast == pytest.approx([t / 10 for t in slow])
