"""What a tick of the demand model costs: processor time and memory, for fleets of several sizes.

Each measurement is a process of its own with one thread (``python -m longtail.workbench.bench_cost``), so
that sizes do not inherit each other's memory and numpy does not borrow the other cores. The time is processor
time, which a busy machine does not stretch. The clock is read around ``estimate`` alone: observations are
there already, as they are in the operator.
"""

import gc
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from longtail.demand import inflight
from longtail.demand import memory as memory_module
from longtail.demand.model import DemandMemory, estimate
from longtail.demand.observation import Observation
from longtail.demand.parameters import CapacityOverride, ServiceParameters
from longtail.demand.supply import Supply
from longtail.policy.fleet import ServiceKey
from longtail.workbench.replay import TICK_SECONDS, Exposure, observe, sample
from longtail.workbench.schedule import first_come_first_served, start_at_once
from longtail.workbench.traces import arrivals
from longtail.workbench.traces.lengths import PARAMETRIC_R1
from longtail.workbench.traces.trace import Trace

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")

STREAMS = 60
"""Distinct services; a larger fleet repeats them, which costs the model the same as if they differed."""
PODS_PER_SERVICE = 4
QUEUED_SHARE = 10
"""One service in ten has more demand than slots, since a queue is what a forecast has to be stepped for."""
WARM_UP_SECONDS = 3600.0
"""Of the streams, before the first observation: so that services are busy from the start."""


@dataclass(frozen=True, slots=True)
class CostOptions:
    """One measurement."""

    services: int
    cold_start_seconds: float = 180.0
    """Prior cold start, which sets the horizon."""
    age_bins: int | None = None
    """Cohorts of requests in flight by age; the model's own number unless given."""
    ticks: int = 60
    """Steps in all; the last ``measured`` are timed. 60 ticks are 15 minutes, five horizons of 180 s."""
    measured: int = 20


@dataclass(frozen=True, slots=True)
class Cost:
    """What was measured."""

    services: int
    tick_ms: float
    """Median processor time of a tick."""
    slowest_tick_ms: float
    rss_mb: float | None
    """Greatest resident size during the ticks over that before the first: memory between ticks, the arrays of a
    tick, and the demands it returns. None where the system does not tell."""


def measure(options: CostOptions) -> Cost:
    """Measures in this process; use ``measure_apart`` for figures that do not depend on what ran before."""
    if options.age_bins is not None:  # a constant of the model, varied here alone, to see what it costs
        for module in (inflight, memory_module):
            vars(module)["COHORTS"] = options.age_bins
    streams = _streams(options.ticks)
    keys = [ServiceKey("bench", f"service-{index}") for index in range(options.services)]
    parameters = [_parameters(options)] * options.services
    supplies = [Supply(ready_replicas=PODS_PER_SERVICE)] * options.services
    memory = DemandMemory.empty()
    gc.collect()
    if _CLEAR_REFS.exists():
        _CLEAR_REFS.write_text("5", encoding="ascii")  # forget the peak of making the streams
    resident = _resident_mb("VmRSS")
    spent = []
    for tick in range(options.ticks):
        observations = [streams[index % STREAMS][tick] for index in range(options.services)]
        before = time.process_time()
        _, memory = estimate(
            keys=keys,
            parameters=parameters,
            observations=observations,
            supplies=supplies,
            memory=memory,
            now=observations[0].at_seconds,
        )
        spent.append(1e3 * (time.process_time() - before))
    timed, peak = spent[-options.measured :], _resident_mb("VmHWM")
    return Cost(
        services=options.services,
        tick_ms=statistics.median(timed),
        slowest_tick_ms=max(timed),
        rss_mb=None if peak is None or resident is None else peak - resident,
    )


def measure_apart(options: CostOptions) -> Cost:
    """Measures in a fresh process with one thread.

    Raises:
        RuntimeError: the process failed; the message holds what it said.
    """
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "longtail.workbench.bench_cost", json.dumps(asdict(options))],
        env={**os.environ, **one_thread},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"measuring {options} failed: {done.stderr.strip()[-2000:]}")
    return Cost(**json.loads(done.stdout))


def _parameters(options: CostOptions) -> ServiceParameters:
    return ServiceParameters(
        capacity=CapacityOverride(max_concurrent_requests=64, kv_cache_tokens=400_000),
        startup_seconds=options.cold_start_seconds,
    )


def _streams(ticks: int) -> Sequence[Sequence[Observation]]:
    """Observations of ``STREAMS`` services with R1 lengths, between 0.05 and 2 requests a second."""
    seconds = round(WARM_UP_SECONDS + ticks * TICK_SECONDS) + 60
    skipped = round(WARM_UP_SECONDS / TICK_SECONDS)
    exposure = Exposure(pods=PODS_PER_SERVICE, kv_capacity_tokens_per_pod=400_000.0, per_pod=True)
    streams = []
    for index, rate in enumerate(np.geomspace(0.05, 2.0, STREAMS)):
        rng = np.random.default_rng([7, index])
        arrived = arrivals.poisson(arrivals.constant(seconds, float(rate)), rng)
        lengths = PARAMETRIC_R1.sample(len(arrived), rng)
        trace = Trace("cost", arrived, np.full(len(arrived), 200), lengths)
        schedule = start_at_once(trace, seconds_per_token=0.05)
        if index % QUEUED_SHARE == 0:
            slots = max(int(0.9 * rate * PARAMETRIC_R1.mean_tokens * 0.05), 1)
            schedule = first_come_first_served(trace, seconds_per_token=0.05, slots=[(0, slots)])
        series = sample(schedule, duration_seconds=float(seconds), max_model_len=131_072.0)
        observed = list(observe(series, exposure))[skipped : skipped + ticks]
        observed[0] = replace(observed[0], interval_seconds=0.0)
        streams.append(observed)
    return streams


def _resident_mb(line: str) -> float | None:
    """``VmRSS`` (now) or ``VmHWM`` (greatest since the last reset) of this process; None without /proc.

    ``getrusage`` will not do: a process starts with the peak of whoever started it, so that a large parent hides
    all that its child takes.
    """
    if not _STATUS.exists():
        return None
    found = next(entry for entry in _STATUS.read_text(encoding="ascii").splitlines() if entry.startswith(line))
    return int(found.split()[1]) / 1024


def machine_in_words() -> str:
    """The machine in words general enough to publish.

    >>> machine_in_words().split()[1]
    'cores,'
    """
    return f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, numpy {np.__version__}"


def digest_of_model() -> str:
    """Twelve hexadecimal digits that change whenever a source file of the demand model does."""
    digest = hashlib.sha256()
    for source in sorted(Path(inflight.__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(measure(CostOptions(**json.loads(sys.argv[1]))))))
