"""Every level of thinking under every promise: what a limit makes of lengths, of a load and of its cost."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.demand.observation import Buckets, Signal
from longtail.policy.fleet import EffortLevel, EffortPolicy, EffortRules
from longtail.workbench.backtest import Look
from longtail.workbench.replay import token_bounds
from longtail.workbench.triangle import ATTAINMENTS_PERCENT, Point, answer_tokens, best, saving, triangle

from .test_backtest import LEARNED, recording, service, wave

BOUNDS = token_bounds(32_768)
RULES = EffortRules(
    policy=EffortPolicy.RECOMMEND,
    levels=(EffortLevel("high"), EffortLevel("low", 1500), EffortLevel("minimal", 300)),
    answer_tokens=200.0,
)


def histogram(lengths: np.ndarray) -> Buckets:
    counts = np.histogram(lengths, bins=[0.0, *BOUNDS])[0]
    return Buckets(upper_bounds=BOUNDS, counts=tuple(counts.astype(float).tolist()))


def with_lengths(mean: float = 2000.0) -> list[Look]:
    """A recording whose answers have exponential lengths."""
    drawn = np.random.default_rng(3).exponential(mean, 400)
    looks = recording(wave())
    return [
        replace(look, observation=replace(look.observation, finished_output_tokens=histogram(drawn))) for look in looks
    ]


@pytest.fixture(scope="module")
def points() -> list[Point]:
    return triangle(with_lengths(), service(), RULES, LEARNED)


@given(limit=st.floats(1, 40_000), more=st.floats(1, 4), mean=st.floats(50, 8000))
def test_a_looser_limit_saves_less(limit, more, mean):
    lengths = [histogram(np.random.default_rng(1).exponential(mean, 300))]
    tight, loose = saving(lengths, limit_tokens=limit), saving(lengths, limit_tokens=limit * more)
    assert 0 < tight.length_ratio <= loose.length_ratio + 1e-12 <= 1 + 2e-12
    assert 0 <= loose.cut_share <= tight.cut_share + 1e-12 <= 1 + 2e-12


@pytest.mark.parametrize("limit", [500.0, 2000.0, 8000.0])
def test_what_is_saved_is_what_the_lengths_say(limit):
    drawn = np.random.default_rng(2).lognormal(7, 1, 50_000)
    found = saving([histogram(drawn)], limit_tokens=limit)
    assert found.length_ratio == pytest.approx(np.minimum(drawn, limit).mean() / drawn.mean(), rel=0.03)
    assert found.cut_share == pytest.approx((drawn > limit).mean(), abs=0.03)


def test_histograms_of_different_engines_are_added_up():
    one = Buckets(upper_bounds=(100.0, math.inf), counts=(10.0, 0.0))
    other = Buckets(upper_bounds=(1000.0, math.inf), counts=(0.0, 10.0))
    assert saving([one, other], limit_tokens=1000.0).cut_share == pytest.approx(0.5)


def test_without_lengths_there_is_nothing_to_say():
    with pytest.raises(ValueError, match="histogram of its output tokens"):
        triangle(recording(wave()), service(), RULES, LEARNED)


def test_every_level_is_put_under_every_promise(points):
    assert [point.name for point in points[: len(ATTAINMENTS_PERCENT)]] == [f"high@{p}" for p in ATTAINMENTS_PERCENT]
    assert len(points) == 3 * len(ATTAINMENTS_PERCENT)


def test_less_thinking_costs_less_at_the_same_promise(points):
    hours = [point.row.gpu_hours for point in points if point.attainment_percent == 95]
    assert hours[0] > hours[1] > hours[2]
    # exp(-2500/2000) of the answers are longer than the low level allows.
    low = next(point for point in points if point.level.name == "low")
    assert low.saving.length_ratio == pytest.approx(1 - math.exp(-1700 / 2000), abs=0.05)
    assert hours[2] / hours[0] == pytest.approx(points[-1].saving.length_ratio, abs=0.15)


def test_only_points_that_none_of_their_level_beats_are_shown(points):
    shown = best(points)
    assert {point.level.name for point in shown} == {"high", "low", "minimal"}
    for point in shown:
        others = [other.row for other in points if other.level == point.level]
        assert not any(
            row.gpu_hours < point.row.gpu_hours and row.mean_wait_seconds < point.row.mean_wait_seconds
            for row in others
        )


def test_the_answers_own_tokens_come_from_the_gateway_where_it_counts_them():
    looks = [
        replace(look, observation=replace(look.observation, reasoning_share=Signal(0.75))) for look in with_lengths()
    ]
    assert answer_tokens(looks, LEARNED, default=200.0) == pytest.approx(500.0)
    assert answer_tokens(with_lengths(), LEARNED, default=200.0) == 200.0
