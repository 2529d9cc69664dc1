"""What policies see, against the operator's own reader and against the truth."""

import itertools
import math

import numpy as np
import pytest

from longtail.demand.observation import Quality
from longtail.policy.fleet import ServiceKey
from longtail.signals import vllm
from longtail.signals.observe import Engine, ServiceSignals
from longtail.signals.reader import observe_all
from longtail.signals.samples import WHOLE, ObjectKey, SeriesKey, Snapshot
from longtail.signals.vocabulary import COUNTERS, Series
from longtail.workbench.fleet.longtail_view import Baseline, observe, target_of
from longtail.workbench.fleet.meters import ABORTED, FINISHED_OUTPUT, FINISHED_PROMPT, FIRST_TOKENS, GENERATED
from longtail.workbench.fleet.pilots import Peer
from longtail.workbench.fleet.pool import Orders
from longtail.workbench.fleet.setting import EPOCH_SECONDS, Drain, ReplicaSize, Requests, Scraping, Setting
from longtail.workbench.fleet.simulation import Simulation
from longtail.workbench.replay import FIRST_TOKEN_BOUNDS, WAIT_BOUNDS, Exposure, sample
from longtail.workbench.replay import observe as observe_series
from longtail.workbench.schedule import first_come_first_served

KEY = ServiceKey("n", "pool")
SIZE = ReplicaSize()
_LEVELS = (Series.RUNNING, Series.WAITING, Series.KV_USED_RATIO, Series.KV_CAPACITY, Series.SAMPLE_AGE)
_COUNTED = COUNTERS - {Series.ARRIVALS}


def flown(requests, setting, orders=()):
    """Sights of a run, with orders by time."""
    simulation = Simulation(requests, setting, policy="t", period_seconds=15.0)
    orders = list(orders)
    while (sight := simulation.next_sight()) is not None:
        yield sight
        due = orders.pop(0)[1] if orders and orders[0][0] <= sight.at_seconds else Orders(replicas=sight.replicas)
        simulation.carry_out(due)


def as_answered(scrape, at_seconds):
    """The scrape as a metrics source answers it."""
    at = EPOCH_SECONDS + at_seconds
    snapshot = Snapshot(
        at_seconds=at, answered={SeriesKey(vllm.ENGINE, series): True for series in (*_LEVELS, *_COUNTED)}
    )
    snapshot.levels = {SeriesKey(vllm.ENGINE, series): {} for series in _LEVELS}
    snapshot.counters = {SeriesKey(vllm.ENGINE, series): {} for series in _COUNTED}
    columns = scrape.columns
    for index, uid in enumerate(scrape.uids):
        place = ObjectKey(KEY.namespace, f"pod-{uid}")
        ratio = min(scrape.kv_used_tokens[index] / SIZE.kv_capacity_tokens, 1.0)
        age = at_seconds - scrape.at_seconds
        levels = (scrape.running[index], scrape.waiting[index], ratio, SIZE.kv_capacity_tokens, age)
        for series, value in zip(_LEVELS, levels, strict=True):
            snapshot.levels[SeriesKey(vllm.ENGINE, series)][place] = {"0": float(value)}
        row = scrape.counters[index]
        plain = {
            Series.GENERATED: row[GENERATED],
            Series.FINISHED_TOKENS: row[FINISHED_OUTPUT],
            Series.PROMPT_TOKENS: row[FINISHED_PROMPT],
            Series.FIRST_TOKENS: row[FIRST_TOKENS],
            Series.PREEMPTIONS: 0.0,
            Series.ABORTED: row[ABORTED],
        }
        histograms = {
            Series.OUTPUT_LENGTH: (columns.length_bounds, row[columns.length]),
            Series.QUEUE_WAIT: (WAIT_BOUNDS, row[columns.wait]),
            Series.FIRST_TOKEN_WAIT: (FIRST_TOKEN_BOUNDS, row[columns.first_token]),
        }
        counters = {series: {WHOLE: float(value)} for series, value in plain.items()}
        for series, (bounds, counts) in histograms.items():
            counters[series] = dict(zip(bounds, np.cumsum(counts).tolist(), strict=True))
        for series, counts in counters.items():
            snapshot.counters[SeriesKey(vllm.ENGINE, series)][place] = {"0": counts}
    return snapshot


