"""The past folded in beside the live loop: the decisions of no restart, and no shrinking before it is warm."""

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from tests.signals.conftest import FakePrometheus
from tests.signals.points import histogram, vllm
from tests.signals.recorded import RecordedPrometheus

from longtail.api.resource import read_spec
from longtail.cluster.records import PodRecord, ScaleRecord, ServingRecord, TargetKey
from longtail.cluster.selectors import from_string
from longtail.cluster.snapshot import ServingView
from longtail.control.backfill import Backfill, plan
from longtail.control.clock import SystemClock
from longtail.control.fleet import build_fleet, build_signals
from longtail.control.fold import Fold, Tick
from longtail.control.metrics import OperatorMetrics
from longtail.policy.decision import Decision, Reason
from longtail.policy.fleet import Pod, ServiceKey
from longtail.policy.memory import Memory
from longtail.signals.reader import SignalReader
from longtail.signals.samples import Point
from longtail.signals.sources import MetricsSource

START = 1_700_000_100
KEY = ServiceKey("ml", "r1")
PODS = ("r1-7d9f8b6c5d-bcdfg", "r1-7d9f8b6c5d-hjklm", "r1-7d9f8b6c5d-npqrs")


@pytest.fixture
def prometheus() -> Iterator[FakePrometheus]:
    server = FakePrometheus()
    yield server
    server.close()


def load(at: float) -> list[Point]:
    """Three pods under a load that swings with a period of 20 minutes."""
    points: list[Point] = []
    step = (at - START) / 15
    if step < 0:
        return points
    for number, pod in enumerate(PODS):
        running = round(6 + 4 * math.sin(2 * math.pi * step / 80 + number))
        started = math.floor(1.7 * step)
        points += vllm(pod, running=running, waiting=0, generated=round(900 * step), first_tokens=started)
        points += vllm(pod, finished_tokens=1400 * max(started - 8, 0), prompt_tokens=300 * max(started - 8, 0))
        bounds = {"1000.0": 0.4, "5000.0": 0.9, "+Inf": 1.0}
        finished = {bound: math.floor(share * max(started - 8, 0)) for bound, share in bounds.items()}
        points += histogram("vllm/output_length", pod, finished, engine="0")
    return points


def view(*, replicas: int = 3, **spec: object) -> ServingView:
    body = {"spec": {"scaleTargetRef": {"name": "r1"}, "maxReplicas": 10, "mode": "Active", **spec}}
    record = ServingRecord(KEY, "uid", 1, 0.0, read_spec(body), None)
    selector = from_string("app=r1")
    target = ScaleRecord(TargetKey("apps", "Deployment", "ml", "r1"), "uid", replicas, selector)
    born = START - 86_400.0
    pods = [
        PodRecord(
            name, "ml", {}, ("ReplicaSet", "r1-7d9f8b6c5d"), False, Pod(name, born, born, born + 90.0, ready=True)
        )
        for name in PODS
    ]
    return ServingView(record, target, None, None, pods)


class Operator:
    """A live loop whose ticks a test makes."""

    def __init__(self, source: MetricsSource, seen: ServingView, *, span_seconds: float = 3600.0) -> None:
        self.view = seen
        self.fold = Fold()
        self.metrics = OperatorMetrics(clock=SystemClock())
        self.backfill = Backfill(
            fold=self.fold,
            views=lambda: [self.view],
            sources=[source],
            metrics=self.metrics,
            clock=SystemClock(),
            span_seconds=span_seconds,
            interval_seconds=15.0,
        )
        self._reader = SignalReader([source])

    async def tick(self, at: float) -> Decision:
        reading = await self._reader.read(build_signals([self.view]), at)
        return (await self.fold.decide(Tick(build_fleet([self.view]), reading.observations, at)))[KEY]

    def close(self) -> None:
        self._reader.close()


@pytest.fixture
def operator(prometheus: FakePrometheus) -> Iterator[Callable[..., Operator]]:
    made: list[Operator] = []

    def make(seen: ServingView | None = None, **changes: float) -> Operator:
        source = MetricsSource(name="default", url=prometheus.url, timeout_seconds=5.0)
        made.append(Operator(source, seen or view(), **changes))
        return made[-1]

    yield make
    for one in made:
        one.close()


Make = Callable[..., Operator]


def numbers(decision: Decision) -> tuple[object, ...]:
    return decision.desired, decision.reason, decision.hold


@pytest.mark.parametrize("restarted_at", [20, 41, 60])
async def test_a_restart_decides_as_if_there_had_been_none(
    prometheus: FakePrometheus, operator: Make, restarted_at: int
) -> None:
    RecordedPrometheus(prometheus, load)
    steady, restarted = operator(), operator()
    for step in range(restarted_at + 1):
        await steady.tick(START + 15.0 * step)
    await restarted.tick(START + 15.0 * restarted_at)
    await restarted.backfill.run()
    for step in range(restarted_at + 1, restarted_at + 25):
        at = START + 15.0 * step
        one, other = await steady.tick(at), await restarted.tick(at)
        assert numbers(other) == numbers(one)
        assert other.demand is not None
        assert one.demand is not None
        assert other.demand.slots_upper == pytest.approx(one.demand.slots_upper, rel=1e-6)
        assert other.demand.lengths.mean_tokens == pytest.approx(one.demand.lengths.mean_tokens, rel=1e-6)


