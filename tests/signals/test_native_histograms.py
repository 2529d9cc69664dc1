"""Native histograms, as Prometheus answers them, say the same as classic ones."""

from typing import Any

import pytest

from longtail.demand.observation import Buckets
from longtail.signals.counters import advance
from longtail.signals.observe import _buckets
from longtail.signals.promql import PART_LABEL
from longtail.signals.reader import queries
from longtail.signals.samples import ObjectKey, Snapshot, instant_points, range_points
from longtail.signals.sources import LabelNames
from longtail.signals.vocabulary import Series

from .points import NAMESPACE, pod, service

INF = float("inf")


def item(tag: str, name: str, *, total: str, count: str, buckets: list[list[Any]]) -> dict[str, Any]:
    metric = {PART_LABEL: tag, "namespace": NAMESPACE, "pod": name, "engine": "0"}
    return {"metric": metric, "histogram": [1000, {"count": count, "sum": total, "buckets": buckets}]}


def lengths(name: str, *buckets: list[Any], total: str = "0") -> list[dict[str, Any]]:
    """One histogram of output lengths, as each part that asks for it gets it."""
    count = str(sum(int(bucket[3]) for bucket in buckets))
    tags = ("vllm/output_length", "vllm/finished_tokens")
    return [item(tag, name, total=total, count=count, buckets=list(buckets)) for tag in tags]


def snapshot(at_seconds: float, *answers: list[dict[str, Any]], names: tuple[str, ...] = ("a",)) -> Snapshot:
    seen = Snapshot(at_seconds)
    wanted = {(NAMESPACE, name): ObjectKey(NAMESPACE, name) for name in names}
    points = instant_points([one for answer in answers for one in answer])
    for query in queries([service(pod("a"))], LabelNames()):
        tags = {part.tag for part in query.parts}
        mine = [(labels, value) for labels, value in points if labels[PART_LABEL] in tags]
        seen.add(query, mine, namespace_label="namespace", wanted=wanted)
    return seen


def test_sum_and_buckets_are_taken_by_the_parts_that_ask_for_them() -> None:
    seen = snapshot(1000.0, lengths("a", [0, "100", "200", "3"], [0, "500", "1000", "2"], total="2100"))
    place = ObjectKey(NAMESPACE, "a")
    assert seen.raw("vllm", Series.FINISHED_TOKENS, place) == 2100
    (counts,) = [
        bounds for key, pods in seen.counters.items() if key.series is Series.OUTPUT_LENGTH and place in pods
        for bounds in pods[place].values()
    ]  # fmt: skip
    assert counts == {100.0: 0.0, 200.0: 3.0, 500.0: 3.0, 1000.0: 5.0, INF: 5.0}


def test_a_bucket_that_was_empty_before_has_the_increase_of_its_own_requests_only() -> None:
    before = snapshot(1000.0, lengths("a", [0, "100", "200", "3"]))
    after = snapshot(1015.0, lengths("a", [0, "100", "200", "4"], [0, "500", "1000", "2"]))
    place = ObjectKey(NAMESPACE, "a")
    _, baseline = advance(None, before, began_at={place: 0.0}, lazy=frozenset())
    increases, _ = advance(baseline, after, began_at={place: 0.0}, lazy=frozenset())
    counts = increases.of("vllm", Series.OUTPUT_LENGTH, place)
    assert counts is not None
    assert _buckets([counts]) == Buckets((100.0, 200.0, 500.0, 1000.0, INF), (0.0, 1.0, 0.0, 2.0, 0.0))


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        pytest.param(
            [{100.0: 0.0, 200.0: 1.0, INF: 1.0}, {500.0: 0.0, 1000.0: 2.0, INF: 2.0}],
            Buckets((100.0, 200.0, 500.0, 1000.0, INF), (0.0, 1.0, 0.0, 2.0, 0.0)),
            id="sparse-pods-with-other-buckets-filled",
        ),
        pytest.param(
            [{10.0: 1.0, 20.0: 3.0, INF: 3.0}, {10.0: 1.0, INF: 2.0}],
            Buckets((10.0, INF), (2.0, 3.0)),
            id="a-bound-inside-another-pods-filled-bucket-is-not-known",
        ),
        pytest.param([{INF: 4.0}, {5.0: 1.0, INF: 1.0}], Buckets((INF,), (5.0,)), id="one-pod-without-bounds"),
    ],
)
def test_bounds_that_only_some_pods_have(pods: list[dict[float, float]], expected: Buckets) -> None:
    assert _buckets(pods) == expected


def test_a_range_of_native_histograms_is_read_like_an_instant_of_each() -> None:
    body = {"count": "2", "sum": "30", "buckets": [[0, "10", "20", "2"]]}
    steps = range_points([{"metric": {"pod": "a"}, "histograms": [[1000, body], [1015, body]]}])
    assert list(steps) == [1000.0, 1015.0]
    assert steps[1000.0] == instant_points([{"metric": {"pod": "a"}, "histogram": [1000, body]}])