def alike(ours, theirs):
    """Equal up to the rounding of sums."""
    if hasattr(ours, "value"):
        assert ours.quality is theirs.quality
        if ours.value is not None:
            assert ours.value == pytest.approx(theirs.value, rel=1e-9, abs=1e-6)
            assert ours.age_seconds == pytest.approx(theirs.age_seconds)
    elif hasattr(ours, "upper_bounds"):
        assert ours.upper_bounds == theirs.upper_bounds
        assert ours.counts == pytest.approx(theirs.counts)
    else:
        assert ours == theirs


ORDERS = [
    (60.0, Orders(replicas=8)),
    (300.0, Orders(replicas=8, cordon=["pod-0", "pod-5"])),
    (420.0, Orders(replicas=8, uncordon=["pod-5"])),
    (600.0, Orders(replicas=5)),
    (700.0, Orders(replicas=7)),
]


@pytest.mark.parametrize("drain", Drain)
@pytest.mark.parametrize("lost", [0.0, 0.2])
@pytest.mark.parametrize("lag", [0.0, 7.0])
def test_an_observation_is_what_the_operators_reader_makes_of_the_same_samples(busy, drain, lost, lag):
    setting = Setting(
        initial_replicas=5, drain=drain, scraping=Scraping(lost_share=lost, lag_seconds=lag), max_replicas=9
    )
    baseline, theirs_baseline, seen = None, None, set()
    for sight in flown(Requests.of(busy, duration_seconds=1200.0), setting, ORDERS):
        scrape = sight.scrapes[-1]
        ours = observe(sight.pods, scrape, baseline=baseline, size=SIZE, at_seconds=sight.at_seconds)
        baseline = Baseline(sight.at_seconds, scrape)
        pods = target_of(sight.pods, replicas=sight.replicas).pods
        service = ServiceSignals(key=KEY, pods=pods, engine=Engine.VLLM)
        observations, theirs_baseline = observe_all(
            [service], as_answered(scrape, sight.at_seconds), theirs_baseline, freshness_limit_seconds=30.0
        )
        theirs = observations[KEY]
        for name in (n for n in type(ours).__slots__ if n != "pods"):
            alike(getattr(ours, name), getattr(theirs, name))
        for mine, reading in zip(ours.pods, theirs.pods, strict=True):
            for name in type(mine).__slots__:
                alike(getattr(mine, name), getattr(reading, name))
        seen.add(ours.running_requests.quality)
    assert (Quality.PARTIAL in seen) == (lost > 0)


def test_a_fixed_pool_shows_the_same_numbers_as_the_replay_of_its_schedule(busy):
    pods, seconds = 8, 1800.0
    schedule = first_come_first_served(busy, seconds_per_token=0.05, slots=[(0, pods * 24)])
    series = sample(schedule, duration_seconds=seconds, max_model_len=131_072)
    replayed = list(observe_series(series, Exposure(pods=pods, kv_capacity_tokens_per_pod=400_000.0)))[1:]
    setting = Setting(initial_replicas=pods, max_replicas=pods)
    baseline = None
    for sight, expected in zip(flown(Requests.of(busy, duration_seconds=seconds), setting), replayed, strict=True):
        ours = observe(sight.pods, sight.scrapes[-1], baseline=baseline, size=SIZE, at_seconds=sight.at_seconds)
        for name in ("running_requests", "waiting_requests", "kv_used_tokens", "attained_tokens"):
            alike(getattr(ours, name), getattr(expected, name))
        if baseline is not None:
            for name in ("first_tokens", "generated_tokens", "prompt_tokens", "finished_output_tokens"):
                alike(getattr(ours, name), getattr(expected, name))
            alike(ours.queue_wait_seconds, expected.queue_wait_seconds)
            alike(ours.first_token_seconds, expected.first_token_seconds)
        baseline = Baseline(sight.at_seconds, sight.scrapes[-1])


