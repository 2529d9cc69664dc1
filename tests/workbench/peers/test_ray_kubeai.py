"""Ray Serve and KubeAI: request counters at the door, delays in between."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.workbench.peers.kubeai import KubeAI
from longtail.workbench.peers.ray_serve import RayServe
from longtail.workbench.peers.view import PeerView

RECORDED: list[dict[str, Any]] = json.loads((Path(__file__).parent / "recorded" / "ray_2_60_0.json").read_text())


def seen(requests: float | None, *, spec: int, ready: int | None = None) -> PeerView:
    ready = spec if ready is None else ready
    return PeerView(spec, spec, ready, door_requests=requests)


def run(policy: Any, loads: list[float | None], *, start: int) -> list[int]:
    current, memory, replicas = start, policy.initial(), []
    for turn, requests in enumerate(loads):
        current, memory = policy.decide(
            seen=seen(requests, spec=current), memory=memory, now=policy.period_seconds * turn
        )
        replicas.append(current)
    return replicas


@pytest.mark.parametrize("recorded", [pytest.param(r, id=f"run-{i}") for i, r in enumerate(RECORDED)])
def test_replicas_follow_requests_as_in_ray(recorded: dict[str, Any]):
    policy = RayServe(
        target_ongoing_requests=4,
        min_replicas=recorded["min"],
        max_replicas=12,
        look_back_seconds=0.0,  # the recorded numbers are already what the policy was given
        downscale_delay_seconds=200,
        downscale_to_zero_delay_seconds=recorded["to_zero_delay_seconds"],
        upscaling_factor=recorded["up"],
        downscaling_factor=recorded["down"],
    )
    current, memory = recorded["start"], policy.initial()
    for look, (requests, running, expected) in enumerate(recorded["rows"]):
        current, memory = policy.decide(
            seen=seen(requests, spec=current, ready=running), memory=memory, now=10.0 * look
        )
        assert current == expected, look


def test_ray_averages_over_its_look_back():
    policy = RayServe(target_ongoing_requests=1, upscale_delay_seconds=0)
    assert run(policy, [8, 0, 0, 0], start=8)[:2] == [8, 8]
    memory = policy.initial()
    for turn, requests in enumerate([9.0, 9.0, 9.0, 1.0]):
        replicas, memory = policy.decide(seen=seen(requests, spec=1), memory=memory, now=10.0 * turn)
    assert replicas == 7  # (9 + 9 + 9 + 1) / 4


def test_kubeai_averages_over_ten_minutes_from_a_ring_of_zeros():
    replicas = run(KubeAI(target_requests=10, max_replicas=20), [100.0] * 60, start=1)
    assert replicas[5] == 1  # a minute of 100 requests is a mean of 10
    assert replicas[29] == 5
    assert replicas[59] == 10


def test_kubeai_counts_three_lower_results_and_then_follows_at_once():
    policy = KubeAI(target_requests=1, window_seconds=10, max_replicas=20)
    assert run(policy, [8, 5, 5, 5, 5, 3, 2, 9, 4], start=8) == [8, 8, 8, 8, 5, 3, 2, 9, 9]


@pytest.mark.parametrize("policy", [RayServe(), KubeAI()], ids=["ray", "kubeai"])
def test_without_a_count_nothing_moves(policy: Any):
    assert run(policy, [None, None, None], start=4) == [4, 4, 4]


@given(
    loads=st.lists(st.one_of(st.none(), st.floats(0, 1e6)), min_size=1, max_size=80),
    ray=st.booleans(),
)
def test_bounds_hold_whatever_the_load(loads: list[float | None], ray: bool):
    policy: Any = (RayServe if ray else KubeAI)(min_replicas=2, max_replicas=9)
    assert all(2 <= replicas <= 9 for replicas in run(policy, loads, start=5))
