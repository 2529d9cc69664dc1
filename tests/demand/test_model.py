"""The fold as a whole: what it says when things are seen, not seen, restarted, new, gone and quiet."""

import copy
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.demand.model import DemandMemory, estimate
from longtail.demand.observation import MISSING, Buckets, Observation, Quality, Signal
from longtail.demand.parameters import CapacityOverride, Objective, ServiceParameters
from longtail.demand.supply import Supply

from .fleets import BOUNDS, START, TICK, Requests, blind, fold, numbers, poisson, stream, with_quality

PARAMETERS = ServiceParameters(
    objective=Objective(attainment=0.95),
    capacity=CapacityOverride(max_concurrent_requests=24, kv_cache_tokens=400_000),
    mean_output_tokens=1000.0,
)
NOBODY = Requests(starts=np.zeros(0), tokens=np.zeros(0))


def run(fleet, *, keys=None, memory=None, supply=None):
    """Demands of several services tick by tick, and the memory at the end."""
    memory = memory or DemandMemory.empty()
    keys = keys or list(range(len(fleet)))
    for observations in zip(*fleet, strict=True):
        demands, memory = estimate(
            keys=keys,
            parameters=[PARAMETERS] * len(keys),
            observations=observations,
            supplies=[supply or Supply(ready_replicas=4)] * len(keys),
            memory=memory,
            now=observations[0].at_seconds,
        )
    return demands, memory


# --- the fold


def test_equal_arguments_give_equal_results_and_the_memory_is_left_alone():
    seen = stream(poisson(0.5, 1200), 60)
    _, memory = fold(seen[:40])
    before = pickle.dumps(memory)
    first, after = fold(seen[40:], memory=memory)
    second, again = fold(seen[40:], memory=copy.deepcopy(memory))
    assert first == second
    assert pickle.dumps(after) == pickle.dumps(again)
    assert pickle.dumps(memory) == before


def test_the_order_of_services_does_not_matter():
    fleet = [stream(poisson(rate, 900, seed=seed), 50) for seed, rate in enumerate((0.0, 0.1, 1.0, 3.0))]
    straight, _ = run(fleet, keys=["a", "b", "c", "d"])
    turned, _ = run(fleet[::-1], keys=["d", "c", "b", "a"])
    for one, other in zip(straight, turned[::-1], strict=True):
        assert numbers(one) == pytest.approx(numbers(other), rel=1e-6)


def test_a_service_says_the_same_alone_and_in_company():
    fleet = [stream(poisson(rate, 900, seed=seed), 50) for seed, rate in enumerate((0.4, 2.0))]
    together, _ = run(fleet)
    alone, _ = run(fleet[1:], keys=[1])
    assert numbers(together[1]) == pytest.approx(numbers(alone[0]), rel=1e-6)


def test_services_come_and_go_and_those_that_stay_keep_what_was_learned():
    old, new = stream(poisson(1.0, 900), 40), stream(poisson(0.2, 900, seed=2), 40)
    _, memory = run([old[:30]], keys=["old"])
    (stayed, came), memory = run([old[30:], new[30:]], keys=["old", "new"], memory=memory)
    without, _ = run([old], keys=["old"])
    assert numbers(stayed) == pytest.approx(numbers(without[0]), rel=1e-6)
    assert came.lengths.mean_tokens != stayed.lengths.mean_tokens
    (left,), memory = run([[old[-1]]], keys=["old"], memory=memory)
    assert memory.keys == ("old",)
    assert left.lengths.mean_tokens == pytest.approx(stayed.lengths.mean_tokens, rel=0.05)


def test_no_services_at_all():
    demands, memory = estimate(
        keys=[], parameters=[], observations=[], supplies=[], memory=DemandMemory.empty(), now=START
    )
    assert demands == []
    assert memory.now == START


def test_sequences_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="equally long, got 1, 0, 0 and 0"):
        estimate(keys=["a"], parameters=[], observations=[], supplies=[], memory=DemandMemory.empty(), now=0.0)


def test_a_key_given_twice_is_refused():
    with pytest.raises(ValueError, match="unique"):
        run([[Observation(at_seconds=0.0)]] * 2, keys=["a", "a"])


