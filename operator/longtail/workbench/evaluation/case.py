"""The work and the pool of one line of comparisons: everything but the policy."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from longtail.errors import TraceError
from longtail.workbench.fleet.setting import Drain, ReplicaSize, Routing, Setting
from longtail.workbench.scenarios import COLD_START_SECONDS, SECONDS_PER_TOKEN, SEED, Family, frontier_scenario
from longtail.workbench.schedule import Schedule, start_at_once
from longtail.workbench.traces.reading import read_trace
from longtail.workbench.traces.trace import Trace

KV_TOKENS_PER_SLOT = 16_667
"""400,000 tokens for 24 slots, as one replica of the measured R1 profiles has; never what binds here."""
SPARE = 3.0
"""maxReplicas over the replicas that the peak of demand needs: a ceiling that tunes nothing."""


@dataclass(frozen=True, slots=True)
class Pool:
    """What a comparison is made on, besides the requests. Plain values: a key of its runs."""

    slots_per_replica: int = 24
    seconds_per_token: float = SECONDS_PER_TOKEN
    cold_start_seconds: float = COLD_START_SECONDS
    objective_seconds: float = 10.0
    drain: Drain = Drain.GRACEFUL
    """Of policies that have none of their own. Graceful: they cut no thought either, and pay for it."""
    routing: Routing = Routing.LEAST_LOADED


@dataclass(frozen=True, slots=True)
class CaseName:
    """How a worker finds a case again: a published scenario or a file, and the pool."""

    trace: str
    """Name of a scenario of the frontier, or path of a trace file."""
    pool: Pool
    data: Path | None = None
    """Directory of the real traces; None where the trace is a file."""
    warm_up_seconds: float = 4 * 3600.0
    measured_seconds: float = 8 * 3600.0


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One seed of a case: requests, and when they begin to count."""

    name: str
    family: Family | None
    """None for a file of the user's."""
    trace: Trace
    max_output_tokens: float
    measured_from_seconds: float
    duration_seconds: float
    pool: Pool
    seed: int

    def schedule(self) -> Schedule:
        """Everybody starts at once."""
        return start_at_once(self.trace, seconds_per_token=self.pool.seconds_per_token)

    def setting(self) -> Setting:
        """Of every simulation of the case. It begins with what the first ten minutes' work needs."""
        pool, schedule = self.pool, self.schedule()
        at_first = _peak(schedule, until=600.0)
        peak = _peak(schedule, until=self.duration_seconds)
        return Setting(
            replica=ReplicaSize(
                slots=pool.slots_per_replica,
                seconds_per_token=pool.seconds_per_token,
                kv_capacity_tokens=float(KV_TOKENS_PER_SLOT * pool.slots_per_replica),
            ),
            routing=pool.routing,
            drain=pool.drain,
            cold_start_seconds=pool.cold_start_seconds,
            max_replicas=max(8, round(SPARE * peak / pool.slots_per_replica)),
            initial_replicas=max(1, -(-at_first // pool.slots_per_replica)),
            measured_from_seconds=self.measured_from_seconds,
            objective_seconds=pool.objective_seconds,
            seed=self.seed,
        )

    def digest(self) -> str:
        """Twelve hexadecimal digits of everything that a run of this case depends on, the policy apart."""
        given = (self.pool, self.seed, self.measured_from_seconds, self.duration_seconds)
        digest = hashlib.sha256(repr(given).encode())
        digest.update(self.trace.arrival_seconds.tobytes())
        digest.update(self.trace.output_tokens.tobytes())
        digest.update(self.trace.input_tokens.tobytes())
        return digest.hexdigest()[:12]


def _peak(schedule: Schedule, *, until: float) -> int:
    """Most requests in flight at a moment somebody starts, up to ``until``."""
    starts = schedule.start_seconds[schedule.start_seconds < until]
    if not len(starts):
        return 0
    finish = np.sort(schedule.finish_seconds)
    here = np.arange(1, len(starts) + 1) - np.searchsorted(finish, starts, side="right")
    return int(here.max())


@lru_cache(maxsize=4)
def open_case(name: CaseName, seed: int) -> Case:
    """The case of a name, drawn with a seed where it is drawn at all.

    Raises:
        TraceError: the name is neither a scenario's nor a readable trace file's, or the trace is too short.
    """
    span = name.warm_up_seconds + name.measured_seconds
    if name.data is not None:
        scenario = frontier_scenario(name.trace, name.data, seed=SEED + 10 * seed, span_seconds=span)
        pool = Pool(
            slots_per_replica=scenario.slots_per_replica,
            seconds_per_token=scenario.seconds_per_token,
            cold_start_seconds=name.pool.cold_start_seconds,
            objective_seconds=name.pool.objective_seconds,
            drain=name.pool.drain,
            routing=name.pool.routing,
        )
        trace, cap, family = scenario.trace, scenario.max_output_tokens, scenario.family
        span = scenario.duration_seconds
    else:
        trace, family, pool = read_trace(Path(name.trace)), None, name.pool
        cap = float(trace.output_tokens.max(initial=1))
        span = min(span, trace.span_seconds)
        trace = trace.window(0.0, span)
    if span <= name.warm_up_seconds:
        left = f"nothing to measure after {name.warm_up_seconds:.0f} s of warm-up"
        raise TraceError(f"{name.trace}: lasts {span:.0f} s, which leaves {left}")
    return Case(
        name=name.trace if name.data is not None else Path(name.trace).name.split(".")[0],
        family=family,
        trace=trace,
        max_output_tokens=cap,
        measured_from_seconds=name.warm_up_seconds,
        duration_seconds=span,
        pool=pool,
        seed=seed,
    )
