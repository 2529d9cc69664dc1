"""The past of a fleet, as live reading would have seen it.

    history = HistoryReader(source, client)
    async for moment in history.moments(services, [Segment(start, end, 60)]):
        moment.observations[key], moment.pods[key]

The queries of a tick are asked as *range* queries. Prometheus evaluates a range at a step as it would an instant, with
the same look-back and with ``time()`` of the step, so each step's samples, ages included, are those that a tick at
that time would have been given; from there on everything is ``observe`` itself. Which pods there were is told by
``past``. Two things differ. A time at which no service has any sample is taken as an outage of the source: MISSING,
not a fleet of mute pods, nor one at zero. And before a service's first sample nothing is said of it at all.

A range is asked for in pieces, aligned to multiples of their length so that the next run asks the same questions again
(a cache may have kept the answers), and short enough to hold ``most_samples`` each. A piece that the source refuses as
too large, or does not answer in time, is asked for again in halves; what is not answered at a single step is MISSING
there. A query that fails so for `PATIENCE` steps in a row is not asked again.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from longtail.demand.observation import Observation
from longtail.errors import MetricsError, MetricsUnavailable
from longtail.policy.fleet import Pod, ServiceKey
from longtail.signals.counters import Baseline
from longtail.signals.exchange import Answer
from longtail.signals.past import Census, Life, Past
from longtail.signals.reader import observe_all, places, queries
from longtail.signals.samples import Cell, ObjectKey, Snapshot, Sorter, native_points
from longtail.signals.sources import MetricsSource
from longtail.signals.vocabulary import Query, Series

PATIENCE: Final = 3
_PIECES_SECONDS: Final = (3_600, 1_800, 900, 600, 300, 120, 60, 30, 15, 5)
"""How long a piece may be: few lengths, so that pieces of one run are pieces of the next."""
_MOST_STEPS: Final = 5_000
"""Of a piece. Prometheus refuses more than 11 000."""
_SERIES_PER_POD: Final = 24
"""Of the largest query, a histogram: a first guess, until an answer has been seen."""


class Ranges(Protocol):
    """Who answers range queries: a ``PrometheusClient``, or a cache in front of one."""

    async def query_range(self, promql: str, start_seconds: int, end_seconds: int, step_seconds: int) -> Answer:
        """The matrix from start to end, both included."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The times start, start + step, ... up to and including end, in whole Unix seconds."""

    start_seconds: int
    end_seconds: int
    step_seconds: int

    @property
    def times(self) -> range:
        """All of them."""
        return range(self.start_seconds, self.end_seconds + 1, self.step_seconds)


@dataclass(frozen=True, slots=True)
class Moment:
    """What live reading would have seen at one time."""

    at_seconds: float
    observations: Mapping[ServiceKey, Observation]
    pods: Mapping[ServiceKey, Sequence[Pod]]
    unanswered: Sequence[str] = ()
    """Names of the queries without an answer for this time."""
    partial: Sequence[str] = ()
    """Names of the queries whose answer came with a warning that a part may be missing."""


