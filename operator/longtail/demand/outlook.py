"""The demand one cold start ahead: candidates by the fluid path, mixed by experts, raised by calibration.

Slots and KV cache are two demands with one machinery each: their errors differ, so do the experts that are right
about them.
"""

from dataclasses import dataclass, replace

import numpy as np

from longtail.demand import calibration, experts, forecast, ledger, room
from longtail.demand.buckets import Array, Index, Mask
from longtail.demand.calibration import CalibrationState
from longtail.demand.experts import EXPERTS, ExpertState, from_root, to_root
from longtail.demand.fleet_arrays import Supplies
from longtail.demand.follow import Clock, Followed
from longtail.demand.inflight import InFlight
from longtail.demand.memory import FORECAST_NUMBERS, FleetState
from longtail.demand.startup import ColdStart
from longtail.demand.survival import Survival

KV_UNIT_TOKENS = 2048.0
"""KV demand is judged in units of this many tokens, about one request's, so that roots mean the same for both."""


@dataclass(frozen=True, slots=True)
class Now:
    """Demand at this tick. Shape (services,)."""

    slots: Array
    kv_tokens: Array
    slots_known: Mask
    """Running and waiting are known."""
    kv_known: Mask
    slots_fresh: Mask
    kv_fresh: Mask
    slowdown: Array
    waiting: Array
    saturated: Mask


@dataclass(frozen=True, slots=True)
class Outlook:
    """Demand of one resource at the horizon, in its own unit. Shape (services,)."""

    point: Array
    upper: Array
    peak: Array
    """Largest upper value from now to the horizon."""
    numbers: Array
    """What to remember of it until it can be judged: shape (services, `FORECAST_NUMBERS`), roots."""


def judge(
    state: FleetState, *, clock: Clock, now: Now, horizon_seconds: Array, quantile: Array
) -> tuple[FleetState, Array]:
    """The state after forecasts that came due were compared with what is seen now, and what they had asked for.

    The latter is the upper value of slots that was given for now one cold start ago, (services,): what the pool should
    have by now. 0 where nothing was said.
    """
    book, due, said = ledger.settle(
        state.ledger, now=clock.now, horizon_seconds=horizon_seconds, tick_seconds=clock.elapsed_seconds
    )
    half, sane = FORECAST_NUMBERS, ~state.cascade.on  # a queue of those who ask again is no error of a forecast
    slots = _judge_one(
        state.slots_experts,
        state.slots_calibration,
        said[:, :half],
        to_root(now.slots),
        due & now.slots_fresh & sane,
        clock,
        quantile,
    )
    kv = _judge_one(
        state.kv_experts,
        state.kv_calibration,
        said[:, half:],
        to_root(now.kv_tokens / KV_UNIT_TOKENS),
        due & now.kv_fresh & sane & (said[:, half] > 0),  # 0 says: the KV cache was not known then (a root is >= 0.5)
        clock,
        quantile,
    )
    judged = replace(
        state,
        ledger=book,
        slots_experts=slots[0],
        slots_calibration=slots[1],
        kv_experts=kv[0],
        kv_calibration=kv[1],
    )
    return judged, np.where(due, from_root(said[:, EXPERTS + 1]), 0.0)


def look_ahead(
    state: FleetState,
    *,
    now: Now,
    followed: Followed,
    cold_start: ColdStart,
    supplies: Supplies,
    slots_per_replica: Array,
    pods: Array,
    quantile: Array,
) -> tuple[Outlook, Outlook]:
    """Slots and KV tokens one P90 cold start ahead."""
    horizon = cold_start.p90_seconds
    inputs = _Inputs(
        flight=state.flight,
        survival=followed.survival,
        tpot=followed.tpot_seconds,
        horizon=horizon,
        rates=state.arrivals.rates,
        waiting=now.waiting,
        prompt=followed.prompt_tokens,
        slowdown=now.slowdown,
        serving=room.serving_share(supplies),
    )
    running = state.service.running
    per_replica = room.engine_slots(
        running=running, saturated=now.saturated, slots_per_replica=slots_per_replica, pods=pods
    )
    endless = np.full((len(horizon), forecast.COARSE_STEPS), np.inf)
    coarse = _run(inputs, slice(None), forecast.COARSE_STEPS, slots=endless)
    slots_there = room.slots_path(supplies, cold_start, per_replica, running * inputs.serving, forecast.COARSE_STEPS)
    short = (now.waiting > 0) | (coarse.slots.max(axis=2) > slots_there * inputs.slowdown[:, None]).any(axis=1)
    rows = np.flatnonzero(short)
    fine = coarse
    if len(rows):
        slots_there = room.slots_path(supplies, cold_start, per_replica, running * inputs.serving, forecast.FINE_STEPS)
        fine = _run(inputs, rows, forecast.FINE_STEPS, slots=slots_there[rows])
    slots = _resource(now.slots, coarse.slots, fine.slots, rows, state.slots_experts, state.slots_calibration, quantile)
    kv = _resource(
        now.kv_tokens / KV_UNIT_TOKENS,
        coarse.kv_tokens / KV_UNIT_TOKENS,
        fine.kv_tokens / KV_UNIT_TOKENS,
        rows,
        state.kv_experts,
        state.kv_calibration,
        quantile,
    )
    scaled = replace(
        kv, point=kv.point * KV_UNIT_TOKENS, upper=kv.upper * KV_UNIT_TOKENS, peak=kv.peak * KV_UNIT_TOKENS
    )
    return slots, scaled


