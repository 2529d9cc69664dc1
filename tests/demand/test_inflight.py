"""Requests in flight by inferred age."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.demand import inflight
from longtail.demand.buckets import BUCKETS
from longtail.demand.inflight import COHORTS, InFlight
from longtail.demand.survival import Survival

S = Survival.of(hazard=np.full((1, BUCKETS), 1 / 1000), limit=np.array([32768.0]))
STEP = np.array([300.0])


def run(gauges, starts, *, known=True, bounded=True):
    flight, widths = InFlight.fresh(1), np.zeros(COHORTS)
    for running, started in zip(gauges, starts, strict=True):
        aged, _ = inflight.advance(flight, tokens=STEP, survival=S)
        grown, _ = inflight.admit(aged, started=np.array([started]), tokens=STEP, survival=S)
        ceiling = np.concatenate([[[started]], flight.requests], axis=1).astype(np.float32)
        found = inflight.correct(
            grown,
            ceiling=ceiling if bounded else np.full_like(ceiling, np.inf),
            running=np.array([running]),
            known=np.array([known]),
            survival=S,
            attained=np.zeros(1),
            attained_known=np.array([False]),
        )
        flight, widths = inflight.make_room(found, width_seconds=widths, elapsed_seconds=15.0)
    return flight, widths


some = st.one_of(st.just(0.0), st.floats(0.01, 300.0))
"""Counts of requests as they occur: none, or not so few that they are rounding."""


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=12), st.booleans())
def test_requests_in_flight_are_as_many_as_the_gauge_says(ticks, bounded):
    gauges, starts = [float(a) for a, _ in ticks], [float(b) for _, b in ticks]
    flight, _ = run(gauges, starts, bounded=bounded)
    assert flight.total[0] == pytest.approx(gauges[-1], rel=1e-3, abs=1e-3)
    assert (flight.requests >= 0).all()


@settings(deadline=None)
@given(
    st.lists(some, min_size=3, max_size=3),
    st.lists(some, min_size=3, max_size=3),
    some,
)
def test_no_cohort_that_was_there_grows_and_the_rest_is_young(before, expected, running):
    old = np.array([before], dtype=np.float32)
    flight = InFlight(np.minimum(np.array([[0.0, *expected[1:]]], dtype=np.float32), old), np.zeros((1, 3), np.float32))
    found = inflight.correct(
        flight,
        ceiling=old,
        running=np.array([running]),
        known=np.array([True]),
        survival=S,
        attained=np.zeros(1),
        attained_known=np.array([False]),
    )
    assert (found.requests[0, 1:] <= old[0, 1:] + 1e-4).all()
    assert found.total[0] == pytest.approx(running, rel=1e-3, abs=1e-3)


def test_without_a_gauge_requests_follow_their_lengths():
    flight, _ = run([0.0] * 200, [15.0] * 200, known=False)
    # 15 starts a tick of 300 tokens, 1000 tokens each: 15 x 1000 / 300 = 50 in flight, of mean age 1000.
    assert flight.total[0] == pytest.approx(50, rel=0.01)
    assert flight.tokens[0] / flight.total[0] == pytest.approx(1000, rel=0.02)


def test_cohorts_reach_back_as_far_as_any_answer_lasts_and_stay_narrow_for_their_age():
    _, widths = run([0.0] * 500, [0.0] * 500, known=False)
    assert widths.sum() == 500 * 15.0
    assert widths[0] == 15.0
    ends = np.cumsum(widths)
    assert (widths[4:] / ends[4:] < 0.35).all()
    assert (np.diff(widths) >= -1e-9).mean() > 0.9


def test_a_drop_of_the_gauge_takes_from_all_ages_alike():
    before, _ = run([50.0] * 60, [15.0] * 60)
    after, _ = run([50.0] * 60 + [25.0], [15.0] * 61)
    assert after.total[0] == pytest.approx(25.0)
    assert after.tokens[0] / 25 == pytest.approx(before.tokens[0] / 50, rel=0.05)


def test_exposure_adds_up_to_the_tokens_written():
    flight, _ = run([50.0] * 60, [15.0] * 60)
    aged, depth = inflight.advance(flight, tokens=STEP, survival=S)
    grown, newborn = inflight.admit(aged, started=np.array([15.0]), tokens=STEP, survival=S)
    older = inflight.exposure(flight, tokens=STEP, depth=depth, expected=aged, found=grown.older)
    assert older.sum() + newborn.sum() == pytest.approx(50 * 300, rel=0.03)


def test_requests_that_outlast_what_was_thought_are_exposure_at_once():
    flight, _ = run([50.0] * 60, [15.0] * 60)
    aged, depth = inflight.advance(flight, tokens=STEP, survival=S)
    alive = InFlight(flight.requests, aged.age_tokens)
    seen = inflight.exposure(flight, tokens=STEP, depth=depth, expected=aged, found=alive)
    assert seen.sum() == pytest.approx(50 * 300, rel=1e-3)
