"""Answers as a metrics source would give them, written down in a few words."""

from collections.abc import Iterable, Sequence
from typing import Any

from longtail.policy.fleet import Pod, ServiceKey
from longtail.signals.observe import ServiceSignals
from longtail.signals.promql import PART_LABEL
from longtail.signals.reader import Answered, SignalReader, queries
from longtail.signals.samples import Point
from longtail.signals.sources import LabelNames, MetricsSource

NAMESPACE = "ml"
SOURCE = MetricsSource(name="default", url="http://127.0.0.1:9", scrape_interval_seconds=15.0)


def point(tag: str, pod: str, value: float, **labels: str) -> Point:
    """One sample of a part such as "vllm/running"; ``pod`` is a pool for the gateway's, a model for the proxy's."""
    if tag.startswith("litellm/"):
        return {PART_LABEL: tag, "requested_model": pod, **labels}, value
    name = "inference_pool" if tag.startswith("gateway/") else "pod"
    return {PART_LABEL: tag, "namespace": NAMESPACE, name: pod, **labels}, value


def vllm(pod: str, *, age: float = 3.0, engine: str = "0", **values: float) -> list[Point]:
    """A vLLM pod's samples: ``vllm("a", running=3, generated=100)``; ``age`` is always there."""
    ranked = {
        "generated",
        "finished_tokens",
        "prompt_tokens",
        "first_tokens",
        "preemptions",
        "aborted",
        "kv_used_ratio",
    }
    points = [point("vllm/sample_age", pod, age)]
    for series, value in values.items():
        labels = {"engine": engine} if series in ranked else {}
        points.append(point(f"vllm/{series}", pod, value, **labels))
    return points


def histogram(tag: str, pod: str, cumulative: dict[str, float], **labels: str) -> list[Point]:
    return [point(tag, pod, value, le=le, **labels) for le, value in cumulative.items()]


def pod(name: str, **changes: Any) -> Pod:
    """A pod that is ready since long ago."""
    return Pod(**{"name": name, "created_at": 0.0, "ready_at": 60.0, "ready": True, **changes})


def service(*pods: Pod, name: str = "r1", **changes: Any) -> ServiceSignals:
    return ServiceSignals(key=ServiceKey(NAMESPACE, name), pods=pods, **changes)


def answers(
    services: Sequence[ServiceSignals],
    points: Iterable[Point],
    *,
    failed: Sequence[str] = (),
    partial: bool = False,
) -> list[Answered]:
    """Every query of a tick, answered with those of the points that belong to it."""
    everything = list(points)
    found = []
    for query in queries(services, LabelNames()):
        tags = {part.tag for part in query.parts}
        if query.name not in failed:
            mine = [(labels, value) for labels, value in everything if labels[PART_LABEL] in tags]
            found.append(Answered(query, mine, whole=not partial))
    return found


class Ticks:
    """A reader fed by hand: ``ticks.see(points)`` is one tick of one service, 15 s after the last."""

    def __init__(self, *services: ServiceSignals) -> None:
        self.services = list(services)
        self.at_seconds = 1000.0
        self._reader = SignalReader([SOURCE])
        self._reader.close()  # no connection is ever made

    def see(self, *groups: Iterable[Point], seconds: float = 15.0, **how: Any) -> Any:
        self.at_seconds += seconds
        points = [one for group in groups for one in group]
        given = answers(self.services, points, **how)
        return self._reader.assemble("default", self.services, given, self.at_seconds)[self.services[0].key]

    def outage(self, *, seconds: float = 15.0) -> Any:
        self.at_seconds += seconds
        return self._reader.assemble("default", self.services, [], self.at_seconds)[self.services[0].key]