def test_a_tick_at_the_same_second_or_earlier_is_no_time():
    seen = stream(poisson(0.5, 900), 40)
    _, memory = fold(seen)
    _, again = fold([seen[-1]], memory=memory)
    _, earlier = fold([replace(seen[-1], at_seconds=START)], memory=memory)
    assert again.now == earlier.now == memory.now
    np.testing.assert_allclose(again.state.flight.total, memory.state.flight.total, rtol=1e-6)


# --- what is said


def test_a_steady_service_is_described_as_it_is():
    said, _ = fold(stream(poisson(1.0, 4500), 300), parameters=PARAMETERS)
    last = said[-1]
    assert last.lengths.mean_tokens == pytest.approx(1000, rel=0.1)
    assert last.lengths.p50_tokens == pytest.approx(693, rel=0.15)
    assert last.arrivals_per_second == pytest.approx(1.0, rel=0.4)
    assert last.slots_forecast == pytest.approx(50, rel=0.25)  # 1/s x 1000 tokens x 50 ms
    assert last.slots_now < last.slots_upper <= last.slots_peak
    assert last.known_fraction == pytest.approx(math.exp(-180 / 50), abs=0.02)
    assert last.owed_tokens == pytest.approx(1000 * last.slots_now, rel=0.15)
    assert last.queued_reasoning_tokens == last.owed_tokens
    assert last.quantile == pytest.approx(0.95)
    assert 0.8 < last.coverage <= 1
    assert last.age_check == pytest.approx(1.0, abs=0.1)
    assert last.capacity.slots_per_replica == 24
    assert last.capacity.bound_by == "Spec"


def test_the_reasoning_share_is_taken_from_the_gateway():
    seen = [replace(one, reasoning_share=Signal(0.25)) for one in stream(poisson(1.0, 300), 20)]
    said, _ = fold(seen)
    assert said[-1].queued_reasoning_tokens == pytest.approx(0.25 * said[-1].owed_tokens)


def test_waiting_requests_owe_a_whole_answer_and_their_prompt():
    seen = replace(stream(NOBODY, 1)[0], waiting_requests=Signal(3.0), gateway_waiting_requests=Signal(2.0))
    (said,), _ = fold([seen], parameters=PARAMETERS)
    assert said.slots_now == 5
    assert said.owed_tokens == pytest.approx(5 * said.lengths.mean_tokens)


def test_nothing_is_forecast_before_anything_was_counted():
    (said,), _ = fold(stream(poisson(1.0, 300), 1, first=10))
    assert said.slots_now is not None
    assert (said.slots_forecast, said.slots_upper, said.quantile, said.arrivals_per_second) == (None,) * 4


@pytest.mark.parametrize(
    "unseen",
    [
        pytest.param({"running_requests": MISSING}, id="running"),
        pytest.param({"waiting_requests": MISSING}, id="waiting"),
    ],
)
def test_demand_of_now_is_not_known_without_both_gauges(unseen):
    seen = stream(poisson(1.0, 900), 40)
    said, _ = fold([*seen[:-1], replace(seen[-1], **unseen)])
    assert said[-1].slots_now is None
    assert said[-1].slots_forecast is not None


def test_a_pool_without_a_kv_gauge_has_no_kv_demand():
    seen = [replace(one, kv_used_tokens=MISSING, kv_capacity_tokens=MISSING) for one in stream(poisson(1.0, 900), 60)]
    said, memory = fold(seen)
    assert (said[-1].kv_now_tokens, said[-1].kv_upper_tokens, said[-1].kv_peak_tokens) == (None,) * 3
    assert said[-1].capacity.kv_tokens_per_replica is None
    # Prompts are known from the counter of finished requests all the same.
    service = memory.state.service
    assert service.kv_beyond_output / service.prompts == pytest.approx(100.0)


# --- what is not seen


