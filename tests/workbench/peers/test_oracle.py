"""Baselines of our own: persistence with calibrated errors, and the oracles, on made-up traces."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.workbench.peers.conformal import ConformalMemory, Sizing
from longtail.workbench.peers.oracle import ArrivalsOracle, RateOracle, Truth
from longtail.workbench.peers.persistence import Persistence
from longtail.workbench.peers.view import PeerView, PodView


def seen(running: float | None, *, waiting: float = 0.0, spec: int = 3, reachable: bool = True) -> PeerView:
    pods = (PodView("p", running_requests=running, waiting_requests=waiting),)
    return PeerView(spec, spec, spec, pods, metrics_reachable=reachable)


def poisson(*, rate: float, stay: float, seconds: float, seed: int = 7) -> Truth:
    rng = np.random.default_rng(seed)
    arrivals = np.sort(rng.uniform(0, seconds, rng.poisson(rate * seconds)))
    return Truth.of(arrivals=arrivals, slot_seconds=rng.exponential(stay, len(arrivals)))


def test_the_peak_is_the_most_in_flight_within_the_window():
    truth = Truth.of(arrivals=np.array([0.0, 10.0, 20.0]), slot_seconds=np.array([15.0, 10.0, 5.0]))
    assert truth.peak(start=0.0, end=9.0) == 1
    assert truth.peak(start=0.0, end=10.0) == 2
    assert truth.peak(start=15.0, end=19.0) == 1
    assert truth.peak(start=20.0, end=21.0) == 1  # who leaves at 20 s makes room for who comes then
    assert truth.peak(start=30.0, end=99.0) == 0


@pytest.mark.parametrize(
    ("arrivals", "stays", "message"),
    [
        pytest.param([], [], "not empty", id="empty"),
        pytest.param([1.0], [1.0, 2.0], "equally long", id="shapes"),
        pytest.param([2.0, 1.0], [1.0, 1.0], "ascend", id="unsorted"),
        pytest.param([1.0], [-1.0], ">= 0", id="negative-stay"),
        pytest.param([math.nan], [1.0], "finite", id="nan"),
    ],
)
def test_a_bad_truth_is_refused(arrivals: list[float], stays: list[float], message: str):
    with pytest.raises(ValueError, match=message):
        Truth.of(arrivals=np.array(arrivals), slot_seconds=np.array(stays))


@pytest.mark.parametrize(
    ("field", "value"),
    [pytest.param("slots_per_replica", 0.0, id="slots"), pytest.param("quantile", 1.0, id="quantile")],
)
def test_a_bad_sizing_names_its_field(field: str, value: float):
    with pytest.raises(ValueError, match=field):
        Sizing(**{"slots_per_replica": 8.0, field: value})


@given(
    gaps=st.lists(st.floats(0, 60), min_size=1, max_size=60),
    stays=st.lists(st.floats(1, 300), min_size=60, max_size=60),
)
def test_with_the_arrivals_known_a_pool_that_never_waits_is_always_ready(gaps, stays):
    arrivals = 400.0 + np.cumsum(gaps)
    truth = Truth.of(arrivals=arrivals, slot_seconds=np.array(stays[: len(gaps)]))
    sizing = Sizing(slots_per_replica=4, horizon_seconds=180.0, min_replicas=0, max_replicas=100)
    oracle = ArrivalsOracle(truth, sizing)
    ticks = np.arange(0.0, arrivals[-1] + 400, 15.0)
    wishes = [oracle.decide(seen=seen(0.0), memory=None, now=float(t))[0] for t in ticks]
    for at, in_flight in zip(truth.event_times, truth.in_flight, strict=True):
        # A replica serves from one cold start after it was first asked for, as long as it is asked for.
        asked = [w for t, w in zip(ticks, wishes, strict=True) if at - 180.0 - 15.0 < t <= at]
        assert min(asked) * 4 >= in_flight


def test_the_oracle_bridges_short_gaps_and_no_long_ones():
    arrivals = np.array([0.0, 100.0, 1000.0])
    truth = Truth.of(arrivals=arrivals, slot_seconds=np.array([10.0, 10.0, 10.0]))
    oracle = ArrivalsOracle(truth, Sizing(slots_per_replica=1, min_replicas=0))
    wishes = {t: oracle.decide(seen=seen(0.0), memory=None, now=t)[0] for t in (50.0, 200.0, 850.0)}
    assert wishes == {50.0: 1, 200.0: 0, 850.0: 1}


def test_the_oracle_serves_what_waits_for_whatever_reason():
    truth = Truth.of(arrivals=np.array([0.0]), slot_seconds=np.array([1.0]))
    oracle = ArrivalsOracle(truth, Sizing(slots_per_replica=8))
    assert oracle.decide(seen=seen(20.0, waiting=11.0), memory=None, now=500.0)[0] == 4


def test_the_rate_oracle_expects_equilibrium_in_equilibrium():
    truth = poisson(rate=2.0, stay=100.0, seconds=20_000)
    oracle = RateOracle(truth, Sizing(slots_per_replica=10))
    assert oracle.expected(200.0, now=10_000.0) == pytest.approx(200.0, rel=0.06)
    assert oracle.expected(0.0, now=10_000.0) == pytest.approx(200 * (1 - math.exp(-1.8)), rel=0.08)


def test_the_rate_oracle_sees_a_step_coming():
    rng = np.random.default_rng(3)
    quiet, busy = rng.uniform(0, 6000, 6000), rng.uniform(6000, 12_000, 18_000)
    arrivals = np.sort(np.concatenate([quiet, busy]))
    truth = Truth.of(arrivals=arrivals, slot_seconds=rng.exponential(60.0, len(arrivals)))
    oracle = RateOracle(truth, Sizing(slots_per_replica=10))
    assert oracle.expected(60.0, now=5500.0) < 70
    assert oracle.expected(60.0, now=5900.0) > 100


def test_persistence_learns_its_headroom_from_its_errors():
    rng = np.random.default_rng(5)
    demand = rng.poisson(200.0, 3000)
    held = {}
    for quantile in (0.8, 0.98):
        policy = Persistence(Sizing(slots_per_replica=1, quantile=quantile, max_replicas=1000))
        memory, wishes = policy.initial(), []
        for tick, now in enumerate(demand):
            point = memory.open[-1].upper if memory.open else 0.0
            _, memory = policy.decide(seen=seen(float(now)), memory=memory, now=15.0 * tick)
            wishes.append(memory.open[-1].upper ** 2 - 0.25)
            assert point >= 0
        ahead = 12  # 180 s
        pairs = list(zip(wishes[1000:-ahead], demand[1000 + ahead :], strict=True))
        held[quantile] = sum(upper >= later for upper, later in pairs) / len(pairs)
    assert held[0.8] == pytest.approx(0.8, abs=0.03)
    assert held[0.98] == pytest.approx(0.98, abs=0.01)


def test_a_wish_stands_for_one_horizon():
    policy = Persistence(Sizing(slots_per_replica=10, max_replicas=100))
    memory, replicas = policy.initial(), []
    for tick in range(20):
        count, memory = policy.decide(seen=seen(500.0 if tick == 0 else 0.0), memory=memory, now=15.0 * tick)
        replicas.append(count)
    assert min(replicas[:12]) >= 50
    assert replicas[12] < 10


@pytest.mark.parametrize("reachable", [True, False], ids=["no-sample", "store-down"])
def test_without_an_answer_nothing_moves(reachable: bool):
    truth = poisson(rate=1.0, stay=10.0, seconds=100)
    for policy in (Persistence(Sizing(8.0)), RateOracle(truth, Sizing(8.0))):
        blind = seen(None, spec=7, reachable=reachable)
        assert policy.decide(seen=blind, memory=ConformalMemory(), now=0.0)[0] == 7
