"""The past, read over real sockets: each step as a tick at that time would have seen it, and faults that stay theirs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from longtail.demand.observation import MISSING, Quality
from longtail.errors import MetricsUnavailable
from longtail.policy.fleet import Pod, ServiceKey
from longtail.signals.client import PrometheusClient
from longtail.signals.history import PATIENCE, HistoryReader, Moment, Segment
from longtail.signals.past import Census, Life, Owners, Past, pod_pattern
from longtail.signals.reader import SignalReader
from longtail.signals.samples import ObjectKey, Point
from longtail.signals.sources import MetricsSource

from .conftest import FakePrometheus
from .points import NAMESPACE, histogram, pod, point, service, vllm
from .recorded import RecordedPrometheus

START = 1_700_000_100
OLD, YOUNG, BRIEF = "r1-7d9f8b6c5d-bcdfg", "r1-7d9f8b6c5d-hjklm", "r1-5c6d7f8b9d-npqrs"


def fleet(at: float) -> list[Point]:
    """One pod all along, which restarts at step 20; one from step 10 on; one in steps 4 to 8 that is gone since."""
    step = (at - START) / 15
    points = []
    for name, first, last, since in ((OLD, 0, 99, 20 if step >= 20 else -50), (YOUNG, 10, 99, 10), (BRIEF, 4, 8, 4)):
        if first <= step <= last:
            done = step - since
            points += vllm(name, running=3 + step % 4, waiting=step % 2, generated=700 * done, first_tokens=done)
            points += histogram("vllm/queue_wait", name, {"1.0": done, "+Inf": 2 * done}, engine="0")
    return points


def living(*names: str, **changes: object) -> Past:
    pods = [pod(name, created_at=START - 3600.0, ready_at=START - 3000.0) for name in names]
    return Past(service(*pods, **changes), kind="Deployment", name="r1")


@pytest.fixture
def reader(prometheus: FakePrometheus) -> Iterator[Callable[..., HistoryReader]]:
    source = MetricsSource(name="default", url=prometheus.url, timeout_seconds=5.0)
    client = PrometheusClient(source)
    yield lambda **changes: HistoryReader(source, client, **changes)
    client.close()


Reader = Callable[..., HistoryReader]


async def moments(history: HistoryReader, past: Past, *segments: Segment) -> list[Moment]:
    return [moment async for moment in history.moments([past], segments or [Segment(START, START + 450, 15)])]


async def test_each_moment_is_what_a_tick_at_that_time_would_have_seen(
    prometheus: FakePrometheus, reader: Reader
) -> None:
    RecordedPrometheus(prometheus, fleet)
    young = pod(YOUNG, created_at=START + 100.0, ready_at=START + 150.0)
    old = pod(OLD, created_at=START - 3600.0, ready_at=START - 3000.0)
    past = Past(service(old, young), kind="Deployment", name="r1")
    found = await moments(reader(), past)
    live = SignalReader([MetricsSource(name="default", url=prometheus.url)])
    for moment in found:
        then = service(*moment.pods[past.signals.key])
        expected = (await live.read([then], moment.at_seconds)).observations[then.key]
        assert moment.observations[then.key] == expected
    live.close()
    assert len(found) == 31


async def test_pods_that_are_gone_are_known_by_their_series(prometheus: FakePrometheus, reader: Reader) -> None:
    RecordedPrometheus(prometheus, fleet)
    past = living(OLD)
    found = await moments(reader(), past)
    names = [sorted(one.name for one in moment.pods[past.signals.key]) for moment in found]
    assert names[0] == [OLD]
    assert names[4] == names[8] == sorted([OLD, BRIEF])
    assert names[9] == [OLD]
    assert names[10] == names[30] == sorted([OLD, YOUNG])
    assert all(one.restarted for one in found[4].pods[past.signals.key] if one.name == BRIEF)


async def test_a_pod_that_is_there_now_was_on_its_way_before_its_first_sample(
    prometheus: FakePrometheus, reader: Reader
) -> None:
    RecordedPrometheus(prometheus, fleet)
    young = Pod(name=YOUNG, created_at=START + 30.0, ready_at=START + 145.0, ready=True)
    past = Past(service(young), kind="Deployment", name="r1")
    found = await moments(reader(), past)
    seen = [next((p for p in m.pods[past.signals.key] if p.name == YOUNG), None) for m in found]
    assert seen[1] is None
    assert seen[2] is not None
    assert not seen[2].ready
    assert seen[10] is not None
    assert (seen[10].ready, seen[10].ready_at, seen[10].restarted) == (True, START + 145.0, False)


@pytest.mark.parametrize("most_steps", [4])
async def test_a_piece_that_is_too_large_is_asked_for_in_halves(
    prometheus: FakePrometheus, reader: Reader, most_steps: int
) -> None:
    source = RecordedPrometheus(prometheus, fleet)
    whole = await moments(reader(), living(OLD))
    source.most_steps = most_steps
    halves = await moments(reader(), living(OLD))
    assert [m.observations for m in halves] == [m.observations for m in whole]
    assert min(source.steps_of("vllm/queue_wait")) <= most_steps


async def test_pieces_shrink_to_the_samples_they_may_hold(prometheus: FakePrometheus, reader: Reader) -> None:
    source = RecordedPrometheus(prometheus, fleet)
    await moments(reader(most_samples=240), living(OLD))
    assert max(source.steps_of("vllm/queue_wait")) <= 10


async def test_the_next_run_asks_for_the_same_pieces(prometheus: FakePrometheus, reader: Reader) -> None:
    source = RecordedPrometheus(prometheus, fleet)
    await moments(reader(most_samples=480), living(OLD), Segment(START, START + 600, 15))
    first = {(a.form["start"], a.form["end"], a.form["query"]) for a in source.asked}
    source.asked.clear()
    await moments(reader(most_samples=480), living(OLD), Segment(START + 15, START + 615, 15))
    second = {(a.form["start"], a.form["end"], a.form["query"]) for a in source.asked}
    assert len(second - first) < len(second) / 2


async def test_a_query_that_is_refused_for_good_is_missing_and_not_asked_for_ever(
    prometheus: FakePrometheus, reader: Reader
) -> None:
    source = RecordedPrometheus(prometheus, fleet)
    source.refuse = "num_requests_waiting"
    history = reader()
    past = living(OLD)
    found = await moments(history, past)
    for moment in found:
        observation = moment.observations[past.signals.key]
        assert observation.waiting_requests == MISSING
        assert observation.running_requests.fresh
        assert moment.unanswered == ["waiting"]
    assert list(history.errors) == ["waiting"]
    assert len(source.steps_of("num_requests_waiting")) < 10 + PATIENCE


async def test_times_without_any_sample_are_missing_and_not_zero(prometheus: FakePrometheus, reader: Reader) -> None:
    def interrupted(at: float) -> Sequence[Point]:
        return [] if START + 150 <= at < START + 300 else fleet(at)

    RecordedPrometheus(prometheus, interrupted)
    past = living(OLD)
    found = await moments(reader(), past)
    seen = [moment.observations[past.signals.key] for moment in found]
    assert all(one.running_requests == MISSING for one in seen[10:20])
    assert seen[9].running_requests.fresh
    assert seen[20].running_requests.fresh
    # What happened in the outage is told when it is over, over its whole length: counters go on.
    assert seen[20].interval_seconds == pytest.approx(165.0)


async def test_one_unanswered_time_costs_that_time_only(prometheus: FakePrometheus, reader: Reader) -> None:
    source = RecordedPrometheus(prometheus, fleet)
    source.down = lambda at: at == START + 75
    past = living(OLD)
    found = await moments(reader(), past)
    missing = [m.at_seconds for m in found if m.observations[past.signals.key].running_requests == MISSING]
    assert missing == [START + 75.0]


async def test_a_warning_makes_the_past_partial(prometheus: FakePrometheus, reader: Reader) -> None:
    RecordedPrometheus(prometheus, fleet).warn = True
    past = living(OLD)
    (first, *_) = await moments(reader(), past)
    assert first.observations[past.signals.key].running_requests.quality is Quality.PARTIAL
    assert "running" in first.partial


async def test_nothing_is_said_of_a_service_before_its_first_sample(prometheus: FakePrometheus, reader: Reader) -> None:
    RecordedPrometheus(prometheus, lambda at: fleet(at) if at >= START + 60 else [])
    past = Past(service(), kind="Deployment", name="r1")
    found = await moments(reader(), past)
    assert [past.signals.key in moment.observations for moment in found[:6]] == [False] * 4 + [True] * 2


async def test_a_source_that_never_answers_is_an_error(prometheus: FakePrometheus, reader: Reader) -> None:
    RecordedPrometheus(prometheus, fleet).down = lambda _: True
    with pytest.raises(MetricsUnavailable, match="503"):
        await moments(reader(), living(OLD))


async def test_segments_of_different_steps_follow_one_another(prometheus: FakePrometheus, reader: Reader) -> None:
    RecordedPrometheus(prometheus, fleet)
    past = living(OLD)
    found = await moments(reader(), past, Segment(START, START + 240, 60), Segment(START + 255, START + 300, 15))
    assert [moment.at_seconds - START for moment in found] == [0, 60, 120, 180, 240, 255, 270, 285, 300]
    intervals = [moment.observations[past.signals.key].interval_seconds for moment in found]
    assert intervals == [0, 60, 60, 60, 60, 15, 15, 15, 15]


# --------------------------------------------------------------------- whose pod it was


@pytest.mark.parametrize(
    ("kind", "name", "theirs", "others"),
    [
        pytest.param("Deployment", "r1", [OLD], ["r1-large-7d9f8b6c5d-bcdfg", "r1-0", "r1"], id="deployment"),
        pytest.param("StatefulSet", "r1", ["r1-0", "r1-12"], [OLD, "r1-0-1"], id="statefulset"),
        pytest.param("LeaderWorkerSet", "r1", ["r1-0", "r1-0-3"], [OLD], id="leaderworkerset"),
        pytest.param("Rollout", "r1", [OLD, "r1-0"], ["r2-0", "r1-a-b-c-d"], id="unknown-kind"),
    ],
)
def test_pods_are_told_by_the_names_that_controllers_give(kind, name, theirs, others) -> None:
    owners = Owners([Past(service(), kind=kind, name=name)])
    key = service().key
    assert [owners.owner(ObjectKey(NAMESPACE, pod)) for pod in theirs] == [key] * len(theirs)
    assert [owners.owner(ObjectKey(NAMESPACE, pod)) for pod in others] == [None] * len(others)
    assert owners.owner(ObjectKey("elsewhere", theirs[0])) is None


def test_the_longer_name_has_the_pod() -> None:
    short = Past(service(name="short"), kind="Rollout", name="r1")
    long = Past(service(name="long"), kind="Rollout", name="r1-large")
    assert Owners([short, long]).owner(ObjectKey(NAMESPACE, "r1-large-abc-def")) == ServiceKey(NAMESPACE, "long")


def test_a_pattern_does_not_let_a_name_speak_regex() -> None:
    assert pod_pattern("StatefulSet", "r1.5") == r"r1\.5-[0-9]+"


def test_a_ready_pod_without_a_sample_is_mute_and_not_absent() -> None:
    mute = pod("r1-7d9f8b6c5d-bcdfg", created_at=0.0, ready_at=60.0)
    census = Census([living()], {}, end_seconds=1000.0)
    assert census.at(500.0) == []
    past = replace(living(), signals=service(mute))
    (then,) = Census([past], {}, end_seconds=1000.0).at(500.0)
    assert [(one.name, one.ready) for one in then.pods] == [(mute.name, True)]


def test_a_pod_that_flapped_teaches_no_cold_start() -> None:
    flapped = pod(OLD, created_at=0.0, ready_at=900.0)
    past = Past(service(flapped), kind="Deployment", name="r1")
    (then,) = Census([past], {ObjectKey(NAMESPACE, OLD): Life(100.0, 1000.0)}, end_seconds=1000.0).at(500.0)
    assert [(one.ready, one.restarted) for one in then.pods] == [(True, True)]


async def test_classes_of_requests_are_a_part_of_the_past(prometheus: FakePrometheus, reader: Reader) -> None:
    def counted(at: float) -> list[Point]:
        points = [*fleet(at), point("litellm/sample_age", "r1", 2.0)]
        for series in ("class_requests", "class_answers", "class_tokens", "class_reasoning"):
            points.append(point(f"litellm/team/{series}", "r1", 10.0 + (at - START), team="gold"))
            points.append(point(f"litellm/team/all/{series}", "r1", 30.0 + (at - START)))
        return points

    RecordedPrometheus(prometheus, counted)
    past = living(OLD, gateway_model="r1", class_label="team")
    found = [moment.observations[past.signals.key].classes for moment in await moments(reader(), past)]
    assert {each.quality for each in found} == {Quality.FRESH}
    assert [each.counts[0].output_tokens for each in found] == [10.0 + 15 * step for step in range(31)]
    assert {each.counts[-1].requests for each in found} == {20.0}
