"""The scenarios that the demand model is measured on. They know nothing of the model, nor it of them.

Three families: reasoning traffic (real arrivals and lengths), controls (real traffic that does not reason),
and stress (drawn from simple laws, with one thing going wrong at known times). A service gets the priors that
a user would write without looking: a mean of 2,000 tokens, and the true hard cap.
"""

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from longtail.demand.parameters import CapacityOverride, Objective, ServiceParameters
from longtail.errors import TraceError
from longtail.workbench.replay import Exposure, Series, sample
from longtail.workbench.schedule import Schedule, start_at_once
from longtail.workbench.traces import arrivals, catalogue, lengths
from longtail.workbench.traces.trace import Floats, Trace

DAY_SECONDS = catalogue.DAY_SECONDS
SECONDS_PER_TOKEN = 0.050
COLD_START_SECONDS = 180.0
SLOTS_PER_REPLICA = 24
KV_TOKENS_PER_REPLICA = 400_000.0
MAX_MODEL_LEN = 131_072.0
"""Of the engines, hence the last finite bucket of their length histogram (100,000)."""
SEED = 20261124


class Family(enum.StrEnum):
    """What a scenario is for."""

    REASONING = "reasoning"
    CONTROL = "control"
    STRESS = "stress"


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """One service's traffic and the parameters its user would write."""

    name: str
    family: Family
    trace: Trace
    max_output_tokens: float
    duration_seconds: float = float(DAY_SECONDS)
    seconds_per_token: float = SECONDS_PER_TOKEN
    slots_per_replica: int = SLOTS_PER_REPLICA

    def schedule(self) -> Schedule:
        """Every request starts at once: demand without the distortion of any pool size."""
        return start_at_once(self.trace, seconds_per_token=self.seconds_per_token)

    def series(self) -> Series:
        """The metrics at every tick."""
        return sample(self.schedule(), duration_seconds=self.duration_seconds, max_model_len=MAX_MODEL_LEN)

    def parameters(self, *, attainment: float) -> ServiceParameters:
        """What the user says: the objective, the priors, and the size of a replica."""
        return ServiceParameters(
            objective=Objective(attainment=attainment, time_per_output_token_seconds=self.seconds_per_token),
            capacity=CapacityOverride(
                max_concurrent_requests=self.slots_per_replica, kv_cache_tokens=int(KV_TOKENS_PER_REPLICA)
            ),
            max_output_tokens=self.max_output_tokens,
            startup_seconds=COLD_START_SECONDS,
        )

    def exposure(self, series: Series) -> Exposure:
        """Engines enough that the pool never limits demand, and no report of waits: nobody waits here."""
        by_slots = 2.0 * series.demand.max() / self.slots_per_replica
        by_kv = 2.0 * series.kv_used_tokens.max() / KV_TOKENS_PER_REPLICA
        pods = int(np.ceil(max(by_slots, by_kv, 1.0)))
        return Exposure(pods=pods, kv_capacity_tokens_per_pod=KV_TOKENS_PER_REPLICA, waits=False)


# --- real traffic


def reasoning_scenarios(data: Path, *, seed: int = SEED) -> Iterator[Scenario]:
    """The R1 day in several sizes and lengths, and other arrivals with R1 lengths. Reads ``data``."""
    day, law = catalogue.r1_day(data), catalogue.r1_lengths(data)
    cap = law.max_tokens
    yield Scenario("r1-day", Family.REASONING, day, cap)
    # A tenth of the requests of every client: 1.6 a second, calmer than the original.
    yield Scenario("r1-day-thin", Family.REASONING, day.thinned(0.1, seed=seed), cap)
    # Whole clients keep their bursts: a mid-size service without the client that sends half of the tokens ...
    some = catalogue.clients_of(day, _every_third_client(day), name="r1-day-clients")
    yield Scenario("r1-day-clients", Family.REASONING, some, cap)
    # ... and a small one, about forty requests in flight.
    yield Scenario("r1-small", Family.REASONING, day.thinned(0.035, seed=seed + 1), cap)
    tripled = day.thinned(0.1, seed=seed + 2)
    tripled = tripled.with_output_tokens(lengths.scale_tokens(tripled.output_tokens, 3.0, cap))
    yield Scenario("r1-x3-lengths", Family.REASONING, tripled, cap)
    heavy = day.thinned(0.1, seed=seed + 3)
    drawn = lengths.HEAVY_TAIL.sample(len(heavy), np.random.default_rng(seed + 3))
    yield Scenario("r1-heavy-tail", Family.REASONING, heavy.with_output_tokens(drawn), lengths.HEAVY_TAIL.max_tokens)
    for index, pool in enumerate(("m-large", "m-small")):
        trace = catalogue.language_pool_day(data, pool, day=0, mean_per_second=1.4, lengths=law, seed=seed + 4 + index)
        yield Scenario(f"{pool}-r1-lengths", Family.REASONING, trace, cap)


