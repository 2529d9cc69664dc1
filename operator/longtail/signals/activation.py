"""Work at the door of a pool that may sleep: one query of the user's own for each, because no pod can tell.

The query must have one number for an answer. Several series, NaN or nothing are "nobody knows" and not 0: a
pool is never put to sleep by them. How old the number may be is the query's affair, which knows its windows;
Prometheus itself looks back 5 minutes at most.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from longtail.demand.observation import Signal
from longtail.errors import MetricsError, MetricsUnavailable
from longtail.policy.fleet import ServiceKey
from longtail.signals.exchange import Answer
from longtail.signals.observe import ServiceSignals
from longtail.signals.samples import instant_points

QUERY: Final = "activation"
"""Name of these queries in failures and metrics."""


class Asked(Protocol):
    """A source that evaluates PromQL."""

    async def query(self, promql: str, at_seconds: float) -> Answer:
        """Evaluate an expression at one time."""
        ...


async def read(
    client: Asked, services: Sequence[ServiceSignals], *, at_seconds: float
) -> Mapping[ServiceKey, Signal | MetricsError]:
    """The activation of every service that has a query, or why it has none. Equal queries are asked once."""
    wanted = {s.key: s.activation_query for s in services if s.activation_query is not None}
    unique = sorted(set(wanted.values()))
    answers = await asyncio.gather(*(_ask(client, promql, at_seconds=at_seconds) for promql in unique))
    by_query = dict(zip(unique, answers, strict=True))
    return {key: by_query[promql] for key, promql in wanted.items()}


async def _ask(client: Asked, promql: str, *, at_seconds: float) -> Signal | MetricsError:
    try:
        answer = await client.query(promql, at_seconds)
        return one_number(answer)
    except MetricsError as error:
        return error


def one_number(answer: Answer) -> Signal:
    """The one number of an answer.

    Raises:
        MetricsUnavailable: it has none, or several, or not a number that counts anything; or it is not whole.
    """
    points = instant_points(answer.result)
    if len(points) != 1:
        raise MetricsUnavailable(f"scaleToZero.activation.query: want one number, got {len(points)} series")
    value = points[0][1]
    if not (math.isfinite(value) and value >= 0):
        raise MetricsUnavailable(f"scaleToZero.activation.query: want a number of 0 or more, got {value}")
    if answer.warnings and value == 0:
        raise MetricsUnavailable(f"scaleToZero.activation.query: 0, but {answer.warnings[0]}")
    return Signal(value)