def remember(
    state: FleetState, *, clock: Clock, horizon_seconds: Array, slots: Outlook, kv: Outlook, now: Now, made: Mask
) -> FleetState:
    """The state with this tick's forecasts entered where they were made from fresh gauges."""
    kv_numbers = np.where(now.kv_fresh[:, None], kv.numbers, 0.0)
    book = ledger.enter(
        state.ledger,
        now=clock.now,
        horizon_seconds=horizon_seconds,
        numbers=np.concatenate([slots.numbers, kv_numbers], axis=1),
        made=made & now.slots_fresh,
    )
    return replace(state, ledger=book)


def slots_coverage(state: FleetState) -> tuple[Mask, Array]:
    """Where enough upper values of slots were judged, and the share of them that held; (services,)."""
    return calibration.coverage(state.slots_calibration)


def _judge_one(
    expert: ExpertState,
    calibrated: CalibrationState,
    said: Array,
    realised: Array,
    judged: Mask,
    clock: Clock,
    quantile: Array,
) -> tuple[ExpertState, CalibrationState]:
    elapsed = clock.elapsed_seconds
    return (
        experts.learn(expert, roots=said[:, :EXPERTS], realised=realised, judged=judged, elapsed_seconds=elapsed),
        calibration.learn(
            calibrated,
            realised=realised,
            point=said[:, EXPERTS],
            upper=said[:, EXPERTS + 1],
            quantile=quantile,
            judged=judged,
            elapsed_seconds=elapsed,
        ),
    )


@dataclass(frozen=True, slots=True)
class _Inputs:
    flight: InFlight
    survival: Survival
    tpot: Array
    horizon: Array
    rates: Array
    waiting: Array
    prompt: Array
    slowdown: Array
    serving: Array


def _run(inputs: _Inputs, rows: Index | slice, steps: int, *, slots: Array) -> forecast.Path:
    """The fluid path of some services in ``steps`` steps through ``slots``, shape (rows, steps)."""
    flight = InFlight(
        requests=inputs.flight.requests[rows],
        age_tokens=inputs.flight.age_tokens[rows],
    )
    survival = inputs.survival.rows(rows)
    seconds = inputs.horizon[rows] / steps
    tokens = seconds / inputs.tpot[rows]
    left = forecast.survivors(flight, survival=survival, step_tokens=tokens, steps=steps)
    return forecast.path(
        left,
        survival=survival,
        step_tokens=tokens,
        step_seconds=seconds,
        rates=inputs.rates[rows],
        waiting=inputs.waiting[rows],
        prompt_tokens=inputs.prompt[rows],
        slots=slots,
        serving_share=inputs.serving[rows],
        slowdown=inputs.slowdown[rows],
    )


def _resource(
    now: Array,
    coarse: Array,
    fine: Array,
    rows: Index,
    expert: ExpertState,
    calibrated: CalibrationState,
    quantile: Array,
) -> Outlook:
    """Mixture, upper value and peak of one resource.

    ``coarse`` and ``fine`` have shape (services, steps, rates), the fine path only the services ``rows``.
    """
    weight = experts.weights(expert)
    margin = calibration.margin(calibrated, quantile=quantile)
    roots = np.concatenate([to_root(now)[:, None], to_root(coarse[:, -1])], axis=1)
    peak = _peak(now, coarse, weight, margin)
    if len(rows):
        roots[rows, 1:] = to_root(fine[:, -1])
        peak[rows] = _peak(now[rows], fine, weight[rows], margin[rows])
    point = experts.mix(weight, roots)
    upper = from_root(point + margin)
    numbers = np.concatenate([roots, point[:, None], to_root(upper)[:, None]], axis=1)
    return Outlook(point=from_root(point), upper=upper, peak=np.maximum(np.maximum(peak, upper), now), numbers=numbers)


def _peak(now: Array, path: Array, weight: Array, margin: Array) -> Array:
    """Largest upper value on the way, shape (services,).

    Errors grow like those of a random walk, with the root of the time looked ahead, so an upper value half way keeps
    a margin of 71 %.
    """
    steps = path.shape[1]
    ahead = np.arange(1, steps + 1) / steps
    persistent = weight[:, :1] * to_root(now)[:, None]
    point = persistent + np.einsum("ckr,cr->ck", to_root(path), weight[:, 1:])
    result: Array = from_root(point + margin[:, None] * np.sqrt(ahead)).max(axis=1)
    return result
