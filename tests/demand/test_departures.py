"""How old requests are when they are given up, whom the model takes out of flight, and what that does to lengths."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.demand import departures
from longtail.demand.buckets import BUCKETS, EDGES
from longtail.demand.departures import DepartureState
from longtail.demand.inflight import InFlight
from longtail.demand.observation import MISSING, Signal
from longtail.demand.parameters import ServiceParameters

from .fleets import TICK, Requests, fold, numbers, poisson, stream

GONE = 6.0
TOKENS = np.array([100.0])
FLIGHT = InFlight(*np.array([[[20.0, 10.0, 6.0, 4.0]], [[100.0, 800.0, 1800.0, 4000.0]]], dtype=np.float32))
ENDED = np.zeros((1, BUCKETS), dtype=np.float32)
ENDED[0, 7:11] = 100.0  # 100 to 2,000 tokens, which makes a mean age of 539 in flight


def known(age: float, *, requests: float = 1e4, finished: float = 1e5) -> DepartureState:
    return DepartureState(*np.array([[requests], [requests * age], [finished], [0.0]]))


@pytest.mark.parametrize(
    ("state", "left"),
    [
        pytest.param(known(5000.0), [20.0, 10.0, 4.0, 0.0], id="a time-out: the oldest"),
        pytest.param(known(539.0), [17.0, 8.5, 5.1, 3.4], id="whenever they like: all alike"),
        pytest.param(known(5.0), [14.0, 10.0, 6.0, 4.0], id="at once: the youngest"),
        pytest.param(DepartureState.fresh(1), [17.0, 8.5, 5.1, 3.4], id="nothing is known yet: all alike"),
        pytest.param(known(5000.0, requests=0.01), [17.0, 8.5, 5.1, 3.4], id="too few are known: all alike"),
        pytest.param(known(5000.0, requests=-3.0), [17.0, 8.5, 5.1, 3.4], id="more came back than left: all alike"),
    ],
)
def test_whoever_is_given_up_is_as_old_as_such_requests_have_been(state, left):
    remaining = departures.take(state, FLIGHT, gone=np.array([GONE]), ended=ENDED, tokens=TOKENS)
    np.testing.assert_allclose(remaining.requests[0], left, atol=0.15)


def test_where_half_an_answer_is_written_in_a_tick_nobody_knows_how_old_requests_are():
    remaining = departures.take(known(5000.0), FLIGHT, gone=np.array([8.0]), ended=ENDED, tokens=10 * TOKENS)
    np.testing.assert_allclose(remaining.requests, 0.8 * FLIGHT.requests, rtol=1e-6)


def test_before_any_answer_has_finished_all_ages_are_alike():
    remaining = departures.take(known(5000.0), FLIGHT, gone=np.array([8.0]), ended=0 * ENDED, tokens=TOKENS)
    np.testing.assert_allclose(remaining.requests, 0.8 * FLIGHT.requests, rtol=1e-6)


counts = st.just(0.0) | st.floats(0.01, 500.0)


@settings(deadline=None)
@given(
    st.lists(counts, min_size=4, max_size=4),
    st.tuples(*(st.sampled_from([-50.0, 0.0]) | st.floats(0.01, most) for most in (1e5, 1e9, 1e6))),
    st.lists(st.just(0.0) | st.floats(0.01, 1e4), min_size=BUCKETS, max_size=BUCKETS),
    st.floats(0.0, 2000.0),
)
def test_as_many_leave_as_were_given_up_nobody_comes_and_nothing_is_negative(there, learned, ended, gone):
    flight = replace(FLIGHT, requests=np.array([there], dtype=np.float32))
    state = DepartureState(*np.array([[value] for value in (*learned, 0.0)]))
    finished = np.array([ended], dtype=np.float32)
    remaining = departures.take(state, flight, gone=np.array([gone]), ended=finished, tokens=TOKENS)
    assert (remaining.requests >= 0).all()
    assert (remaining.requests <= flight.requests).all()
    assert remaining.total[0] == pytest.approx(max(flight.total[0] - gone, 0.0), rel=1e-4, abs=1e-2)
    wrote = departures.share_of_tick(flight, remaining)
    assert ((wrote >= 0.5) & (wrote <= 1.0)).all()


@settings(deadline=None)
@given(st.lists(st.integers(-30, 30), max_size=40))
def test_no_more_are_taken_than_ever_left_on_balance(balances):
    """Preempted requests come back, and a gauge that is a moment behind is right at the next look."""
    state, taken, total, most = DepartureState.fresh(1), 0.0, 0.0, 0.0
    for balance in balances:
        state, gone = departures.count(state, balance=np.array([float(balance)]), known=np.array([True]))
        taken, total = taken + gone[0], total + balance
        most = max(most, total)
        assert gone[0] >= 0
        assert state.ahead[0] >= 0
        assert taken - state.ahead[0] == pytest.approx(total)
    assert taken >= most


def test_a_tick_of_which_not_all_is_known_changes_nothing():
    state = known(1000.0)
    counted, gone = departures.count(state, balance=np.array([9.0]), known=np.array([False]))
    learned = departures.learn(
        counted,
        balance=np.array([9.0]),
        lost_tokens=np.array([1.0]),
        finished=np.array([3.0]),
        known=np.array([False]),
        elapsed_seconds=15.0,
    )
    assert gone[0] == 0
    assert (learned.requests[0], learned.tokens[0], learned.finished[0]) == (1e4, 1e7, 1e5)


def test_a_month_of_nothing_leaves_no_dust():
    state, nothing = known(1000.0), np.zeros(1)
    for _ in range(50_000):
        state = departures.learn(
            state,
            balance=nothing,
            lost_tokens=nothing,
            finished=nothing,
            known=np.array([True]),
            elapsed_seconds=15.0,
        )
    assert (state.requests[0], state.tokens[0], state.finished[0]) == (0.0, 0.0, 0.0)


# --- in the model

TICKS = 400
LIKELY = ServiceParameters(mean_output_tokens=1000.0)


def given_up(patience) -> Requests:
    requests = poisson(1.0, TICK * TICKS)
    return replace(requests, patience=patience(np.random.default_rng(7), len(requests.tokens)))


@pytest.mark.parametrize(
    ("patience", "low", "high"),
    [
        pytest.param(lambda _, count: np.full(count, np.inf), 0.95, 1.05, id="nobody gives up"),
        pytest.param(lambda _, count: np.full(count, 3000.0), 0.95, 1.05, id="5 % after 150 s"),
        pytest.param(lambda _, count: np.full(count, 1600.0), 0.95, 1.3, id="20 % after 80 s"),
        pytest.param(lambda rng, count: rng.exponential(19_000.0, count), 0.95, 1.05, id="5 % at any age"),
        pytest.param(lambda rng, count: rng.exponential(4000.0, count), 0.95, 1.1, id="20 % at any age"),
        pytest.param(
            lambda rng, count: np.where(rng.random(count) < 0.1, rng.exponential(50.0, count), np.inf),
            0.95,
            1.05,
            id="10 % at once",
        ),
    ],
)
def test_answers_are_as_long_as_they_are_whoever_gives_them_up(patience, low, high):
    """Exponential lengths of 1,000 tokens: what is left of one that is given up has the same mean."""
    said, _ = fold(stream(given_up(patience), TICKS), parameters=LIKELY)
    means = [one.lengths.mean_tokens for one in said[TICKS // 2 :]]
    assert low < np.mean(means) / 1000.0 < high


def test_the_age_of_those_who_are_given_up_is_found_from_counters():
    _, memory = fold(stream(given_up(lambda _, count: np.full(count, 1600.0)), TICKS))
    state = memory.state.departures
    assert state.tokens[0] / state.requests[0] == pytest.approx(1600.0, rel=0.03)
    assert state.requests[0] / (state.requests[0] + state.finished[0]) == pytest.approx(np.exp(-1.6), rel=0.1)


def test_without_the_tokens_of_finished_requests_all_ages_are_alike():
    seen = stream(given_up(lambda _, count: np.full(count, 1600.0)), 400)
    _, memory = fold([replace(one, finished_tokens=MISSING) for one in seen])
    assert memory.state.departures.tokens[0] == 0.0
    assert memory.state.flight.total[0] == pytest.approx(seen[-1].running_requests.value)


@pytest.mark.parametrize("tokens", [pytest.param(MISSING, id="not known"), pytest.param(Signal(1e9), id="nonsense")])
def test_where_nobody_gives_up_nothing_of_it_matters(tokens):
    seen = stream(poisson(1.0, 1800), 120)
    plain, _ = fold(seen)
    other, memory = fold([replace(one, finished_tokens=tokens) for one in seen])
    assert [numbers(one) for one in plain] == [numbers(one) for one in other]
    assert memory.state.departures.requests[0] == 0.0


def test_buckets_have_the_means_of_lengths_in_them():
    assert (departures.MEAN_TOKENS[1:-1] > EDGES[1:-1]).all()
    assert (departures.MEAN_TOKENS[1:-1] < EDGES[2:]).all()
    assert (departures.MEAN_SQUARE >= departures.MEAN_TOKENS**2).all()
