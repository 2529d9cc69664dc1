"""A pool: routing, pods that come and go, what is lost, and the truth about it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.workbench.engine.pool import Pool
from longtail.workbench.engine.profiles import EngineProfile
from longtail.workbench.engine.request import Request
from longtail.workbench.engine.workload import Arrivals, RateProfile

PROFILE = EngineProfile(
    name="small",
    model="small",
    step_base_seconds=0.0103,
    step_seconds_per_sequence=0.00021,
    step_seconds_per_kv_token=0.0000011,
    prefill_tokens_per_second=9001.0,
    kv_capacity_tokens=60_000,
    max_model_len_tokens=40_960,
    slots=8,
)


def request(number: int, *, at: float = 0.0, output: int = 100) -> Request:
    return Request(id=number, arrived_seconds=at, prompt_tokens=10, output_tokens=output, max_tokens=4096)


def loads(pool: Pool) -> dict[str, int]:
    return {name: sum(engine.load for engine in pod.engines) for name, pod in pool.pods.items()}


def pool_of(*names: str, **options: object) -> Pool:
    pool = Pool(profile=PROFILE, **options)  # type: ignore[arg-type]
    for name in names:
        pool.add(name, at_seconds=0.0)
    return pool


@pytest.mark.parametrize(
    ("routing", "expected"),
    [
        pytest.param("least_loaded", {"a": 4, "b": 4, "c": 4}, id="least loaded spreads"),
        pytest.param("pack", {"a": 8, "b": 4, "c": 0}, id="pack fills one after the other"),
    ],
)
def test_requests_are_routed(routing, expected):
    pool = pool_of("a", "b", "c", routing=routing)
    for i in range(12):
        pool.submit(request(i), at_seconds=0.0)
    assert loads(pool) == expected


def test_a_pod_that_is_not_routable_finishes_what_it_has_and_gets_no_more():
    pool = pool_of("a", "b")
    pool.submit(request(0), at_seconds=0.0)
    pool.route("a", routable=False, at_seconds=0.1)
    pool.submit(request(1), at_seconds=0.1)
    pool.submit(request(2), at_seconds=0.1)
    assert loads(pool) == {"a": 1, "b": 2}
    pool.advance(60.0)
    assert pool.truth().totals.finished_requests == 3


def test_without_pods_requests_wait_at_the_door_and_their_wait_counts_from_there():
    pool = pool_of()
    pool.submit(request(0, at=5.0), at_seconds=5.0)
    pool.advance(20.0)
    assert pool.truth().door_requests == 1
    assert pool.truth().owed_tokens == 100
    assert pool.truth().longest_current_wait_seconds == 15.0
    pool.add("a", at_seconds=25.0)
    truth = pool.truth(target_seconds=10.0)
    assert truth.door_requests == 0
    assert truth.wait_p50_seconds == 20.0
    assert truth.within_target_share == 0.0


def test_a_killed_pod_loses_its_requests_and_the_clients_send_them_again():
    pool = pool_of("a", "b")
    for i in range(6):
        pool.submit(request(i), at_seconds=0.0)
    pool.advance(0.5)
    in_flight = pool.truth().in_flight_tokens
    lost = pool.remove("a", at_seconds=0.5)
    truth = pool.truth()
    assert lost == truth.killed_requests == truth.resent_requests == 3
    assert truth.lost_tokens == in_flight - truth.in_flight_tokens > 0
    pool.advance(60.0)
    truth = pool.truth()
    assert truth.totals.finished_requests == 6
    assert truth.arrived_requests == 6
    assert truth.totals.generated_tokens == 600 + truth.lost_tokens


def test_a_restart_resets_the_counters_of_the_pod_and_keeps_its_routing():
    pool = pool_of("a")
    pool.submit(request(0), at_seconds=0.0)
    pool.advance(0.5)
    pool.route("a", routable=False, at_seconds=0.5)
    assert pool.pods["a"].engines[0].reading().generated_tokens > 0
    assert pool.restart("a", at_seconds=0.6) == 1
    assert pool.pods["a"].engines[0].reading().generated_tokens == 0
    assert not pool.pods["a"].routable
    assert pool.truth().door_requests == 1


def test_a_gateway_holds_requests_back_so_that_engines_have_no_queue():
    with_gateway, without = pool_of("a", gateway=True), pool_of("a")
    for pool in (with_gateway, without):
        for i in range(20):
            pool.submit(request(i), at_seconds=0.0)
        pool.advance(0.1)
    assert (with_gateway.truth().waiting_requests, with_gateway.truth().door_requests) == (0, 12)
    assert (without.truth().waiting_requests, without.truth().door_requests) == (12, 0)
    with_gateway.advance(100.0)
    assert with_gateway.truth().totals.finished_requests == 20


def test_several_engines_in_a_pod_share_its_load():
    pool = pool_of("a", engines_per_pod=2)
    for i in range(4):
        pool.submit(request(i), at_seconds=0.0)
    assert [engine.load for engine in pool.pods["a"].engines] == [2, 2]


def test_a_share_of_the_clients_gives_up():
    pool = pool_of("a")
    for i in range(100):
        pool.submit(request(i, output=1000), at_seconds=0.0)
    aborted = pool.abort_share(0.4, at_seconds=1.0, rng=np.random.default_rng(1))
    pool.advance(2.0)
    assert 25 <= aborted <= 55
    assert pool.truth().totals.aborted_requests == aborted
    assert pool.truth().running_requests + pool.truth().waiting_requests == 100 - aborted


def test_pods_have_one_name_each():
    pool = pool_of("a")
    with pytest.raises(ValueError, match="'a' exists"):
        pool.add("a", at_seconds=1.0)


def drive(seed: int, *, stops: list[float], gateway: bool, routing: str) -> Pool:
    source = Arrivals(profile=RateProfile.steady(3.0), seed=seed, max_model_len_tokens=40_960)
    pool = Pool(profile=PROFILE, source=source, gateway=gateway, routing=routing)  # type: ignore[arg-type]
    plan = [
        (3.0, lambda at: pool.add("a", at_seconds=at)),
        (9.0, lambda at: pool.add("b", at_seconds=at)),
        (40.0, lambda at: pool.remove("a", at_seconds=at)),
        (44.0, lambda at: pool.add("c", at_seconds=at)),
        (60.0, lambda at: pool.route("b", routable=False, at_seconds=at)),
        *((stop, pool.advance) for stop in stops),
    ]
    for at, act in sorted(plan, key=lambda item: item[0]):
        act(at)
    pool.advance(100.0)
    return pool


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    stops=st.lists(st.floats(0, 100), max_size=30),
    gateway=st.booleans(),
    routing=st.sampled_from(["least_loaded", "pack"]),
)
def test_a_pool_conserves_requests_and_tokens_and_does_not_depend_on_when_it_is_looked_at(
    seed, stops, gateway, routing
):
    once = drive(seed, stops=[], gateway=gateway, routing=routing).truth()
    often = drive(seed, stops=stops, gateway=gateway, routing=routing).truth()
    assert often == once
    alive = once.running_requests + once.waiting_requests + once.door_requests
    assert once.arrived_requests == once.totals.finished_requests + once.totals.aborted_requests + alive
    written = once.totals.finished_tokens + once.in_flight_tokens + once.totals.aborted_tokens + once.lost_tokens
    assert once.totals.generated_tokens == written
    assert once.killed_requests == once.resent_requests
    assert once.kv_used_tokens <= once.kv_capacity_tokens
    assert once.running_requests <= once.slots


def test_the_window_of_the_waits_forgets_old_ones():
    pool = pool_of("a")
    for i in range(8):
        pool.submit(request(i), at_seconds=0.0)
    pool.advance(1000.0)
    assert pool.truth().started_requests == 8
    recent = pool.truth(window_seconds=100.0)
    assert recent.started_requests == 0
    assert recent.wait_p99_seconds is recent.within_target_share is None
    assert pool.truth(window_seconds=math.inf).wait_p50_seconds is not None
