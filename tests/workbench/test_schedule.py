import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.workbench.schedule import first_come_first_served, start_at_once
from longtail.workbench.traces import Trace, arrivals
from longtail.workbench.traces.lengths import PARAMETRIC_R1, Scaled


def trace_of(pairs):
    """Requests as (arrival, output tokens); at one second a token, tokens are seconds."""
    times, tokens = zip(*sorted(pairs), strict=True)
    return Trace("t", np.asarray(times, float), np.ones(len(times), int), np.asarray(tokens))


requests = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), min_size=1, max_size=25)


@pytest.mark.parametrize(
    ("pairs", "slots", "starts"),
    [
        pytest.param([(0, 10), (1, 10), (2, 10)], [(0, 2)], [0, 1, 10], id="the third waits for the first"),
        pytest.param([(0, 10), (1, 2), (2, 5)], [(0, 2)], [0, 1, 3], id="and for whoever is sooner"),
        pytest.param([(0, 10), (1, 10)], [(0, 1), (4, 2)], [0, 4], id="a slot that comes is taken at once"),
        pytest.param([(0, 10), (0, 20), (1, 5)], [(0, 2), (5, 1)], [0, 0, 20], id="the slot that goes is the sooner"),
        pytest.param([(0, 10), (20, 5), (20, 5)], [(0, 2), (15, 1)], [0, 20, 25], id="an idle slot that goes is idle"),
        pytest.param([(3, 5)], [(0, 0), (100, 1)], [100], id="from zero slots"),
        pytest.param([(0, 9), (30, 5)], [(0, 1), (10, 0), (20, 3), (25, 1)], [0, 30], id="away and back"),
    ],
)
def test_first_come_first_served_on_a_changing_number_of_slots(pairs, slots, starts):
    schedule = first_come_first_served(trace_of(pairs), seconds_per_token=1.0, slots=slots)
    assert schedule.start_seconds.tolist() == starts


@pytest.mark.parametrize(
    "slots",
    [
        pytest.param([], id="none"),
        pytest.param([(5, 1)], id="not from the start"),
        pytest.param([(0, 1), (9, 2), (3, 1)], id="backwards"),
        pytest.param([(0, 0)], id="nobody is ever served"),
        pytest.param([(0, 1), (0.5, 0)], id="the last slot goes"),
    ],
)
def test_slots_that_make_no_sense_are_refused(slots):
    with pytest.raises(ValueError, match="slots"):
        first_come_first_served(trace_of([(0, 5), (1, 5)]), seconds_per_token=1.0, slots=slots)


@given(requests, st.integers(1, 6))
def test_no_more_run_at_once_than_there_are_slots_and_nobody_waits_beside_a_free_one(pairs, slots):
    schedule = first_come_first_served(trace_of(pairs), seconds_per_token=1.0, slots=[(0, slots)])
    start, finish = schedule.start_seconds, schedule.finish_seconds
    arrival = schedule.trace.arrival_seconds
    assert (start >= arrival).all()
    assert (np.diff(start) >= 0).all()
    for moment in np.unique(np.concatenate([arrival, start])):
        running = int(((start <= moment) & (finish > moment)).sum())
        waiting = int(((arrival <= moment) & (start > moment)).sum())
        assert running <= slots
        assert waiting == 0 or running == slots


@given(requests)
def test_enough_slots_are_as_good_as_infinitely_many(pairs):
    trace = trace_of(pairs)
    limited = first_come_first_served(trace, seconds_per_token=0.5, slots=[(0, len(pairs))])
    assert limited.start_seconds.tolist() == start_at_once(trace, seconds_per_token=0.5).start_seconds.tolist()


def test_a_request_without_output_holds_no_slot():
    schedule = start_at_once(trace_of([(0, 0), (1, 5)]), seconds_per_token=1.0)
    assert schedule.start_seconds.tolist() == [1.0]


@given(requests, st.integers(0, 30))
def test_the_known_share_counts_those_who_have_come_and_will_still_be_there(pairs, horizon):
    schedule = start_at_once(trace_of(pairs), seconds_per_token=1.0)
    arrival, finish = schedule.trace.arrival_seconds, schedule.finish_seconds
    moments = np.arange(0.0, 60.0, 7.0)
    known = sum(int(((arrival <= at) & (finish > at + horizon)).sum()) for at in moments)
    demand = sum(int(((arrival <= at + horizon) & (finish > at + horizon)).sum()) for at in moments)
    assert schedule.known_share(moments, horizon) == pytest.approx(known / max(demand, 1))


@pytest.mark.parametrize(
    ("law", "seconds_per_token"),
    [
        pytest.param(PARAMETRIC_R1, 0.03, id="R1 at 30 ms"),
        pytest.param(PARAMETRIC_R1, 0.05, id="R1 at 50 ms"),
        pytest.param(PARAMETRIC_R1, 0.08, id="R1 at 80 ms"),
        pytest.param(Scaled(PARAMETRIC_R1, 3.0, 32_768), 0.05, id="three times R1 at 50 ms"),
    ],
)
def test_poisson_demand_is_rate_times_residence_and_known_as_far_as_the_stationary_excess(law, seconds_per_token):
    # Mt/G/inf: E[N] = lambda m, and the share of N(t + h) that has arrived by t is S_e(h) = int_h^inf S / m.
    rng = np.random.default_rng(4)
    rate, hours, horizon = 4.0, 10, 180.0
    arrived = arrivals.poisson(arrivals.constant(hours * 3600, rate), rng)
    trace = Trace("poisson", arrived, np.ones(len(arrived), int), law.sample(len(arrived), rng))
    schedule = start_at_once(trace, seconds_per_token=seconds_per_token)
    moments = np.arange(3600.0, hours * 3600 - horizon, 15.0)
    residence = law.sample(400_000, np.random.default_rng(5)) * seconds_per_token
    excess = np.maximum(residence - horizon, 0).mean() / residence.mean()
    assert schedule.known_share(moments, horizon) == pytest.approx(excess, abs=0.02)
    running = np.searchsorted(arrived, moments, "right") - np.searchsorted(
        np.sort(schedule.finish_seconds), moments, "right"
    )
    assert running.mean() == pytest.approx(rate * law.mean_tokens * seconds_per_token, rel=0.04)
