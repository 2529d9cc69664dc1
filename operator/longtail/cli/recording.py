"""One resource, and what a Prometheus recorded of it: for commands that look back."""

import asyncio
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import Progress as Bar

from longtail.api.resource import KIND
from longtail.api.spec import ReasoningServingSpec
from longtail.cluster.client import connect
from longtail.cluster.kinds import SERVINGS
from longtail.cluster.records import ScaleRecord, serving_record
from longtail.cluster.snapshot import ServingView
from longtail.control.clock import Clock
from longtail.control.fleet import build_fleet, build_signals
from longtail.control.settings import load_settings
from longtail.errors import NotFound, SettingsError, SpecError
from longtail.policy.fleet import Service
from longtail.policy.trust import GAP_SECONDS
from longtail.signals.archive import Archive
from longtail.signals.client import PrometheusClient
from longtail.signals.history import HistoryReader, Segment
from longtail.signals.past import Past, pod_pattern
from longtail.signals.promql import narrowed, quoted
from longtail.signals.sources import MetricsSource
from longtail.signals.vocabulary import Query, joined
from longtail.workbench.backtest import Look

SETTLED_SECONDS = 600
"""Samples may arrive late, but not later than this."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_TIMEOUT_SECONDS = 60.0
_NOT_PODS = frozenset({"dcgm", "gateway", "litellm"})
"""Vocabularies that name no pod of the engine in a label that can be matched."""


@dataclass(frozen=True, slots=True)
class Span:
    """How far back to look, and how closely."""

    seconds: int
    step_seconds: int
    cache: Path
    """Where answers are kept."""


def duration(text: str) -> int:
    """Seconds of ``7d`` and the like.

    Raises:
        SettingsError: it is none.

    >>> duration("36h")
    129600
    """
    found = re.fullmatch(r"([0-9]+)([smhdw])", text.strip())
    if found is None or int(found[1]) == 0:
        raise SettingsError(f"--since: {text!r} is not a number followed by s, m, h, d or w")
    return int(found[1]) * _UNITS[found[2]]


def step_of(text: str | None, span_seconds: int) -> int:
    """Seconds between two decisions: the operator's own for a day, coarser for longer, for the time it takes.

    Raises:
        SettingsError: it is no number of seconds.
    """
    if text is None:
        return 15 if span_seconds <= 86_400 else 30 if span_seconds <= 3 * 86_400 else 60
    if not text.isdecimal() or not 1 <= int(text) <= GAP_SECONDS:
        # Looking away for longer is a gap to the policy, and after a gap nothing shrinks for a while.
        raise SettingsError(f"--step: {text!r} is not a number of seconds from 1 to {GAP_SECONDS:.0f}")
    return int(text)


def source_of(url: str | None, scrape_interval_seconds: float, name: str) -> MetricsSource:
    """The source at a URL, or the one of this name that the operator's settings here configure.

    Raises:
        SettingsError: there is none.
    """
    if url is not None:
        return MetricsSource(name=name, url=url, scrape_interval_seconds=scrape_interval_seconds)
    configured = {source.name: source for source in load_settings(environment=os.environ, flags={}).metrics_sources()}
    if name not in configured:
        raise SettingsError(f"metricsSource {name!r} is not configured here: give its URL with --source")
    return configured[name]


def patient_client(source: MetricsSource) -> PrometheusClient:
    """A client for long questions."""
    return PrometheusClient(replace(source, timeout_seconds=_TIMEOUT_SECONDS))


async def read_looks(
    source: MetricsSource, archive: Archive, past: Past, segments: Sequence[Segment], *, advance: Callable[[], None]
) -> list[Look]:
    """The recording of one service.

    Args:
        source: what its answers are like.
        archive: answers for it.
        past: of the service.
        segments: times, in order.
        advance: told of each time that has been read.

    Raises:
        MetricsUnavailable: the source answers nothing.
    """
    history = HistoryReader(source, archive, narrowed=lambda queries: _narrow(queries, past, source))
    looks: list[Look] = []
    async for moment in history.moments([past], segments):
        advance()
        observation = moment.observations.get(past.signals.key)
        if observation is not None:
            partial = bool(moment.unanswered or moment.partial)
            looks.append(Look(observation, moment.pods[past.signals.key], partial))
    return looks


async def read_span(source: MetricsSource, past: Past, span: Span, *, clock: Clock, bar: Bar) -> list[Look]:
    """The recording of one service, in pieces that are kept on disk.

    Raises:
        MetricsUnavailable: the source answers nothing.
    """
    step = span.step_seconds
    end = int(clock.unix_seconds()) // step * step
    segment = Segment(end - span.seconds // step * step, end, step)
    task = bar.add_task(f"reading {timedelta(seconds=span.seconds)} from {source.url}", total=len(segment.times))
    client = patient_client(source)
    archive = Archive(client, span.cache, source=source.url, settled_before_seconds=end - SETTLED_SECONDS)
    try:
        return await read_looks(source, archive, past, [segment], advance=lambda: bar.advance(task))
    finally:
        client.close()


def service_of(body: Mapping[str, Any]) -> Service:
    """The resource as the policy reads it, without a target."""
    (service,) = build_fleet([_view(body)]).services
    return service


def past_of(body: Mapping[str, Any], spec: ReasoningServingSpec) -> Past:
    """What is to be read of its past: by the names of its pods, whoever is there now."""
    view = _view(body)
    reference = view.record.target
    assert reference is not None
    target = ScaleRecord(key=reference.key, uid="", replicas=0, selector=None)
    (signals,) = build_signals([replace(view, target=target)])
    return Past(signals, kind=spec.scale_target_ref.kind, name=spec.scale_target_ref.name)


def from_file(path: Path, namespace: str, name: str) -> dict[str, Any]:
    """A resource out of a manifest.

    Raises:
        SpecError: it is not there.
    """
    for document in documents(path):
        if (document.get("metadata") or {}).get("name") == name and document.get("kind") == KIND:
            body = deepcopy(document)
            body["metadata"] = {"uid": "", **body["metadata"], "namespace": namespace}
            return body
    raise SpecError(f"{path}: there is no {KIND} {name!r} in it")


def documents(path: Path) -> list[dict[str, Any]]:
    """The objects of a manifest.

    Raises:
        SpecError: it cannot be read.
    """
    try:
        found = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as unreadable:
        raise SpecError(f"{path}: {unreadable}") from unreadable
    return [document for document in found if isinstance(document, dict)]


async def from_cluster(namespace: str, name: str, kubeconfig: str | None, context: str | None) -> dict[str, Any]:
    """A resource as the API server has it.

    Raises:
        NotFound: there is none of the name.
        ClusterError: it cannot be read.
    """
    async with await connect(kubeconfig=kubeconfig, context=context) as api:
        try:
            body: dict[str, Any] = await api.get(SERVINGS.path(namespace=namespace, name=name))
        except NotFound as missing:
            raise NotFound(f"there is no ReasoningServing {namespace}/{name} in this cluster") from missing
    return body


def resource_of(
    namespace: str, name: str, *, manifest: Path | None, kubeconfig: str | None, context: str | None
) -> dict[str, Any]:
    """A resource out of a manifest, or without one as the API server has it.

    Raises:
        SpecError: it is not in the manifest.
        ClusterError: it cannot be read.
    """
    if manifest is not None:
        return from_file(manifest, namespace, name)
    return asyncio.run(from_cluster(namespace, name, kubeconfig, context))


@contextmanager
def bars() -> Iterator[Bar]:
    """Bars on the error stream, so that they never mix with the figures."""
    with Bar(console=Console(stderr=True), transient=True) as bar:
        yield bar


def _narrow(queries: Sequence[Query], past: Past, source: MetricsSource) -> list[Query]:
    """Only the pods of one workload: a week of the whole cluster is nobody's to read for one service."""
    labels = source.labels
    pattern = quoted(pod_pattern(past.kind, past.name))
    matchers = f"{labels.namespace}={quoted(past.signals.key.namespace)},{labels.pod}=~{pattern}"
    found = []
    for query in queries:
        if query.name.startswith("classes-"):
            continue  # a pool of another size is replayed with all requests alike
        own = [part for part in query.parts if part.engine not in _NOT_PODS]
        parts = [replace(part, expression=narrowed(part.expression, matchers)) for part in own]
        # GPU activity has its pod in one of two labels, and says nothing of a pool of another size.
        parts += [part for part in query.parts if part.engine in _NOT_PODS and part.engine != "dcgm"]
        if parts:
            found.append(joined(query.name, parts))
    return found


def _view(body: Mapping[str, Any]) -> ServingView:
    return ServingView(record=serving_record(body, previous=None), target=None, problem=None, conflict=None)
