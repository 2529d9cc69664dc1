"""What all policies promise: bounds, the same answer to the same question, a knob, and no harm from silence."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longtail.workbench.peers.catalogue import Peer, Service, catalogue
from longtail.workbench.peers.oracle import Truth
from longtail.workbench.peers.view import Histogram, Iteration, PeerView, PodView

SERVICE = Service(slots_per_replica=24, min_replicas=2, max_replicas=9)
TRUTH = Truth.of(arrivals=np.arange(0.0, 2000.0, 2.0), slot_seconds=np.full(1000, 100.0))
PEERS = catalogue(SERVICE, truth=TRUTH)
EVERY = pytest.mark.parametrize("peer", [pytest.param(p, id=n) for n, p in PEERS.items()])


def view(*, load: float, spec: int, ready: int, done: float, quiet: bool, reachable: bool) -> PeerView:
    """A plausible fleet: ``load`` requests for each slot of ``ready`` replicas."""
    running, waiting = 24 * min(load, 1.0), 24 * max(load - 1.0, 0.0)

    def pod(i: int) -> PodView:
        if i >= ready or quiet:
            return PodView(f"p{i}", ready=i < ready)
        prompts, kv = 100.0 * (i % 4), 4000 * running
        seconds = 0.01 + 1e-5 * prompts + 3e-7 * kv
        iteration = Iteration(seconds, 1, prompts, running, kv, 200 * waiting)
        return PodView(
            f"p{i}",
            running_requests=running,
            waiting_requests=waiting,
            kv_used_ratio=min(1.0, load),
            kv_capacity_tokens=100_000.0,
            iteration=iteration,
        )

    requests = (running + waiting) * ready
    return PeerView(
        spec,
        spec,
        ready,
        tuple(pod(i) for i in range(spec)),
        metrics_reachable=reachable,
        door_requests=None if quiet else requests,
        gateway_waiting_requests=None if quiet else waiting,
        prefill_backlog_tokens=None if quiet else 500 * waiting,
        arrived_requests_total=done + requests,
        finished_requests_total=done,
        finished_prompt_tokens_total=300 * done,
        finished_output_tokens_total=2500 * done,
        first_token_seconds=Histogram((1.0, 10.0, float("inf")), (done * 0.8, done, done)),
        token_interval_seconds=Histogram((0.05, 0.2, float("inf")), (done * 0.9, done, done)),
    )


Event = tuple[float, int, bool, bool]
EVENTS = st.lists(st.tuples(st.floats(0, 3), st.integers(0, 3), st.booleans(), st.booleans()), min_size=1, max_size=25)


def run(policy: Any, events: list[Event]) -> list[int]:
    current, memory, replicas, done = 5, policy.initial(), [], 0.0
    for turn, (load, missing, quiet, reachable) in enumerate(events):
        done += 10 * load
        seen = view(
            load=load,
            spec=current,
            ready=max(0, current - missing),
            done=done,
            quiet=quiet,
            reachable=reachable,
        )
        current, memory = policy.decide(seen=seen, memory=memory, now=policy.period_seconds * turn)
        replicas.append(current)
    return replicas


@EVERY
@given(events=EVENTS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_replicas_stay_within_bounds_and_are_the_same_twice(peer: Peer, events: list[Event]):
    replicas = run(peer.policy, events)
    assert all(2 <= count <= 9 for count in replicas)
    assert run(peer.policy, events) == replicas


@EVERY
def test_the_knob_turns_and_its_grid_is_sorted_out(peer: Peer):
    assert peer.policy.knob
    assert len(set(peer.grid)) == len(peer.grid) >= 5
    for value in peer.grid:
        tuned = peer.policy.tuned(value)
        assert tuned.name == peer.policy.name
        assert type(tuned) is type(peer.policy)
    assert peer.policy.tuned(peer.grid[0]) != peer.policy.tuned(peer.grid[-1])


@EVERY
def test_the_two_ends_of_a_grid_buy_different_pools(peer: Peer):
    def bought(value: float, level: float) -> int:
        wave = [(level * (0.8 + 0.1 * (turn % 5)), 0, False, True) for turn in range(150)]
        return sum(run(peer.policy.tuned(value), wave))

    assert any(bought(peer.grid[0], level) != bought(peer.grid[-1], level) for level in (0.2, 0.6, 0.9, 1.6))


@EVERY
def test_a_store_that_does_not_answer_shrinks_no_settled_pool(peer: Peer):
    if peer.policy.name == "oracle-arrivals":
        pytest.skip("who knows the future needs no metrics")
    busy, dark = (0.7, 0, False, True), (0.0, 0, True, False)
    replicas = run(peer.policy, [busy] * 300 + [dark] * 3)
    assert min(replicas[300:]) >= replicas[299]


def test_names_are_unique_and_oracles_need_the_truth():
    names = list(PEERS)
    assert len(names) == len(set(names)) >= 25
    assert set(names) - set(catalogue(SERVICE)) == {"oracle-rate", "oracle-arrivals"}


def test_no_service_parameter_is_lost():
    wide = catalogue(replace(SERVICE, max_replicas=40, min_replicas=3))
    events: list[Event] = [(3.0, 0, False, True)] * 60
    assert max(max(run(peer.policy, events)) for peer in wide.values()) > 9
    assert min(min(run(peer.policy, events)) for peer in wide.values()) >= 3
