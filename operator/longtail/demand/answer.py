"""From arrays back to one `Demand` per service, with None where something cannot be known."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from longtail.demand.buckets import Array, Mask
from longtail.demand.capacity import BOUNDS, ReplicaCapacity
from longtail.demand.drift_cost import Changes
from longtail.demand.estimate import Capacity, Cascade, Demand, LengthChange, Lengths, LevelDemand, Startup
from longtail.demand.outlook import Outlook
from longtail.demand.startup import ColdStart


@dataclass(frozen=True, slots=True)
class Answers:
    """What the model says, as arrays of shape (services,)."""

    replica: ReplicaCapacity
    mean_tokens: Array
    p50_tokens: Array
    p99_tokens: Array
    tail_share: Array
    watched: Mask
    changes: Changes
    cold_start: ColdStart
    slots_now: Array
    slots_known: Mask
    kv_now: Array
    kv_known: Mask
    kv_ever: Mask
    """The KV cache has been seen at some time, so that a forecast of it means something."""
    owed_tokens: Array
    owed_known: Mask
    reasoning_tokens: Array
    forecast_known: Mask
    slots: Outlook
    kv: Outlook
    quantile: Array
    coverage: Array
    coverage_known: Mask
    known_fraction: Array
    attainment: Array
    attainment_known: Mask
    arrivals_per_second: Array
    age_check: Array
    age_check_known: Mask
    in_time_ratio: Array
    levels: Mapping[int, tuple[LevelDemand, ...]]
    """By row, for the services that have levels of thinking."""
    replicas_coming: Array
    cascades: Mapping[int, Cascade] = field(default_factory=dict)
    """By row, for the services that have one."""


def unpack(answers: Answers) -> list[Demand]:
    """One `Demand` per service, in the order of the rows."""
    known = answers.forecast_known
    kv_known = known & answers.kv_ever
    replica = answers.replica
    capacities = map(
        Capacity,
        replica.slots.tolist(),
        _maybe(replica.kv_tokens, replica.kv_known),
        [BOUNDS[i] for i in replica.bound],
    )
    lengths = map(
        Lengths,
        answers.mean_tokens.tolist(),
        answers.p50_tokens.tolist(),
        answers.p99_tokens.tolist(),
        answers.tail_share.tolist(),
        answers.watched.tolist(),
        _change_of_each(answers.changes, services=len(answers.watched)),
    )
    startups = map(Startup, answers.cold_start.p50_seconds.tolist(), answers.cold_start.p90_seconds.tolist())
    columns = (
        capacities,
        lengths,
        startups,
        _maybe(answers.slots_now, answers.slots_known),
        _maybe(answers.kv_now, answers.kv_known),
        _maybe(answers.owed_tokens, answers.owed_known),
        _maybe(answers.reasoning_tokens, answers.owed_known),
        _maybe(answers.slots.point, known),
        _maybe(answers.slots.upper, known),
        _maybe(answers.slots.peak, known),
        _maybe(answers.kv.upper, kv_known),
        _maybe(answers.kv.peak, kv_known),
        _maybe(answers.quantile, known),
        _maybe(answers.coverage, answers.coverage_known),
        _maybe(answers.known_fraction, known),
        _maybe(answers.attainment, answers.attainment_known),
        _maybe(answers.arrivals_per_second, known),
        _maybe(answers.age_check, answers.age_check_known),
        answers.in_time_ratio.tolist(),
    )
    # Positional: the columns are in the order of Demand's fields, and ten thousand keyword calls cost 20 ms more.
    demands = [Demand(*row) for row in zip(*columns, strict=True)]
    for row, levels in answers.levels.items():
        demands[row] = replace(demands[row], levels=levels, replicas_coming=float(answers.replicas_coming[row]))
    for row, cascade in answers.cascades.items():
        demands[row] = replace(demands[row], cascade=cascade)
    return demands


def _change_of_each(changes: Changes, *, services: int) -> list[LengthChange | None]:
    """The news of the few services that have any."""
    result: list[LengthChange | None] = [None] * services
    columns = (changes.factor, changes.since, changes.before_tokens, changes.requests_per_second, changes.replicas)
    for service, row in zip(changes.services.tolist(), zip(*(c.tolist() for c in columns), strict=True), strict=True):
        result[service] = LengthChange(*row)
    return result


def _maybe(values: Array, known: Mask) -> list[Any]:
    """Plain numbers, None where not known."""
    boxed: list[Any] = values.tolist()
    for row in (~known).nonzero()[0].tolist():
        boxed[row] = None
    return boxed
