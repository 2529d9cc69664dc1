"""The vectorised model says what a slow and obvious one says."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from longtail.demand.buckets import BUCKETS
from longtail.demand.model import DemandMemory, estimate
from longtail.demand.observation import MISSING, Observation, Quality, Signal
from longtail.demand.parameters import Objective, ServiceParameters
from longtail.demand.supply import Supply
from longtail.demand.survival import Survival

from .fleets import TICK, Requests, blind, stream, with_quality
from .scalar import Curve, ScalarService

TICKS = 10  # fewer than a horizon: nothing has been judged, so the experts weigh what they weigh at first
hazards = st.lists(st.floats(1e-7, 0.05), min_size=BUCKETS, max_size=BUCKETS)
limits = st.floats(10.0, 200_000.0)


@settings(deadline=None, max_examples=60)
@given(hazard=hazards, limit=limits, share=st.just(0.0) | st.floats(1e-6, 1.2))
def test_survival_functions_agree(hazard, limit, share):
    curve, table = Curve(hazard, limit), Survival.of(hazard=np.array([hazard]), limit=np.array([limit]))
    until = limit * share
    age = np.array([[until]])
    mass, moment = table.integrals(age)
    assert mass[0, 0] == pytest.approx(curve.mass(until), rel=1e-6, abs=1e-9)
    assert moment[0, 0] == pytest.approx(curve.moment(until), rel=1e-4, abs=1e-6)
    assert table.mean[0] == pytest.approx(curve.mass(), rel=1e-6)
    assert table.half_square[0] == pytest.approx(curve.moment(), rel=1e-4)
    assert table.survival(age)[0, 0] == pytest.approx(curve.left(until), rel=1e-6, abs=1e-20)
    if share < 1:
        assert table.residual(age.astype(np.float32))[0, 0] == pytest.approx(curve.residual(until), rel=1e-3, abs=1e-2)


@settings(deadline=None, max_examples=30)
@given(hazard=hazards, limit=st.floats(10.0, 30_000.0))
def test_integrals_are_what_summing_small_steps_gives(hazard, limit):
    table = Survival.of(hazard=np.array([hazard]), limit=np.array([limit]))
    middle = (np.arange(200_000) + 0.5) * (limit / 200_000)
    alive = table.survival(middle[None])[0]
    assert table.mean[0] == pytest.approx(alive.mean() * limit, rel=1e-3)
    assert table.half_square[0] == pytest.approx((alive * middle).mean() * limit, rel=1e-3)


FAULTS = ["none"] * 6 + ["blind", "stale", "no first tokens", "no lengths", "no tokens"]


def service(seed: int) -> list[Observation]:
    """Observations of a service: any traffic from none to heavy, some pods or none, faults of every kind."""
    rng = np.random.default_rng(seed)
    count = int(rng.choice([0, 0, 1, 3, 40]))
    requests = Requests(
        starts=np.sort(rng.uniform(-300.0, TICK * TICKS, count)),
        tokens=np.maximum(rng.exponential(rng.choice([20.0, 800.0, 6000.0]), count), 1.0),
        seconds_per_token=float(rng.choice([0.02, 0.05])),
    )
    observed = stream(requests, TICKS, pods=int(rng.choice([0, 1, 5])))
    door, queue = bool(rng.integers(2)), float(rng.choice([0.0, 0.0, 7.0]))
    return [_faulty(one, rng.choice(FAULTS), door=door, queue=queue) for one in observed]


def _faulty(seen, fault, *, door, queue):
    seen = replace(seen, waiting_requests=Signal(queue))
    if door and seen.interval_seconds:
        seen = replace(seen, arrivals=seen.first_tokens)
    match fault:
        case "blind":
            return blind(seen)
        case "stale":
            return with_quality(seen, Quality.STALE)
        case "no first tokens":
            return replace(seen, first_tokens=MISSING)
        case "no lengths":
            return replace(seen, finished_output_tokens=None)
        case "no tokens":
            return replace(seen, generated_tokens=MISSING)
    return seen


TOLERANCE = {
    "slots_now": 1e-6,
    "arrivals_per_second": 1e-6,
    # Requests that were there from the start fill all cohorts, which are merged two a tick; by hand none is merged.
    "mean_tokens": 0.12,
    "slots_forecast": 0.12,
    "owed_tokens": 0.3,
}


# A seed does not shrink to anything simpler.
@settings(deadline=None, max_examples=25, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    seeds=st.lists(st.integers(0, 2**32), min_size=1, max_size=4),
    mean=st.floats(300.0, 8000.0),
    limit=st.floats(8000.0, 40_000.0),
)
def test_a_fleet_says_what_each_service_alone_would_by_hand(seeds, mean, limit):
    fleet = [service(seed) for seed in seeds]
    parameters = ServiceParameters(
        objective=Objective(attainment=0.95), mean_output_tokens=mean, max_output_tokens=limit, startup_seconds=200.0
    )
    by_hand = [ScalarService(parameters) for _ in fleet]
    memory = DemandMemory.empty()
    for tick in range(TICKS):
        now = fleet[0][tick].at_seconds
        demands, memory = estimate(
            keys=list(range(len(fleet))),
            parameters=[parameters] * len(fleet),
            observations=[one[tick] for one in fleet],
            supplies=[Supply(ready_replicas=1000)] * len(fleet),
            memory=memory,
            now=now,
        )
        for row, (demand, scalar) in enumerate(zip(demands, by_hand, strict=True)):
            wanted = scalar.tick(fleet[row][tick], now)
            said = {
                "slots_now": demand.slots_now,
                "mean_tokens": demand.lengths.mean_tokens,
                "owed_tokens": demand.owed_tokens,
                "arrivals_per_second": demand.arrivals_per_second,
                "slots_forecast": demand.slots_forecast,
            }
            for name, value in said.items():
                if value is None or wanted[name] is None:
                    assert value is None or name == "owed_tokens", (name, tick, value, wanted[name])
                    continue
                loose, tiny = TOLERANCE[name], 20.0 if name == "owed_tokens" else 0.26
                assert math.isclose(value, wanted[name], rel_tol=loose, abs_tol=tiny), (name, tick, value, wanted[name])
