"""Knative's KPA: the vectors of the research notes, and what Knative's own code decided on random load."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.workbench.peers.kpa import Decision, Kpa, KpaMemory, scale
from longtail.workbench.peers.view import PeerView

RECORDED: list[dict[str, Any]] = json.loads((Path(__file__).parent / "recorded" / "knative_98e5ef9.json").read_text())


def seen(*, requests: float | None, ready: int, spec: int | None = None) -> PeerView:
    spec = ready if spec is None else spec
    return PeerView(spec, spec, ready, door_requests=requests)


@pytest.mark.parametrize(
    ("stable", "panic", "ready", "expected"),
    [
        pytest.param(700, 700, 5, Decision(10, 100.0, 10), id="twice-the-ready-pods-is-panic"),
        pytest.param(70, 70, 8, Decision(4, None, 0), id="at-most-halved-a-tick"),
        pytest.param(690, 690, 6, Decision(10, None, 0), id="below-the-threshold-no-panic"),
        pytest.param(0, 0, 1, Decision(0, None, 0), id="nothing-is-zero"),
        pytest.param(700, 70, 10, Decision(10, None, 0), id="the-stable-window-decides"),
    ],
)
def test_one_decision(stable: float, panic: float, ready: int, expected: Decision):
    got = scale(
        stable=stable,
        panic=panic,
        target=70,
        ready_replicas=ready,
        panic_since=None,
        max_panic_replicas=0,
        now=100.0,
    )
    assert got == expected


def test_panic_never_shrinks_and_ends_a_window_after_its_cause():
    during = scale(stable=70, panic=70, target=70, ready_replicas=8, panic_since=0.0, max_panic_replicas=9, now=60.0)
    assert during == Decision(9, 0.0, 9)
    after = scale(stable=70, panic=70, target=70, ready_replicas=8, panic_since=0.0, max_panic_replicas=9, now=60.1)
    assert after == Decision(4, None, 0)


def test_a_restart_holds_without_data_and_then_keeps_what_was_there_for_a_minute():
    kpa, memory = Kpa(max_replicas=10), KpaMemory()
    got, memory = kpa.decide(seen=seen(requests=None, ready=6), memory=memory, now=0.0)
    assert got == 6
    replicas = []
    for tick in range(1, 40):
        got, memory = kpa.decide(seen=seen(requests=70.0, ready=6), memory=memory, now=2.0 * tick)
        replicas.append(got)
    assert replicas[:30] == [6] * 30
    assert replicas[30] == 3


@pytest.mark.parametrize("run", [pytest.param(run, id=f"start-{run['start']}") for run in RECORDED])
def test_replicas_follow_load_as_in_knative(run: dict[str, Any]):
    kpa, memory = Kpa(target_concurrency=run["target"], max_replicas=10), KpaMemory()
    current, replicas = run["start"], []
    for tick, (requests, ready) in enumerate(zip(run["concurrency"], run["ready"], strict=True)):
        view = seen(requests=requests, ready=ready, spec=current)
        # The recording began at a full second, as virtual clocks in Go do.
        current, memory = kpa.decide(seen=view, memory=memory, now=946_684_800.0 + 2 * tick)
        replicas.append(current)
    assert replicas == run["replicas"]


def test_scale_down_delay_keeps_the_highest_wish():
    kpa, memory = Kpa(scale_down_delay_seconds=30.0, max_replicas=20), KpaMemory()
    current, replicas = 1, []
    for tick in range(90):
        requests = 100.0 if tick < 10 else 0.0  # two replicas, then none
        current, memory = kpa.decide(seen=seen(requests=requests, ready=current), memory=memory, now=2.0 * tick)
        replicas.append(current)
    undelayed = Kpa(max_replicas=20)
    current, memory, plain = 1, KpaMemory(), []
    for tick in range(90):
        current, memory = undelayed.decide(
            seen=seen(requests=100.0 if tick < 10 else 0.0, ready=current), memory=memory, now=2.0 * tick
        )
        plain.append(current)
    # 30 s are 15 ticks, the present one among them.
    assert replicas.index(1, 10) == plain.index(1, 10) + 14


@given(
    load=st.lists(st.one_of(st.none(), st.floats(0, 1e5)), min_size=1, max_size=60),
    ready=st.integers(0, 30),
)
def test_bounds_hold_whatever_the_load(load: list[float | None], ready: int):
    kpa, memory = Kpa(min_replicas=2, max_replicas=9), KpaMemory()
    current = 5
    for tick, requests in enumerate(load):
        current, memory = kpa.decide(
            seen=seen(requests=requests, ready=ready, spec=current), memory=memory, now=2.0 * tick
        )
        assert 2 <= current <= 9
