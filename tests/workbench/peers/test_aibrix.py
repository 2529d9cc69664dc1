"""AIBrix as coded: its three quirks one by one, and what its own code decided on random load."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.workbench.peers.aibrix import (
    Aibrix,
    PodMetric,
    Strategy,
    apa_replicas,
    cooled_down,
    kpa_replicas,
)
from longtail.workbench.peers.view import PeerView, PodView

RECORDED: list[dict[str, Any]] = json.loads((Path(__file__).parent / "recorded" / "aibrix_e3e10f9.json").read_text())


def seen(*values: float | None, spec: int, ready: int | None = None) -> PeerView:
    pods = tuple(PodView(f"p{i}", waiting_requests=value) for i, value in enumerate(values))
    return PeerView(spec, spec, spec if ready is None else ready, pods)


@pytest.mark.parametrize("run", [pytest.param(run, id=f"{run['strategy']}-{i}") for i, run in enumerate(RECORDED)])
def test_replicas_follow_load_as_in_aibrix(run: dict[str, Any]):
    policy = Aibrix(Strategy(run["strategy"]), PodMetric.WAITING_REQUESTS, run["target"], max_replicas=12)
    current, memory, replicas = run["start"], policy.initial(), []
    for turn, value in enumerate(run["means"]):
        current, memory = policy.decide(seen=seen(value, spec=current), memory=memory, now=946_684_800.0 + 10 * turn)
        replicas.append(current)
    assert replicas == run["replicas"]


@pytest.mark.parametrize(
    ("stable", "panic", "current", "expected"),
    [
        pytest.param(1.0, 1.0, 6, 3, id="q1-full-caches-shrink-a-pool-of-six"),
        pytest.param(1.0, 1.0, 1, 2, id="q1-never-more-than-the-inverse-target"),
        pytest.param(0.5, 0.5, 7, 7, id="within-tolerance-holds"),
        pytest.param(0.2, 0.41, 8, 4, id="q2-panic-does-not-stop-a-decrease"),
        pytest.param(0.0, 0.0, 8, 4, id="an-idle-window-is-panic-and-halves"),
    ],
)
def test_kpa_quirks(stable: float, panic: float, current: int, expected: int):
    assert kpa_replicas(stable=stable, panic=panic, target=0.5, current=current) == expected


@pytest.mark.parametrize(
    ("use", "current", "expected"),
    [
        pytest.param(0.56, 10, 12, id="above-tolerance"),
        pytest.param(0.54, 10, 10, id="within-tolerance"),
        pytest.param(0.95, 1, 2, id="at-most-doubled"),
        pytest.param(0.01, 9, 4, id="at-most-halved"),
    ],
)
def test_apa(use: float, current: int, expected: int):
    assert apa_replicas(mean_use=use, target=0.5, current=current) == expected


def test_the_cooldown_takes_the_minimum_of_its_window():
    history, current, replicas = (), 8, []
    for turn, recommendation in enumerate([2, 4, 8, 8, 8, 7]):
        replica, history = cooled_down(
            history,
            recommendation=recommendation,
            current=current,
            now=10.0 * turn,
            up_window_seconds=0,
            down_window_seconds=300,
        )
        replicas.append(replica)
    assert replicas == [2, 2, 8, 8, 8, 2]  # q3: with HPA's window the 7 would have become 8


def test_pods_that_do_not_answer_are_left_out_of_the_mean():
    policy = Aibrix(Strategy.APA, PodMetric.WAITING_REQUESTS, target=4.0)
    got, _ = policy.decide(seen=seen(6.0, None, None, None, spec=4), memory=policy.initial(), now=0.0)
    assert got == 6
    assert policy.decide(seen=seen(None, None, spec=2), memory=policy.initial(), now=0.0)[0] == 2


def test_the_pending_guard_waits_for_what_was_asked_for():
    plain = Aibrix(Strategy.APA, PodMetric.WAITING_REQUESTS, target=1.0)
    guarded = Aibrix(Strategy.APA, PodMetric.WAITING_REQUESTS, target=1.0, pending_guard=True)
    starting = seen(9.0, spec=4, ready=2)
    assert plain.decide(seen=starting, memory=plain.initial(), now=0.0)[0] == 8
    assert guarded.decide(seen=starting, memory=guarded.initial(), now=0.0)[0] == 4


@given(
    values=st.lists(st.floats(0, 100), min_size=1, max_size=40),
    strategy=st.sampled_from(list(Strategy)),
    start=st.integers(1, 40),
)
def test_bounds_hold_whatever_the_load(values: list[float], strategy: Strategy, start: int):
    policy = Aibrix(strategy, PodMetric.WAITING_REQUESTS, min_replicas=2, max_replicas=11)
    current, memory = start, policy.initial()
    for turn, value in enumerate(values):
        current, memory = policy.decide(seen=seen(value, spec=current), memory=memory, now=10.0 * turn)
        assert 2 <= current <= 11
