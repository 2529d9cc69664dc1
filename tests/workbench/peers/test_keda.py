"""KEDA: its two loops, what it makes of nothing and of errors, and llm-d's blueprints on top."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.policy.fleet import Behavior, PolicyType
from longtail.workbench.peers import llm_d
from longtail.workbench.peers.keda import Fallback, FallbackBehavior, Keda, ScaledObject, Trigger
from longtail.workbench.peers.queries import (
    gateway_running_requests,
    running_requests,
    waiting_requests,
)
from longtail.workbench.peers.view import Histogram, PeerView, PodView
from longtail.workbench.peers.windows import histogram_quantile


def seen(waiting: float | None, *, spec: int, ready: int | None = None, reachable: bool = True) -> PeerView:
    pods = (PodView("p", waiting_requests=waiting),)
    return PeerView(spec, spec, spec if ready is None else ready, pods, metrics_reachable=reachable)


def keda(*, threshold: float = 10.0, average: bool = True, **fields: Any) -> Keda:
    fields.setdefault("max_replicas", 50)
    return Keda((Trigger(waiting_requests, threshold, average=average),), ScaledObject(**fields))


def run(policy: Any, views: list[PeerView], *, start: int) -> list[int]:
    """Views with ``spec`` replaced by what the policy made of the one before."""
    current, memory, replicas = start, policy.initial(), []
    for sync, view in enumerate(views):
        now_seen = PeerView(
            current,
            current,
            min(view.ready_replicas, current),
            view.pods,
            metrics_reachable=view.metrics_reachable,
        )
        current, memory = policy.decide(seen=now_seen, memory=memory, now=15.0 * sync)
        replicas.append(current)
    return replicas


def test_a_lost_series_takes_the_whole_pool_to_zero_after_the_cooldown():
    views = [seen(200.0, spec=20)] * 3 + [seen(None, spec=20)] * 30
    replicas = run(keda(), views, start=20)
    # Active until 30 s. At 345 s HPA's window has forgotten that; at 360 s the next poll after 300 s rests.
    assert replicas[:23] == [20] * 23
    assert replicas[23:] == [1] + [0] * 9
    patient = Behavior(scale_down=llm_d.rules((PolicyType.PERCENT, 100, 15), window_seconds=3600))
    assert run(keda(behavior=patient), views, start=20)[22:] == [20, 20] + [0] * 9  # past HPA's behavior


def test_an_error_without_fallback_holds():
    assert run(keda(), [seen(0.0, spec=20, reachable=False)] * 60, start=20) == [20] * 60


def test_an_empty_result_that_is_not_ignored_is_an_error():
    policy = Keda((Trigger(waiting_requests, 10.0, ignore_null_values=False),), ScaledObject(max_replicas=50))
    assert run(policy, [seen(None, spec=20)] * 40, start=20) == [20] * 40


@pytest.mark.parametrize(
    ("behavior", "expected"),
    [
        pytest.param(FallbackBehavior.STATIC, 5, id="static-shrinks-on-failure"),
        pytest.param(FallbackBehavior.CURRENT_REPLICAS, 20, id="current"),
        pytest.param(FallbackBehavior.CURRENT_REPLICAS_IF_HIGHER, 20, id="if-higher"),
        pytest.param(FallbackBehavior.CURRENT_REPLICAS_IF_LOWER, 5, id="if-lower"),
    ],
)
def test_fallback_after_its_threshold(behavior: FallbackBehavior, expected: int):
    fallback = Fallback(failure_threshold=3, replicas=5, behavior=behavior)
    replicas = run(keda(fallback=fallback), [seen(200.0, spec=20, reachable=False)] * 40, start=20)
    # Both loops count: failures 1, 2 at 0 s, 3 at 15 s, 4 and 5 at 30 s. The HPA then wants 5, and shrinks
    # when its own first sight of 20 is older than 300 s.
    assert replicas[:21] == [20] * 21
    assert replicas[21] == expected


def test_a_fallback_of_zero_lets_errors_run_into_the_cooldown():
    fallback = Fallback(failure_threshold=1000, replicas=0)
    views = [seen(90.0, spec=9)] * 2 + [seen(None, spec=9, reachable=False)] * 30
    replicas = run(keda(fallback=fallback), views, start=9)
    assert replicas[20] == 9
    assert 0 in replicas


def test_a_value_fallback_needs_ready_pods():
    fallback = Fallback(failure_threshold=0, replicas=6)
    policy = keda(average=False, fallback=fallback)
    blind = [seen(None, spec=2, ready=2, reachable=False)] * 2
    assert run(policy, blind, start=2)[0] == 4  # 6 wanted, legacy limit max(2 · 2, 4)
    loading = [seen(None, spec=2, ready=0, reachable=False)] * 2
    assert run(policy, loading, start=2)[0] == 2


def test_from_zero_the_first_poll_that_sees_work_starts_one():
    views = [seen(0.0, spec=0)] + [seen(500.0, spec=0)] * 5
    assert run(keda(), views, start=0) == [0, 0, 1, 4, 8, 16]  # polls at 0 and 30 s, then the legacy limit


def test_the_activation_threshold_is_strict():
    policy = Keda((Trigger(waiting_requests, 10.0, activation_threshold=5.0),), ScaledObject(max_replicas=50))
    assert run(policy, [seen(5.0, spec=0)] * 3, start=0) == [0, 0, 0]
    assert run(policy, [seen(5.1, spec=0)] * 2, start=0)[0] == 1


def test_idle_replicas_are_kept_instead_of_zero():
    policy = keda(min_replicas=3, idle_replicas=1)
    replicas = run(policy, [seen(90.0, spec=9)] + [seen(0.0, spec=9)] * 25 + [seen(90.0, spec=1)] * 3, start=9)
    assert replicas[24] == 1
    assert replicas[-1] >= 3


@given(
    events=st.lists(
        st.tuples(st.one_of(st.none(), st.floats(-10, 1e4), st.just(math.nan)), st.booleans()),
        min_size=1,
        max_size=60,
    ),
    low=st.integers(0, 3),
    fallback=st.booleans(),
)
def test_bounds_hold_whatever_the_metric(events, low: int, fallback: bool):
    policy = keda(min_replicas=low, max_replicas=9, fallback=Fallback(2, 4) if fallback else None)
    replicas = run(policy, [seen(v, spec=5, reachable=ok) for v, ok in events], start=5)
    assert all((low <= count <= 9) or (low == 0 and count == 0) for count in replicas)


# llm-d


def gateway(
    *,
    door: float = 0.0,
    waiting: float = 0.0,
    spec: int,
    ready: int | None = None,
    backlog: float = 0.0,
    kv: float = 0.0,
    **more: Any,
) -> PeerView:
    return PeerView(
        spec,
        spec,
        spec if ready is None else ready,
        tuple(PodView(f"p{i}", kv_used_ratio=kv) for i in range(spec)),
        door_requests=door,
        gateway_waiting_requests=waiting,
        prefill_backlog_tokens=backlog,
        **more,
    )


def test_the_queue_blueprint_waits_a_whole_window_before_it_grows():
    policy, current, memory, replicas = llm_d.queue(), 1, llm_d.queue().initial(), []
    for sync in range(30):
        current, memory = policy.decide(
            seen=gateway(door=70.0, waiting=6.0, spec=current), memory=memory, now=15.0 * sync
        )
        replicas.append(current)
    assert gateway_running_requests(gateway(door=70.0, waiting=6.0, spec=1)) == 64.0
    assert replicas[:20] == [1] * 20  # the count at first sight, 1, is the lowest recommendation for 300 s
    assert replicas[20:24] == [2, 4, 6, 6]


@pytest.mark.parametrize(
    ("waiting", "running", "spec", "ready", "expected"),
    [
        pytest.param(4, 16, 3, 3, 4.0, id="demand-above-the-pool"),
        pytest.param(4, 16, 3, 1, 3.0, id="starting-replicas-are-discounted"),
        pytest.param(9, 16, 3, 1, 7.0, id="but-only-they"),
        pytest.param(1, 16, 3, 1, 1.0, id="no-discount-when-shrinking"),
        pytest.param(0, 80, 3, 3, 5.0, id="running-decides"),
    ],
)
def test_the_queue_guard_formula(waiting: float, running: float, spec: int, ready: int, expected: float):
    view = gateway(door=running + waiting, waiting=waiting, spec=spec, ready=ready)
    assert llm_d.guarded_demand(view, queue_per_replica=1.0, running_per_replica=16.0) == expected


def test_token_aware_grows_one_by_one_every_three_minutes():
    policy, current, memory = llm_d.token_aware(), 1, llm_d.token_aware().initial()
    grown = {}
    for sync in range(41):
        wish, memory = policy.decide(
            seen=gateway(backlog=15_928 * 6.0, kv=0.5, spec=current), memory=memory, now=15.0 * sync
        )
        if wish > current:
            grown[15.0 * sync] = wish
        current = wish
    assert grown == {0.0: 2, 180.0: 3, 360.0: 4}  # 6 s of backlog over 1.5 s


def test_token_aware_takes_a_lost_series_for_an_idle_pool():
    policy = llm_d.token_aware()
    lost = PeerView(6, 6, 6, tuple(PodView(f"p{i}") for i in range(6)))
    memory, current = policy.initial(), 6
    for sync in range(21):
        current, memory = policy.decide(seen=lost, memory=memory, now=15.0 * sync)
    assert current == 5


@pytest.mark.parametrize(
    ("saturation", "replicas", "ready", "expected"),
    [
        pytest.param(0.5, 4, 4, 4, id="inside-the-band"),
        pytest.param(0.55, 4, 4, 4, id="at-the-edge"),
        pytest.param(2.0, 4, 4, 15, id="clamped-saturation"),
        pytest.param(2.0, 8, 2, 8, id="credit-for-what-starts"),
        pytest.param(2.0, 8, 0, 30, id="no-credit-without-any-ready"),
        pytest.param(0.3, 8, 4, 6, id="shrinking-has-no-credit"),
        pytest.param(0.0, 5, 5, 0, id="idle"),
    ],
)
def test_the_slo_law(saturation: float, replicas: int, ready: int, expected: int):
    got = llm_d.slo_replicas(saturation=saturation, replicas=replicas, ready=ready, up=0.55, down=0.40)
    assert got == expected


def slow(count: float) -> Histogram:
    return Histogram((1.0, 3.0, 9.0, math.inf), (0.0, 0.0, count, count))


def test_slo_aware_reads_the_ninetieth_percentile_of_the_last_minute():
    policy, current, replicas = llm_d.SloAware(), 3, []
    memory = policy.initial()
    for sync in range(12):
        view = gateway(spec=current, first_token_seconds=slow(100.0 * sync))
        current, memory = policy.decide(seen=view, memory=memory, now=15.0 * sync)
        replicas.append(current)
    # P90 = 8.4 s of an SLO of 3 s, clamped at 2; the 30 s window holds until the first sight is older.
    assert replicas[0] == 3
    assert replicas[-1] == 8


@given(counts=st.lists(st.floats(0, 1e4), min_size=4, max_size=4), q=st.floats(0.01, 0.99))
def test_a_quantile_lies_within_its_histogram(counts: list[float], q: float):
    cumulative = tuple(sum(counts[: i + 1]) for i in range(4))
    value = histogram_quantile(Histogram((1.0, 2.0, 4.0, math.inf), cumulative), q=q)
    assert math.isnan(value) == (cumulative[-1] <= 0)
    assert math.isnan(value) or 0.0 <= value <= 4.0


def test_a_sum_over_no_pod_is_empty_and_over_idle_pods_is_zero():
    assert running_requests(PeerView(1, 1, 1, (PodView("a"),))) is None
    assert running_requests(PeerView(1, 1, 1, (PodView("a", running_requests=0.0),))) == 0.0
