"""What sharing a quota saves: two services with opposite peaks, on fixed halves and on one GPU budget.

Both services are DeepSeek-R1's production day, thinned; the second one is another draw of it, twelve hours later. Every
pair of pools lives through the same requests, all pairs side by side in one fleet: in each pair either each pool has
half of the quota to itself, or both share it under a budget of a namespace of their own. A pool's attainment with a
fixed half is what it must keep with the shared quota: the least quota is the one from which on both do.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from longtail.policy.fleet import GpuBudget, ServiceKey
from longtail.workbench.fleet.pilots import LongtailPool, parameters_of, simulate_fleet
from longtail.workbench.fleet.run import Run
from longtail.workbench.fleet.setting import Drain, ReplicaSize, Requests, Setting
from longtail.workbench.fleet.sizing import need_of
from longtail.workbench.scenarios import SEED
from longtail.workbench.traces import catalogue
from longtail.workbench.traces.trace import Floats, Trace

HOUR = 3600.0
DAY = float(catalogue.DAY_SECONDS)
BAR_PERCENT = 15.0
"""Fewer GPUs than fixed halves need, at equal attainment."""
GPU_CLASS = "H100"
NAMES = ("day", "night")
SHARE = 0.2
"""Of the requests of the real day: pools of five to twenty-five replicas."""
MAX_OUTPUT_TOKENS = 32_768.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Which quotas are tried, in replicas of ``size``, and on what."""

    halves: Sequence[int]
    """Of each pool."""
    quotas: Sequence[int]
    """Of both together."""
    duration_seconds: float
    measured_from_seconds: float
    size: ReplicaSize = field(default_factory=lambda: ReplicaSize(gpus=8))
    cold_start_seconds: float = 180.0
    max_output_tokens: float = MAX_OUTPUT_TOKENS
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Pair:
    """What became of two pools on one quota."""

    replicas: int
    """The whole quota, in replicas."""
    shared: bool
    attainment: tuple[float, float]
    """Of each, 0..1."""
    gpu_hours: float
    most_gpus: int
    """Held at any time by both together."""
    direction_changes: int
    killed_requests: int


@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """GPUs held by each pool, tick by tick. Shape (ticks,) and (ticks, 2)."""

    at_seconds: Floats
    gpus: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """All pairs, and how those with shared quotas used them."""

    plan: Plan
    halves: Sequence[Pair]
    shared: Sequence[Pair]
    uses: Mapping[int, Use]
    """By quota in replicas."""


def opposite_days(day: Trace, *, share: float, seed: int, warm_up_seconds: float) -> tuple[Trace, Trace]:
    """A day and another draw of it twelve hours later, each with the hours before as a warm-up."""

    def turned(draw: int, shift: float) -> Trace:
        start = DAY + shift - warm_up_seconds
        return day.thinned(share, seed=draw).repeated(3, DAY).window(start, start + warm_up_seconds + DAY)

    return turned(seed, 0.0), turned(seed + 1, DAY / 2)


def run_plan(traces: tuple[Trace, Trace], plan: Plan) -> Outcome:
    """All pairs of a plan, as one fleet."""
    given = [(replicas, False) for replicas in plan.halves] + [(replicas, True) for replicas in plan.quotas]
    runs: list[tuple[Requests, LongtailPool]] = []
    budgets = []
    for replicas, shared in given:
        namespace = f"{'shared' if shared else 'halves'}-{replicas}"
        for name, trace in zip(NAMES, traces, strict=True):
            runs.append(_pool(ServiceKey(namespace, name), trace, plan, most=replicas))
        if shared:
            budgets.append(GpuBudget(GPU_CLASS, replicas * plan.size.gpus, namespace))
    times: list[float] = []
    held: list[Sequence[int]] = []

    def witness(at_seconds: float, gpus: Sequence[int]) -> None:
        times.append(at_seconds)
        held.append(gpus)

    results = simulate_fleet(runs, budgets=budgets, witness=witness)
    at, used = np.array(times), np.array(held, dtype=np.float64).reshape(len(held), len(given), 2)
    pairs = [
        _pair(results[2 * index : 2 * index + 2], replicas if shared else 2 * replicas, shared, used[:, index])
        for index, (replicas, shared) in enumerate(given)
    ]
    cut = len(plan.halves)
    uses = {pair.replicas: Use(at, used[:, cut + index]) for index, pair in enumerate(pairs[cut:])}
    return Outcome(plan, pairs[:cut], pairs[cut:], uses)


def _pool(key: ServiceKey, trace: Trace, plan: Plan, *, most: int) -> tuple[Requests, LongtailPool]:
    need = need_of(trace, plan.size, duration_seconds=plan.duration_seconds)
    setting = Setting(
        replica=plan.size,
        drain=Drain.GRACEFUL,
        cold_start_seconds=plan.cold_start_seconds,
        max_replicas=most,
        initial_replicas=min(need.at_start, max(most // 2, 1)),
        measured_from_seconds=plan.measured_from_seconds,
        seed=plan.seed,
    )
    parameters = parameters_of(
        setting, max_output_tokens=plan.max_output_tokens, startup_seconds=plan.cold_start_seconds
    )
    return Requests.of(trace, duration_seconds=plan.duration_seconds), LongtailPool(
        key, setting, parameters, gpu_class=GPU_CLASS
    )


def _pair(runs: Sequence[Run], replicas: int, shared: bool, used: Floats) -> Pair:
    one, other = runs
    return Pair(
        replicas=replicas,
        shared=shared,
        attainment=(one.attainment, other.attainment),
        gpu_hours=sum(run.gpu_hours.total for run in runs),
        most_gpus=int(used.sum(axis=1).max(initial=0.0)),
        direction_changes=sum(run.direction_changes for run in runs),
        killed_requests=sum(run.killed_requests for run in runs),
    )
