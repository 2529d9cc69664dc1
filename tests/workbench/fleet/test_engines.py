"""Requests on slots: against the plain schedule, and what must hold whatever happens to the replicas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.workbench.fleet.arrivals import Arrivals
from longtail.workbench.fleet.engines import Engines
from longtail.workbench.fleet.engines_kv import FULL, KvEngines
from longtail.workbench.fleet.rows import CLOSED
from longtail.workbench.fleet.setting import ReplicaSize, Requests, Routing
from longtail.workbench.schedule import first_come_first_served
from longtail.workbench.traces.trace import Trace

from .disturbed import PACE, disturb, opened, operations, trace_of


def engines_of(replicas, slots, *, routing=Routing.LEAST_LOADED, kv=None):
    size = ReplicaSize(slots=slots, seconds_per_token=PACE, kv_capacity_tokens=kv, kv_limits=kv is not None)
    return opened((Engines if kv is None else KvEngines)(size, routing), replicas)


requests = st.lists(
    st.tuples(st.integers(0, 600), st.integers(1, 40), st.integers(0, 40)), min_size=1, max_size=40
).filter(lambda pairs: any(output for _, _, output in pairs))


@given(requests, st.integers(1, 4), st.integers(1, 4), st.sampled_from(Routing), st.integers(1, 7))
def test_a_fixed_number_of_replicas_serves_exactly_as_the_schedule_says(pairs, replicas, slots, routing, steps):
    trace = trace_of(pairs)
    schedule = first_come_first_served(trace, seconds_per_token=PACE, slots=[(0, replicas * slots)])
    engines = engines_of(replicas, slots, routing=routing)
    arrivals = Arrivals(Requests.of(trace).chunks())
    for at in np.linspace(0.0, schedule.finish_seconds.max(), steps + 1):  # any partition of time gives the same
        engines.advance(arrivals, float(at))
    started = sorted((arrival, start) for _, _, start, arrival, _, _ in engines.started)
    assert started == sorted(zip(schedule.trace.arrival_seconds, schedule.start_seconds, strict=True))
    assert sorted(request[0] for request in engines.finished) == sorted(schedule.finish_seconds)


@given(requests, operations, st.sampled_from(Routing), st.sampled_from([None, 60.0]))
def test_every_request_is_finished_running_waiting_or_was_sent_again_whatever_the_replicas_do(
    pairs, operations, routing, kv
):
    trace = trace_of(pairs)
    engines = engines_of(2, 3, routing=routing, kv=kv)
    arrivals = Arrivals(Requests.of(trace).chunks())
    for _, killed in disturb(engines, arrivals, operations):
        assert len(engines.started) == len(engines.finished) + engines.running_requests + killed
        assert engines.arrived_requests + killed == len(engines.started) + engines.waiting_requests
        assert engines.running_requests == sum(engines.running(row) for row in range(engines.rows))
        assert engines.queued_prompt_tokens == sum(prompt for _, prompt, _ in engines.queue)
        if kv is None and engines.queue:
            assert all(load >= 3 for load in engines._load), "nobody waits beside a free slot"
        assert all(load % CLOSED <= 3 for load in engines._load)


def test_requests_spread_over_the_least_loaded_and_pack_onto_the_fullest():
    trace = Trace("t", np.arange(6.0), np.ones(6, int), np.full(6, 1000))
    spread, packed = (engines_of(3, 4, routing=routing) for routing in Routing)
    for engines in (spread, packed):
        engines.advance(Arrivals(Requests.of(trace).chunks()), 10.0)
    assert [spread.running(row) for row in range(3)] == [2, 2, 2]
    assert [packed.running(row) for row in range(3)] == [4, 2, 0]


def test_a_closed_replica_finishes_what_it_has_and_gets_nothing_new():
    trace = Trace("t", np.array([0.0, 1.0, 2.0]), np.ones(3, int), np.full(3, 10))
    engines = engines_of(1, 2)
    arrivals = Arrivals(Requests.of(trace).chunks())
    engines.advance(arrivals, 0.5)
    engines.close(0)
    assert engines.last_finish(0, at_seconds=0.5) == 5.0
    engines.advance(arrivals, 20.0)
    assert (len(engines.finished), engines.running(0), engines.waiting_requests) == (1, 0, 2)
    engines.open(0)
    engines.dispatch(20.0)
    assert [request[2] for request in engines.started] == [0.0, 20.0, 20.0]


def test_a_killed_request_waits_from_the_moment_it_is_sent_again():
    trace = Trace("t", np.array([0.0, 1.0]), np.array([7, 9]), np.array([100, 100]))
    engines = engines_of(1, 2)
    engines.advance(Arrivals(Requests.of(trace).chunks()), 4.0)
    lost = engines.kill(0, at_seconds=4.0)
    assert [(request[2], request[4]) for request in lost] == [(0.0, 7), (1.0, 9)]
    assert list(engines.queue) == [(4.0, 7, 100), (4.0, 9, 100)]


def test_requests_without_output_need_no_slot():
    trace = Trace("t", np.array([0.0, 1.0]), np.ones(2, int), np.array([0, 3]))
    engines = engines_of(1, 1)
    engines.advance(Arrivals(Requests.of(trace).chunks()), 10.0)
    assert engines.arrived_requests == len(engines.finished) == 1


@given(requests, st.integers(1, 3))
def test_a_cache_that_never_fills_changes_nothing(pairs, replicas):
    trace = trace_of(pairs)
    plain, bound = engines_of(replicas, 2), engines_of(replicas, 2, kv=1e9)
    for engines in (plain, bound):
        engines.advance(Arrivals(Requests.of(trace).chunks()), 500.0)
    assert sorted(plain.started) == sorted(bound.started)


def test_a_full_cache_keeps_requests_waiting_beside_free_slots():
    # 100 tokens, 95 of them for admission: two prompts of 40 fit, the third waits for the first to end at 10 s.
    trace = Trace("t", np.array([0.0, 0.0, 0.0]), np.full(3, 40), np.array([20, 30, 20]))
    engines = engines_of(1, 8, kv=100.0)
    engines.advance(Arrivals(Requests.of(trace).chunks()), 100.0)
    # At 10 s the second holds 40 + 20 of the 95 tokens; at 15 s it ends too.
    assert [request[2] for request in engines.started] == [0.0, 0.0, 15.0]
    assert FULL * 100.0 < 40 + 20 + 40


def test_an_empty_replica_admits_even_what_is_larger_than_its_cache():
    trace = Trace("t", np.array([0.0]), np.array([500]), np.array([3]))
    engines = engines_of(1, 8, kv=100.0)
    engines.advance(Arrivals(Requests.of(trace).chunks()), 10.0)
    assert len(engines.finished) == 1


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_pieces_of_a_trace_are_as_good_as_the_whole(monkeypatch, piece, busy):
    monkeypatch.setattr("longtail.workbench.fleet.setting.CHUNK_REQUESTS", piece)
    part = busy.select(busy.arrival_seconds < 60.0)
    taken = [*Arrivals(Requests.of(part).chunks()).take(30.0)]
    assert [arrival for arrival, _, _ in taken] == part.arrival_seconds[part.arrival_seconds <= 30.0].tolist()
