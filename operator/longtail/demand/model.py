"""The demand model as one pure fold: what was seen and what is remembered give what is needed and a new memory."""

from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from longtail.demand import (
    arrivals,
    attainment,
    capacity,
    cascade,
    classes,
    drift_cost,
    experts,
    forecast,
    lengths,
    levels,
    outlook,
    owed,
    room,
    safekeeping,
    startup,
    thinking,
)
from longtail.demand.answer import Answers, unpack
from longtail.demand.buckets import Array, clip
from longtail.demand.estimate import Demand, LevelDemand
from longtail.demand.fleet_arrays import FleetArrays, Parameters, Supplies
from longtail.demand.follow import Clock, Followed, follow
from longtail.demand.inflight import InFlight
from longtail.demand.memory import DemandMemory, FleetState
from longtail.demand.observation import Observation
from longtail.demand.parameters import ServiceParameters
from longtail.demand.supply import Supply

__all__ = ["DemandMemory", "estimate", "step"]


def estimate(
    *,
    keys: Sequence[Hashable],
    parameters: Sequence[ServiceParameters],
    observations: Sequence[Observation],
    supplies: Sequence[Supply],
    memory: DemandMemory,
    now: float,
) -> tuple[list[Demand], DemandMemory]:
    """Demand of each service at one tick, and the memory for the next.

    Equal arguments give equal results; ``memory`` is not changed, so a replay may start from any of them. Services are
    told apart by key: they may come, go and change places. ``now`` is in Unix seconds and does not run backwards
    (a tick earlier than the last one is taken as no time having passed).

    Raises:
        ValueError: the sequences differ in length, or a key is given twice.

    Example: a pool on which nothing has been learned yet.

    >>> from longtail.demand.observation import Signal
    >>> seen = Observation(at_seconds=0.0, running_requests=Signal(20.0), waiting_requests=Signal(5.0))
    >>> demands, memory = estimate(keys=["r1"], parameters=[ServiceParameters()], observations=[seen],
    ...                            supplies=[Supply(ready_replicas=1)], memory=DemandMemory.empty(), now=0.0)
    >>> demands[0].slots_now, demands[0].capacity.slots_per_replica, demands[0].slots_forecast
    (25.0, 64.0, None)
    """
    if not len(keys) == len(parameters) == len(observations) == len(supplies):
        raise ValueError(
            f"keys, parameters, observations and supplies must be equally long, got {len(keys)}, {len(parameters)}, "
            f"{len(observations)} and {len(supplies)}"
        )
    if len(set(keys)) != len(keys):
        raise ValueError("keys must be unique")
    if not keys:
        return [], replace(DemandMemory.empty(), now=now)
    packed = Parameters.pack(parameters)
    answers, after = step(
        keys=keys,
        parameters=packed,
        seen=FleetArrays.pack(observations, packed),
        supplies=Supplies.pack(supplies),
        memory=memory,
        now=now,
    )
    demands = unpack(answers)
    for row, each in enumerate(observations):
        if each.classes.counts:
            demands[row] = replace(demands[row], classes=classes.divide(each.classes))
    return demands, after


