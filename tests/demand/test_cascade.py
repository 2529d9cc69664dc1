"""When answers that time out and are asked for again are a cascade, what is counted then, and what is not."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.demand import cascade
from longtail.demand.cascade import CascadeState, Ends

TICK = 15.0


@dataclass(frozen=True)
class Minute:
    """What happens in each of the four ticks of a minute, in requests."""

    arrived: float = 100.0
    started: float = 100.0
    finished: float = 100.0
    growth: float = 0.0
    """Of the running ones; whoever started and neither finished nor runs on gave up."""
    counted: float | None = None
    """As the engine counts those that gave up; None where it does not."""
    waits: bool = False
    waiting: float = 2400.0
    """Requests, where any wait."""
    pods: int = 4
    seen: bool = True


CALM = Minute()
JAM = Minute(arrived=500.0, started=300.0, finished=40.0, waits=True)
"""260 of 300 give up."""


def column(value):
    return np.array([value])


def told(state, minutes):
    """The state after some minutes, and distinct requests by tick."""
    counts = []
    for at, minute in enumerate(minute for minute in minutes for _ in range(4)):
        ends = Ends(
            counted_aborts=column(minute.counted or 0.0),
            counted_known=column(minute.counted is not None),
            started=column(minute.started),
            finished=column(minute.finished),
            growth=column(minute.growth),
            balanced=column(minute.seen),
            pods=column(float(minute.pods)),
        )
        state, distinct = cascade.follow(
            state,
            ends=ends,
            arrived=column(minute.arrived),
            covered=column(minute.seen),
            waiting=column(minute.waiting if minute.waits else 0.0),
            waits=column(minute.waits),
            now=1e9 + TICK * at,
            elapsed_seconds=TICK,
        )
        counts.append(float(distinct[0]))
    return state, counts


def on(*minutes):
    return bool(told(CascadeState.fresh(1), minutes)[0].on[0])


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        pytest.param([CALM] * 10, False, id="all is well"),
        pytest.param([CALM] * 10 + [JAM] * 3, True, id="many give up, more ask, few are answered"),
        pytest.param([JAM] * 3, True, id="it had begun before anybody looked"),
        pytest.param([CALM] * 10 + [replace(JAM, waits=False)] * 3, False, id="nobody waits: they had read enough"),
        pytest.param([replace(JAM, finished=200.0)] * 30, False, id="a third always gives up here"),
        pytest.param([CALM] * 10 + [replace(JAM, arrived=30.0)] * 3, False, id="fewer ask than are answered"),
        pytest.param(
            [CALM] * 10 + [replace(JAM, started=200.0, finished=120.0)] * 3, False, id="more are answered than before"
        ),
        pytest.param(
            [CALM] * 10 + [replace(JAM, started=1.2, finished=0.2, arrived=5.0)] * 3, False, id="too few to tell"
        ),
        pytest.param([CALM] * 10 + [replace(JAM, seen=False)] * 3, False, id="nothing is seen"),
        pytest.param([CALM] * 10 + [replace(JAM, growth=260.0)] * 3, False, id="they run on"),
        pytest.param(
            [CALM] * 10 + [replace(JAM, seen=True, started=40.0, counted=260.0)] * 3, True, id="the engine counts them"
        ),
        pytest.param([CALM] * 10 + [JAM] * 5 + [CALM] * 4, False, id="over"),
        pytest.param([CALM] * 10 + [JAM] * 5 + [CALM] + [JAM], True, id="not over for a quiet minute"),
    ],
)
def test_a_cascade_is_many_who_give_up_ask_again_and_are_not_answered(minutes, expected):
    assert on(*minutes) is expected


def test_pods_that_come_and_go_take_what_they_run_with_them_and_nobody_has_given_up():
    """Pods change at every tick: 260 of 300 vanish with them, and nothing is known of those who give up."""
    changing = [replace(JAM, pods=3 + tick % 2) for tick in range(12)]
    state = CascadeState.fresh(1)
    for minute in changing:
        ends = Ends(*(column(v) for v in (0.0, False, minute.started, minute.finished, 0.0, True, float(minute.pods))))
        given_up, known = cascade.aborted(state, ends)
        assert not known[0]
        assert given_up[0] == 0.0
        state = replace(state, pods=ends.pods)


def test_preempted_requests_leave_and_come_back_and_have_not_given_up():
    out, back = replace(CALM, growth=-30.0), replace(CALM, growth=30.0)
    state, _ = told(CascadeState.fresh(1), [out, back] * 10)
    assert abs(state.aborted[0]) < 120.0
    assert state.usual[0] < 0.05


def test_distinct_requests_are_counted_while_it_lasts_and_all_of_them_otherwise():
    """Of 500 that arrive in a tick 260 have just given up; before it began 100 did, who cannot have become fewer."""
    _, counts = told(CascadeState.fresh(1), [CALM] * 10 + [JAM] * 6)
    assert counts[:40] == [100.0] * 40
    assert counts[-1] == 240.0
    vain = replace(JAM, arrived=290.0, started=290.0)
    _, counts = told(CascadeState.fresh(1), [CALM] * 10 + [replace(vain, arrived=300.0)] * 6)
    assert 50.0 <= counts[-1] < 300.0
    _, counts = told(CascadeState.fresh(1), [CALM] * 10 + [JAM] * 5 + [replace(JAM, arrived=20.0)])
    assert counts[-1] == 20.0


@given(
    st.lists(
        st.builds(
            Minute,
            *(st.integers(0, 500).map(float) for _ in range(3)),
            st.integers(-100, 100).map(float),
            st.none() | st.integers(0, 300).map(float),
            st.booleans(),
            st.integers(0, 9000).map(float),
            st.integers(0, 5),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_no_more_are_distinct_than_arrived_and_nothing_is_negative(minutes):
    state, counts = told(CascadeState.fresh(1), minutes)
    arrived = [minute.arrived for minute in minutes for _ in range(4)]
    assert all(-1e-9 <= distinct <= came + 1e-9 for distinct, came in zip(counts, arrived, strict=True))
    assert 0.0 <= state.usual[0] <= 1.0
    assert (state.since[0] > 0) == bool(state.on[0])
    for each in said(state).values():
        assert min(each.aborted_per_second, each.finished_per_second, each.distinct_per_second) >= 0.0


def test_a_month_of_nothing_leaves_no_dust():
    state, _ = told(CascadeState.fresh(1), [CALM] * 10 + [JAM] * 3)
    idle = Minute(arrived=0.0, started=0.0, finished=0.0)
    state, _ = told(state, [idle] * 50_000)
    assert (state.aborted[0], state.finished[0], state.peak[0], state.usual[0], state.on[0]) == (0, 0, 0, 0, False)


def said(state, *, long_stay=60.0):
    pool = {"slots": 96.0, "wait_seconds": 10.0, "stay_seconds": 20.0, "long_stay_seconds": long_stay}
    return cascade.cascades(state, **{name: column(value) for name, value in pool.items()})


def test_the_queue_worth_having_is_what_the_slots_can_answer_before_clients_give_up():
    """300 leave the queue of 2,400 every 15 s: a wait of 120 s. 96 slots are freed every 20 s: 288 in 60 s."""
    early, _ = told(CascadeState.fresh(1), [CALM] * 10 + [JAM] * 2)
    assert said(early)[0].queue_limit == pytest.approx(48.0), "nobody's patience is known yet"
    state, _ = told(CascadeState.fresh(1), [CALM] * 10 + [JAM] * 8)
    found = said(state)[0]
    assert found.patience_seconds == pytest.approx(120.0, rel=0.1)
    assert found.queue_limit == pytest.approx(96 * (found.patience_seconds - 60.0) / 20.0)
    assert found.aborted_per_second == pytest.approx(260.0 / TICK, rel=0.1)
    assert found.arrivals_per_second == pytest.approx(500.0 / TICK, rel=0.1)
    drained, _ = told(state, [replace(JAM, waiting=300.0)])
    assert said(drained)[0].patience_seconds == found.patience_seconds, "clients have not become less patient"
    assert said(state, long_stay=300.0)[0].queue_limit == pytest.approx(48.0), "what can start within the objective"