class _Piece:
    """The answer to one query over some times: a row of numbers a series, nine bytes a sample."""

    def __init__(self, query: Query, times: Sequence[int]) -> None:
        self.query = query
        self.unanswered: set[int] = set()
        """Indices of times."""
        self.partial: set[int] = set()
        self.series = 0
        """Most that one answer held, strangers' included."""
        self._index_of = {at: index for index, at in enumerate(times)}
        self._rows: dict[Cell, int] = {}
        self._values = np.zeros((0, len(times)))
        self._there = np.zeros((0, len(times)), dtype=bool)

    def add(self, result: Sequence[Any], sorter: Sorter) -> None:
        """Sort in a matrix. Runs in a thread.

        Raises:
            MetricsUnavailable: it is none; nothing of it is kept.
        """
        found: list[tuple[Cell, list[int], list[float]]] = []
        index_of = self._index_of
        try:
            for item in result:
                labels = item["metric"]
                cell = sorter.cell(labels)
                values = item.get("values")
                if cell is not None and values:
                    found.append((cell, [index_of[at] for at, _ in values], [float(text) for _, text in values]))
                for at, histogram in item.get("histograms", ()):
                    for native, value in native_points(labels, histogram):
                        cell = sorter.cell(native)
                        if cell is not None:
                            found.append((cell, [index_of[at]], [value]))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise MetricsUnavailable(f"malformed sample in a matrix: {error!r}") from error
        for cell, _, _ in found:
            self._rows.setdefault(cell, len(self._rows))
        new = len(self._rows) - len(self._values)
        self._values = np.pad(self._values, ((0, new), (0, 0)))
        self._there = np.pad(self._there, ((0, new), (0, 0)))
        for cell, indices, numbers in found:
            row = self._rows[cell]
            self._values[row, indices] = numbers
            self._there[row, indices] = True
        self.series = max(self.series, len(result))

    def has_samples(self, index: int) -> bool:
        """Whether any series has a sample at that time."""
        return bool(self._there[:, index].any())

    def put(self, snapshot: Snapshot, index: int) -> None:
        """Put the samples of one time into the tables."""
        snapshot.open(self.query, whole=index not in self.partial)
        samples = zip(self._rows, self._values[:, index].tolist(), self._there[:, index].tolist(), strict=True)
        for cell, value, there in samples:
            if there:
                snapshot.put(cell, value)


