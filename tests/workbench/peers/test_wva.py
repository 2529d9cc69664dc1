"""WVA: what its own analyzers concluded on random fleets, and the way of a wish through the HPA."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.workbench.peers.view import PeerView, PodView
from longtail.workbench.peers.wva import WvaV1, WvaV2
from longtail.workbench.peers.wva_signals import PodPeak, SignalMemory, mean_lengths, observed, peaks
from longtail.workbench.peers.wva_v1 import V1Thresholds, v1_wish
from longtail.workbench.peers.wva_v2 import Tokens, V2Settings, derived_capacity, pool_tokens, v2_wish

RECORDED = Path(__file__).parent / "recorded"
V1: list[Any] = json.loads((RECORDED / "wva_v1_2976e4e.json").read_text())
V2: list[dict[str, Any]] = json.loads((RECORDED / "wva_v2_2976e4e.json").read_text())


def test_every_percentage_wish_is_that_of_wva():
    moved = set()
    for kv, queues, current, pending, last_wish, expected in V1:
        wish = v1_wish(
            [PodPeak(use, waiting, None) for use, waiting in zip(kv, queues, strict=True)],
            thresholds=V1Thresholds(),
            current=current,
            pending=pending,
            last_wish=last_wish or None,
        )
        # A held wish is not clipped by the analyzer; the HPA behind it does that. Clip both.
        assert max(1, min(8, wish)) == max(1, min(8, expected)), (kv, queues, current, pending, last_wish)
        moved.add(expected - current)
    assert moved >= {-1, 0, 1}


@pytest.mark.parametrize("run", [pytest.param(run, id=f"run-{i}") for i, run in enumerate(V2)])
def test_every_token_count_is_that_of_wva(run: dict[str, Any]):
    settings = V2Settings(max_batched_tokens=run["max_batched_tokens"] or None, max_num_seqs=256)
    history: dict[int, tuple[float, ...]] = {}
    for in_use, queues, prompt, output, gateway, pending, demand, capacity, supply, anticipated in run["steps"]:
        found = [
            PodPeak(use / run["kv_capacity_tokens"], waiting, run["kv_capacity_tokens"])
            for use, waiting in zip(in_use, queues, strict=True)
        ]
        tokens, grown = pool_tokens(found, settings=settings, prompt=prompt, output=output, history=history)
        history = dict(grown)
        assert tokens.demand + gateway * (prompt + output) == pytest.approx(demand)
        assert tokens.capacity_per_replica == capacity
        assert tokens.reporting_replicas * capacity == pytest.approx(supply)
        assert (tokens.reporting_replicas + pending) * capacity == pytest.approx(anticipated)


def wish(demand: float, *, capacity: float = 100_000, reporting: int, pending: int = 0) -> int:
    return v2_wish(
        Tokens(demand, capacity, reporting),
        settings=V2Settings(),
        gateway_waiting=0,
        prompt=0,
        output=0,
        current=reporting + pending,
        pending=pending,
        min_replicas=1,
        max_replicas=10,
    )


@pytest.mark.parametrize(
    ("demand", "reporting", "pending", "expected"),
    [
        pytest.param(170_000, 2, 0, 2, id="exactly-full-at-85-percent"),
        pytest.param(171_000, 2, 0, 3, id="one-more"),
        pytest.param(510_000, 2, 0, 6, id="as-many-as-needed-at-once"),
        pytest.param(510_000, 2, 4, 6, id="pending-replicas-count-when-growing"),
        pytest.param(140_000, 3, 0, 2, id="one-less-below-70-percent"),
        pytest.param(0, 5, 0, 1, id="never-the-last-one"),
        pytest.param(2_000_000, 5, 0, 10, id="never-above-max"),
    ],
)
def test_replicas_from_tokens(demand: float, reporting: int, pending: int, expected: int):
    assert wish(demand, reporting=reporting, pending=pending) == expected


def test_without_capacity_nothing_is_wished():
    assert wish(1e6, capacity=0, reporting=3) == 3


def test_derived_capacity_needs_arguments_and_outputs():
    assert derived_capacity(V2Settings(), prompt=10, output=10) == 0
    assert derived_capacity(V2Settings(max_batched_tokens=8192), prompt=10, output=0) == 0


def pod(name: str, *, kv: float | None = 0.5, waiting: float = 0.0, ready: bool = True) -> PodView:
    return PodView(name, ready=ready, kv_used_ratio=kv, waiting_requests=waiting, kv_capacity_tokens=100_000.0)


def fleet(*pods: PodView, spec: int | None = None, reachable: bool = True, done: float = 0.0) -> PeerView:
    return PeerView(
        len(pods) if spec is None else spec,
        len(pods),
        sum(p.ready for p in pods),
        pods,
        metrics_reachable=reachable,
        finished_requests_total=done,
        finished_prompt_tokens_total=100 * done,
        finished_output_tokens_total=2000 * done,
    )


def test_peaks_last_a_minute_and_only_for_pods_that_exist():
    memory = observed(SignalMemory(), seen=fleet(pod("a", kv=0.9, waiting=1), pod("b", kv=0.8)), now=0.0)
    memory = observed(memory, seen=fleet(pod("a", kv=0.3, waiting=7)), now=60.0)
    assert peaks(memory, seen=fleet(pod("a"))) == {"a": PodPeak(0.9, 7, 100_000.0)}
    memory = observed(memory, seen=fleet(pod("a", kv=0.2)), now=75.0)
    assert peaks(memory, seen=fleet(pod("a")))["a"].kv_used_ratio == 0.3


def test_lengths_are_means_of_finished_requests():
    memory = observed(SignalMemory(), seen=fleet(pod("a"), done=0), now=0.0)
    assert mean_lengths(memory) == (0.0, 0.0)
    memory = observed(memory, seen=fleet(pod("a"), done=10), now=15.0)
    assert mean_lengths(memory) == (100.0, 2000.0)


def test_a_saturated_pool_grows_by_one_and_waits_until_it_is_there():
    policy, memory = WvaV1(max_replicas=8), WvaV1().initial()
    full = [pod(f"p{i}", kv=0.95) for i in range(3)]
    replicas, memory = policy.decide(seen=fleet(*full), memory=memory, now=0.0)
    assert replicas == 4
    starting = fleet(*full, pod("p3", kv=None, ready=False), spec=4)
    for sync in range(1, 20):
        replicas, memory = policy.decide(seen=starting, memory=memory, now=15.0 * sync)
        assert replicas == 4


@pytest.mark.parametrize("policy", [WvaV1(), WvaV2()], ids=["v1", "v2"])
def test_no_metrics_no_change(policy: WvaV1 | WvaV2):
    blind = fleet(pod("a", kv=None), pod("b", kv=None))
    assert policy.decide(seen=blind, memory=policy.initial(), now=0.0)[0] == 2
    down = fleet(pod("a"), pod("b"), reachable=False)
    assert policy.decide(seen=down, memory=policy.initial(), now=0.0)[0] == 2


def test_waiting_requests_are_charged_at_their_full_size():
    policy = WvaV2(max_replicas=20)
    memory = policy.decide(seen=fleet(pod("a", kv=0.5), done=0), memory=policy.initial(), now=0.0)[1]
    seen = fleet(pod("a", kv=0.5, waiting=100), done=50)
    # 100 · 2100 waiting + 50 000 in use over 0.85 = 305 883, 50 000 a replica (observed with a queue): 6 more.
    assert policy.decide(seen=seen, memory=memory, now=15.0)[0] == 7


@given(
    states=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30)), min_size=1, max_size=25),
    v2=st.booleans(),
)
def test_bounds_hold_whatever_the_load(states: list[tuple[float, int]], v2: bool):
    policy: Any = (WvaV2 if v2 else WvaV1)(min_replicas=2, max_replicas=6)
    current, memory = 4, policy.initial()
    for sync, (kv, waiting) in enumerate(states):
        pods = [pod(f"p{i}", kv=kv, waiting=waiting) for i in range(current)]
        current, memory = policy.decide(seen=fleet(*pods, done=10.0 * sync), memory=memory, now=15.0 * sync)
        assert 2 <= current <= 6