def step(
    *,
    keys: Sequence[Hashable],
    parameters: Parameters,
    seen: FleetArrays,
    supplies: Supplies,
    memory: DemandMemory,
    now: float,
) -> tuple[Answers, DemandMemory]:
    """`estimate` on arrays, at least one service: everything but the loops over objects."""
    state, returning = memory.aligned(keys)
    elapsed = 0.0 if memory.now is None else max(now - memory.now, 0.0)
    clock = Clock(now=now if memory.now is None else max(now, memory.now), elapsed_seconds=elapsed, returning=returning)
    state, cold_start = _cold_start(state, supplies, parameters)
    horizon = cold_start.p90_seconds
    calm = ~state.cascade.on
    state, followed, width = follow(
        state, clock=clock, seen=seen, parameters=parameters, width_seconds=memory.width_seconds
    )
    state = replace(
        state,
        thinking=thinking.learn(
            state.thinking,
            thinking=parameters.thinking,
            recent=followed.survival,
            reasoning_share=seen.reasoning_share.value,
            share_known=seen.reasoning_share.known,
            elapsed_seconds=elapsed,
        ),
    )
    kept, state = safekeeping.follow(
        memory.kept, state, keys=keys, saturated=followed.saturated, began=calm & state.cascade.on, now=clock.now
    )
    replica, present = _present(state, seen, followed, parameters)
    in_time = _in_time_ratio(
        followed, parameters, replica, running=seen.running.value / np.maximum(seen.reporting_pods, 1.0)
    )
    quantile = attainment.level(state.attainment, objective=parameters.attainment)
    state, promised = outlook.judge(state, clock=clock, now=present, horizon_seconds=horizon, quantile=quantile)
    coming = room.replicas_path(supplies, cold_start, forecast.FINE_STEPS)
    # What was asked for a cold start ago is not there and not on its way, or requests think less because of that.
    short = (coming[:, -1] * replica.slots * in_time < promised) | thinking.reduced(parameters.thinking, len(keys))
    missing = followed.saturated & short
    kept, state, starved = safekeeping.starve(
        kept, state, keys=keys, missing=missing, far=present.slots > safekeeping.HOPELESS * promised
    )
    slots, kv = outlook.look_ahead(
        state,
        now=present,
        followed=followed,
        cold_start=cold_start,
        supplies=supplies,
        slots_per_replica=replica.slots,
        pods=np.maximum(seen.reporting_pods, supplies.ready),
        quantile=quantile,
    )
    state = outlook.remember(
        state,
        clock=clock,
        horizon_seconds=horizon,
        slots=slots,
        kv=kv,
        now=present,
        made=state.arrivals.known & ~state.cascade.on & ~starved,
    )
    state = replace(
        state,
        attainment=attainment.learn(
            state.attainment,
            requests=seen.waits.requests,
            within=seen.waits.within,
            whole=followed.gauges_fresh & ~state.cascade.on,
            observed=seen.waits.known,
            # Not up while less is there than was asked for a cold start ago: a higher level would not have come.
            short=supplies.ready * replica.slots * in_time < promised,
            objective=parameters.attainment,
            elapsed_seconds=elapsed,
        ),
    )
    found = _levels(state, seen, followed, replica, present, cold_start, supplies, parameters, in_time, coming)
    answers = _answers(
        state, seen, followed, replica, present, cold_start, slots, kv, quantile, in_time, coming[:, -1], found
    )
    cascades = cascade.cascades(
        state.cascade,
        slots=replica.slots * np.maximum(seen.ready_pods, 1.0),
        wait_seconds=parameters.queue_wait_seconds,
        stay_seconds=followed.survival.mean * followed.tpot_seconds,
        long_stay_seconds=followed.survival.quantile(0.95) * followed.tpot_seconds,
    )
    answers = replace(answers, cascades=cascades) if cascades else answers
    return answers, DemandMemory(keys=tuple(keys), now=clock.now, width_seconds=width, state=state, kept=kept)


def _cold_start(state: FleetState, supplies: Supplies, parameters: Parameters) -> tuple[FleetState, startup.ColdStart]:
    learned = state.startup
    for service, seconds in supplies.cold_starts:
        learned = startup.learn(learned, service=service, seconds=seconds)
    return replace(state, startup=learned), startup.cold_start(learned, prior_seconds=parameters.startup_seconds)


def _present(
    state: FleetState, seen: FleetArrays, followed: Followed, parameters: Parameters
) -> tuple[capacity.ReplicaCapacity, outlook.Now]:
    """Capacity of a replica and the demand of now; where a gauge is silent, the state's own idea of it."""
    survival, service = followed.survival, state.service
    in_flight = survival.half_square / survival.mean  # mean tokens written by a request in flight
    kv_per_request = followed.prompt_tokens + in_flight
    said = parameters.kv_cache_tokens
    kv_tokens = np.where(said > 0, said, service.kv_per_replica)
    replica = capacity.replica(
        state.capacity,
        kv_tokens=kv_tokens,
        kv_known=kv_tokens > 0,
        kv_per_request=kv_per_request,
        stated_slots=seen.max_concurrent.value,
        spec_slots=parameters.max_concurrent_requests,
    )
    slots_known = seen.running.known & seen.waiting.known
    running = np.where(slots_known, seen.running.value, state.flight.total)
    waiting = np.where(slots_known, seen.waiting.value, service.waiting)
    slowdown = capacity.slowdown(
        state.capacity,
        batch=running / np.maximum(seen.reporting_pods, 1.0),
        slots=replica.slots,
        kv_per_request=kv_per_request,
    )
    estimated = state.flight.tokens + running * followed.prompt_tokens
    kv_used = np.where(seen.kv_used.known, seen.kv_used.value, estimated)
    return replica, outlook.Now(
        slots=running * slowdown + waiting,
        kv_tokens=kv_used + waiting * followed.prompt_tokens,
        slots_known=slots_known,
        kv_known=seen.kv_used.known,
        slots_fresh=followed.gauges_fresh,
        kv_fresh=seen.kv_used.fresh & followed.gauges_fresh,
        slowdown=slowdown,
        waiting=waiting,
        saturated=followed.saturated,
    )


def _in_time_ratio(
    followed: Followed, parameters: Parameters, replica: capacity.ReplicaCapacity, *, running: Array
) -> Array:
    """Requests per slot up to which nobody waits too long (see `Demand.in_time_ratio`).

    1 where engines would not let a request wait but run it, slower than promised: nothing is gained then.
    ``running`` counts requests per replica.
    """
    stay_seconds = followed.survival.mean * followed.tpot_seconds
    ratio = 1.0 + parameters.queue_wait_seconds / stay_seconds
    return np.where(replica.queues & (running <= 1.1 * replica.slots), ratio, 1.0)


