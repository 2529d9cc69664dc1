"""HPA: the vectors of the research notes, and what Kubernetes' own code decided on random inputs."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.policy.fleet import Behavior, PolicyType, ScalingPolicy, ScalingRules, SelectPolicy
from longtail.workbench.peers.hpa import External, Hpa, HpaMemory, HpaSpec, PerPod, reconcile
from longtail.workbench.peers.hpa_metrics import (
    Tolerances,
    average_value_replicas,
    combined,
    per_pod_replicas,
    value_replicas,
)
from longtail.workbench.peers.queries import kv_used_ratio, waiting_requests
from longtail.workbench.peers.view import PeerView, PodView

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "recorded" / "hpa_v1_37_2.json").read_text())
C, P = PolicyType.PERCENT, PolicyType.PODS


def rules(window: int, *policies: tuple[PolicyType, int, int], select: SelectPolicy = SelectPolicy.MAX) -> ScalingRules:
    scaling = tuple(ScalingPolicy(type=t, value=v, period_seconds=p) for t, v, p in policies)
    return ScalingRules(stabilization_window_seconds=window, policies=scaling, select_policy=select)


BEHAVIORS: dict[str, Behavior | None] = {
    "legacy": None,
    "default": Behavior(),
    "token-aware": Behavior(scale_up=rules(0, (P, 1, 180)), scale_down=rules(300, (P, 1, 300))),
    "slo-aware": Behavior(scale_up=rules(30, (C, 100, 60), (P, 4, 60)), scale_down=rules(180, (P, 1, 120))),
    "smallest": Behavior(
        scale_up=rules(60, (C, 30, 90), (P, 3, 45), select=SelectPolicy.MIN),
        scale_down=rules(60, (C, 20, 60), (P, 2, 30), select=SelectPolicy.MIN),
    ),
    "no-shrinking": Behavior(
        scale_up=rules(0, (C, 100, 15)),
        scale_down=rules(0, (C, 100, 15), select=SelectPolicy.DISABLED),
    ),
}


def follow(
    proposals: list[int | None], *, start: int, spec: HpaSpec, period: float = 15.0
) -> tuple[list[int], HpaMemory]:
    current, memory, replicas = start, HpaMemory(), []
    for sync, proposal in enumerate(proposals):
        current, memory = reconcile(
            lambda _, p=proposal: p, spec=spec, current=current, memory=memory, now=sync * period
        )
        replicas.append(current)
    return replicas, memory


def test_every_average_value_proposal_is_that_of_kubernetes():
    for usage, target, status, spec, expected in RECORDED["average_value"]:
        got = average_value_replicas(
            total=(usage + 0.25) / 1000,  # a quarter more, so that binary floating point truncates back to usage
            target=target / 1000,
            status_replicas=status,
            spec_replicas=spec,
            tolerances=Tolerances(),
        )
        assert got == expected, (usage, target, status)


def test_every_value_proposal_is_that_of_kubernetes():
    for usage, target, spec, ready, expected in RECORDED["value"]:
        got = value_replicas(
            total=(usage + 0.25) / 1000,
            target=target / 1000,
            spec_replicas=spec,
            ready_replicas=ready,
            tolerances=Tolerances(),
        )
        assert got == expected, (usage, target, spec, ready)


def test_every_pods_metric_proposal_is_that_of_kubernetes():
    assert any(missing and pending for _, missing, pending, *_ in RECORDED["pods"])
    for usage, missing, pending, target, spec, expected in RECORDED["pods"]:
        got = per_pod_replicas(
            usage={f"r{i}": value for i, value in enumerate(usage)},
            pending=frozenset(f"p{i}" for i in range(pending)),
            missing=frozenset(f"m{i}" for i in range(missing)),
            target=target,
            fill_when_low=target,
            spec_replicas=spec,
            tolerances=Tolerances(),
        )
        assert got == expected, (usage, missing, pending, target, spec)


@pytest.mark.parametrize(
    "sequence",
    [pytest.param(s, id=f"{s['behavior']}-{i}") for i, s in enumerate(RECORDED["sequences"])],
)
def test_replicas_follow_proposals_as_in_kubernetes(sequence: dict[str, Any]):
    spec = HpaSpec(min_replicas=2, max_replicas=30, behavior=BEHAVIORS[sequence["behavior"]])
    replicas, _ = follow(sequence["proposals"], start=sequence["start"], spec=spec, period=sequence["period_seconds"])
    assert replicas == sequence["replicas"]


@pytest.mark.parametrize(
    ("total", "spec", "status", "surge_bug", "expected"),
    [
        pytest.param(109, 10, 10, True, 10, id="within-tolerance-holds"),
        pytest.param(111, 10, 10, True, 12, id="outside-tolerance-rounds-up"),
        pytest.param(130, 10, 13, True, 13, id="a-surge-becomes-the-new-size"),
        pytest.param(130, 10, 13, False, 10, id="the-mended-rule-keeps-spec"),
        pytest.param(0, 0, 0, True, 0, id="nothing-from-nothing"),
        pytest.param(35, 0, 0, True, 4, id="from-zero-without-tolerance"),
    ],
)
def test_average_value_vectors(total: float, spec: int, status: int, surge_bug: bool, expected: int):
    got = average_value_replicas(
        total=total,
        target=10,
        status_replicas=status,
        spec_replicas=spec,
        tolerances=Tolerances(),
        surge_bug=surge_bug,
    )
    assert got == expected


@pytest.mark.parametrize(
    ("behavior", "start", "period", "proposals", "expected"),
    [
        pytest.param(None, 1, 15, [50] * 6, [4, 8, 16, 32, 50, 50], id="legacy-4-then-doubling"),
        pytest.param(Behavior(), 1, 16, [50] * 5, [5, 10, 20, 40, 50], id="default-behavior-5-then-doubling"),
        pytest.param(Behavior(), 1, 7, [50] * 3, [5, 5, 5], id="an-event-inside-its-period-still-counts"),
        pytest.param(None, 10, 15, [10, 8, 3] + [3] * 19, [10] * 21 + [8], id="legacy-window-edge-counts"),
        pytest.param(Behavior(), 10, 15, [10, 8, 3] + [3] * 19, [10] * 20 + [8, 3], id="behavior-window-edge-does-not"),
    ],
)
def test_normalisation_vectors(behavior, start, period, proposals, expected):
    spec = HpaSpec(min_replicas=1, max_replicas=100, behavior=behavior)
    assert follow(proposals, start=start, spec=spec, period=period)[0] == expected


@pytest.mark.parametrize(
    ("proposals", "expected"),
    [
        pytest.param([4, None], None, id="a-failing-metric-blocks-shrinking"),
        pytest.param([9, None], 9, id="a-failing-metric-does-not-block-growing"),
        pytest.param([None, None], None, id="all-failing-holds"),
        pytest.param([4, 5], 5, id="the-highest-wins"),
        pytest.param([-3], 0, id="a-negative-metric-is-nothing"),
    ],
)
def test_combining_several_metrics(proposals, expected):
    assert combined(proposals, spec_replicas=6) == expected


def test_a_missing_pod_counts_as_a_full_one_when_utilisation_is_low():
    got = per_pod_replicas(
        usage={"a": 20, "b": 20, "c": 20},
        pending=frozenset(),
        missing=frozenset({"d"}),
        target=50,
        fill_when_low=100,
        spec_replicas=4,
        tolerances=Tolerances(),
    )
    assert got == 4  # ratio 0.4, but (60 + 100) / 4 / 50 = 0.8, times 4 pods


@pytest.mark.parametrize(
    ("current", "low", "high", "expected"),
    [
        pytest.param(30, 1, 20, 20, id="above-max-at-once"),
        pytest.param(1, 3, 20, 3, id="below-min-at-once"),
        pytest.param(0, 1, 20, 0, id="zero-is-a-manual-pause"),
    ],
)
def test_bounds_are_restored_without_metrics(current: int, low: int, high: int, expected: int):
    def never(_: Tolerances) -> int | None:
        raise AssertionError("metrics were computed")

    spec = HpaSpec(min_replicas=low, max_replicas=high, behavior=Behavior())
    assert reconcile(never, spec=spec, current=current, memory=HpaMemory(), now=0.0)[0] == expected


def test_hpa_comes_back_from_a_zero_that_it_chose_itself():
    spec = HpaSpec(min_replicas=0, max_replicas=9)
    replicas, memory = follow([0] * 22, start=1, spec=spec)
    assert replicas[-1] == 0
    assert memory.scaled_to_zero
    assert reconcile(lambda _: 3, spec=spec, current=0, memory=memory, now=400.0)[0] == 3


def view(*pods: PodView, spec: int, reachable: bool = True) -> PeerView:
    return PeerView(spec, spec, sum(pod.ready for pod in pods), pods, metrics_reachable=reachable)


def test_two_external_metrics_take_the_larger_need():
    hpa = Hpa((External(waiting_requests, 2.0), External(kv_used_ratio, 0.7)), HpaSpec(behavior=Behavior()))
    pods = tuple(PodView(f"p{i}", waiting_requests=1.0, kv_used_ratio=0.9) for i in range(4))
    assert hpa.decide(seen=view(*pods, spec=4), memory=hpa.initial(), now=0.0)[0] == 6  # ceil(3.6 / 0.7)


@pytest.mark.parametrize("reachable", [True, False], ids=["no-sample", "store-down"])
def test_without_a_metric_nothing_moves(reachable: bool):
    hpa = Hpa((External(waiting_requests, 2.0), PerPod("kv_used_ratio", 0.7)))
    seen = view(PodView("a"), PodView("b"), spec=2, reachable=reachable)
    assert hpa.decide(seen=seen, memory=hpa.initial(), now=0.0)[0] == 2


def test_a_loading_pod_is_missing_and_a_pending_one_is_unready():
    hpa = Hpa((PerPod("kv_used_ratio", 0.5),), HpaSpec(behavior=Behavior()))
    busy = [PodView("a", kv_used_ratio=0.9), PodView("b", kv_used_ratio=0.9)]
    alone = view(*busy, spec=2)
    assert hpa.decide(seen=alone, memory=hpa.initial(), now=0.0)[0] == 4
    # Two more that report nothing count as empty: (0.9 + 0.9) / 4 = 0.45 is within the tolerance.
    helped = view(*busy, PodView("c", ready=False), PodView("d", ready=False, pending=True), spec=4)
    assert hpa.decide(seen=helped, memory=hpa.initial(), now=0.0)[0] == 4


@given(
    proposals=st.lists(st.one_of(st.none(), st.integers(0, 200)), min_size=1, max_size=40),
    start=st.integers(1, 60),
    name=st.sampled_from(sorted(BEHAVIORS)),
    bounds=st.tuples(st.integers(1, 10), st.integers(0, 40)),
)
def test_replicas_are_within_bounds_from_the_first_sync(proposals, start, name, bounds):
    spec = HpaSpec(min_replicas=bounds[0], max_replicas=sum(bounds), behavior=BEHAVIORS[name])
    replicas, _ = follow(proposals, start=start, spec=spec)
    assert all(spec.min_replicas <= count <= spec.max_replicas for count in replicas)