async def test_ticks_made_meanwhile_are_part_of_the_memory(prometheus: FakePrometheus, operator: Make) -> None:
    RecordedPrometheus(prometheus, load)
    steady, restarted = operator(), operator()
    for step in range(50):
        await steady.tick(START + 15.0 * step)
    await restarted.tick(START + 15.0 * 44)
    backfill = asyncio.create_task(restarted.backfill.run())
    for step in range(45, 50):
        await restarted.tick(START + 15.0 * step)
    await backfill
    one, other = await steady.tick(START + 750.0), await restarted.tick(START + 750.0)
    assert numbers(other) == numbers(one)
    assert other.demand == one.demand or other.demand.slots_upper == pytest.approx(one.demand.slots_upper, rel=1e-6)


async def test_a_pool_is_warm_after_the_backfill_and_not_before(prometheus: FakePrometheus, operator: Make) -> None:
    RecordedPrometheus(
        prometheus, lambda at: [p for p in load(at) if p[0]["longtail_part"] != "vllm/running"] + idle(at)
    )
    warm, cold = operator(), operator()
    at = START + 2400.0
    assert (await cold.tick(at)).reason is Reason.WARMING_UP
    assert (await warm.tick(at)).reason is Reason.WARMING_UP
    await warm.backfill.run()
    assert (await cold.tick(at + 15)).reason is Reason.WARMING_UP
    assert (await warm.tick(at + 15)).reason is not Reason.WARMING_UP


def idle(at: float) -> list[Point]:
    return [point for pod in PODS for point in vllm(pod, running=0) if at >= START]


async def test_a_history_with_a_hole_is_not_warm(prometheus: FakePrometheus, operator: Make) -> None:
    at = START + 2400.0
    RecordedPrometheus(prometheus, lambda now: [] if at - 240 < now < at - 60 else [*load(now)])
    restarted = operator()
    await restarted.tick(at)
    await restarted.backfill.run()
    decision = await restarted.tick(at + 15)
    assert decision.desired >= 3


async def test_without_a_past_the_loop_warms_up_by_itself(
    prometheus: FakePrometheus, operator: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("longtail.control.backfill._PAUSE_SECONDS", 0.0)
    RecordedPrometheus(prometheus, load).down = lambda _: True
    restarted = operator()
    at = START + 2400.0
    await restarted.tick(at)
    await restarted.backfill.run()
    assert "no backfill" in caplog.text
    assert (await restarted.tick(at + 15)).desired >= 3
    assert b"longtail_backfill_ratio 1.0" not in restarted.metrics.text()


async def test_progress_ends_at_one(prometheus: FakePrometheus, operator: Make) -> None:
    RecordedPrometheus(prometheus, load)
    restarted = operator(span_seconds=300.0)
    await restarted.tick(START + 900.0)
    await restarted.backfill.run()
    assert b"longtail_backfill_ratio 1.0" in restarted.metrics.text()


async def test_a_resource_that_came_meanwhile_keeps_its_memory(prometheus: FakePrometheus) -> None:
    del prometheus
    fold = Fold()
    fold.keep_ticks()
    fleet = build_fleet([view()])
    first = await fold.decide(Tick(fleet, {}, 1000.0))
    await fold.decide(Tick(fleet, {}, 1015.0))
    await fold.adopt(Memory.empty())
    again = await fold.decide(Tick(fleet, {}, 1030.0))
    assert first[KEY].reason is again[KEY].reason is Reason.METRICS_MISSING


def test_the_cold_start_that_was_measured_before_the_restart_is_the_prior() -> None:
    seen = view()
    seen = replace(seen, record=replace(seen.record, startup_p90_seconds=333))
    (service,) = build_fleet([seen]).services
    assert service.parameters.startup_seconds == 333.0
    (service,) = build_fleet([view(startup={"seconds": 120})]).services
    assert service.parameters.startup_seconds == 120.0


@pytest.mark.parametrize("services", [0, 1, 50, 1000, 20_000])
@pytest.mark.parametrize("window", [0, 300, 3600])
def test_a_plan_always_reaches_back_far_enough_to_shrink_again(services: int, window: int) -> None:
    segment = plan(
        end_seconds=1_000_000, span_seconds=21_600, interval_seconds=15, window_seconds=window, services=services
    )
    assert segment.end_seconds == segment.times[-1] == 1_000_000
    assert 21_600 >= segment.end_seconds - segment.start_seconds > window