def _every_third_client(day: Trace) -> Sequence[int]:
    """Clients ranked 2, 5, 8, ... by their number of requests: about a quarter of the traffic."""
    assert day.client is not None
    ranked = np.argsort(-np.bincount(day.client), kind="stable")
    chosen: list[int] = ranked[1::3].tolist()
    return chosen


def control_scenarios(data: Path, *, seed: int = SEED) -> Iterator[Scenario]:
    """Production traffic that does not reason: hardly anything is known one cold start ahead."""
    for source in ("azure-conversation", "azure-code", "mooncake"):
        yield Scenario(source, Family.CONTROL, catalogue.control_day(data, source, seed=seed), 8192.0)


# --- what autoscalers are compared on


FRONTIER_REASONING = ("r1-day", "r1-evening", "r1-x3-lengths", "r1-heavy-tail", "r1-thin", "m-large-r1-lengths")
FRONTIER_CONTROLS = ("azure-conversation", "mooncake")
EVENING_SECONDS = 14 * 3600.0
"""Where r1-evening begins: after four hours of warm-up it is 18 o'clock, and the evening's peak comes."""


def frontier_scenario(name: str, data: Path, *, seed: int = SEED, span_seconds: float) -> Scenario:
    """One of the scenarios that autoscalers are compared on. Reads ``data``.

    Pools of five to ten replicas, as in the published reference figures; as many slots as that takes. Thinned
    days keep their daily shape and lose some of their bursts; the language pool keeps all of them.

    Raises:
        TraceError: there is no such scenario.
    """
    reasoning = name in FRONTIER_REASONING
    if not reasoning and name not in FRONTIER_CONTROLS:
        known = ", ".join((*FRONTIER_REASONING, *FRONTIER_CONTROLS))
        raise TraceError(f"trace: {name!r} is neither a file nor one of {known}")
    family = Family.REASONING if reasoning else Family.CONTROL
    if not reasoning:
        trace, cap, slots = catalogue.control_day(data, name, seed=seed), 8192.0, 12
        return _cut(Scenario(name, family, trace, cap, slots_per_replica=slots), 0.0, span_seconds)
    law = catalogue.r1_lengths(data)
    if name == "m-large-r1-lengths":
        pool = catalogue.language_pool_day(data, "m-large", day=0, mean_per_second=1.4, lengths=law, seed=seed + 4)
        return _cut(Scenario(name, family, pool, law.max_tokens, slots_per_replica=12), 0.0, span_seconds)
    share, slots = {"r1-thin": (0.035, 8), "r1-x3-lengths": (0.07, 24), "r1-heavy-tail": (0.1, 24)}.get(name, (0.2, 24))
    trace, cap = catalogue.r1_day(data).thinned(share, seed=seed), law.max_tokens
    if name == "r1-x3-lengths":
        trace = trace.with_output_tokens(lengths.scale_tokens(trace.output_tokens, 3.0, cap))
    if name == "r1-heavy-tail":
        drawn = lengths.HEAVY_TAIL.sample(len(trace), np.random.default_rng(seed + 3))
        trace, cap = trace.with_output_tokens(drawn), lengths.HEAVY_TAIL.max_tokens
    start = EVENING_SECONDS if name == "r1-evening" else 0.0
    return _cut(Scenario(name, family, trace, cap, slots_per_replica=slots), start, span_seconds)


