"""What sharing a quota saves: two services with opposite peaks, on fixed halves and on one GPU budget.

Both services are DeepSeek-R1's production day, thinned; the second one is another draw of it, twelve hours later. Every
pair of pools lives through the same requests, all pairs side by side in one fleet: in each pair either each pool has
half of the quota to itself, or both share it under a budget of a namespace of their own. A pool's attainment with a
fixed half is what it must keep with the shared quota: the least quota is the one from which on both do.
"""

from collections.abc import Callable, Mapping, Sequence
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
from longtail.workbench.schedule import first_come_first_served
from longtail.workbench.traces import catalogue
from longtail.workbench.traces.trace import Floats, Trace

Progress = Callable[[str, float], None]
"""Told what is being done, and the share of all that is done, 0..1."""
HOUR = 3600.0
DAY = float(catalogue.DAY_SECONDS)
BAR_PERCENT = 15.0
"""Fewer GPUs than fixed halves need, at equal attainment."""
TOLERATED_POINTS = 0.2
"""Attainment in percentage points that counts as none: by so much runs of neighbouring sizes scatter."""
ALWAYS_ON_ATTAINMENT = 0.99
GPU_CLASS = "H100"
NAMES = ("day", "night")
SHARE = 0.2
"""Of the requests of the real day: pools of five to twenty-five replicas."""
WARM_UP_SECONDS = 4 * HOUR
OBJECTIVE_SECONDS = 10.0
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
    """Of cold starts."""
    draw: int = SEED
    """Of the requests, for whoever tells about it."""


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


@dataclass(frozen=True, slots=True)
class Match:
    """Fixed halves, and the least quota that serves both pools as well as they do."""

    half: Pair
    quota: Pair | None
    """None where none that was tried does."""

    @property
    def saving_percent(self) -> float:
        """Fewer GPUs."""
        return 0.0 if self.quota is None else 100.0 * (1.0 - self.quota.replicas / self.half.replicas)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """All pairs, and how those with shared quotas used them."""

    plan: Plan
    halves: Sequence[Pair]
    shared: Sequence[Pair]
    """From the smallest quota to the largest."""
    uses: Mapping[int, Use]
    """By quota in replicas."""
    always_on: tuple[int, int] = (0, 0)
    """Replicas that serve 99 % in time if all are always ready: of two pools of one size, and of one pool for both."""

    @property
    def matches(self) -> list[Match]:
        """Of every size of fixed halves."""
        return [Match(half, self._least(half)) for half in self.halves]

    @property
    def judged(self) -> Match:
        """The smallest halves that cost neither pool more than `TOLERATED_POINTS` against the largest ones."""
        best = self.halves[-1].attainment
        enough = (half for half in self.halves if _as_good(half.attainment, best, less=TOLERATED_POINTS / 100))
        half = min(enough, key=lambda each: each.replicas)
        return next(match for match in self.matches if match.half is half)

    def _least(self, half: Pair) -> Pair | None:
        """The smallest quota that keeps the attainment of both, as the next larger one does too."""
        good = [_as_good(pair.attainment, half.attainment, less=TOLERATED_POINTS / 100) for pair in self.shared]
        firm = (pair for pair, one, next_ in zip(self.shared, good, [*good[1:], True], strict=True) if one and next_)
        return next(firm, None)

    def as_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists of them only."""
        judged = self.judged
        return {
            "seed": self.plan.draw,
            "gpus_per_replica": self.plan.size.gpus,
            "halves": [asdict(pair) for pair in self.halves],
            "shared": [asdict(pair) for pair in self.shared],
            "judged_half_replicas": judged.half.replicas,
            "saving_percent": judged.saving_percent,
            "always_on_replicas": self.always_on,
        }


def _as_good(one: tuple[float, float], other: tuple[float, float], *, less: float) -> bool:
    return all(mine >= theirs - less for mine, theirs in zip(one, other, strict=True))


def opposite_days(day: Trace, *, share: float, seed: int, warm_up_seconds: float) -> tuple[Trace, Trace]:
    """A day and another draw of it twelve hours later, each with the hours before as a warm-up."""

    def turned(draw: int, shift: float) -> Trace:
        start = DAY + shift - warm_up_seconds
        return day.thinned(share, seed=draw).repeated(3, DAY).window(start, start + warm_up_seconds + DAY)

    return turned(seed, 0.0), turned(seed + 1, DAY / 2)


def real_plan(*, quick: bool) -> Plan:
    """What `longtail bench budget` tries."""
    if quick:
        return Plan(
            halves=(20, 24, 60), quotas=(32, 36, 40, 44), duration_seconds=28 * HOUR, measured_from_seconds=4 * HOUR
        )
    return Plan(
        halves=(18, 20, 22, 24, 26, 60),
        quotas=tuple(range(30, 47)),
        duration_seconds=WARM_UP_SECONDS + DAY,
        measured_from_seconds=WARM_UP_SECONDS,
    )


def run_budget_benchmark(data: Path, *, quick: bool, seed: int, progress: Progress) -> Outcome:
    """Two real days on fixed halves and on shared quotas."""
    progress("reading traces", 0.0)
    traces = opposite_days(catalogue.r1_day(data), share=SHARE, seed=seed, warm_up_seconds=WARM_UP_SECONDS)
    plan = replace(real_plan(quick=quick), draw=seed)
    pairs = len(plan.halves) + len(plan.quotas)

    def told(at_seconds: float) -> None:
        if at_seconds % HOUR == 0:
            progress(f"{pairs} pairs of pools, hour {at_seconds / HOUR:.0f}", at_seconds / plan.duration_seconds)

    outcome = run_plan(traces, plan, told=told)
    progress("replicas that are always on", 1.0)
    return replace(outcome, always_on=always_on(traces, plan))


def always_on(traces: tuple[Trace, Trace], plan: Plan) -> tuple[int, int]:
    """How many replicas serve 99 % in time without any scaling: two pools of one size, and one pool for both.

    What the shapes of the two days allow at all: no autoscaler that keeps the pools apart can share better.
    """
    order = np.argsort(np.concatenate([trace.arrival_seconds for trace in traces]), kind="stable")
    columns = (
        np.concatenate([getattr(trace, column) for trace in traces])[order]
        for column in ("arrival_seconds", "input_tokens", "output_tokens")
    )
    both = Trace("both", *columns)

    def enough(trace: Trace, replicas: int) -> bool:
        slots = [(0.0, replicas * plan.size.slots)]
        schedule = first_come_first_served(trace, seconds_per_token=plan.size.seconds_per_token, slots=slots)
        counted = schedule.trace.arrival_seconds >= plan.measured_from_seconds
        waits = (schedule.start_seconds - schedule.trace.arrival_seconds)[counted]
        return bool((waits <= OBJECTIVE_SECONDS).mean() >= ALWAYS_ON_ATTAINMENT)

    def least(*given: Trace) -> int:
        low, high = 0, 2 * max(*plan.quotas, *plan.halves)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if all(enough(trace, middle) for trace in given) else (middle, high)
        return high

    return 2 * least(*traces), least(both)


def run_plan(traces: tuple[Trace, Trace], plan: Plan, *, told: Callable[[float], None] | None = None) -> Outcome:
    """All pairs of a plan, as one fleet. ``told`` is told the simulated seconds after every tick."""
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
        if told is not None:
            told(at_seconds)

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
        objective_seconds=OBJECTIVE_SECONDS,
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