def test_in_an_outage_nothing_is_learned_and_requests_in_flight_move_on():
    seen = stream(poisson(1.0, 2400), 140)
    _, memory = fold(seen[:100])
    said, after = fold([blind(one) for one in seen[100:]], memory=memory)
    for name in ("lengths", "arrivals", "slots_calibration", "slots_experts"):
        assert pickle.dumps(getattr(after.state, name)) == pickle.dumps(getattr(memory.state, name)), name
    assert said[-1].slots_now is None
    assert said[-1].slots_forecast == pytest.approx(50, rel=0.3)
    assert after.state.flight.total[0] == pytest.approx(50, rel=0.3)


@pytest.mark.parametrize("quality", [Quality.STALE, Quality.PARTIAL])
def test_old_or_partial_gauges_are_reported_but_not_learned_from(quality):
    seen = stream(poisson(1.0, 2400), 140)
    _, memory = fold(seen[:100])
    said, after = fold([with_quality(one, quality) for one in seen[100:]], memory=memory)
    assert said[-1].slots_now == seen[-1].running_requests.value
    assert pickle.dumps(after.state.lengths) == pickle.dumps(memory.state.lengths)
    assert pickle.dumps(after.state.slots_calibration) == pickle.dumps(memory.state.slots_calibration)


@pytest.mark.parametrize("hours", [0.5, 5, 24 * 7])
def test_a_gap_in_the_ticks_advances_the_state_and_teaches_nothing(hours):
    _, memory = fold(stream(poisson(1.0, 1500, mean_tokens=500), 100))
    then = 1500 + hours * 3600
    later = stream(poisson(1.0, then + 300, mean_tokens=500, since=then - 600), 2, first=round(then / TICK))
    (back,), after = fold(later[:1], memory=memory)
    assert back.arrivals_per_second == pytest.approx(float(memory.state.arrivals.rates[0, 1]))
    for name in ("lengths", "arrivals", "slots_calibration", "slots_experts"):
        assert pickle.dumps(getattr(after.state, name)) == pickle.dumps(getattr(memory.state, name)), name
    assert after.state.flight.total[0] == pytest.approx(later[0].running_requests.value)
    assert back.owed_tokens == pytest.approx(500 * later[0].running_requests.value, rel=0.2)


def test_counters_that_cover_another_time_than_the_tick_are_not_learned_from():
    seen = stream(poisson(1.0, 900), 40)
    _, memory = fold(seen[:39])
    _, after = fold([replace(seen[39], interval_seconds=300.0)], memory=memory)
    assert pickle.dumps(after.state.arrivals) == pickle.dumps(memory.state.arrivals)


def test_a_restart_of_all_pods_is_no_end_of_their_requests():
    seen = stream(poisson(1.0, 2400), 160)
    gone = replace(
        seen[150],
        running_requests=Signal(0.0),
        kv_used_tokens=Signal(0.0),
        finished_output_tokens=Buckets(BOUNDS, (0.0,) * len(BOUNDS)),
    )
    before, memory = fold(seen[:150])
    after, memory = fold([gone], memory=memory)
    assert memory.state.flight.total[0] == 0
    assert after[-1].owed_tokens == 0
    assert after[-1].lengths.mean_tokens == pytest.approx(before[-1].lengths.mean_tokens, rel=0.02)


def test_after_a_restart_of_the_operator_requests_get_likely_ages():
    said, memory = fold(stream(poisson(1.0, 3600), 1, first=200), parameters=PARAMETERS)
    assert memory.state.flight.total[0] == said[0].slots_now > 0
    assert said[0].owed_tokens == pytest.approx(said[0].slots_now * 1000, rel=0.2)
    assert said[0].age_check == pytest.approx(1.0, abs=0.05)


# --- quiet services


def test_a_service_that_never_had_traffic_comes_to_need_nothing():
    said, _ = fold(stream(NOBODY, 300), parameters=PARAMETERS)
    last = said[-1]
    assert (last.slots_now, last.slots_forecast, last.slots_upper, last.slots_peak) == (0, 0, 0, 0)
    assert (last.kv_upper_tokens, last.owed_tokens, last.arrivals_per_second) == (0, 0, 0)
    assert last.lengths.mean_tokens == pytest.approx(1000)
    assert last.coverage == 1.0


