"""Reading the fleet's signals: a tick's queries, all at the same time, joined with the caller's pods.

    reader = SignalReader([source, ...])
    reading = await reader.read(services, at_seconds=now)
    reading.observations[key]

The reader keeps the last raw counters of each source, and nothing else. ``assemble`` is the part without
I/O: it takes points of one time, whether they come from an instant query or from a step of a range.
"""

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from longtail.demand.observation import Observation
from longtail.errors import LongtailError, MetricsError, MetricsUnavailable, SettingsError, SpecError
from longtail.policy.fleet import ServiceKey
from longtail.signals import activation, classes, custom, gateway, gpu, litellm, sglang, vllm
from longtail.signals.client import PrometheusClient
from longtail.signals.counters import Baseline, advance
from longtail.signals.exchange import Answer
from longtail.signals.observe import ServiceSignals, began_at, blind, observe
from longtail.signals.samples import ObjectKey, Point, Snapshot, instant_points
from longtail.signals.sources import LabelNames, MetricsSource
from longtail.signals.vocabulary import Part, Query, fleet_queries

CLOCK_SKEW_SECONDS = 5.0
"""Clocks of machines in one cluster agree within milliseconds where NTP runs; this is for its absence."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One query without a usable answer, or a source that nobody configured."""

    source: str
    query: str
    """Name of the query; empty when the whole source is meant."""
    services: Sequence[ServiceKey]
    """Those that miss something by it."""
    error: LongtailError


@dataclass(frozen=True, slots=True)
class Reading:
    """What a tick saw: an observation for every service that was asked for, and why something is missing."""

    observations: Mapping[ServiceKey, Observation]
    failures: Sequence[Failure] = ()
    warnings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By source: what it said about parts of the data that may be missing."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to one query at one time."""

    query: Query
    points: Sequence[Point]
    whole: bool = True
    """False when the source warned that a part may be missing."""


class SignalReader:
    """Reads all services of the fleet from their sources."""

    def __init__(
        self, sources: Iterable[MetricsSource], *, live: bool = False, patience_seconds: float = math.inf
    ) -> None:
        """Make a reader.

        Args:
            sources: where to ask.
            patience_seconds: how long a tick waits for one source. One that is slower is silent, and keeps no other
                source's services waiting.
            live: times are those of now, so a source that has another clock is found out, and not believed.
        """
        self._live = live
        self._patience_seconds = patience_seconds
        self._sources: dict[str, MetricsSource] = {}
        for source in sources:
            if source.name in self._sources:
                raise SettingsError(f"metrics source {source.name!r} is configured twice")
            self._sources[source.name] = source
        self._clients = {name: PrometheusClient(source) for name, source in self._sources.items()}
        self._baselines: dict[str, Baseline | None] = {}

    async def read(self, services: Sequence[ServiceSignals], at_seconds: float) -> Reading:
        """Observe every service at one time. Never raises for a source: what it costs is in ``failures``.

        Takes at most the patience, or the slowest source's timeout if that is shorter.
        """
        by_source: dict[str, list[ServiceSignals]] = {}
        for service in services:
            by_source.setdefault(service.source, []).append(service)
        parts = await asyncio.gather(*(self._read_in_time(*item, at_seconds) for item in by_source.items()))
        return Reading(
            observations={key: value for part in parts for key, value in part.observations.items()},
            failures=[failure for part in parts for failure in part.failures],
            warnings={name: said for part in parts for name, said in part.warnings.items()},
        )

    def assemble(
        self, source: str, services: Sequence[ServiceSignals], answers: Iterable[Answered], at_seconds: float
    ) -> dict[ServiceKey, Observation]:
        """Observations from answers that are here already. Successive calls must be in order of time."""
        where = self._sources[source]
        snapshot = Snapshot(at_seconds)
        wanted = places(services)
        for answer in answers:
            snapshot.add(
                answer.query,
                answer.points,
                namespace_label=where.labels.namespace,
                wanted=wanted,
                whole=answer.whole,
            )
        observations, self._baselines[source] = observe_all(
            services, snapshot, self._baselines.get(source), freshness_limit_seconds=where.freshness_limit_seconds
        )
        return observations

    def close(self) -> None:
        """Drop all connections."""
        for client in self._clients.values():
            client.close()

    async def _read_in_time(self, name: str, services: list[ServiceSignals], at_seconds: float) -> Reading:
        within = None if math.isinf(self._patience_seconds) else self._patience_seconds
        try:
            async with asyncio.timeout(within):
                return await self._read_source(name, services, at_seconds)
        except TimeoutError:
            error = MetricsUnavailable(f"metrics source {name!r}: no answer within {self._patience_seconds:g} s")
            keys = [service.key for service in services]
            return Reading({s.key: blind(s, at_seconds) for s in services}, [Failure(name, "", keys, error)])

    async def _read_source(self, name: str, services: list[ServiceSignals], at_seconds: float) -> Reading:
        client = self._clients.get(name)
        if client is None:
            known = ", ".join(sorted(self._clients)) or "none"
            error = SpecError(f"metricsSource: {name!r} is not one of the configured sources: {known}")
            keys = [service.key for service in services]
            return Reading({s.key: blind(s, at_seconds) for s in services}, [Failure(name, "", keys, error)])
        asked = queries(services, client.source.labels)
        results, awake = await asyncio.gather(
            asyncio.gather(*(_ask(client, query, at_seconds) for query in asked)),
            activation.read(client, services, at_seconds=at_seconds),
        )
        if self._live:
            results = [_believed(result, client.source, at_seconds) for result in results]
        answers: list[Answered] = []
        failures: list[Failure] = []
        warnings: list[str] = []
        for query, result in zip(asked, results, strict=True):
            if isinstance(result, MetricsError):
                keys = [s.key for s in services if _concerns(query, s)]
                failures.append(Failure(name, query.name, keys, result))
                continue
            points, answer = result
            warnings += answer.warnings
            answers.append(Answered(query, points, whole=not answer.warnings))
        observations = await asyncio.to_thread(self.assemble, name, services, answers, at_seconds)
        for key, signal in awake.items():
            if isinstance(signal, MetricsError):
                failures.append(Failure(name, activation.QUERY, [key], signal))
            else:
                observations[key] = replace(observations[key], activation=signal)
        return Reading(observations, failures, {name: sorted(set(warnings))} if warnings else {})


