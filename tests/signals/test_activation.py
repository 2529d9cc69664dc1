"""Work at the door of a pool that may sleep, clocks that differ, and numbers that cannot be."""

import threading
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest

from longtail.demand.observation import MISSING, Quality, Signal
from longtail.errors import MetricsError, MetricsUnavailable
from longtail.policy.fleet import Pod, ServiceKey
from longtail.signals import activation
from longtail.signals.exchange import Answer
from longtail.signals.observe import ServiceSignals
from longtail.signals.reader import SignalReader
from longtail.signals.samples import MOST_REQUESTS
from longtail.signals.sources import MetricsSource

from .conftest import Asked, FakePrometheus, Reply, vector
from .points import Ticks, pod, service, vllm

DOOR = 'sum(rate(gateway_requests_total{model="r1"}[2m]))'


class Door:
    """A source whose answers are given, and which counts its questions."""

    def __init__(self, answer: Answer | MetricsError) -> None:
        self.asked: list[str] = []
        self._answer = answer

    async def query(self, promql: str, at_seconds: float) -> Answer:
        self.asked.append(promql)
        if isinstance(self._answer, MetricsError):
            raise self._answer
        return self._answer


def answered(*values: object, **more: Any) -> Answer:
    return Answer(result=[{"metric": {}, "value": [1.0, str(value)]} for value in values], **more)


def sleeper(name: str = "r1", query: str | None = DOOR) -> ServiceSignals:
    return ServiceSignals(key=ServiceKey("ml", name), pods=(), activation_query=query)


async def read(answer: Answer | MetricsError) -> Signal | MetricsError:
    (found,) = (await activation.read(Door(answer), [sleeper()], at_seconds=1.0)).values()
    return found


@pytest.mark.parametrize("value", [pytest.param(0.0, id="nobody"), pytest.param(0.25, id="somebody")])
async def test_one_number_is_taken(value: float) -> None:
    assert await read(answered(value)) == Signal(value)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(answered(), id="nothing-is-not-zero"),
        pytest.param(answered(1, 2), id="several-series"),
        pytest.param(answered("NaN"), id="nan"),
        pytest.param(answered("+Inf"), id="infinite"),
        pytest.param(answered(-1), id="negative"),
        pytest.param(answered(0, warnings=("a store is down",)), id="zero-of-a-part"),
        pytest.param(MetricsUnavailable("Connection refused"), id="no-answer"),
    ],
)
async def test_anything_else_is_not_known(answer: Answer | MetricsError) -> None:
    assert isinstance(await read(answer), MetricsError)


async def test_work_in_a_part_is_work() -> None:
    assert await read(answered(3, warnings=("a store is down",))) == Signal(3.0)


async def test_equal_queries_are_asked_once_and_services_without_one_not_at_all() -> None:
    door = Door(answered(1))
    services = [sleeper("a"), sleeper("b"), sleeper("c", None), sleeper("d", "sum(other)")]
    found = await activation.read(door, services, at_seconds=1.0)
    assert sorted(door.asked) == sorted([DOOR, "sum(other)"])
    assert {key.name for key in found} == {"a", "b", "d"}


async def test_the_reader_joins_it_with_what_the_pods_say(prometheus: FakePrometheus) -> None:
    reader = SignalReader([MetricsSource(name="default", url=prometheus.url)])
    prometheus.answer = lambda asked: vector(({}, 2.0)) if asked.form["query"] == DOOR else vector()
    one = sleeper()
    assert (await reader.read([one], 1000.0)).observations[one.key].activation == Signal(2.0)
    prometheus.answer = lambda _: vector()
    reading = await reader.read([one], 1015.0)
    assert reading.observations[one.key].activation == MISSING
    assert [(failure.query, list(failure.services)) for failure in reading.failures] == [("activation", [one.key])]
    reader.close()


def dated(clock: float) -> Callable[[Asked], Reply]:
    """Answers of a source whose clock shows this."""

    def answer(_: Asked) -> Reply:
        reply = vector()
        reply.headers["Date"] = formatdate(clock, usegmt=True)
        return reply

    return answer


@pytest.mark.parametrize(
    ("ahead", "believed"),
    [
        pytest.param(0.0, True, id="the-same"),
        pytest.param(8.0, True, id="answers-late"),
        pytest.param(-4.0, True, id="a-little-behind"),
        pytest.param(60.0, False, id="a-minute-ahead"),
        pytest.param(-60.0, False, id="a-minute-behind"),
    ],
)
@pytest.mark.parametrize("live", [pytest.param(True, id="live"), pytest.param(False, id="the-past")])
async def test_a_source_with_another_clock_is_not_believed_about_now(
    prometheus: FakePrometheus, ahead: float, believed: bool, live: bool
) -> None:
    at = 1_795_507_200.0
    reader = SignalReader([MetricsSource(name="default", url=prometheus.url, timeout_seconds=8.0)], live=live)
    prometheus.answer = dated(at + ahead)
    idle = ServiceSignals(key=ServiceKey("ml", "r1"), pods=(Pod(name="new", created_at=at),))
    reading = await reader.read([idle], at)
    assert bool(reading.failures) == (live and not believed)
    if reading.failures:
        side = "ahead of" if ahead > 0 else "behind"
        assert f"its clock is {abs(ahead):.0f} s {side} ours" in str(reading.failures[0].error)
        assert reading.observations[idle.key].running_requests == MISSING
    reader.close()


@pytest.mark.parametrize("series", ["running", "waiting"])
def test_more_requests_than_an_engine_can_hold_are_no_requests(series: str) -> None:
    ticks = Ticks(service(pod("a"), pod("b")))
    believed = ticks.see(vllm("a", running=0.0) + vllm("a", **{series: MOST_REQUESTS}), vllm("b", **{series: 1.0}))
    assert getattr(believed, f"{series}_requests").value == MOST_REQUESTS + 1.0
    lie = ticks.see(vllm("a", **{series: 1e6}), vllm("b", **{series: 1.0}))
    signal = getattr(lie, f"{series}_requests")
    assert (signal.value, signal.quality) == (1.0, Quality.PARTIAL)


async def test_a_slow_source_does_not_blind_the_services_of_another(prometheus: FakePrometheus) -> None:
    answers = threading.Event()
    slow, quick = FakePrometheus(), prometheus
    slow.answer = lambda _: Reply(body=vector().body, before=answers.wait)
    sources = [MetricsSource(name="slow", url=slow.url), MetricsSource(name="quick", url=quick.url)]
    reader = SignalReader(sources, patience_seconds=0.5)
    services = [
        ServiceSignals(key=ServiceKey("ml", "a"), pods=(), source="slow"),
        ServiceSignals(key=ServiceKey("ml", "b"), pods=(), source="quick"),
    ]
    reading = await reader.read(services, 1000.0)
    answers.set()
    assert [(failure.source, [key.name for key in failure.services]) for failure in reading.failures] == [
        ("slow", ["a"])
    ]
    assert reading.observations[services[0].key].running_requests == MISSING
    assert reading.observations[services[1].key].running_requests == Signal(0.0)
    reader.close()
    slow.close()
