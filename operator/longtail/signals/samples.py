"""Answers of a metrics source, sorted into tables. The same for an instant and for each step of a range.

Tables are nested dicts of floats and nothing else: a fleet of 1 000 pods brings some 70 000 samples a
tick, and an object for each would cost more than the query.
"""

import functools
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from longtail.errors import MetricsUnavailable
from longtail.signals.promql import NATIVE_LABEL, PART_LABEL
from longtail.signals.vocabulary import COUNTERS, Query, Series


class ObjectKey(NamedTuple):
    """A pod, or an inference pool."""

    namespace: str
    name: str


class SeriesKey(NamedTuple):
    """One series of one engine."""

    engine: str
    series: Series


Point: TypeAlias = tuple[Mapping[str, str], float]
"""Labels and value of one sample."""

WHOLE: Final = math.inf
"""``le`` of a plain counter: it is a histogram with the one bucket that holds everything."""

MOST_REQUESTS: Final = 100_000.0
"""Requests that one engine can run or queue: each holds a connection, of which a process has 65,535 to an address.
A gauge above that is stuck or broken. Believed, five minutes at 10⁶ would keep a pool at its maximum for hours,
because rates, forecast errors and lengths are learned from it."""
_REQUESTS: Final = frozenset({Series.RUNNING, Series.WAITING})


class Cell(NamedTuple):
    """Where in the tables the samples of one series belong: found once, however many steps a range has."""

    series: SeriesKey
    place: ObjectKey
    rank: str
    bound: float | None
    """``le`` of a counter, NaN for one that is no number; None for a level."""
    stated: float | None
    """The value, where it is stated in the labels."""


class Sorter:
    """Finds the cells of one query's series."""

    def __init__(self, query: Query, *, namespace_label: str, wanted: Mapping[tuple[str, str], ObjectKey]) -> None:
        self._parts = {part.tag: (part, SeriesKey(part.engine, part.series)) for part in query.parts}
        self._namespace_label = namespace_label
        self._wanted = wanted

    def cell(self, labels: Mapping[str, str]) -> Cell | None:
        """The cell of a series; None for one that is not asked for."""
        found = self._parts.get(labels.get(PART_LABEL, ""))
        if found is None:
            return None
        part, key = found
        if labels.get(NATIVE_LABEL, part.native) != part.native:
            return None
        place = self._wanted.get((labels.get(self._namespace_label, ""), labels.get(part.object_label, "")))
        if place is None:
            return None
        bound = None
        if key.series in COUNTERS:
            bound = _bound(labels["le"]) if "le" in labels else WHOLE
        stated = None if part.value_of is None else part.value_of(labels)
        return Cell(key, place, labels.get(part.rank_label, ""), bound, stated)


