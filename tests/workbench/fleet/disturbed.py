"""Engines under requests while their replicas come, go and die: for the tests of engines with and without clients."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from longtail.workbench.fleet.arrivals import Arrivals
from longtail.workbench.traces.trace import Trace

PACE = 0.5

operations = st.lists(
    st.tuples(st.sampled_from(["open", "close", "kill", "add", "pass"]), st.integers(0, 5), st.integers(0, 20)),
    max_size=30,
)
"""What is done to which replica, and after how many quarters of a second."""


def trace_of(pairs, *, reasoning=None) -> Trace:
    """Requests as (arrival in tenths, prompt, output)."""
    arrivals, prompts, outputs = (np.array(column) for column in zip(*sorted(pairs), strict=True))
    return Trace("t", arrivals / 10.0, prompts, outputs, reasoning)


def opened(engines: Any, replicas: int) -> Any:
    """The engines with so many open replicas."""
    for _ in range(replicas):
        engines.open(engines.add_row())
    return engines


def disturb(
    engines: Any, arrivals: Arrivals, operations: Sequence[tuple[str, int, int]]
) -> Iterator[tuple[float, int]]:
    """Do one thing after the other, and tell after each what time it is and how many requests were killed so far."""
    rows, gone, killed, at = [*range(engines.rows)], set(), 0, 0.0
    for what, which, quarters in operations:
        at += quarters / 4
        engines.advance(arrivals, at)
        row = rows[which % len(rows)]
        if what == "add":
            rows.append(engines.add_row())
            engines.open(rows[-1])
        elif what == "kill" and row not in gone:
            killed += len(engines.kill(row, at_seconds=at))
            gone.add(row)
        elif what in {"open", "close"} and row not in gone:
            getattr(engines, what)(row)
        engines.dispatch(at)
        yield at, killed