def observe_all(
    services: Sequence[ServiceSignals], snapshot: Snapshot, baseline: Baseline | None, *, freshness_limit_seconds: float
) -> tuple[dict[ServiceKey, Observation], Baseline | None]:
    """Observations out of everything that was answered for one time, and what the next increases are taken against."""
    began = {ObjectKey(service.key.namespace, pod.name): began_at(pod) for service in services for pod in service.pods}
    increases, baseline = advance(
        baseline, snapshot, began_at=began, lazy=snapshot.lazy, unseen_seconds=freshness_limit_seconds
    )
    seen = {s.key: observe(s, snapshot, increases, freshness_limit_seconds=freshness_limit_seconds) for s in services}
    return seen, baseline


def queries(services: Sequence[ServiceSignals], labels: LabelNames) -> tuple[Query, ...]:
    """What must be asked of a source: twelve queries at most, and one for each set of custom names and class label."""
    engines = {engine for service in services for engine in service.engines}
    parts: list[Part] = []
    if vllm.ENGINE in engines:
        parts += vllm.parts(labels)
    if sglang.ENGINE in engines:
        parts += sglang.parts(labels)
    if services:
        parts += gpu.parts(labels)
    if any(service.inference_pool for service in services):
        parts += gateway.parts(labels)
    if any(service.gateway_model for service in services):
        parts += litellm.parts()
    names = {service.custom.engine: service.custom for service in services if service.custom}
    divided_by = {service.class_label for service in services if service.class_label and service.gateway_model}
    return (
        *fleet_queries(parts),
        *(custom.query(names[engine], labels) for engine in sorted(names)),
        *(classes.query(label) for label in sorted(divided_by)),
    )


async def _ask(client: PrometheusClient, query: Query, at_seconds: float) -> tuple[list[Point], Answer] | MetricsError:
    try:
        answer = await client.query(query.promql, at_seconds)
        return await asyncio.to_thread(instant_points, answer.result), answer
    except MetricsError as error:
        return error


def places(services: Iterable[ServiceSignals]) -> dict[tuple[str, str], ObjectKey]:
    """Pods, pools and models of the services. One key object for each place serves all its samples."""
    places: dict[tuple[str, str], ObjectKey] = {}
    for service in services:
        pool = [service.inference_pool] if service.inference_pool else []
        for name in [*(pod.name for pod in service.pods), *pool]:
            place = ObjectKey(service.key.namespace, name)
            places[place] = place
        if service.gateway_model:
            model = ObjectKey("", service.gateway_model)
            places[model] = model
    return places


def _believed(
    result: tuple[list[Point], Answer] | MetricsError, source: MetricsSource, at_seconds: float
) -> tuple[list[Point], Answer] | MetricsError:
    """An answer, unless the clock of the source makes the ages of its samples meaningless.

    A source that is a minute ahead shows samples of a minute ago as if they were of now: a replica that has
    been busy since then would pass for empty. One that is behind makes everything look old, or gone.
    """
    if isinstance(result, MetricsError) or result[1].answered_at is None:
        return result
    ahead = result[1].answered_at - at_seconds
    # It answers a little later than it is asked, and tells whole seconds.
    if -CLOCK_SKEW_SECONDS <= ahead <= source.timeout_seconds + CLOCK_SKEW_SECONDS:
        return result
    side = "ahead of" if ahead > 0 else "behind"
    return MetricsUnavailable(
        f"metrics source {source.name!r}: its clock is {abs(ahead):.0f} s {side} ours: its data has no age"
    )


def _concerns(query: Query, service: ServiceSignals) -> bool:
    tags = {part.engine for part in query.parts}
    if tags == {gateway.ENGINE}:
        return service.inference_pool is not None
    if tags == {litellm.ENGINE}:
        return service.gateway_model is not None
    if service.class_label is not None and classes.engine(service.class_label) in tags:
        return service.gateway_model is not None
    return tags == {gpu.ENGINE} or not tags.isdisjoint(service.engines)
