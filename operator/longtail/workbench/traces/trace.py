"""A trace: parallel arrays, one entry a request, ordered by arrival."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from longtail.errors import TraceError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing wrong with a column. ``row`` counts requests from 0."""

    row: int
    column: str
    problem: str


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Requests in order of arrival. All arrays have the same length and are read-only views.

    Raises:
        TraceError: an array is unsorted, negative, not finite, or of another length than the arrivals.
    """

    name: str
    arrival_seconds: Floats
    """Seconds since the start of the trace, ascending, float64."""
    input_tokens: Integers
    output_tokens: Integers
    """Tokens written, reasoning included. 0 means that the request never produced one."""
    reasoning_tokens: Integers | None = None
    """The part of ``output_tokens`` that is reasoning; None where the source does not say."""
    client: Integers | None = None
    """Number of the client that sent the request; None where the source does not say."""

    def __post_init__(self) -> None:
        columns: dict[str, Floats | Integers] = {"arrival_seconds": np.asarray(self.arrival_seconds, np.float64)}
        for column in ("input_tokens", "output_tokens", "reasoning_tokens", "client"):
            values = getattr(self, column)
            if values is not None:
                columns[column] = np.asarray(values)
        fault = find_fault(columns)
        if fault is not None:
            raise TraceError(f"{self.name}: request {fault.row}, column {fault.column}: {fault.problem}")
        for column, values in columns.items():
            view = values.astype(np.float64 if column == "arrival_seconds" else np.int64, copy=False).view()
            view.flags.writeable = False
            object.__setattr__(self, column, view)

    def __len__(self) -> int:
        return len(self.arrival_seconds)

    @property
    def span_seconds(self) -> float:
        """Arrival of the last request; 0 for an empty trace."""
        return float(self.arrival_seconds[-1]) if len(self) else 0.0

    def select(self, keep: Mask, *, name: str | None = None) -> Self:
        """The requests where ``keep`` holds, at the times they had."""
        return replace(
            self,
            name=name or self.name,
            arrival_seconds=self.arrival_seconds[keep],
            input_tokens=self.input_tokens[keep],
            output_tokens=self.output_tokens[keep],
            reasoning_tokens=None if self.reasoning_tokens is None else self.reasoning_tokens[keep],
            client=None if self.client is None else self.client[keep],
        )

    def window(self, start_seconds: float, end_seconds: float) -> Self:
        """The requests that arrive in ``[start, end)``, with ``start`` as the new zero."""
        inside = (self.arrival_seconds >= start_seconds) & (self.arrival_seconds < end_seconds)
        part = self.select(inside)
        return replace(part, arrival_seconds=part.arrival_seconds - start_seconds)

    def thinned(self, share: float, *, seed: int) -> Self:
        """Each request kept with probability ``share``.

        Thinning pulls bursts towards Poisson: with IDC the variance of counts over their mean,
        IDC_thinned = 1 + share * (IDC - 1). A subset of the clients keeps them whole.
        """
        return self.select(np.random.default_rng(seed).random(len(self)) < share)

    def with_output_tokens(self, output_tokens: Integers) -> Self:
        """The same arrivals with other lengths; how much of them is reasoning is then not known."""
        return replace(self, output_tokens=output_tokens, reasoning_tokens=None)

    def repeated(self, times: int, period_seconds: float) -> Self:
        """The trace played ``times`` times in a row, one start every ``period_seconds``.

        Raises:
            ValueError: the period is shorter than the trace, which would leave the arrivals unsorted.
        """
        if period_seconds < self.span_seconds:
            raise ValueError(f"period_seconds: {period_seconds} is shorter than the trace ({self.span_seconds})")
        starts = np.repeat(np.arange(times) * period_seconds, len(self))
        return replace(
            self,
            arrival_seconds=np.tile(self.arrival_seconds, times) + starts,
            input_tokens=np.tile(self.input_tokens, times),
            output_tokens=np.tile(self.output_tokens, times),
            reasoning_tokens=None if self.reasoning_tokens is None else np.tile(self.reasoning_tokens, times),
            client=None if self.client is None else np.tile(self.client, times),
        )


def find_fault(columns: Mapping[str, Floats | Integers]) -> Fault | None:
    """The first fault of some columns, or None. ``columns`` must hold ``arrival_seconds``.

    >>> find_fault({"arrival_seconds": np.array([0.0, 2.0, 1.0])})
    Fault(row=2, column='arrival_seconds', problem='1 comes after 2: arrivals must ascend')
    """
    arrivals = columns["arrival_seconds"]
    for column, values in columns.items():
        if len(values) != len(arrivals):
            return Fault(
                row=min(len(values), len(arrivals)),
                column=column,
                problem=f"has {len(values)} values where arrival_seconds has {len(arrivals)}",
            )
        for bad, problem in _CHECKS[column == "arrival_seconds"]:
            rows = bad(values)
            if rows.any():
                row = int(np.argmax(rows))
                return Fault(row=row, column=column, problem=f"{values[row]:g} {problem}")
    backwards = np.diff(arrivals) < 0
    if backwards.any():
        row = int(np.argmax(backwards)) + 1
        problem = f"{arrivals[row]:g} comes after {arrivals[row - 1]:g}: arrivals must ascend"
        return Fault(row=row, column="arrival_seconds", problem=problem)
    return _reasoning_beyond_output(columns)


def _reasoning_beyond_output(columns: Mapping[str, Floats | Integers]) -> Fault | None:
    if "reasoning_tokens" not in columns or "output_tokens" not in columns:
        return None
    beyond = columns["reasoning_tokens"] > columns["output_tokens"]
    if not beyond.any():
        return None
    row = int(np.argmax(beyond))
    reasoning, output = columns["reasoning_tokens"][row], columns["output_tokens"][row]
    problem = f"{reasoning:g} is more than the {output:g} output_tokens that contain it"
    return Fault(row=row, column="reasoning_tokens", problem=problem)


_Check = tuple[Callable[[Floats | Integers], Mask], str]
_ANY: tuple[_Check, ...] = (
    (np.isnan, "is not a number"),
    (np.isinf, "is not finite"),
    (lambda v: v < 0, "is negative"),
)
_CHECKS: dict[bool, tuple[_Check, ...]] = {
    True: _ANY,
    False: (*_ANY, (lambda v: v != np.floor(v), "is not a whole number")),
}
