"""What happened since the last tick: state follows the observation, and the clock where there is none.

Every part is learned only from fresh numbers that cover the time since the last tick. Where they do not, requests in
flight age and end as their lengths say, new ones begin at the rate last known, and nothing is learned.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from longtail.demand import arrivals, capacity, cascade, departures, drift, inflight, lengths
from longtail.demand.buckets import BUCKETS, Array, Mask, clip, spread
from longtail.demand.fleet_arrays import SATURATED, FleetArrays, Parameters
from longtail.demand.memory import FleetState, ServiceState
from longtail.demand.survival import Survival

TPOT_MEMORY_SECONDS = 120.0
PROMPT_MEMORY_SECONDS = 600.0
LONGEST_LEARNED_SECONDS = 600.0
"""A longer interval hides everything that happens within the life of a request."""
_TPOT_RANGE = (1e-3, 10.0)


@dataclass(frozen=True, slots=True)
class Clock:
    """The tick's time."""

    now: float
    elapsed_seconds: float
    """Since the last tick; 0 at the first."""
    returning: Mask
    """Services that were there at the last tick, shape (services,)."""


@dataclass(frozen=True, slots=True)
class Followed:
    """What the tick showed besides the new state. Shape (services,)."""

    settled: Survival
    """Lengths over the last hours."""
    survival: Survival
    """Lengths over the last minutes, which is what forecasts go by."""
    tpot_seconds: Array
    """Time per output token now, smoothed."""
    prompt_tokens: Array
    """KV cache a request takes besides its output, in tokens."""
    gauges_fresh: Mask
    """Running and waiting are known and fresh."""
    saturated: Mask
    """Requests wait, more than a few, and did so at the last tick: replicas are full at what they run."""


def follow(
    state: FleetState, *, clock: Clock, seen: FleetArrays, parameters: Parameters, width_seconds: Array
) -> tuple[FleetState, Followed, Array]:
    """The state after the tick, what it showed, and the new cohort widths, shape (`COHORTS`,)."""
    hazard = lengths.hazards(
        ended=state.lengths.ended, exposed=state.lengths.exposed, prior_mean=parameters.mean_output_tokens
    )
    settled = Survival.of(hazard=hazard, limit=parameters.max_output_tokens)
    survival = lengths.recent(state.lengths, settled=settled)
    gauges_fresh = seen.running.fresh & seen.waiting.fresh
    covered = _covered(clock, seen.interval_seconds)
    service = _smooth(state.service, clock=clock, seen=seen, covered=covered)
    tpot = time_per_token(service, default=parameters.target_tpot_seconds)
    ended = _finished(seen, survival)
    ends = _ends(state.service, seen)
    left, left_known = cascade.balance(state.cascade, ends)
    left_known &= covered
    departed, gone = departures.count(state.departures, balance=left, known=left_known)
    flight, width, started, exposed = _flight(
        state,
        clock=clock,
        seen=seen,
        covered=covered,
        survival=survival,
        ended=ended,
        gone=gone,
        tpot=tpot,
        width_seconds=width_seconds,
    )
    growth = np.where(state.service.waiting_fresh & seen.waiting.fresh, seen.waiting.value - state.service.waiting, 0.0)
    door = seen.arrivals.fresh
    counted = arrivals.count(first_tokens=started, queue_growth=growth, door=seen.arrivals.value, door_known=door)
    saturated = _saturated(state.service, seen, gauges_fresh)
    cascade_state, counted = cascade.follow(
        state.cascade,
        ends=ends,
        arrived=counted,
        covered=covered,
        waiting=seen.waiting.value,
        waits=saturated,
        now=clock.now,
        elapsed_seconds=clock.elapsed_seconds,
    )
    learned = covered & gauges_fresh & state.service.running_fresh & ~cascade_state.on
    whole = learned & seen.finished_known
    natural = lengths.natural(ended, settled)
    length_state = lengths.learn(
        state.lengths,
        ended=natural,
        exposed=exposed,
        finished=ended.sum(axis=1),
        learned=whole,
        elapsed_seconds=clock.elapsed_seconds,
    )
    cut = np.isfinite(state.thinking.limit_tokens)
    lifted = drift.lifted(state.drift, cut=cut, lengths=(length_state.recent_ended, length_state.recent_exposed))
    drift_state, found = drift.watch(
        state.drift,
        ended=natural,
        exposed=exposed,
        settled=settled,
        learned=whole,
        cut=cut,
        now=clock.now,
        elapsed_seconds=clock.elapsed_seconds,
    )
    arrival_state = arrivals.learn(
        state.arrivals,
        requests=counted,
        seconds=np.where(door, seen.interval_seconds, clock.elapsed_seconds),
        learned=covered & (door | (gauges_fresh & state.service.waiting_fresh & state.service.running_fresh)),
    )
    service = _prompts(service, clock=clock, seen=seen, covered=covered, flight=flight)
    after = replace(
        state,
        service=service,
        flight=flight,
        departures=departures.learn(
            departed,
            balance=left,
            lost_tokens=seen.generated.value - seen.finished_tokens.value - (flight.tokens - state.flight.tokens),
            finished=ends.finished,
            known=left_known & seen.generated.fresh & seen.finished_tokens.fresh & ~cascade_state.on,
            elapsed_seconds=clock.elapsed_seconds,
        ),
        lengths=lengths.learn_anew(lengths.learn_anew(length_state, lifted), found),
        drift=drift_state,
        cascade=cascade_state,
        arrivals=arrival_state,
        capacity=_capacity(
            state, service, clock=clock, seen=seen, covered=covered, saturated=saturated, parameters=parameters
        ),
    )
    prompt = np.divide(service.kv_beyond_output, service.prompts, out=np.zeros_like(tpot), where=service.prompts > 1e-9)
    return after, Followed(settled, survival, tpot, prompt, gauges_fresh, saturated), width


