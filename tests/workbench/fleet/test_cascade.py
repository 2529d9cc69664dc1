"""A timeout cascade in a whole loop: demand beyond all GPUs, clients that ask again, and the demand model behind it."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from longtail.policy.fleet import EffortLevel, EffortPolicy, EffortRules
from longtail.workbench.fleet.pilots import Longtail, longtail
from longtail.workbench.fleet.setting import Clients, ReplicaSize, Requests, Setting
from longtail.workbench.fleet.simulation import Sight, simulate
from longtail.workbench.traces import arrivals
from longtail.workbench.traces.lengths import PARAMETRIC_R1
from longtail.workbench.traces.trace import Trace

PACE = 0.01
GPUS, SLOTS = 4, 12
STEP, BACK, END = 3600, 4500, 9000
BASE, SURGE = 0.55, 2.0
"""Demand over all slots there are."""


def surge(seed: int = 0) -> Trace:
    """Demand of twice the GPUs for 15 minutes."""
    rng = np.random.default_rng(seed)
    per_second = GPUS * SLOTS / (PARAMETRIC_R1.mean_tokens * PACE)
    rate = arrivals.burst(arrivals.constant(END, BASE * per_second), STEP, BACK - STEP, SURGE / BASE)
    at = arrivals.poisson(rate, rng)
    return Trace("surge", at, np.full(len(at), 100), PARAMETRIC_R1.sample(len(at), rng))


@dataclass
class Watched:
    """longtail, and what it said at every tick."""

    longtail: Longtail
    period_seconds: float = 15.0
    name: str = "watched"
    said: list = field(default_factory=list)

    def decide(self, sight: Sight):
        orders = self.longtail.decide(sight)
        self.said.append((sight.at_seconds, self.longtail.pool.decision))
        return orders

    def between(self, start, end):
        return [decision for at, decision in self.said if start <= at < end]


def flown(effort: EffortRules | None = None, **others) -> tuple[Watched, Trace]:
    trace = surge()
    setting = Setting(
        replica=ReplicaSize(slots=SLOTS, seconds_per_token=PACE, kv_capacity_tokens=None),
        gpu_limit=((0.0, GPUS),),
        initial_replicas=3,
        max_replicas=20,
        cold_start_seconds=120.0,
        **others,
    )
    watched = Watched(longtail(setting, startup_seconds=120.0, effort=effort))
    simulate(Requests.of(trace, duration_seconds=float(END)), setting, watched)
    return watched, trace


@pytest.fixture(scope="module", params=[False, True], ids=["engine counts no aborts", "engine counts aborts"])
def jam(request):
    return flown(clients=Clients(timeout_seconds=120.0, retries=2), counts_aborts=request.param)


def over(watched) -> float:
    """When the cascade was over for good."""
    return max(at for at, decision in watched.said if decision.demand.cascade is not None)


def test_a_cascade_is_seen_within_minutes_and_ends_with_it(jam):
    watched, _ = jam
    seen = [at for at, decision in watched.said if decision.demand.cascade is not None]
    assert STEP + 120 < seen[0] < STEP + 420
    assert seen == [at for at, _ in watched.said if seen[0] <= at <= seen[-1]], "once, and without a gap"
    assert BACK < seen[-1] < BACK + 1800


def test_distinct_requests_are_counted_and_lengths_stay_what_they_were(jam):
    watched, trace = jam
    inside = (trace.arrival_seconds >= STEP) & (trace.arrival_seconds < BACK)
    true_rate = inside.sum() / (BACK - STEP)
    late = watched.between(STEP + 600, BACK)
    assert late[-1].demand.cascade.arrivals_per_second > 2 * true_rate
    assert all(d.demand.arrivals_per_second == pytest.approx(true_rate, rel=0.25) for d in late)
    before, after = (watched.between(at - 60, at)[0].demand.lengths.mean_tokens for at in (STEP, BACK))
    assert after == pytest.approx(before, rel=0.15)


def test_nobody_is_sent_away_while_it_lasts(jam):
    watched, _ = jam
    lasting = [decision for _, decision in watched.said if decision.demand.cascade is not None]
    assert all(decision.desired >= decision.current for decision in lasting)


def test_when_it_is_over_the_pool_asks_for_what_it_asked_for_before(jam):
    watched, _ = jam
    usual = max(decision.desired for decision in watched.between(STEP - 1800, STEP))
    recovered = watched.between(over(watched) + 480, END)
    assert recovered
    assert max(decision.desired for decision in recovered) <= 1.5 * usual, "not five times, as 20 of 20"


@pytest.fixture(scope="module")
def patient():
    return flown()[0]


def test_clients_that_wait_make_no_cascade(patient):
    assert all(decision.demand.cascade is None for _, decision in patient.said)


def test_a_queue_for_want_of_gpus_does_not_make_the_pool_larger_afterwards(patient):
    usual = max(decision.desired for decision in patient.between(STEP - 1800, STEP))
    queued = max(at for at, decision in patient.said if decision.demand.slots_now > 2 * GPUS * SLOTS)
    assert BACK < queued < END - 1800
    recovered = patient.between(queued + 600, END)
    assert max(decision.desired for decision in recovered) <= 1.5 * usual


LEVELS = (EffortLevel("high"), EffortLevel("medium", 8192), EffortLevel("low", 2048), EffortLevel("minimal", 512))


def test_an_overload_that_less_thinking_ends_does_not_make_the_pool_larger_afterwards():
    effort = EffortRules(policy=EffortPolicy.PUBLISH, levels=LEVELS)
    watched, _ = flown(effort, clients=Clients(timeout_seconds=120.0, retries=2))
    assert all(decision.demand.cascade is None for _, decision in watched.said)
    reduced = [at for at, decision in watched.said if at > STEP - 1800 and decision.effort.index > 0]
    assert STEP < reduced[0] < STEP + 60
    assert reduced[-1] < BACK + 900
    usual = max(decision.desired for decision in watched.between(STEP - 1800, STEP))
    recovered = watched.between(BACK + 600, END)
    assert max(decision.desired for decision in recovered) <= 1.5 * usual, "not three times, as 12 of 4"


def test_clients_that_stop_what_they_have_read_enough_of_make_no_cascade():
    """A third of the answers is stopped half way in a pool that is large enough."""
    rng = np.random.default_rng(1)
    trace = surge()
    calm = trace.window(0, STEP)
    wished = np.where(rng.random(len(calm)) < 0.33, 50_000, np.minimum(calm.output_tokens, 900))
    setting = Setting(
        replica=ReplicaSize(slots=SLOTS, seconds_per_token=PACE, kv_capacity_tokens=None),
        initial_replicas=4,
        max_replicas=20,
        clients=Clients(timeout_seconds=10.0, retries=0),
    )
    watched = Watched(longtail(setting, startup_seconds=120.0))
    run = simulate(Requests.of(calm.with_output_tokens(wished), duration_seconds=float(STEP)), setting, watched)
    assert run.answers.aborted_requests > 0.3 * run.arrived_requests
    assert all(decision.demand.cascade is None for _, decision in watched.said)