def _cut(scenario: Scenario, start: float, span: float) -> Scenario:
    span = min(span, DAY_SECONDS - start)
    return replace(scenario, trace=scenario.trace.window(start, start + span), duration_seconds=span)


# --- drawn traffic


def stress_scenarios(*, per_second: float = 2.0, seed: int = SEED, seconds: int = DAY_SECONDS) -> Iterator[Scenario]:
    """Parametric R1 lengths; one disturbance each, at known times after six hours. Needs no data."""
    flat = arrivals.constant(seconds, per_second)
    hour = 3600
    rates: dict[str, Callable[[], Floats]] = {
        "steady": lambda: flat,
        "daily-swing": lambda: arrivals.day_shape(seconds, per_second),
        "steps": lambda: _steps(flat),
        "bursts": lambda: _every(flat, 2 * hour, lambda rate, at: arrivals.burst(rate, at, 300, 6.0)),
        "ramps": lambda: _ramps(flat),
        "outages": lambda: _every(flat, 4 * hour, lambda rate, at: arrivals.outage(rate, at, 1200)),
    }
    for index, (name, rate) in enumerate(rates.items()):
        rng = np.random.default_rng([seed, index])
        yield drawn_scenario(name, arrivals.poisson(rate(), rng), lengths.PARAMETRIC_R1, rng, seconds=seconds)
    for index, law in enumerate(arrivals.GapLaw):
        rng = np.random.default_rng([seed, 100 + index])
        clients = [arrivals.renewal(flat / 8, 3.0, rng, law=law) for _ in range(8)]
        arrived = np.sort(np.concatenate(clients))
        yield drawn_scenario(f"{law.lower()}-clients", arrived, lengths.PARAMETRIC_R1, rng, seconds=seconds)
    yield _length_shift(flat, np.random.default_rng([seed, 200]), seconds)


def drawn_scenario(
    name: str,
    arrived: Floats,
    law: lengths.LengthLaw,
    rng: np.random.Generator,
    *,
    seconds: int = DAY_SECONDS,
) -> Scenario:
    """Given arrivals with lengths drawn from a law."""
    trace = Trace(
        name=name,
        arrival_seconds=arrived,
        input_tokens=lengths.PARAMETRIC_INPUT.sample(len(arrived), rng),
        output_tokens=law.sample(len(arrived), rng),
    )
    return Scenario(name, Family.STRESS, trace, law.max_tokens, duration_seconds=float(seconds))


def _every(rate: Floats, period: int, change: Callable[[Floats, int], Floats]) -> Floats:
    for at in range(6 * 3600 + period // 2, len(rate), period):
        rate = change(rate, at)
    return rate


def _steps(rate: Floats) -> Floats:
    """Times three and back, three hours each, from the eighth hour on."""
    for at in range(8 * 3600, len(rate), 6 * 3600):
        rate = arrivals.burst(rate, at, 3 * 3600, 3.0)
    return rate


def _ramps(rate: Floats) -> Floats:
    """Up to three times over half an hour, and down again over the next, every four hours."""
    for at in range(8 * 3600, len(rate), 4 * 3600):
        rate = arrivals.ramp(arrivals.ramp(rate, at, 1800, 3.0), at + 1800, 1800, 1 / 3)
    return rate


def _length_shift(rate: Floats, rng: np.random.Generator, seconds: int) -> Scenario:
    """Answers twice as long for the middle third of what follows the sixth hour: another model, same rate."""
    arrived = arrivals.poisson(rate, rng)
    steady = drawn_scenario("length-shift", arrived, lengths.PARAMETRIC_R1, rng, seconds=seconds)
    third = (seconds - 6 * 3600) / 3
    longer = (arrived >= 6 * 3600 + third) & (arrived < 6 * 3600 + 2 * third)
    cap = lengths.PARAMETRIC_R1.max_tokens
    doubled = lengths.scale_tokens(steady.trace.output_tokens, 2.0, cap)
    trace = steady.trace.with_output_tokens(np.where(longer, doubled, steady.trace.output_tokens))
    return Scenario("length-shift", Family.STRESS, trace, cap, duration_seconds=float(seconds))
