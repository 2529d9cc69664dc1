"""What was learned about forecasts, kept aside while a queue stands: a cascade turns out to be one minutes too late.

When a cascade is found, its first minutes have been taken for the largest errors that a forecast ever made: 148 slots
were said and 3,400 came, most of them the same questions again. In a memory of hours a few of those are the 99th
percentile, and an hour after the last request has been answered ten times too many replicas are still asked for. So
from the moment on at which requests begin to wait for full replicas the state of before is kept, of those services
alone, and it is gone back to when the queue is found to be a cascade.

So it is when far more wait than was asked for because replicas do not come, until that queue is gone: how long it gets
says how long they have not come, and nothing of how well demand was foreseen. Any other queue is an error like all
errors. A pool that waits some minutes for GPUs of a quota asks for more afterwards, and rightly so: on `bench budget`
288 GPUs serve 97 % of the requests in time, and 94 % where every such queue teaches nothing.

Where requests are asked to think less, replicas count as missing from then on: a shortage was foreseen that they cannot
end in time. They may be too few three minutes later only, and by then what was asked for has followed the queue: on
`bench effort` a pool that needs 8 replicas asked for up to 24 an hour after the overload, and now for 12 at most.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from longtail.demand.buckets import Mask
from longtail.demand.memory import FleetState, Kept

T = TypeVar("T")

HOPELESS = 2.0
"""Demand over what was asked for a cold start ago, from which on a queue is no error of a forecast."""
FORGET_SECONDS = 900.0
"""Without a queue for so long, what comes next is another story."""
_FORECASTS = ("slots_experts", "kv_experts", "slots_calibration", "kv_calibration")
_LEARNED = (*_FORECASTS, "attainment", "lengths", "departures", "drift")
"""Parts of the state that are kept."""


def follow(
    kept: Mapping[Hashable, Kept],
    state: FleetState,
    *,
    keys: Sequence[Hashable],
    saturated: Mask,
    began: Mask,
    now: float,
) -> tuple[Mapping[Hashable, Kept], FleetState]:
    """What is kept after a tick, and the state, as it was before the queue where a cascade ``began``; (services,)."""
    if not kept and not saturated.any():
        return kept, state
    row_of = {key: row for row, key in enumerate(keys)}
    after = {
        key: replace(one, queued_at=now) if saturated[row_of[key]] else one
        for key, one in kept.items()
        if key in row_of and now - one.queued_at <= FORGET_SECONDS
    }
    for row in np.flatnonzero(saturated).tolist():
        if keys[row] not in after:
            after[keys[row]] = Kept(queued_at=now, parts={name: _row(getattr(state, name), row) for name in _LEARNED})
    return after, _restored(after, state, keys=keys, rows=began, names=_LEARNED)


def starve(
    kept: Mapping[Hashable, Kept], state: FleetState, *, keys: Sequence[Hashable], missing: Mask, far: Mask
) -> tuple[Mapping[Hashable, Kept], FleetState, Mask]:
    """What is kept, the state, and where queues for want of replicas teach nothing; all masks (services,).

    Replicas are ``missing``, and demand is ``far`` above what was asked for, or has been since they are. There the
    forecasts are as before the queue.
    """
    starved, after = np.zeros_like(missing), dict(kept)
    for row in np.flatnonzero(missing).tolist():
        found = kept.get(keys[row])
        if found is not None and (found.starved or far[row]):
            starved[row] = True
            after[keys[row]] = replace(found, starved=True)
    return after, _restored(after, state, keys=keys, rows=starved, names=_FORECASTS), starved


def _restored(
    kept: Mapping[Hashable, Kept], state: FleetState, *, keys: Sequence[Hashable], rows: Mask, names: Sequence[str]
) -> FleetState:
    for row in np.flatnonzero(rows).tolist():
        found = kept.get(keys[row])
        if found is not None:
            state = replace(state, **{name: _put(getattr(state, name), row, found.parts[name]) for name in names})
    return state


def _row(part: T, row: int) -> T:
    """One service's part of a state."""
    return replace(part, **{each.name: getattr(part, each.name)[row].copy() for each in fields(part)})  # type: ignore[type-var, arg-type]


def _put(part: T, row: int, one: Any) -> T:
    """A state with one service's part of it changed."""
    changed = {}
    for each in fields(part):  # type: ignore[arg-type]
        changed[each.name] = getattr(part, each.name).copy()
        changed[each.name][row] = getattr(one, each.name)
    return replace(part, **changed)  # type: ignore[type-var]
