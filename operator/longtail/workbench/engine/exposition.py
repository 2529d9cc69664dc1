"""The Prometheus text format, written from templates.

A simulated fleet is scraped hundreds of times a second, so everything that never changes (names, labels,
buckets, HELP and TYPE) is put together once per kind of pod; a scrape only formats numbers. Labels are
sorted and numbers written as ``prometheus_client`` does, because a reader that matches text should see what
the engines write.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client.utils import floatToGoString

Labels = Mapping[str, str]
NO_LABELS: Labels = {}
Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family of an engine.

    ``rows`` are the labels that a family has beside the common ones, one mapping per sample (gauges,
    counters) or exactly one (histograms, with ``bounds``). ``without`` names common labels that the family
    lacks; a family
    """

    name: str
    kind: Kind
    documentation: str
    rows: tuple[Labels, ...] = (NO_LABELS,)
    bounds: tuple[float, ...] = ()
    without: tuple[str, ...] = ()

    def lines(self, common: Labels) -> list[str]:
        """Sample lines with ``%s`` in the place of the value, and every other percent sign doubled."""
        base = {name: value for name, value in common.items() if name not in self.without}
        if self.kind != "histogram":
            series = [f"{self.name}{label_set({**base, **row})}" for row in self.rows]
        else:
            (row,) = self.rows
            bounds = [*(go_float(bound) for bound in self.bounds), "+Inf"]
            series = [f"{self.name}_bucket{label_set({**base, **row, 'le': bound})}" for bound in bounds]
            series += [f"{self.name}{suffix}{label_set({**base, **row})}" for suffix in ("_count", "_sum")]
        return [line.replace("%", "%%") + " %s\n" for line in series]


def label_set(labels: Labels) -> str:
    r"""Labels in braces, sorted by name, with values escaped.

    >>> label_set({"model_name": 'a"b', "engine": "0"})
    '{engine="0",model_name="a\\"b"}'
    """
    if not labels:
        return ""
    escaped = (
        (name, value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"'))
        for name, value in sorted(labels.items())
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"


class Template:
    """The text of one kind of pod: families in order, each with the samples of every engine in the pod."""

    def __init__(self, families: Sequence[Family], *, engines: Sequence[Labels]) -> None:
        self._plan: list[tuple[str, int, int]] = []
        parts: list[str] = []
        for family in families:
            parts.append(f"# HELP {family.name} {family.documentation}\n# TYPE {family.name} {family.kind}\n")
            per_engine = [family.lines(common) for common in engines]
            # A family without the engine label has one set of samples per pod, taken from the first engine.
            distinct = per_engine if per_engine[0] != per_engine[-1] else per_engine[:1]
            parts.extend(line for lines in distinct for line in lines)
            self._plan.append((family.name, len(distinct), len(distinct[0])))
        self._text = "".join(parts)
        self.size = sum(engines * count for _, engines, count in self._plan)

    def render(self, engines: Sequence[Mapping[str, Sequence[float]]]) -> str:
        """The text for values by family name, per engine; a family without values is all zeros."""
        values: list[str] = []
        for name, distinct, count in self._plan:
            for engine in engines[:distinct]:
                samples = engine.get(name)
                if samples is None:
                    values += ["0.0"] * count
                else:
                    values += map(go_float, samples)
        return self._text % tuple(values)

    def render_constant(self, value: str) -> str:
        """The text with the same string in the place of every value (faults: NaN, +Inf)."""
        return self._text % ((value,) * self.size)


def go_float(value: float) -> str:
    """A number as ``prometheus_client`` writes it.

    >>> go_float(0.25), go_float(12), go_float(2097152)
    ('0.25', '12.0', '2.097152e+06')
    """
    if type(value) is int and value < 1_000_000:
        return f"{value}.0"
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]  # the library annotates nothing here