def test_a_service_asleep_for_a_week_still_knows_its_lengths():
    _, memory = fold(stream(poisson(2.0, 1800, mean_tokens=300), 120), parameters=PARAMETERS)
    awake = memory
    nothing = [replace(one, at_seconds=one.at_seconds + 86_400) for one in stream(NOBODY, 40, first=1)]
    for day in range(7):
        asleep = [replace(one, at_seconds=one.at_seconds + 86_400 * day) for one in nothing]
        said, memory = fold(asleep, memory=memory, parameters=PARAMETERS)
    assert said[-1].slots_upper < 24  # idle, though only 280 ticks were slept through
    woken, _ = fold(asleep[-1:], memory=awake, parameters=PARAMETERS)
    assert said[-1].lengths.mean_tokens == pytest.approx(woken[-1].lengths.mean_tokens, rel=0.01)


# --- every input


signals = st.one_of(
    st.just(MISSING),
    st.builds(
        Signal,
        value=st.one_of(st.just(0.0), st.floats(1e-3, 1e6)),
        quality=st.sampled_from([Quality.FRESH, Quality.PARTIAL, Quality.STALE]),
    ),
)
histograms = st.one_of(
    st.none(),
    st.builds(
        lambda bounds, counts: Buckets((*sorted(bounds), math.inf), tuple(counts[: len(bounds) + 1])),
        bounds=st.sets(st.sampled_from([1.0, 5.0, 10.0, 300.0, 1500.0, 4096.0, 1e5, 2e6]), max_size=8),
        counts=st.lists(st.one_of(st.just(0.0), st.floats(0.1, 1e4)), min_size=9, max_size=9),
    ),
)
observations = st.builds(
    Observation,
    at_seconds=st.just(0.0),
    interval_seconds=st.sampled_from([0.0, 15.0, 30.0, 600.0]),
    running_requests=signals,
    waiting_requests=signals,
    gateway_waiting_requests=signals,
    kv_used_tokens=signals,
    kv_capacity_tokens=signals,
    first_tokens=signals,
    arrivals=signals,
    generated_tokens=signals,
    finished_tokens=signals,
    prompt_tokens=signals,
    attained_tokens=signals,
    finished_output_tokens=histograms,
    queue_wait_seconds=histograms,
    first_token_seconds=histograms,
    reasoning_share=signals,
    max_concurrent_requests=signals,
    ready_pods=st.integers(0, 3),
    reporting_pods=st.integers(0, 3),
)
supplies = st.builds(
    Supply,
    ready_replicas=st.integers(0, 5),
    pending_ages_seconds=st.lists(st.floats(0, 2000), max_size=3),
    draining_replicas=st.integers(0, 2),
    cold_starts_seconds=st.lists(st.floats(0, 4000), max_size=2),
)
gaps = st.sampled_from([0.0, 1.0, 15.0, 15.0, 30.0, 400.0, 86_400.0, 864_000.0])


@settings(deadline=None, max_examples=80)
@given(story=st.lists(st.tuples(gaps, observations, observations, supplies), min_size=1, max_size=8))
def test_whatever_is_seen_every_number_is_finite_and_in_order(story):
    memory, now = DemandMemory.empty(), START
    for gap, one, two, supply in story:
        now += gap
        demands, memory = estimate(
            keys=["one", "two"],
            parameters=[PARAMETERS, ServiceParameters()],
            observations=[one, two],
            supplies=[supply, supply],
            memory=memory,
            now=now,
        )
        for demand in demands:
            values = numbers(demand)
            assert all(math.isfinite(value) and value >= 0 for value in values)
            assert demand.capacity.slots_per_replica >= 1
            assert demand.lengths.p50_tokens <= demand.lengths.p99_tokens
            assert demand.startup.p50_seconds <= demand.startup.p90_seconds
            if demand.slots_peak is not None and demand.slots_now is not None:
                assert demand.slots_peak >= demand.slots_now
                assert demand.slots_peak >= demand.slots_upper - 1e-9
            for share in (demand.quantile, demand.coverage, demand.known_fraction, demand.attainment):
                assert share is None or 0 <= share <= 1
