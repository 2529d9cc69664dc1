"""Whole runs: what they count, and that nothing depends on how they are cut into pieces."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from longtail.errors import SettingsError
from longtail.workbench.bound import lower_bound, replicas_needed
from longtail.workbench.fleet import policies
from longtail.workbench.fleet.pilots import Fixed, LongtailPool, longtail, simulate_fleet
from longtail.workbench.fleet.pool import Orders
from longtail.workbench.fleet.setting import Drain, ReplicaSize, Requests, Routing, Scraping, Setting
from longtail.workbench.fleet.simulation import simulate
from longtail.workbench.schedule import first_come_first_served, start_at_once
from longtail.workbench.traces.trace import Trace

HOUR = 3600.0


class Scripted:
    """Orders by time: the last one before now is given again and again, names only once."""

    name = "scripted"
    period_seconds = 15.0

    def __init__(self, orders: Sequence[tuple[float, Orders]]) -> None:
        self._orders = list(orders)
        self._replicas = 0
        self.sights = []

    def decide(self, sight):
        self.sights.append(sight)
        if self._orders and self._orders[0][0] <= sight.at_seconds:
            return self._orders.pop(0)[1]
        return Orders(replicas=sight.replicas)


def one(*, output: int, at: float = 0.0, count: int = 1) -> Trace:
    return Trace("one", np.full(count, at), np.full(count, 10), np.full(count, output))


def same(one, other):
    return all(
        getattr(one, name) == getattr(other, name) for name in type(one).__slots__ if name not in {"timeline", "policy"}
    )


@pytest.mark.parametrize("routing", Routing)
def test_a_fixed_pool_waits_as_the_schedule_says(busy, routing):
    setting = Setting(initial_replicas=8, max_replicas=8, routing=routing)
    run = simulate(Requests.of(busy, duration_seconds=2 * HOUR), setting, Fixed(8))
    schedule = first_come_first_served(busy, seconds_per_token=0.05, slots=[(0, 8 * 24)])
    waits = schedule.start_seconds - schedule.trace.arrival_seconds
    assert run.attainment == (waits <= 10.0).mean()
    assert run.waits.max_seconds == waits.max()
    assert run.waits.p99_seconds == pytest.approx(np.quantile(waits, 0.99), rel=0.01)
    assert run.waits.requests == len(waits)
    assert run.gpu_hours.total == run.gpu_hours.serving == pytest.approx(16.0)


def test_with_replicas_for_everybody_nobody_waits(busy):
    setting = Setting(initial_replicas=40, max_replicas=40)
    run = simulate(Requests.of(busy), setting, Fixed(40))
    assert (run.attainment, run.waits.max_seconds) == (1.0, 0.0)


def test_gpu_hours_are_split_by_what_pods_do():
    """Two ready for 300 s; one more from 15 s: a cold start of 100 s, then serving; one cordoned at 200 s."""
    setting = Setting(initial_replicas=2, cold_start_seconds=100.0, cold_start_spread=0.0)
    pilot = Scripted([(15.0, Orders(replicas=3)), (195.0, Orders(replicas=3, cordon=["pod-0"]))])
    run = simulate(Requests.of(one(output=1), duration_seconds=300.0), setting, pilot)
    assert run.gpu_hours.starting * HOUR == pytest.approx(100.0)
    assert run.gpu_hours.draining * HOUR == pytest.approx(105.0)
    assert run.gpu_hours.serving * HOUR == pytest.approx(300.0 + 195.0 + 185.0)
    assert (run.scaling_actions, run.direction_changes) == (2, 1)


def test_a_pod_that_waits_for_a_gpu_costs_nothing_and_a_replica_costs_all_its_gpus():
    setting = Setting(replica=ReplicaSize(gpus=8), initial_replicas=1, gpu_limit=[(0.0, 1)], cold_start_spread=0.0)
    pilot = Scripted([(60.0, Orders(replicas=2))])
    run = simulate(Requests.of(one(output=1), duration_seconds=HOUR), setting, pilot)
    assert run.gpu_hours.total == pytest.approx(8.0)
    assert run.unscheduled_hours == pytest.approx(59 / 60)


@pytest.mark.parametrize(
    ("drain", "killed", "draining_seconds"),
    [
        # The request on the pod that is deleted at 30 s runs from 0.5 s to 50.5 s: 590 of 1,000 tokens are lost.
        pytest.param(Drain.PLAIN, 1, 0.0, id="plain"),
        pytest.param(Drain.GRACEFUL, 0, 20.5, id="graceful"),
    ],
)
def test_a_plain_lowering_kills_or_waits_as_the_drain_says(drain, killed, draining_seconds):
    trace = Trace("t", np.array([0.0, 0.5]), np.array([10, 10]), np.array([2000, 1000]))
    setting = Setting(replica=ReplicaSize(slots=2), initial_replicas=2, drain=drain)
    run = simulate(Requests.of(trace, duration_seconds=120.0), setting, Scripted([(30.0, Orders(replicas=1))]))
    assert run.killed_requests == killed
    assert run.wasted_tokens == pytest.approx(killed * 590.0)
    assert run.finished_requests == 2
    assert run.gpu_hours.draining * HOUR == pytest.approx(draining_seconds)


def test_a_cordoned_pod_comes_back_and_one_that_is_committed_when_empty_loses_nothing():
    setting = Setting(replica=ReplicaSize(slots=1), initial_replicas=2)
    trace = Trace("t", np.array([0.0, 20.0, 60.0]), np.full(3, 10), np.array([400, 400, 400]))
    pilot = Scripted(
        [
            (15.0, Orders(replicas=2, cordon=["pod-0", "pod-1"])),
            (45.0, Orders(replicas=2, uncordon=["pod-1"])),
            (75.0, Orders(replicas=1, commit=["pod-0"])),
        ]
    )
    run = simulate(Requests.of(trace, duration_seconds=120.0), setting, pilot)
    assert run.killed_requests == 0
    assert run.finished_requests == 3
    assert run.waits.max_seconds == 25.0  # from 20 s to the uncordon
    assert [pod.name for pod in pilot.sights[-1].pods] == ["pod-1"]


def test_commit_deletes_exactly_the_named_pods():
    setting = Setting(initial_replicas=4)
    pilot = Scripted([(15.0, Orders(replicas=2, commit=["pod-0", "pod-2"]))])
    simulate(Requests.of(one(output=1), duration_seconds=60.0), setting, pilot)
    assert [pod.name for pod in pilot.sights[-1].pods] == ["pod-1", "pod-3"]


def test_who_still_waits_at_the_end_has_waited_in_vain():
    setting = Setting(min_replicas=0, initial_replicas=0)
    run = simulate(Requests.of(one(output=10, at=5.0, count=4), duration_seconds=60.0), setting, Fixed(0))
    assert (run.attainment, run.waits.requests, run.waits.max_seconds) == (0.0, 4, 55.0)


@pytest.mark.parametrize("name", ["longtail", "hpa-running", "keda-waiting", "ray-serve"])
def test_the_same_seed_gives_the_same_run(busy, name):
    setting = Setting(initial_replicas=6, max_replicas=20, scraping=Scraping(lost_share=0.1), seed=7)
    requests = Requests.of(busy, duration_seconds=1800.0)
    first, second = (simulate(requests, setting, policies.pilot(name, setting)) for _ in range(2))
    assert same(first, second)
    other = replace(setting, seed=8)
    assert not same(first, simulate(requests, other, policies.pilot(name, other)))


def test_what_happens_before_measuring_is_not_counted(busy):
    setting = Setting(initial_replicas=10, max_replicas=10, measured_from_seconds=1800.0)
    run = simulate(Requests.of(busy, duration_seconds=HOUR), setting, Fixed(10))
    assert run.measured_seconds == 1800.0
    assert run.arrived_requests == ((busy.arrival_seconds > 1800.0) & (busy.output_tokens > 0)).sum()
    assert run.gpu_hours.total == pytest.approx(5.0)


def test_longtail_kills_nobody_and_costs_more_than_the_bound(busy):
    requests = Requests.of(busy, duration_seconds=2 * HOUR)
    setting = Setting(initial_replicas=12, max_replicas=24)
    run = simulate(requests, setting, longtail(setting))
    need = replicas_needed(
        start_at_once(busy, seconds_per_token=0.05),
        slots_per_replica=24,
        duration_seconds=2 * HOUR,
        interval_seconds=15.0,
        wait_seconds=10.0,
    )
    bound = lower_bound(need, interval_seconds=15.0, cold_start_seconds=180.0, initial_replicas=12)
    assert (run.killed_requests, run.wasted_tokens) == (0, 0.0)
    assert run.scaling_actions > 0
    assert run.gpu_hours.total * HOUR > bound.replica_seconds
    assert run.attainment > 0.95


def test_pools_under_one_longtail_fare_as_they_would_alone(busy):
    """Up to floating point: sums over more services may round differently, and a demand lies on no edge."""
    setting = Setting(initial_replicas=6, max_replicas=20)
    other = replace(setting, seed=3, initial_replicas=9)
    requests = Requests.of(busy, duration_seconds=1800.0)
    pools = [
        LongtailPool(pool.key._replace(name=f"p{index}"), pool.setting, pool.parameters)
        for index, pool in enumerate(longtail(each).pool for each in (setting, other))
    ]
    together = simulate_fleet([(requests, pool) for pool in pools])
    for run, each in zip(together, (setting, other), strict=True):
        assert same(run, simulate(requests, each, longtail(each)))


def test_a_longer_trace_needs_no_longer_timeline(busy):
    once = Requests.repeated(busy, times=1, period_seconds=HOUR)
    often = Requests.repeated(busy, times=30, period_seconds=HOUR)
    setting = Setting(initial_replicas=10, max_replicas=10)
    short, long = (simulate(requests, setting, Fixed(10)) for requests in (once, often))
    assert len(short.timeline.at_seconds) == 60
    assert len(long.timeline.at_seconds) == 1440
    assert long.arrived_requests == 30 * short.arrived_requests
    assert long.timeline.demand.max() >= short.timeline.demand.max()


def test_progress_is_told_once_an_hour(busy):
    told = []
    setting = Setting(initial_replicas=1)
    simulate(Requests.of(busy, duration_seconds=3 * HOUR), setting, Fixed(1), progress=told.append)
    assert told == pytest.approx([1 / 3, 2 / 3, 1.0])


@pytest.mark.parametrize(
    ("name", "knob", "says"),
    [
        pytest.param("hpa-magic", None, "policy: no 'hpa-magic' among longtail, hpa-waiting", id="unknown"),
        pytest.param("longtail", 2.0, "knob: attainment asked for", id="attainment of 200 %"),
        pytest.param("persistence-conformal", 1.5, "knob: Sizing: quantile", id="a peer's own check"),
        pytest.param("fixed-many", None, "policy: no 'fixed-many'", id="fixed without a number"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_by_name(name, knob, says):
    with pytest.raises(SettingsError, match=says):
        policies.pilot(name, Setting(), knob=knob)


@pytest.mark.parametrize("name", policies.names(Setting()))
def test_every_policy_can_fly(busy, name):
    setting = Setting(initial_replicas=8, max_replicas=20, gateway=name.startswith("llm-d"))
    run = simulate(Requests.of(busy, duration_seconds=600.0), setting, policies.pilot(name, setting))
    assert run.policy == name
    assert run.arrived_requests > 1000
    assert run.gpu_hours.total > 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        pytest.param({"min_replicas": 5, "max_replicas": 2}, "min_replicas <= max_replicas, got 5 and 2", id="bounds"),
        pytest.param({"cold_start_seconds": float("nan")}, "cold_start_seconds must be finite", id="nan"),
        pytest.param({"cold_start_spread": 2.0}, "cold_start_spread", id="spread"),
        pytest.param({"initial_replicas": -1}, "initial_replicas", id="initial"),
        pytest.param({"gpu_limit": [(5.0, 1), (0.0, 2)]}, "gpu_limit must ascend", id="supply"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(given, says):
    with pytest.raises(ValueError, match=says):
        Setting(**given)
