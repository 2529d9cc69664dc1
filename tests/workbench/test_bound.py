from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.workbench.bound import lower_bound, replicas_needed
from longtail.workbench.schedule import start_at_once
from longtail.workbench.traces import Trace

needs = st.lists(st.integers(0, 4), min_size=1, max_size=14)


def cheapest(need, interval, cold_start, initial):
    """Dynamic programming over the number of replicas: every plan is tried."""
    top = max([*need, initial])
    costs = {initial: 0.0}
    for wanted in need:
        costs = {
            now: min(cost + now * interval + max(now - before, 0) * cold_start for before, cost in costs.items())
            for now in range(wanted, top + 1)
        }
    return min(costs.values())


@settings(max_examples=300, deadline=None)
@given(needs, st.sampled_from([1.0, 15.0]), st.integers(0, 100), st.one_of(st.none(), st.integers(0, 6)))
def test_the_level_decomposition_is_the_optimum_over_all_plans(need, interval, cold_start, initial):
    bound = lower_bound(
        np.asarray(need), interval_seconds=interval, cold_start_seconds=cold_start, initial_replicas=initial
    )
    assert bound.replica_seconds == pytest.approx(
        cheapest(need, interval, cold_start, need[0] if initial is None else initial)
    )


@given(needs, st.integers(0, 100))
def test_needing_more_never_costs_less(need, cold_start):
    need = np.asarray(need)
    fewer = lower_bound(np.maximum(need - 1, 0), interval_seconds=15, cold_start_seconds=cold_start, initial_replicas=0)
    all_of_it = lower_bound(need, interval_seconds=15, cold_start_seconds=cold_start, initial_replicas=0)
    assert fewer.replica_seconds <= all_of_it.replica_seconds


def test_no_intervals_cost_nothing():
    assert lower_bound(np.zeros(0, int), interval_seconds=15, cold_start_seconds=180).replica_seconds == 0


requests = st.lists(st.tuples(st.integers(0, 100), st.integers(1, 60)), min_size=1, max_size=12)


def schedule_of(pairs):
    arrival, seconds = (np.asarray(column) for column in zip(*sorted(pairs), strict=True))
    return start_at_once(Trace("t", arrival.astype(float), arrival * 0, seconds), seconds_per_token=1.0)


@given(requests, st.integers(1, 3))
def test_without_waiting_the_need_is_the_peak_of_each_interval(pairs, slots):
    need = replicas_needed(schedule_of(pairs), slots_per_replica=slots, duration_seconds=150, interval_seconds=15)
    for interval, replicas in enumerate(need):
        # whole seconds only, so looking at every second sees every peak
        seconds = range(15 * interval, 15 * interval + 15)
        peak = max(sum(arrival <= at < arrival + length for arrival, length in pairs) for at in seconds)
        assert replicas == -(-peak // slots)


small = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(small, st.integers(0, 3), st.integers(0, 12))
def test_with_waiting_the_bound_is_below_the_best_of_all_ways_to_delay(pairs, wait, cold_start):
    pairs = sorted(pairs)
    schedule = schedule_of(pairs)
    options = {"slots_per_replica": 1, "duration_seconds": 16, "interval_seconds": 1.0}
    costs = {"interval_seconds": 1.0, "cold_start_seconds": cold_start, "initial_replicas": 0}
    bound = lower_bound(replicas_needed(schedule, wait_seconds=wait, **options), **costs).replica_seconds
    best = min(
        lower_bound(
            replicas_needed(schedule_of([(a + d, g) for (a, g), d in zip(pairs, delays, strict=True)]), **options),
            **costs,
        ).replica_seconds
        for delays in product(range(wait + 1), repeat=len(pairs))
    )
    assert bound <= best + 1e-9


@given(requests, st.integers(1, 3))
def test_allowing_longer_waits_never_needs_more(pairs, slots):
    schedule = schedule_of(pairs)
    sums = [
        replicas_needed(
            schedule, slots_per_replica=slots, duration_seconds=200, interval_seconds=15, wait_seconds=wait
        ).sum()
        for wait in (0.0, 5.0, 20.0, 70.0)
    ]
    assert all(before >= after for before, after in pairwise(sums))
    assert sums[-1] == 0  # nobody runs for as long as that
