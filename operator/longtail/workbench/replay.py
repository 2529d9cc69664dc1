"""What the operator would have seen of a schedule: the metrics of its engines, every 15 s.

Everything is a sort, a running sum and a look-up over whole arrays, so that a day of 1.4 million requests
takes about a second. Counters are kept cumulative, and an observation's increases are taken between the ticks
that were seen: a lost scrape makes the next interval longer, as it does for a real counter.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from longtail.demand.observation import MISSING, Buckets, Observation, PodReading, Signal
from longtail.workbench.schedule import Schedule
from longtail.workbench.traces.trace import Floats, Integers, Mask

TICK_SECONDS = 15.0
WAIT_BOUNDS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0, math.inf),
)
"""Upper bounds of ``vllm:request_queue_time_seconds``."""
FIRST_TOKEN_BOUNDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0, math.inf),
)
"""Upper bounds of ``vllm:time_to_first_token_seconds``."""


def token_bounds(max_model_len: float) -> tuple[float, ...]:
    """Upper bounds of vLLM's token histograms: 1, 2, 5, 10, ... up to ``max_model_len``, then infinity.

    >>> token_bounds(32)
    (1.0, 2.0, 5.0, 10.0, 20.0, inf)
    """
    powers = range(math.ceil(math.log10(max_model_len)) + 1)
    bounds = [float(mantissa * 10**power) for power in powers for mantissa in (1, 2, 5)]
    return (*(bound for bound in bounds if bound <= max_model_len), math.inf)


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """The metrics of one service at every tick: arrays with one entry a tick; counters cumulate from 0."""

    at_seconds: Floats
    running: Floats
    waiting: Floats
    kv_used_tokens: Floats
    attained_tokens: Floats
    """Tokens written so far by the requests that run."""
    arrived: Floats
    first_tokens: Floats
    generated_tokens: Floats
    finished_tokens: Floats
    finished_prompt_tokens: Floats
    finished_output: Floats
    """Finished requests by output length; shape (ticks, buckets), not cumulative over buckets."""
    finished_wait: Floats
    """Finished requests by the time they had waited; shape (ticks, len(WAIT_BOUNDS))."""
    first_token_wait: Floats
    """Started requests by their time to first token; shape (ticks, len(FIRST_TOKEN_BOUNDS))."""
    output_bounds: tuple[float, ...]

    @property
    def demand(self) -> Floats:
        """Requests that hold or want a slot, per tick: the truth that a forecast is held against."""
        return self.running + self.waiting


def sample(
    schedule: Schedule, *, duration_seconds: float, max_model_len: float, tick_seconds: float = TICK_SECONDS
) -> Series:
    """The engine's metrics at 0, ``tick_seconds``, ... up to and including ``duration_seconds``.

    At a tick everything that happened by then has happened: a request that finishes at 30.0 no longer runs at
    30.0. Tokens between two ticks count in full and in fractions.
    """
    at = np.arange(0.0, duration_seconds + tick_seconds / 2, tick_seconds)
    trace, start, finish = schedule.trace, schedule.start_seconds, schedule.finish_seconds
    by_finish = np.argsort(finish, kind="stable")
    arrived = np.searchsorted(trace.arrival_seconds, at, side="right")
    started = np.searchsorted(start, at, side="right")
    finished = np.searchsorted(finish[by_finish], at, side="right")
    running = (started - finished).astype(np.float64)

    start_sum = _sum_of_first(start, started) - _sum_of_first(start[by_finish], finished)
    attained = np.maximum(running * at - start_sum, 0.0) / schedule.seconds_per_token
    attained[running == 0] = 0.0
    finished_prompt = _sum_of_first(trace.input_tokens[by_finish], finished)
    prompt_in_flight = _sum_of_first(trace.input_tokens, started) - finished_prompt
    finished_tokens = _sum_of_first(trace.output_tokens[by_finish], finished)

    bounds = token_bounds(max_model_len)
    finish_tick = np.searchsorted(at, finish, side="left")
    start_tick = np.searchsorted(at, start, side="left")
    wait = start - trace.arrival_seconds
    return Series(
        at_seconds=at,
        running=running,
        waiting=(arrived - started).astype(np.float64),
        kv_used_tokens=prompt_in_flight + attained,
        attained_tokens=attained,
        arrived=arrived.astype(np.float64),
        first_tokens=started.astype(np.float64),
        generated_tokens=np.maximum.accumulate(finished_tokens + attained),
        finished_tokens=finished_tokens,
        finished_prompt_tokens=finished_prompt,
        finished_output=_histogram(finish_tick, trace.output_tokens, bounds, len(at)),
        finished_wait=_histogram(finish_tick, wait, WAIT_BOUNDS, len(at)),
        first_token_wait=_histogram(start_tick, wait, FIRST_TOKEN_BOUNDS, len(at)),
        output_bounds=bounds,
    )


def _sum_of_first(values: Floats | Integers, counts: Integers) -> Floats:
    """Sums of the first ``counts`` values, for each count."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])[counts]