class HistoryReader:
    """Reads the past of the services of one source, one query at a time, one piece of each ahead of what it gives."""

    def __init__(
        self,
        source: MetricsSource,
        ranges: Ranges,
        *,
        most_samples: int = 250_000,
        narrowed: Callable[[Sequence[Query]], Sequence[Query]] = tuple,
    ) -> None:
        """Prepare.

        Args:
            source: what the answers are like: labels, freshness.
            ranges: who answers.
            most_samples: of the answer to one piece, which takes some 60 MB while it is read, and 2 MB then.
            narrowed: chooses and changes queries before they are asked.
        """
        self._source = source
        self._ranges = ranges
        self._most_samples = most_samples
        self._narrowed = narrowed
        self._failed_steps: dict[str, int] = {}
        self._series = 0
        self.errors: dict[str, MetricsError] = {}
        """The latest failure of each query that failed."""

    async def moments(self, services: Sequence[Past], segments: Sequence[Segment]) -> AsyncGenerator[Moment, None]:
        """Every time of the segments, which must follow one another in time.

        Raises:
            MetricsUnavailable: the source answers nothing at all any more.
        """
        asked = self._narrowed(queries([past.signals for past in services], self._source.labels))
        end = float(segments[-1].end_seconds)
        lives = await self._lives(asked, segments)
        census = Census(services, lives, end_seconds=end)
        wanted = places(census.everybody())
        self._series = max(self._series, _SERIES_PER_POD * len(wanted))
        baseline: Baseline | None = None
        ahead: asyncio.Task[list[_Piece]] | None = None
        windows = self._windows(segments)
        try:
            times = next(windows, None)
            while times is not None:
                if ahead is None:
                    ahead = asyncio.create_task(self._read(asked, times, wanted))
                pieces = await ahead
                following = next(windows, None)
                ahead = None if following is None else asyncio.create_task(self._read(asked, following, wanted))
                for index, at in enumerate(times):
                    moment, baseline = await asyncio.to_thread(self._moment, pieces, index, float(at), census, baseline)
                    yield moment
                times = following
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)

    def _moment(
        self, pieces: Sequence[_Piece], index: int, at: float, census: Census, baseline: Baseline | None
    ) -> tuple[Moment, Baseline | None]:
        """Runs in a thread."""
        snapshot = Snapshot(at)
        services = census.at(at)
        unanswered = [piece.query.name for piece in pieces if index in piece.unanswered]
        silent = not any(piece.has_samples(index) for piece in pieces)
        if silent:
            unanswered = [piece.query.name for piece in pieces]
        for piece in pieces:
            if not silent and index not in piece.unanswered:
                piece.put(snapshot, index)
        observations, baseline = observe_all(
            services, snapshot, baseline, freshness_limit_seconds=self._source.freshness_limit_seconds
        )
        moment = Moment(
            at_seconds=at,
            observations=observations,
            pods={service.key: service.pods for service in services},
            unanswered=unanswered,
            partial=[piece.query.name for piece in pieces if index in piece.partial],
        )
        return moment, baseline

    # ------------------------------------------------------------------ pieces

    def _windows(self, segments: Sequence[Segment]) -> Iterator[Sequence[int]]:
        """Times to ask for at once. Looked at anew for each, because the series become known by the answers."""
        for segment in segments:
            at = segment.start_seconds
            while at <= segment.end_seconds:
                steps = min(max(self._most_samples // max(self._series, 1), 1), _MOST_STEPS)
                most_seconds = steps * segment.step_seconds
                length = next((seconds for seconds in _PIECES_SECONDS if seconds <= most_seconds), segment.step_seconds)
                boundary = min((at // length + 1) * length - 1, segment.end_seconds)
                times = range(at, boundary + 1, segment.step_seconds)
                yield times
                at = times[-1] + segment.step_seconds

    async def _read(
        self, asked: Sequence[Query], times: Sequence[int], wanted: Mapping[tuple[str, str], ObjectKey]
    ) -> list[_Piece]:
        pieces = [await self._read_one(query, times, wanted) for query in asked]
        if all(len(piece.unanswered) == len(times) for piece in pieces):
            raise MetricsUnavailable(str(next(iter(self.errors.values()), "no query was answered")))
        self._series = max(self._series, *(piece.series for piece in pieces))
        return pieces

    async def _read_one(
        self, query: Query, times: Sequence[int], wanted: Mapping[tuple[str, str], ObjectKey]
    ) -> _Piece:
        piece = _Piece(query, times)
        sorter = Sorter(query, namespace_label=self._source.labels.namespace, wanted=wanted)
        index_of = {at: index for index, at in enumerate(times)}
        for some, answer in await self._ask(query.name, query.promql, times):
            indices = [index_of[at] for at in some]
            if answer is None:
                piece.unanswered.update(indices)
                continue
            try:
                await asyncio.to_thread(piece.add, answer.result, sorter)
            except MetricsError as error:
                self.errors[query.name] = error
                piece.unanswered.update(indices)
            if answer.warnings:
                piece.partial.update(indices)
        return piece

    async def _lives(self, asked: Sequence[Query], segments: Sequence[Segment]) -> dict[ObjectKey, Life]:
        """First and last sample of every pod of the source, from the running requests: one series a pod."""
        lives: dict[ObjectKey, Life] = {}
        running = [part for query in asked for part in query.parts if part.series is Series.RUNNING]
        for part in running:
            for segment in segments:
                times = segment.times
                while times:
                    count = min(max(self._most_samples // max(len(lives), 1), 1), _MOST_STEPS)
                    for _, answer in await self._ask("running", part.expression, times[:count]):
                        if answer is not None:
                            _live(lives, answer, self._source.labels.namespace, part.object_label)
                    times = times[count:]
        return lives

    async def _ask(self, name: str, promql: str, times: Sequence[int]) -> list[tuple[Sequence[int], Answer | None]]:
        """The answers for some times: one, or one for each of the parts that the source would take."""
        if self._failed_steps.get(name, 0) >= PATIENCE:
            return [(times, None)]
        step = times[1] - times[0] if len(times) > 1 else 1
        try:
            answer = await self._ranges.query_range(promql, times[0], times[-1], step)
        except MetricsError as error:
            self.errors[name] = error
        else:
            self._failed_steps[name] = 0
            return [(times, answer)]
        if len(times) > 1:
            half = len(times) // 2
            return [*await self._ask(name, promql, times[:half]), *await self._ask(name, promql, times[half:])]
        self._failed_steps[name] = self._failed_steps.get(name, 0) + 1
        return [(times, None)]


def _live(lives: dict[ObjectKey, Life], answer: Answer, namespace_label: str, pod_label: str) -> None:
    for item in answer.result:
        labels = item.get("metric", {})
        values = item.get("values")
        if not values or not labels.get(pod_label):
            continue
        place = ObjectKey(labels.get(namespace_label, ""), labels[pod_label])
        first, last = float(values[0][0]), float(values[-1][0])
        life = lives.get(place, Life(first, last))
        lives[place] = life.with_sample_at(first).with_sample_at(last)