def test_an_outage_of_the_store_is_blindness_and_the_next_interval_is_longer(busy):
    setting = Setting(initial_replicas=8, scraping=Scraping(outages=[(100.0, 160.0)]))
    baseline, reachable, intervals = None, [], []
    for sight in flown(Requests.of(busy, duration_seconds=240.0), setting):
        scrape = sight.scrapes[-1] if sight.reachable else None
        ours = observe(sight.pods, scrape, baseline=baseline, size=SIZE, at_seconds=sight.at_seconds)
        reachable.append(ours.running_requests.value is not None)
        intervals.append(ours.interval_seconds)
        baseline = Baseline(sight.at_seconds, scrape) if scrape is not None else baseline
    assert reachable == [True] * 6 + [False] * 4 + [True] * 6
    assert intervals[10] == 75.0


class Watching:
    """A peer's policy that keeps what it sees."""

    name, knob, period_seconds = "watching", "nothing", 5.0

    def __init__(self):
        self.views = []

    def tuned(self, value):
        del value
        return self

    def initial(self):
        return None

    def decide(self, *, seen, memory, now):
        del memory, now
        self.views.append(seen)
        return seen.spec_replicas, None


def watched(requests, setting):
    policy = Watching()
    pilot = Peer(policy, setting.replica)
    simulation = Simulation(requests, setting, policy="t", period_seconds=policy.period_seconds)
    while (sight := simulation.next_sight()) is not None:
        simulation.carry_out(pilot.decide(sight))
    return policy.views, simulation.result()


def test_a_peer_sees_samples_of_the_last_scrape_and_counters_that_never_fall(busy):
    views, run = watched(Requests.of(busy, duration_seconds=900.0), Setting(initial_replicas=6, max_replicas=6))
    assert views[0].pods[0].running_requests is None  # nothing was scraped in the first 5 s
    assert views[2] is views[3] is views[4]
    for before, after in itertools.pairwise(views[2:]):
        assert after.finished_requests_total >= before.finished_requests_total
        assert all(np.subtract(after.first_token_seconds.counts, before.first_token_seconds.counts) >= 0)
    last = views[-1]
    assert last.finished_requests_total == run.finished_requests
    assert last.arrived_requests_total == run.arrived_requests
    running = sum(pod.running_requests for pod in last.pods)
    waiting = sum(pod.waiting_requests for pod in last.pods)
    assert last.door_requests == running + waiting == run.arrived_requests - run.finished_requests
    assert last.token_interval_seconds.counts[-1] > 0
    assert math.isinf(last.token_interval_seconds.upper_bounds[-1])
    assert last.pods[0].iteration.seconds == 0.05


def test_the_queue_is_seen_at_the_gateway_where_there_is_one_and_in_the_engines_where_not(busy):
    requests = Requests.of(busy, duration_seconds=600.0)
    engine, _ = watched(requests, Setting(initial_replicas=3, max_replicas=3))
    gateway, _ = watched(requests, Setting(initial_replicas=3, max_replicas=3, gateway=True))
    waiting = sum(pod.waiting_requests for pod in engine[-1].pods)
    assert waiting > 0
    assert engine[-1].gateway_waiting_requests is None
    assert gateway[-1].gateway_waiting_requests == waiting
    assert sum(pod.waiting_requests for pod in gateway[-1].pods) == 0
    assert gateway[-1].door_requests == engine[-1].door_requests


def test_a_peer_of_a_store_that_is_down_sees_pods_without_numbers(busy):
    setting = Setting(initial_replicas=3, scraping=Scraping(outages=[(100.0, 200.0)]))
    views, _ = watched(Requests.of(busy, duration_seconds=150.0), setting)
    assert not views[-1].metrics_reachable
    assert len(views[-1].pods) == 3
    assert all(pod.running_requests is None for pod in views[-1].pods)
    assert views[-1].door_requests is None
