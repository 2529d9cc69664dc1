from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.workbench.bound import lower_bound, replicas_needed
from longtail.workbench.bound_waiting import Work, lower_bound_with_waiting, work_until
from longtail.workbench.schedule import start_at_once
from longtail.workbench.traces import Trace


def schedule_of(pairs):
    arrival, seconds = (np.asarray(column) for column in zip(*sorted(pairs), strict=True))
    return start_at_once(Trace("t", arrival.astype(float), arrival * 0, seconds), seconds_per_token=1.0)


def work_of(pairs, *, wait, slots=1, until=18, interval=1.0, start=0.0):
    return Work.of(
        schedule_of(pairs),
        slots_per_replica=slots,
        from_seconds=start,
        until_seconds=until,
        interval_seconds=interval,
        wait_seconds=wait,
    )


def cheapest_plan(work, *, served, start_cost, initial, spare):
    """Every path of replicas up to ``spare`` more than are ever needed, serving as early as possible."""
    top = max(int(work.unhurried.max()), initial) + spare
    plans = {(initial, 0.0): 0.0}
    for arriving, may_wait, mandatory in zip(work.arriving, work.may_wait, work.mandatory, strict=True):
        after = {}
        for (before, backlog), cost in plans.items():
            for now in range(mandatory, top + 1):
                left = round(max(backlog + arriving - now * served, 0.0), 9)
                total = cost + now + start_cost * max(now - before, 0)
                if left <= may_wait + 1e-6 and total < after.get((now, left), np.inf):
                    after[now, left] = total
        plans = after
    return min(plans.values())


small = st.lists(st.tuples(st.integers(0, 7), st.integers(1, 6)), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(small, st.integers(0, 4), st.integers(1, 2), st.integers(0, 6), st.one_of(st.none(), st.integers(0, 3)))
def test_the_table_finds_the_cheapest_of_all_plans(pairs, wait, slots, cold_start, initial):
    work = work_of(pairs, wait=wait, slots=slots)
    found = lower_bound_with_waiting(
        work, slots_per_replica=slots, interval_seconds=1.0, cold_start_seconds=cold_start, initial_replicas=initial
    )
    first = int(work.unhurried[0]) if initial is None else initial
    assert found == pytest.approx(cheapest_plan(work, served=slots, start_cost=cold_start, initial=first, spare=2))


few = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), min_size=1, max_size=4)


@settings(max_examples=80, deadline=None)
@given(few, st.integers(0, 3), st.integers(0, 12), st.integers(1, 2))
def test_no_way_to_delay_the_requests_is_cheaper(pairs, wait, cold_start, slots):
    pairs = sorted(pairs)
    bound = lower_bound_with_waiting(
        work_of(pairs, wait=wait, slots=slots),
        slots_per_replica=slots,
        interval_seconds=1.0,
        cold_start_seconds=cold_start,
        initial_replicas=0,
    )
    best = min(
        unhurried_bound([(a + d, g) for (a, g), d in zip(pairs, delays, strict=True)], slots, cold_start)
        for delays in product(range(wait + 1), repeat=len(pairs))
    )
    assert bound <= best + 1e-9


def unhurried_bound(pairs, slots, cold_start):
    need = replicas_needed(schedule_of(pairs), slots_per_replica=slots, duration_seconds=18, interval_seconds=1.0)
    return lower_bound(need, interval_seconds=1.0, cold_start_seconds=cold_start, initial_replicas=0).replica_seconds


requests = st.lists(st.tuples(st.integers(0, 100), st.integers(1, 60)), min_size=1, max_size=12)


@settings(deadline=None)
@given(requests, st.integers(1, 3), st.sampled_from([0, 15, 60]), st.sampled_from([0.0, 30.0]))
def test_without_waiting_it_is_the_level_decomposition(pairs, slots, cold_start, start):
    work = work_of(pairs, wait=0.0, slots=slots, until=165, interval=15.0, start=start)
    assert lower_bound_with_waiting(
        work, slots_per_replica=slots, interval_seconds=15.0, cold_start_seconds=cold_start
    ) == pytest.approx(
        lower_bound(work.unhurried, interval_seconds=15.0, cold_start_seconds=cold_start).replica_seconds
    )


@settings(deadline=None)
@given(requests, st.integers(1, 3))
def test_allowing_longer_waits_never_costs_more_and_never_loses_work(pairs, slots):
    costs = [
        lower_bound_with_waiting(
            work_of(pairs, wait=wait, slots=slots, until=255, interval=15.0),
            slots_per_replica=slots,
            interval_seconds=15.0,
            cold_start_seconds=30.0,
            initial_replicas=0,
        )
        for wait in (0.0, 5.0, 20.0, 70.0)
    ]
    assert all(before >= after for before, after in pairwise(costs))
    assert costs[-1] * slots >= sum(length for _, length in pairs) - 1e-6


@given(requests, st.lists(st.floats(0, 200), min_size=1, max_size=5))
def test_work_is_what_was_written_by_each_moment(pairs, moments):
    expected = [sum(min(max(at - a, 0.0), g) for a, g in pairs) for at in moments]
    assert work_until(schedule_of(pairs), np.asarray(moments)) == pytest.approx(np.asarray(expected))


def test_a_cold_start_off_the_grid_is_refused():
    with pytest.raises(
        ValueError, match=r"cold_start_seconds: must be a multiple of interval_seconds 15\.0, got 20\.0"
    ):
        lower_bound_with_waiting(
            work_of([(0, 1)], wait=0.0), slots_per_replica=1, interval_seconds=15.0, cold_start_seconds=20.0
        )


def test_min_replicas_are_paid_for_whatever_the_need():
    work = Work.of(
        schedule_of([(0, 1)]),
        slots_per_replica=1,
        from_seconds=0.0,
        until_seconds=10.0,
        interval_seconds=1.0,
        wait_seconds=2.0,
        min_replicas=2,
    )
    cost = lower_bound_with_waiting(work, slots_per_replica=1, interval_seconds=1.0, cold_start_seconds=3.0)
    assert cost == pytest.approx(20.0)
