"""One grid for all histograms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.demand.buckets import BUCKETS, EDGES, bucket_of, count_within, overlap, spread

bounds = st.sets(st.floats(0.5, 1e6), max_size=12).map(lambda finite: (*sorted(finite), math.inf))
even = np.full((1, BUCKETS), 1 / BUCKETS)


@settings(deadline=None)
@given(upper=bounds, data=st.data())
def test_no_request_is_lost_or_invented_on_the_way_to_the_grid(upper, data):
    counts = data.draw(st.lists(st.just(0.0) | st.floats(0.1, 1e5), min_size=len(upper), max_size=len(upper)))
    chance = np.array([data.draw(st.lists(st.just(0.0) | st.floats(1e-6, 1), min_size=BUCKETS, max_size=BUCKETS))])
    on_grid = spread(counts=np.array([counts]), upper_bounds=upper, probability=chance)
    assert (on_grid >= 0).all()
    assert on_grid.sum() == pytest.approx(sum(counts), rel=1e-9)


@given(upper=bounds)
def test_every_grid_bucket_is_covered_once(upper):
    assert overlap(upper).sum(axis=0) == pytest.approx(np.ones(BUCKETS))


def test_the_grids_own_bounds_change_nothing():
    counts = np.arange(BUCKETS, dtype=float)[None]
    upper = (*EDGES[1:].tolist(), math.inf)
    np.testing.assert_allclose(spread(counts=counts, upper_bounds=upper, probability=even), counts)


def test_pods_of_one_service_may_have_other_bounds():
    vllm = spread(counts=np.array([[0.0, 4.0]]), upper_bounds=(1000.0, math.inf), probability=even)
    sglang = spread(counts=np.array([[4.0, 0.0]]), upper_bounds=(1500.0, math.inf), probability=even)
    assert vllm[0, :10].sum() == 0
    assert sglang[0, 11:].sum() == 0
    assert vllm.sum() == sglang.sum() == 4


def test_an_open_bucket_is_divided_as_the_service_would():
    chance = np.zeros((1, BUCKETS))
    chance[0, 13], chance[0, 14] = 0.75, 0.25
    tail = spread(counts=np.array([[0.0, 8.0]]), upper_bounds=(5000.0, math.inf), probability=chance)
    assert tail[0, 13:15] == pytest.approx([6.0, 2.0], rel=1e-6)


@pytest.mark.parametrize(
    ("limit", "within"),
    [
        pytest.param(0.0, 0.0, id="nothing"),
        pytest.param(5.0, 8.0, id="a-bound"),
        pytest.param(7.5, 9.0, id="inside"),
        pytest.param(10.0, 10.0, id="last-finite"),
        pytest.param(1e9, 10.0, id="open-bucket-never-counts"),
    ],
)
def test_waits_within_a_limit(limit, within):
    got = count_within(counts=np.array([[8.0, 2.0, 5.0]]), upper_bounds=(5.0, 10.0, math.inf), limit=np.array([limit]))
    assert got.tolist() == [within]


@given(st.floats(0, 1e7, width=32))
def test_a_bucket_holds_the_age_it_is_said_to_hold(age):
    bucket = bucket_of(np.array([age], dtype=np.float32))[0]
    assert EDGES[bucket] <= age
    assert bucket == BUCKETS - 1 or age < EDGES[bucket + 1]