@dataclass(slots=True)
class Snapshot:
    """Everything that was answered for one time."""

    at_seconds: float
    answered: dict[SeriesKey, bool] = field(default_factory=dict)
    """Series whose query was answered; False when with warnings, so that absent may be hidden."""
    levels: dict[SeriesKey, dict[ObjectKey, dict[str, float]]] = field(default_factory=dict)
    """Value by rank."""
    counters: dict[SeriesKey, dict[ObjectKey, dict[str, dict[float, float]]]] = field(default_factory=dict)
    """Raw cumulative value by rank and ``le``."""
    lazy: set[SeriesKey] = field(default_factory=set)
    """Answered series that their engine creates with the first event."""
    damaged: set[tuple[SeriesKey, ObjectKey]] = field(default_factory=set)
    """Where a NaN, an infinity, a negative value or one that cannot be was dropped."""

    def add(
        self,
        query: Query,
        points: Iterable[Point],
        *,
        namespace_label: str,
        wanted: Mapping[tuple[str, str], ObjectKey],
        whole: bool = True,
    ) -> None:
        """Sort the answer to one query into the tables, as far as it is about ``wanted`` pods and pools."""
        self.open(query, whole=whole)
        sorter = Sorter(query, namespace_label=namespace_label, wanted=wanted)
        for labels, raw in points:
            cell = sorter.cell(labels)
            if cell is not None:
                self.put(cell, raw)

    def open(self, query: Query, *, whole: bool = True) -> None:
        """Note that a query was answered; what is not put in afterwards is not there."""
        for part in query.parts:
            key = SeriesKey(part.engine, part.series)
            self.answered[key] = whole
            if part.lazy:
                self.lazy.add(key)
            (self.counters if key.series in COUNTERS else self.levels).setdefault(key, {})

    def put(self, cell: "Cell", raw: float) -> None:
        """One sample, of a query that was opened."""
        key, place, rank, bound, stated = cell
        value = raw if stated is None else stated
        highest = MOST_REQUESTS if key.series in _REQUESTS else sys.float_info.max
        if not 0.0 <= value <= highest or bound != bound:  # noqa: PLR0124  # NaN, at a third of isnan's price
            self.damaged.add((key, place))
        elif bound is None:
            # An info series that changed its labels shows twice for one rank: the larger stands.
            ranks = self.levels[key].setdefault(place, {})
            ranks[rank] = max(value, ranks.get(rank, 0.0))
        else:
            self.counters[key].setdefault(place, {}).setdefault(rank, {})[bound] = value

    def level(self, engine: str, series: Series, place: ObjectKey) -> float | None:
        """Sum over the ranks of a pod; None where it reports none."""
        ranks = self.levels.get(SeriesKey(engine, series), {}).get(place)
        return math.fsum(ranks.values()) if ranks else None

    def ranks(self, engine: str, series: Series, place: ObjectKey) -> Mapping[str, float]:
        """Level by rank."""
        return self.levels.get(SeriesKey(engine, series), {}).get(place, {})

    def raw(self, engine: str, series: Series, place: ObjectKey) -> float | None:
        """A plain counter's raw value, summed over ranks; None where the pod reports none."""
        ranks = self.counters.get(SeriesKey(engine, series), {}).get(place)
        return math.fsum(bounds.get(WHOLE, 0.0) for bounds in ranks.values()) if ranks else None


def instant_points(result: Sequence[Any]) -> list[Point]:
    """Samples of an instant vector; of a native histogram its sum, its count and its cumulative buckets.

    Raises:
        MetricsUnavailable: the JSON is not that of a vector.
    """
    try:
        points: list[Point] = []
        for item in result:
            if "histogram" in item:
                points.extend(native_points(_labels(item), item["histogram"][1]))
            else:
                points.append((_labels(item), float(item["value"][1])))
        return points  # noqa: TRY300  # the whole of it may be malformed
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise MetricsUnavailable(f"malformed sample in a vector: {error!r}") from error


def range_points(result: Sequence[Any]) -> dict[float, list[Point]]:
    """Samples of a matrix by their time, each like an instant vector of that time.

    Raises:
        MetricsUnavailable: the JSON is not that of a matrix.
    """
    steps: dict[float, list[Point]] = {}
    try:
        for labels, at_seconds, value in _matrix(result):
            steps.setdefault(at_seconds, []).append((labels, value))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise MetricsUnavailable(f"malformed sample in a matrix: {error!r}") from error
    return dict(sorted(steps.items()))


def _matrix(result: Sequence[Any]) -> Iterator[tuple[Mapping[str, str], float, float]]:
    for item in result:
        labels = _labels(item)
        for at_seconds, text in item.get("values", ()):
            yield labels, float(at_seconds), float(text)
        for at_seconds, histogram in item.get("histograms", ()):
            for native, value in native_points(labels, histogram):
                yield native, float(at_seconds), value


def native_points(labels: Mapping[str, str], histogram: Any) -> Iterator[Point]:
    """A native histogram as the samples of a classic one. Empty buckets are left out, so both edges are told."""
    yield {**labels, NATIVE_LABEL: "sum"}, float(histogram["sum"])
    yield {**labels, NATIVE_LABEL: "count"}, float(histogram["count"])
    below = 0.0
    for _, lower, upper, count in histogram.get("buckets", ()):
        if 0.0 < float(lower) < math.inf:
            yield {**labels, NATIVE_LABEL: "bucket", "le": lower}, below
        below += float(count)
        yield {**labels, NATIVE_LABEL: "bucket", "le": upper}, below
    yield {**labels, NATIVE_LABEL: "bucket", "le": "+Inf"}, float(histogram["count"])


def _labels(item: Any) -> Mapping[str, str]:
    labels = item["metric"]
    if not isinstance(labels, dict):
        raise TypeError(f"labels are {labels!r}")
    return labels


@functools.lru_cache(maxsize=1024)
def _bound(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