def time_per_token(service: ServiceState, *, default: Array) -> Array:
    """Seconds per output token and request, shape (services,); ``default`` where no token has been counted."""
    seen = (service.tokens > 1e-6) & (service.busy_seconds > 1e-6)
    ratio = np.divide(service.busy_seconds, service.tokens, out=default.copy(), where=seen)
    return clip(ratio, *_TPOT_RANGE)


def _covered(clock: Clock, interval_seconds: Array) -> Mask:
    """Where the increases cover the time since the last tick, and that is short enough to learn from."""
    elapsed = clock.elapsed_seconds
    if not 0 < elapsed <= LONGEST_LEARNED_SECONDS:
        return np.zeros(len(interval_seconds), dtype=bool)
    result: Mask = clock.returning & (interval_seconds >= 0.5 * elapsed) & (interval_seconds <= 2 * elapsed)
    return result


def _faded(before: Array, added: Array, kept: float, learned: Mask) -> Array:
    after = before * kept + added
    return np.where(learned, np.where(after < 1e-9, 0.0, after), before)


def _smooth(service: ServiceState, *, clock: Clock, seen: FleetArrays, covered: Mask) -> ServiceState:
    """Gauges of this tick, and the time per output token: running × time / tokens written, over two minutes.

    The gauge is taken as linear between ticks. Seconds are scaled to the interval that the tokens cover.
    """
    learned = covered & seen.running.fresh & service.running_fresh & seen.generated.fresh
    learned = learned & (seen.generated.value > 0)
    kept = float(np.exp(-min(clock.elapsed_seconds / TPOT_MEMORY_SECONDS, 60.0)))
    busy = 0.5 * (service.running + seen.running.value) * seen.interval_seconds
    capacity_known = seen.kv_capacity.fresh & (seen.reporting_pods > 0)
    per_replica = seen.kv_capacity.value / np.maximum(seen.reporting_pods, 1.0)
    return replace(
        service,
        running=np.where(seen.running.fresh, seen.running.value, service.running),
        running_fresh=seen.running.fresh,
        waiting=np.where(seen.waiting.fresh, seen.waiting.value, service.waiting),
        waiting_fresh=seen.waiting.fresh,
        busy_seconds=_faded(service.busy_seconds, busy, kept, learned),
        tokens=_faded(service.tokens, seen.generated.value, kept, learned),
        kv_per_replica=np.where(capacity_known, per_replica, service.kv_per_replica),
    )


