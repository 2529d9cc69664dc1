"""What thinking less would change: the demand of the next cold start at each level of effort that a user allows.

A budget of T reasoning tokens cuts a length L to min(L, T + A), A being the answer's own tokens. It changes requests
that arrive from now on; those in flight keep what they were promised. So the relief within a cold start is that of
the fluid path (see `forecast`) with the lengths of newcomers cut, and the relief in the long run that of the mean.
On DeepSeek-R1 lengths a budget of 2,048 saves 43 % of the slots in the long run, one of 8,192 no more than 8 %, and
none within a cold start of 180 s at 50 ms a token: nobody gets to the limit by then.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from longtail.demand import forecast
from longtail.demand.buckets import Array, Index
from longtail.demand.estimate import LevelDemand
from longtail.demand.inflight import InFlight
from longtail.demand.parameters import Thinking
from longtail.demand.savings import saved
from longtail.demand.survival import Survival
from longtail.demand.thinking import ThinkingState, answer_tokens


@dataclass(frozen=True, slots=True)
class Situation:
    """What the levels are judged in, for the services that have levels. Shape (rows,) unless said otherwise."""

    rows: Index
    """Their rows among all services."""
    flight: InFlight
    seen: Survival
    """Lengths as they are now, of requests in flight."""
    tpot_seconds: Array
    horizon_seconds: Array
    start_seconds: Array
    """Median cold start: what is asked for now is there by then."""
    arrivals_per_second: Array
    waiting: Array
    prompt_tokens: Array
    slowdown: Array
    serving_share: Array
    replicas: Array
    """Replicas that take requests after each of `forecast.FINE_STEPS` steps, shape (rows, steps)."""
    engine_slots: Array
    """Requests that can be in service then, shape (rows, steps)."""
    slots_per_replica: Array
    """At the promised pace, and as many as may wait: > 0."""
    kv_per_replica: Array
    """Tokens; inf where not known."""


def levels(
    state: ThinkingState, *, thinking: Sequence[Thinking], longest_tokens: Array, situation: Situation
) -> list[tuple[LevelDemand, ...]]:
    """The demand at each level, service by service; only that of the usual level where it can be met.

    ``thinking`` and ``longest_tokens``, shape (rows,), belong to the rows of ``situation``.
    """
    rows = situation.rows
    answer = answer_tokens(state, thinking=thinking, rows=rows)
    usual = Survival.of(hazard=state.hazard[rows].astype(np.float64), limit=longest_tokens)
    first = np.array([each.budgets_tokens[0] for each in thinking]) + answer
    found = [[each] for each in _level(situation, usual, np.minimum(first, longest_tokens))]
    asked = [each.level > 0 or level[0].short_ahead > 0 for each, level in zip(thinking, found, strict=True)]
    at_risk = np.flatnonzero(asked)
    if len(at_risk):
        some, lengths = _of(situation, at_risk), usual.rows(at_risk)
        for level in range(1, max(len(thinking[row].budgets_tokens) for row in at_risk.tolist())):
            budgets = [thinking[row].budgets_tokens for row in at_risk.tolist()]
            cut = np.array([each[min(level, len(each) - 1)] for each in budgets]) + answer[at_risk]
            demands = _level(some, lengths, np.minimum(cut, longest_tokens[at_risk]))
            for row, each, demand in zip(at_risk.tolist(), budgets, demands, strict=True):
                if level < len(each):
                    found[row].append(demand)
        for row in at_risk.tolist():
            told = thinking[row]
            if told.stretches:
                limits = np.minimum(np.array(told.budgets_tokens) + answer[row], longest_tokens[row])
                by_class = saved(usual.rows(slice(row, row + 1)), limits_tokens=limits, stretches=told.stretches)
                found[row] = [replace(level, saved=of) for level, of in zip(found[row], by_class, strict=True)]
    return [tuple(each) for each in found]


def _level(situation: Situation, usual: Survival, limit: Array) -> list[LevelDemand]:
    """The demand where answers that begin from now on end at ``limit`` tokens, shape (rows,)."""
    lengths = Survival.of(hazard=usual.hazard, limit=limit)
    steps = forecast.FINE_STEPS
    seconds = situation.horizon_seconds / steps
    tokens = seconds / situation.tpot_seconds
    path = forecast.path(
        forecast.survivors(situation.flight, survival=situation.seen, step_tokens=tokens, steps=steps),
        survival=lengths,
        step_tokens=tokens,
        step_seconds=seconds,
        rates=situation.arrivals_per_second[:, None],
        waiting=situation.waiting,
        prompt_tokens=situation.prompt_tokens,
        slots=situation.engine_slots,
        serving_share=situation.serving_share,
        slowdown=situation.slowdown,
    )
    per_replica = situation.slots_per_replica[:, None]
    need = np.maximum(path.slots[:, :, 0] / per_replica, path.kv_tokens[:, :, 0] / situation.kv_per_replica[:, None])
    short = need - situation.replicas
    # A start that is asked for now is there after a median cold start: until then only thinking less can help.
    soon = np.arange(1, steps + 1) * seconds[:, None] <= situation.start_seconds[:, None]
    soon[:, 0] = True
    started = situation.arrivals_per_second * situation.tpot_seconds * situation.slowdown
    steady = np.maximum(
        started * lengths.mean / situation.slots_per_replica,
        started * (lengths.mean * situation.prompt_tokens + lengths.half_square) / situation.kv_per_replica,
    )
    columns = (np.where(soon, short, -np.inf).max(axis=1), short.max(axis=1), short[:, -1], steady, lengths.mean)
    return [LevelDemand(*each) for each in zip(*(column.tolist() for column in columns), strict=True)]


def _of(situation: Situation, rows: Index) -> Situation:
    """The same for some of its services."""
    flight = InFlight(requests=situation.flight.requests[rows], age_tokens=situation.flight.age_tokens[rows])
    arrays = {
        name: getattr(situation, name)[rows]
        for name in Situation.__dataclass_fields__
        if name not in {"flight", "seen"}
    }
    return Situation(flight=flight, seen=situation.seen.rows(rows), **arrays)
