"""The fluid path against the same path written with loops, and the room it goes through."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.demand import forecast
from longtail.demand.buckets import BUCKETS
from longtail.demand.forecast import Survivors
from longtail.demand.inflight import InFlight
from longtail.demand.parameters import CapacityOverride, ServiceParameters
from longtail.demand.supply import Supply
from longtail.demand.survival import Survival

from .fleets import NOW_SLOTS, fold, overloaded
from .scalar import Curve

some = st.one_of(st.just(0.0), st.floats(0.01, 200.0))


@settings(deadline=None, max_examples=60)
@given(
    cohorts=st.lists(st.tuples(some, st.one_of(st.just(0.0), st.floats(0.1, 9000.0))), max_size=4),
    rates=st.lists(some, min_size=1, max_size=3),
    waiting=some,
    slots=st.one_of(st.just(math.inf), some),
    share=st.one_of(st.just(0.0), st.floats(1e-4, 1)),
    steps=st.integers(1, 6),
    mean=st.floats(100.0, 5000.0),
)
def test_the_path_is_what_loops_say(cohorts, rates, waiting, slots, share, steps, mean):
    curve, table = (
        Curve([1 / mean] * BUCKETS, 20_000.0),
        Survival.of(hazard=np.full((1, BUCKETS), 1 / mean), limit=np.array([20_000.0])),
    )
    requests = np.array([[n for n, _ in cohorts] or [0.0]], dtype=np.float32)
    ages = np.array([[age for _, age in cohorts] or [0.0]], dtype=np.float32)
    step = np.array([400.0])
    left = forecast.survivors(InFlight(requests, ages), survival=table, step_tokens=step, steps=steps)
    path = forecast.path(
        left,
        survival=table,
        step_tokens=step,
        step_seconds=np.array([20.0]),
        rates=np.array([rates]),
        waiting=np.array([waiting]),
        prompt_tokens=np.array([50.0]),
        slots=np.full((1, steps), slots),
        serving_share=np.array([share]),
        slowdown=np.array([1.5]),
    )
    for column, rate in enumerate(rates):
        queue, started = waiting, []
        for k in range(steps):
            depths = [curve.depth(age + 400 * (k + 1)) - curve.depth(age) for _, age in cohorts]
            old = sum(n * math.exp(-depth) for (n, _), depth in zip(cohorts, depths, strict=True))
            tokens = sum(
                n * math.exp(-depth) * (age + 400 * (k + 1)) for (n, age), depth in zip(cohorts, depths, strict=True)
            )
            lasting = [(curve.mass(400 * (j + 1)) - curve.mass(400 * j)) / 400 for j in range(k + 1)]
            written = [(curve.moment(400 * (j + 1)) - curve.moment(400 * j)) / 400 for j in range(k + 1)]
            queue += rate * 20
            young = sum(s * lasting[k - i] for i, s in enumerate(started))
            started.append(min(queue, max(slots - old * share - young, 0.0) / lasting[0]))
            queue -= started[-1]
            serving = old + young + started[-1] * lasting[0]
            tokens += sum(s * written[k - i] for i, s in enumerate(started))
            assert path.slots[0, k, column] == pytest.approx(1.5 * serving + queue, rel=1e-3, abs=1e-3)
            assert path.kv_tokens[0, k, column] == pytest.approx(50 * (serving + queue) + tokens, rel=1e-3, abs=1.0)


@settings(deadline=None)
@given(rate=some, slots=some)
def test_less_room_never_means_less_demand(rate, slots):
    table = Survival.of(hazard=np.full((1, BUCKETS), 1e-3), limit=np.array([20_000.0]))

    def demand(room):
        return forecast.path(
            Survivors(np.zeros((1, 6)), np.zeros((1, 6))),
            survival=table,
            step_tokens=np.array([400.0]),
            step_seconds=np.array([20.0]),
            rates=np.array([[rate]]),
            waiting=np.zeros(1),
            prompt_tokens=np.zeros(1),
            slots=np.full((1, 6), room),
            serving_share=np.ones(1),
            slowdown=np.ones(1),
        ).slots

    assert (demand(slots) >= demand(math.inf) - 1e-9).all()


PARAMETERS = ServiceParameters(
    capacity=CapacityOverride(max_concurrent_requests=20, kv_cache_tokens=400_000), mean_output_tokens=1000.0
)


def forecast_with(supply, pods=1):
    said, _ = fold(overloaded(40, pods=pods), parameters=PARAMETERS, supply=supply)
    assert said[-1].slots_now == pytest.approx(NOW_SLOTS, rel=0.2)
    return said[-1].slots_forecast


@pytest.mark.parametrize(
    ("more", "less"),
    [
        pytest.param(Supply(1), Supply(1, pending_ages_seconds=[100.0]), id="a-replica-on-its-way"),
        pytest.param(
            Supply(1, pending_ages_seconds=[10.0]), Supply(1, pending_ages_seconds=[130.0]), id="almost-there"
        ),
        pytest.param(
            Supply(1, pending_ages_seconds=[5000.0]), Supply(1, pending_ages_seconds=[160.0]), id="never-comes"
        ),
    ],
)
def test_room_that_will_be_there_lowers_the_queue_foreseen(more, less):
    assert forecast_with(more) > forecast_with(less)


def test_a_draining_replica_takes_nothing_new():
    assert forecast_with(Supply(1, draining_replicas=1), pods=2) > forecast_with(Supply(2), pods=2)


def test_a_replica_that_never_comes_is_not_counted():
    assert forecast_with(Supply(1, pending_ages_seconds=[5000.0])) == forecast_with(Supply(1))


def test_a_service_with_requests_but_no_ready_replica_keeps_what_it_runs():
    assert forecast_with(Supply(0)) >= forecast_with(Supply(1)) > 0