def _flight(
    state: FleetState,
    *,
    clock: Clock,
    seen: FleetArrays,
    covered: Mask,
    survival: Survival,
    ended: Array,
    gone: Array,
    tpot: Array,
    width_seconds: Array,
) -> tuple[inflight.InFlight, Array, Array, Array]:
    """Requests in flight now, cohort widths, requests started, and tokens written by bucket."""
    corrected = partial(
        inflight.correct,
        running=seen.running.value,
        known=seen.running.fresh,
        survival=survival,
        attained=seen.attained.value,
        attained_known=seen.attained.fresh,
    )
    if clock.elapsed_seconds <= 0:
        unbounded = np.full(state.flight.requests.shape, np.inf, dtype=np.float32)
        return (
            corrected(state.flight, ceiling=unbounded),
            width_seconds,
            np.zeros(len(tpot)),
            np.zeros((len(tpot), BUCKETS)),
        )
    tokens = clock.elapsed_seconds / tpot
    aged, depth = inflight.advance(state.flight, tokens=tokens, survival=survival)
    started = _started(state, clock=clock, seen=seen, covered=covered, survival=survival, aged=aged, tokens=tokens)
    _, newborn = inflight.admit(aged, started=started, tokens=tokens, survival=survival)
    older = inflight.exposure(state.flight, tokens=tokens, depth=depth, expected=aged, found=aged)
    told = covered & seen.finished_known & seen.running.fresh
    tick = lengths.of_tick(ended=ended, exposed=older + newborn, survival=survival, known=told)
    aged, depth = inflight.advance(state.flight, tokens=tokens, survival=tick)
    expected, newborn = inflight.admit(aged, started=started, tokens=tokens, survival=tick)
    ceiling = np.concatenate([started[:, None], state.flight.requests], axis=1).astype(np.float32)
    followed = clock.returning & state.service.running_fresh  # elsewhere the state is no bound, only a guess
    remaining = departures.take(state.departures, expected, gone=gone, ended=state.lengths.ended, tokens=tokens)
    wrote = departures.share_of_tick(expected, remaining)
    found = corrected(remaining, ceiling=np.where(followed[:, None], ceiling, np.float32(np.inf)))
    before = replace(state.flight, requests=state.flight.requests * wrote[:, 1:])
    older = inflight.exposure(before, tokens=tokens, depth=depth, expected=remaining.older, found=found.older)
    newborn = newborn * wrote[:, :1]
    flight, width = inflight.make_room(found, width_seconds=width_seconds, elapsed_seconds=clock.elapsed_seconds)
    return flight, width, started, older + newborn


def _started(
    state: FleetState,
    *,
    clock: Clock,
    seen: FleetArrays,
    covered: Mask,
    survival: Survival,
    aged: inflight.InFlight,
    tokens: Array,
) -> Array:
    """Requests that started since the last tick, shape (services,).

    Counted by first tokens; without that counter they are what the running gauge shows beyond the survivors; without
    a gauge they are assumed at the rate last known. A service that is new here was not seen to start anything.
    """
    interval = seen.interval_seconds
    scale = np.divide(clock.elapsed_seconds, interval, out=np.ones(len(tokens)), where=interval > 0)
    counted = seen.first_tokens.value * scale
    mass, _ = survival.integrals(tokens[:, None])
    unexplained = np.maximum(seen.running.value - aged.total, 0.0) * tokens / mass[:, 0]
    expected = state.arrivals.rates[:, arrivals.MEDIUM] * clock.elapsed_seconds
    started = np.where(seen.running.fresh, unexplained, expected)
    started = np.where(covered & seen.first_tokens.fresh, counted, started)
    return np.where(clock.returning, started, 0.0)