def _answers(
    state: FleetState,
    seen: FleetArrays,
    followed: Followed,
    replica: capacity.ReplicaCapacity,
    present: outlook.Now,
    cold_start: startup.ColdStart,
    slots: outlook.Outlook,
    kv: outlook.Outlook,
    quantile: Array,
    in_time: Array,
    replicas_coming: Array,
    found: dict[int, tuple[LevelDemand, ...]],
) -> Answers:
    survival, settled = followed.survival, followed.settled
    running = owed.running_tokens(state.flight, survival=survival)
    total = owed.owed_tokens(running=running, waiting_requests=present.waiting, mean_tokens=survival.mean)
    share = np.where(seen.reasoning_share.known, np.minimum(seen.reasoning_share.value, 1.0), 1.0)
    mass, _ = survival.integrals((cold_start.p90_seconds / followed.tpot_seconds)[:, None])
    covered, coverage = outlook.slots_coverage(state)
    return Answers(
        replica=replica,
        mean_tokens=settled.mean,
        p50_tokens=settled.quantile(0.5),
        p99_tokens=settled.quantile(0.99),
        tail_share=lengths.tail_share(settled),
        watched=state.drift.watched,
        changes=drift_cost.changes(
            state.drift,
            settled=settled,
            replica=replica,
            prompt_tokens=followed.prompt_tokens,
            seconds_per_token=followed.tpot_seconds * present.slowdown,
            requests_per_second=state.arrivals.rates[:, arrivals.MEDIUM],
        ),
        cold_start=cold_start,
        slots_now=present.slots,
        slots_known=present.slots_known,
        kv_now=present.kv_tokens,
        kv_known=present.kv_known,
        kv_ever=state.service.kv_per_replica > 0,
        owed_tokens=total,
        owed_known=present.slots_known | state.arrivals.known,
        reasoning_tokens=total * share,
        forecast_known=state.arrivals.known,
        slots=slots,
        kv=kv,
        quantile=quantile,
        coverage=coverage,
        coverage_known=covered,
        known_fraction=clip(1 - mass[:, 0] / survival.mean, 0.0, 1.0),
        attainment=state.attainment.delivered,
        attainment_known=state.attainment.windows > 0,
        arrivals_per_second=state.arrivals.rates[:, arrivals.SHORT],
        age_check=np.divide(
            state.service.attained, state.service.inferred, out=np.ones_like(total), where=state.service.inferred > 1.0
        ),
        age_check_known=state.service.inferred > 1.0,
        in_time_ratio=in_time,
        levels=found,
        replicas_coming=replicas_coming,
    )


def _levels(
    state: FleetState,
    seen: FleetArrays,
    followed: Followed,
    replica: capacity.ReplicaCapacity,
    present: outlook.Now,
    cold_start: startup.ColdStart,
    supplies: Supplies,
    parameters: Parameters,
    in_time: Array,
    coming: Array,
) -> dict[int, tuple[LevelDemand, ...]]:
    """The demand at each level of thinking, for the services that have levels and a forecast; by row."""
    asked = {row: each for row, each in parameters.thinking if state.arrivals.known[row]}
    if not asked:
        return {}
    rows = np.array(list(asked), dtype=np.intp)
    serving = room.serving_share(supplies)
    running = state.service.running
    per_replica = room.engine_slots(
        running=running,
        saturated=followed.saturated,
        slots_per_replica=replica.slots,
        pods=np.maximum(seen.reporting_pods, supplies.ready),
    )
    slots = np.maximum(coming * per_replica[:, None], (running * serving)[:, None])
    weight = experts.weights(state.slots_experts)[:, 1:]
    mixed = np.einsum("cr,cr->c", weight, state.arrivals.rates) / weight.sum(axis=1)
    rates = arrivals.lately(state.arrivals, expected=mixed)
    situation = levels.Situation(
        rows=rows,
        flight=InFlight(requests=state.flight.requests[rows], age_tokens=state.flight.age_tokens[rows]),
        seen=followed.survival.rows(rows),
        tpot_seconds=followed.tpot_seconds[rows],
        horizon_seconds=cold_start.p90_seconds[rows],
        start_seconds=cold_start.p50_seconds[rows],
        arrivals_per_second=rates[rows],
        waiting=present.waiting[rows],
        prompt_tokens=followed.prompt_tokens[rows],
        slowdown=present.slowdown[rows],
        serving_share=serving[rows],
        replicas=coming[rows],
        engine_slots=slots[rows],
        slots_per_replica=(replica.slots * in_time)[rows],
        kv_per_replica=np.where(replica.kv_known, replica.kv_tokens, np.inf)[rows],
    )
    found = levels.levels(
        state.thinking,
        thinking=list(asked.values()),
        longest_tokens=parameters.max_output_tokens[rows],
        situation=situation,
    )
    return dict(zip(asked, found, strict=True))