def _histogram(tick: Integers, values: Floats | Integers, bounds: Sequence[float], ticks: int) -> Floats:
    """Cumulative-in-time counts per bucket, shape (ticks, buckets); an upper bound belongs to its bucket."""
    bucket = np.searchsorted(bounds, values, side="left")
    inside = tick < ticks
    flat = np.bincount(tick[inside] * len(bounds) + bucket[inside], minlength=ticks * len(bounds))
    cumulative: Floats = np.cumsum(flat.reshape(ticks, len(bounds)), axis=0, dtype=np.float64)
    return cumulative


@dataclass(frozen=True, slots=True)
class Exposure:
    """What is exported beside the requests themselves, and by how many pods."""

    pods: int
    kv_capacity_tokens_per_pod: float | None = None
    waits: bool = True
    """Whether the engines report how long requests waited."""
    door: bool = False
    """Whether a counter at the door reports arrivals."""
    per_pod: bool = False
    """Whether observations carry a reading of each pod; requests are spread evenly."""
    epoch_seconds: float = 1_800_000_000.0
    """Unix time of the start of the trace."""


def observe(series: Series, exposure: Exposure, *, seen: Mask | None = None) -> Iterator[Observation]:
    """One observation a tick. Where ``seen`` is False every number is missing, as when the source is down."""
    previous: int | None = None
    for tick in range(len(series.at_seconds)):
        if seen is not None and not seen[tick]:
            yield Observation(
                at_seconds=exposure.epoch_seconds + float(series.at_seconds[tick]), ready_pods=exposure.pods
            )
            continue
        yield _observation(series, exposure, tick, previous)
        previous = tick


def _observation(series: Series, exposure: Exposure, tick: int, previous: int | None) -> Observation:
    at = exposure.epoch_seconds + float(series.at_seconds[tick])
    capacity = exposure.kv_capacity_tokens_per_pod
    levels = Observation(
        at_seconds=at,
        running_requests=Signal(value=float(series.running[tick])),
        waiting_requests=Signal(value=float(series.waiting[tick])),
        kv_used_tokens=Signal(value=float(series.kv_used_tokens[tick])),
        kv_capacity_tokens=MISSING if capacity is None else Signal(value=capacity * exposure.pods),
        attained_tokens=Signal(value=float(series.attained_tokens[tick])),
        ready_pods=exposure.pods,
        reporting_pods=exposure.pods,
        pods=_readings(series, exposure, tick, previous) if exposure.per_pod else (),
    )
    if previous is None:  # a first sight has no increase
        return levels

    def increase(counter: Floats) -> Signal:
        return Signal(value=max(float(counter[tick] - counter[previous]), 0.0))

    def buckets(bounds: tuple[float, ...], counter: Floats) -> Buckets:
        return Buckets(upper_bounds=bounds, counts=tuple((counter[tick] - counter[previous]).tolist()))

    return replace(
        levels,
        interval_seconds=float(series.at_seconds[tick] - series.at_seconds[previous]),
        arrivals=increase(series.arrived) if exposure.door else MISSING,
        first_tokens=increase(series.first_tokens),
        generated_tokens=increase(series.generated_tokens),
        finished_tokens=increase(series.finished_tokens),
        prompt_tokens=increase(series.finished_prompt_tokens),
        preemptions=Signal(value=0.0),
        finished_output_tokens=buckets(series.output_bounds, series.finished_output),
        queue_wait_seconds=buckets(WAIT_BOUNDS, series.finished_wait) if exposure.waits else None,
        first_token_seconds=buckets(FIRST_TOKEN_BOUNDS, series.first_token_wait) if exposure.waits else None,
    )


def _readings(series: Series, exposure: Exposure, tick: int, previous: int | None) -> tuple[PodReading, ...]:
    whole, left_over = divmod(round(float(series.running[tick])), exposure.pods)
    running = max(float(series.running[tick]), 1.0)
    written = 0.0 if previous is None else float(np.diff(series.generated_tokens[[previous, tick]])[0])
    capacity = exposure.kv_capacity_tokens_per_pod
    readings = []
    for pod in range(exposure.pods):
        batch = float(whole + (pod < left_over))
        share = batch / running
        reading = PodReading(
            name=f"pod-{pod}",
            running_requests=Signal(value=batch),
            waiting_requests=Signal(value=float(series.waiting[tick]) / exposure.pods),
            kv_used_tokens=Signal(value=share * float(series.kv_used_tokens[tick])),
            kv_capacity_tokens=MISSING if capacity is None else Signal(value=capacity),
            attained_tokens=Signal(value=share * float(series.attained_tokens[tick])),
            generated_tokens=MISSING if previous is None else Signal(value=max(written, 0.0) * share),
        )
        readings.append(reading)
    return tuple(readings)