def _finished(seen: FleetArrays, survival: Survival) -> Array:
    """Requests that finished in the interval on the grid, shape (services, `BUCKETS`); 0 where not known."""
    probability = survival.bucket_probability()
    result = np.zeros_like(probability)
    for group in seen.finished:
        result[group.services] = spread(
            counts=group.counts, upper_bounds=group.upper_bounds, probability=probability[group.services]
        )
    return result


def _finished_requests(seen: FleetArrays) -> Array:
    """Requests that finished in the interval, shape (services,); 0 where not known."""
    finished = np.zeros(len(seen.interval_seconds))
    for group in seen.finished:
        finished[group.services] = group.counts.sum(axis=1)
    return finished


def _saturated(before: ServiceState, seen: FleetArrays, gauges_fresh: Mask) -> Mask:
    """Where requests wait, more than a few, and did so at the last tick."""
    queued = seen.waiting.value >= SATURATED * np.maximum(seen.running.value, 1.0)
    result: Mask = gauges_fresh & before.waiting_fresh & (before.waiting > 0) & queued
    return result


def _ends(before: ServiceState, seen: FleetArrays) -> cascade.Ends:
    """What began and ended in the interval, for those who look for requests that were given up."""
    return cascade.Ends(
        counted_aborts=seen.aborted.value,
        counted_known=seen.aborted.fresh,
        started=seen.first_tokens.value,
        finished=_finished_requests(seen),
        growth=seen.running.value - before.running,
        balanced=seen.first_tokens.fresh & seen.finished_known & seen.running.fresh & before.running_fresh,
        pods=seen.reporting_pods,
    )


def _prompts(
    service: ServiceState, *, clock: Clock, seen: FleetArrays, covered: Mask, flight: inflight.InFlight
) -> ServiceState:
    """KV cache per request besides its output: what the cache holds beyond the output of requests in flight.

    That counts shared prefixes once, as the cache does. Without a KV gauge the prompts of finished requests serve.
    """
    kept = float(np.exp(-min(clock.elapsed_seconds / PROMPT_MEMORY_SECONDS, 60.0)))
    by_cache = seen.kv_used.fresh & seen.running.fresh & (seen.running.value > 0)
    by_counter = ~seen.kv_used.known & covered & seen.prompts.fresh & seen.finished_known
    finished = _finished_requests(seen)
    beyond = np.maximum(seen.kv_used.value - flight.tokens, 0.0)
    tokens = np.where(by_cache, beyond, seen.prompts.value)
    requests = np.where(by_cache, seen.running.value, finished)
    learned = by_cache | by_counter
    checked = seen.attained.fresh & seen.running.fresh & (seen.running.value > 0)
    return replace(
        service,
        attained=_faded(service.attained, seen.attained.value, kept, checked),
        inferred=_faded(service.inferred, flight.tokens, kept, checked),
        kv_beyond_output=_faded(service.kv_beyond_output, tokens, kept, learned),
        prompts=_faded(service.prompts, requests, kept, learned),
    )


def _capacity(
    state: FleetState,
    service: ServiceState,
    *,
    clock: Clock,
    seen: FleetArrays,
    covered: Mask,
    saturated: Mask,
    parameters: Parameters,
) -> capacity.CapacityState:
    """Capacity of a replica after one more sample: mean batch, mean KV and TPOT of the interval."""
    pods = np.maximum(seen.reporting_pods, 1.0)
    batch = 0.5 * (state.service.running + service.running) / pods
    tokens = seen.generated.value
    learned = covered & seen.running.fresh & state.service.running_fresh & seen.generated.fresh
    learned = learned & (tokens > 0) & (batch > 0) & (seen.reporting_pods > 0)
    busy = batch * pods * seen.interval_seconds
    tpot = np.divide(busy, tokens, out=parameters.target_tpot_seconds.copy(), where=learned)
    ratio = clip(tpot / parameters.target_tpot_seconds, 0.0, 10.0)
    after = capacity.learn(
        state.capacity,
        batch=batch,
        kv_tokens=seen.kv_used.value / pods,
        tpot_ratio=ratio,
        learned=learned,
        elapsed_seconds=clock.elapsed_seconds,
    )
    return capacity.learn_limit(after, running=np.where(saturated, seen.queued_batch, 0.0))
