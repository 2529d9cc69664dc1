"""The reader over real sockets: all queries of a tick at one time, and faults that stay where they are."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from longtail.demand.observation import MISSING, Quality
from longtail.errors import MetricsUnavailable, QueryRejected, SettingsError, SpecError
from longtail.signals.custom import CustomNames
from longtail.signals.observe import Engine
from longtail.signals.reader import SignalReader
from longtail.signals.samples import Point, instant_points, range_points
from longtail.signals.sources import MetricsSource

from .conftest import Asked, FakePrometheus, Reply, success, vector
from .points import NAMESPACE, pod, service, vllm


def serving(prometheus: FakePrometheus, points: list[Point], *, fail: str = "", warn: bool = False) -> None:
    """Answer each query with those of the points whose part it asks for; fail those that contain a text."""

    def answer(asked: Asked) -> Reply:
        if fail and fail in asked.form["query"]:
            return Reply(422, b'{"status":"error","errorType":"execution","error":"too many samples"}')
        found = [(dict(labels), value) for labels, value in points if labels["longtail_part"] in asked.form["query"]]
        return vector(*found, **({"warnings": ["a store is down"]} if warn else {}))

    prometheus.answer = answer


@contextmanager
def reader(*urls: str) -> Iterator[SignalReader]:
    names = ["default", "other"]
    opened = SignalReader(
        MetricsSource(name=name, url=url, timeout_seconds=5.0) for name, url in zip(names, urls, strict=False)
    )
    try:
        yield opened
    finally:
        opened.close()


async def test_all_queries_of_a_tick_are_asked_at_the_same_time(prometheus: FakePrometheus) -> None:
    serving(prometheus, vllm("a", running=3, waiting=1))
    with reader(prometheus.url) as opened:
        reading = await opened.read([service(pod("a"))], 1_700_000_015.0)
    (observation,) = reading.observations.values()
    assert observation.at_seconds == 1_700_000_015.0
    assert (observation.running_requests.value, observation.waiting_requests.value) == (3.0, 1.0)
    assert {asked.form["time"] for asked in prometheus.asked} == {"1700000015.000"}
    assert len(prometheus.asked) == 10
    assert reading.failures == []


async def test_one_rejected_query_costs_its_own_signals_and_is_reported_by_name(
    prometheus: FakePrometheus,
) -> None:
    serving(prometheus, vllm("a", running=3, waiting=1), fail="num_requests_waiting")
    with reader(prometheus.url) as opened:
        reading = await opened.read([service(pod("a"))], 1.0)
    (observation,) = reading.observations.values()
    assert observation.running_requests.fresh
    assert observation.waiting_requests == MISSING
    (failure,) = reading.failures
    assert (failure.source, failure.query) == ("default", "waiting")
    assert isinstance(failure.error, QueryRejected)


async def test_a_source_that_is_down_leaves_services_on_others_alone(prometheus: FakePrometheus) -> None:
    serving(prometheus, vllm("a", running=3))
    here, there = service(pod("a"), name="here"), service(pod("b"), name="there", source="other")
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        with reader(prometheus.url, f"http://127.0.0.1:{reserved.getsockname()[1]}") as opened:
            reading = await opened.read([here, there], 1.0)
    assert reading.observations[here.key].running_requests.fresh
    lost = reading.observations[there.key]
    assert lost.running_requests == MISSING
    assert (lost.ready_pods, lost.reporting_pods) == (1, 0)
    assert {failure.source for failure in reading.failures} == {"other"}
    assert all(list(failure.services) == [there.key] for failure in reading.failures)


async def test_a_source_that_is_down_is_missing_even_where_there_are_no_pods() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        with reader(f"http://127.0.0.1:{reserved.getsockname()[1]}") as opened:
            reading = await opened.read([service()], 1.0)
    assert reading.observations[service().key].running_requests == MISSING


async def test_an_unknown_source_is_named_with_those_that_exist(prometheus: FakePrometheus) -> None:
    with reader(prometheus.url) as opened:
        reading = await opened.read([service(pod("a"), source="prod")], 1.0)
    (failure,) = reading.failures
    assert isinstance(failure.error, SpecError)
    assert "'prod'" in str(failure.error)
    assert "default" in str(failure.error)
    assert reading.observations[service().key].running_requests == MISSING


async def test_warnings_make_values_partial_and_are_handed_on(prometheus: FakePrometheus) -> None:
    serving(prometheus, vllm("a", running=3), warn=True)
    with reader(prometheus.url) as opened:
        reading = await opened.read([service(pod("a"))], 1.0)
    (observation,) = reading.observations.values()
    assert (observation.running_requests.value, observation.running_requests.quality) == (
        3.0,
        Quality.PARTIAL,
    )
    assert reading.warnings == {"default": ["a store is down"]}


async def test_a_wrong_custom_name_hurts_only_those_who_use_it(prometheus: FakePrometheus) -> None:
    serving(prometheus, vllm("a", running=3), fail="cardinality_bomb")
    mine = service(pod("a"), name="mine")
    theirs = service(
        pod("b"), name="theirs", engine=Engine.CUSTOM, custom=CustomNames(running_requests="cardinality_bomb")
    )
    with reader(prometheus.url) as opened:
        reading = await opened.read([mine, theirs], 1.0)
    assert reading.observations[mine.key].running_requests.fresh
    assert reading.observations[theirs.key].running_requests == MISSING
    assert [list(failure.services) for failure in reading.failures] == [[theirs.key]]


@pytest.mark.parametrize(
    "result",
    [
        pytest.param([{"metric": {}}, {"metric": {}, "value": [1.0, "x"]}], id="not-a-number"),
        pytest.param([{"value": [1.0, "1"]}], id="no-labels"),
        pytest.param([{"metric": {}, "value": []}], id="no-value"),
        pytest.param(["text"], id="not-an-object"),
        pytest.param([{"metric": {}, "value": None}], id="null"),
        pytest.param([{"metric": "up", "value": [1.0, "1"]}], id="labels-in-one-string"),
    ],
)
async def test_malformed_samples_lose_their_query_and_nothing_else(
    prometheus: FakePrometheus, result: list[object]
) -> None:
    prometheus.answer = lambda asked: success("vector", result)
    with reader(prometheus.url) as opened:
        reading = await opened.read([service(pod("a"))], 1.0)
    assert reading.observations[service().key].running_requests == MISSING
    assert all(isinstance(failure.error, MetricsUnavailable) for failure in reading.failures)
    assert len(reading.failures) == 10


async def test_no_service_asks_nothing(prometheus: FakePrometheus) -> None:
    with reader(prometheus.url) as opened:
        reading = await opened.read([], 1.0)
    assert (reading.observations, prometheus.asked) == ({}, [])


def test_two_sources_of_one_name_are_a_settings_error() -> None:
    sources = [MetricsSource(name="main", url="http://one"), MetricsSource(name="main", url="http://two")]
    with pytest.raises(SettingsError, match="'main'"):
        SignalReader(sources)


def test_a_step_of_a_range_is_like_an_instant() -> None:
    matrix = json.loads('[{"metric": {"pod": "a"}, "values": [[60, "1"], [75, "2"]]},'
                        ' {"metric": {"pod": "b"}, "values": [[75, "5"]]}]')  # fmt: skip
    steps = range_points(matrix)
    assert list(steps) == [60.0, 75.0]
    assert steps[75.0] == instant_points(
        [{"metric": {"pod": "a"}, "value": [75, "2"]}, {"metric": {"pod": "b"}, "value": [75, "5"]}]
    )


def test_a_namespace_is_part_of_the_join() -> None:
    assert service().key.namespace == NAMESPACE
