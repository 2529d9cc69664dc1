from dataclasses import replace

import pytest

from longtail.demand.estimate import Capacity
from longtail.demand.observation import Signal
from longtail.policy import needs
from longtail.policy.needs import Need, Resource

from .worlds import KV_TOKENS, demand, partial, seen, stale, unseen


def reactive(slots: float, *, kv: float | None = None, running: float = 14, waiting: float = 6, blind: int = 0) -> Need:
    observation = seen(running, waiting, kv_used_tokens=Signal(value=kv or 0.0))
    need = needs.reactive(demand=demand(slots, kv_now_tokens=kv), observation=observation, blind_pods=blind)
    assert need is not None
    return need


@pytest.mark.parametrize(
    ("slots", "kv", "replicas", "bound_by"),
    [
        pytest.param(0.0, None, 0, Resource.SLOTS, id="idle"),
        pytest.param(20.0, None, 3, Resource.SLOTS, id="a-part-of-a-replica-is-a-replica"),
        pytest.param(24.0, None, 3, Resource.SLOTS, id="full-is-full"),
        pytest.param(24.0 + 1e-10, None, 3, Resource.SLOTS, id="dust-of-floating-point-is-no-replica"),
        pytest.param(24.1, None, 4, Resource.SLOTS, id="a-little-more-is-one-more"),
        pytest.param(20.0, 3.4 * KV_TOKENS, 4, Resource.KV_CACHE, id="the-kv-cache-binds"),
        pytest.param(20.0, 1.0 * KV_TOKENS, 3, Resource.SLOTS, id="the-slots-bind"),
    ],
)
def test_the_larger_need_binds(slots: float, kv: float | None, replicas: int, bound_by: Resource) -> None:
    need = reactive(slots, kv=kv)
    assert (need.replicas, need.bound_by) == (replicas, bound_by)


def test_slots_are_explained_in_words_with_their_figures() -> None:
    assert reactive(20.0).because == (
        "14 running at target speed + 6 waiting need 20 slots; a replica has 8: 3 replicas"
    )


def test_running_is_told_at_the_target_speed_and_not_as_counted() -> None:
    # 14 requests run 30 % slower than promised, so they need the slots of 18.2.
    assert reactive(24.2).because.startswith("18.2 running at target speed + 6 waiting need 24.2 slots")


def test_the_kv_cache_is_explained_in_words_with_its_figures() -> None:
    assert reactive(0.0, kv=340_000).because == (
        "the KV caches hold 340,000 tokens; a replica has room for 100,000: 4 replicas"
    )


def test_nothing_is_needed_from_a_pool_that_is_not_known() -> None:
    assert needs.reactive(demand=demand(None), observation=unseen(), blind_pods=0) is None


def test_without_the_size_of_the_kv_cache_slots_decide() -> None:
    unsized = demand(8.0, kv_now_tokens=10 * KV_TOKENS, capacity=Capacity(8.0, None, "Prior"))
    need = needs.reactive(
        demand=unsized, observation=seen(8, kv_used_tokens=Signal(value=10 * KV_TOKENS)), blind_pods=0
    )
    assert need is not None
    assert (need.replicas, need.bound_by) == (1, Resource.SLOTS)


def test_an_old_number_of_the_kv_cache_raises_nothing() -> None:
    full = demand(8.0, kv_now_tokens=10 * KV_TOKENS)
    need = needs.reactive(demand=full, observation=seen(8, kv_used_tokens=stale(10 * KV_TOKENS)), blind_pods=0)
    assert need is not None
    assert need.replicas == 1


@pytest.mark.parametrize(
    ("blind", "replicas", "words"),
    [
        pytest.param(1, 4, "1 ready pod reports nothing and counts as full: 4 replicas", id="one"),
        pytest.param(3, 6, "3 ready pods report nothing and count as full: 6 replicas", id="three"),
    ],
)
def test_a_silent_pod_counts_as_full(blind: int, replicas: int, words: str) -> None:
    need = reactive(20.0, blind=blind)
    assert need.replicas == replicas
    assert need.because.endswith(words)


def test_what_is_fresh_alone_is_a_lower_bound() -> None:
    observation = unseen(gateway_waiting_requests=Signal(value=50.0), kv_used_tokens=stale(9 * KV_TOKENS))
    need = needs.evidence(demand=demand(None), observation=observation)
    assert need is not None
    assert need.replicas == 7
    assert need.because == ("50 waiting in the gateway need at least 50 slots; a replica has 8: 7 replicas")


def test_fresh_kv_use_alone_is_evidence() -> None:
    need = needs.evidence(demand=demand(None), observation=unseen(kv_used_tokens=Signal(value=5.5 * KV_TOKENS)))
    assert need is not None
    assert (need.replicas, need.bound_by) == (6, Resource.KV_CACHE)


@pytest.mark.parametrize(
    "observation",
    [
        pytest.param(unseen(), id="nothing"),
        pytest.param(seen(stale(90), stale(90)), id="old"),
        pytest.param(seen(partial(90), partial(90)), id="parts"),
    ],
)
def test_what_is_not_fresh_is_no_evidence(observation: object) -> None:
    assert needs.evidence(demand=demand(None), observation=observation) is None  # type: ignore[arg-type]  # ids above


def test_a_forecast_says_how_far_and_how_sure_it_looks() -> None:
    up = needs.forecast_up(demand(0.0, slots_upper=60.0, slots_peak=70.0, quantile=0.985))
    assert up is not None
    assert up.because == (
        "one cold start ahead (180 s), at most in 98.5 of 100 cases, requests will need 60 slots; "
        "a replica has 8: 8 replicas"
    )


def test_a_forecast_counts_the_kv_cache_as_well() -> None:
    ahead = demand(0.0, slots_upper=8.0, kv_upper_tokens=5 * KV_TOKENS, slots_peak=8.0, kv_peak_tokens=6 * KV_TOKENS)
    up, down = needs.forecast_up(ahead), needs.forecast_down(ahead)
    assert up is not None
    assert down is not None
    assert (up.replicas, down.replicas) == (5, 6)


def test_there_is_no_forecast_before_there_is_one() -> None:
    assert needs.forecast_up(demand(20.0)) is None
    assert needs.forecast_down(replace(demand(20.0), slots_upper=30.0)) is None


@pytest.mark.parametrize(
    ("expected", "upper", "ratio", "exact"),
    [
        pytest.param(40.0, 48.0, 1.0, 6.0, id="nobody-may-wait"),
        pytest.param(20.0, 48.0, 1.2, 5.0, id="the-upper-value-may-wait-as-long-as-allowed"),
        pytest.param(44.0, 48.0, 1.2, 5.5, id="what-is-expected-may-not"),
    ],
)
def test_the_forecast_asks_for_slots_with_which_all_are_in_time(
    expected: float, upper: float, ratio: float, exact: float
) -> None:
    patient = demand(10.0, slots_forecast=expected, slots_upper=upper, slots_peak=upper, in_time_ratio=ratio)
    for need in (needs.forecast_up(patient), needs.forecast_down(patient)):
        assert need is not None
        assert need.exact == pytest.approx(exact)


def test_words_tell_of_slots_that_the_wait_saves() -> None:
    need = needs.forecast_up(demand(10.0, slots_forecast=20.0, slots_upper=48.0, in_time_ratio=1.2))
    assert need is not None
    assert "48 slots, 40 as they may wait; a replica has 8: 5 replicas" in need.because
