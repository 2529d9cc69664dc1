"""One run of one policy on one case, or of longtail on many at once. What the workers do."""

from collections.abc import Sequence
from dataclasses import dataclass

from longtail.policy.fleet import ServiceKey
from longtail.workbench.bound import lower_bound, replicas_needed
from longtail.workbench.bound_waiting import Work, lower_bound_with_waiting
from longtail.workbench.evaluation.case import Case, CaseName, open_case
from longtail.workbench.evaluation.rows import Row
from longtail.workbench.fleet.pilots import LongtailPool, parameters_of, simulate_fleet
from longtail.workbench.fleet.policies import pilot, truth_of
from longtail.workbench.fleet.run import Run
from longtail.workbench.fleet.setting import Requests
from longtail.workbench.fleet.simulation import simulate

GRID_SECONDS = 15.0
"""Of the bounds: the interval at which everybody decides."""
ORACLES = ("oracle-arrivals", "oracle-rate")
DEFAULT_ATTAINMENT = 0.99
"""What longtail's ``objective.attainmentPercent`` is unless the user says otherwise."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The least GPU-hours of anybody who knew the future."""

    at_once_gpu_hours: float
    """Nobody waits. What costs are divided by."""
    waiting_gpu_hours: float
    """Everybody may wait as long as the objective allows."""


def bounds_of(name: CaseName, seed: int) -> Bounds:
    """Both bounds of a case."""
    case = open_case(name, seed)
    pool, schedule, start = case.pool, case.schedule(), case.measured_from_seconds
    need = replicas_needed(
        schedule,
        slots_per_replica=pool.slots_per_replica,
        duration_seconds=case.duration_seconds,
        interval_seconds=GRID_SECONDS,
        from_seconds=start,
    ).clip(case.setting().min_replicas)
    at_once = lower_bound(need, interval_seconds=GRID_SECONDS, cold_start_seconds=pool.cold_start_seconds)
    work = Work.of(
        schedule,
        slots_per_replica=pool.slots_per_replica,
        from_seconds=start,
        until_seconds=case.duration_seconds,
        interval_seconds=GRID_SECONDS,
        wait_seconds=pool.objective_seconds,
        min_replicas=case.setting().min_replicas,
    )
    waiting = lower_bound_with_waiting(
        work,
        slots_per_replica=pool.slots_per_replica,
        interval_seconds=GRID_SECONDS,
        # Rounded down to the grid, it remains a bound.
        cold_start_seconds=pool.cold_start_seconds // GRID_SECONDS * GRID_SECONDS,
    )
    return Bounds(at_once.replica_seconds / 3600.0, waiting / 3600.0)


def fly(name: CaseName, seed: int, policy: str, knob: float | None) -> Run:
    """One policy, start to end."""
    case = open_case(name, seed)
    setting = case.setting()
    truth = truth_of(case.trace, setting) if policy in ORACLES else None
    chosen = pilot(policy, setting, knob=knob, truth=truth, max_output_tokens=case.max_output_tokens)
    return simulate(_requests(case), setting, chosen)


def fly_longtail(flights: Sequence[tuple[CaseName, int, float | None]]) -> list[Run]:
    """Longtail on many cases at once, as one fleet: (case, seed, attainment asked for)."""
    runs = []
    for index, (name, seed, asked) in enumerate(flights):
        case = open_case(name, seed)
        setting = case.setting()
        parameters = parameters_of(
            setting,
            attainment=DEFAULT_ATTAINMENT if asked is None else asked,
            max_output_tokens=case.max_output_tokens,
            startup_seconds=setting.cold_start_seconds,
        )
        key = ServiceKey("frontier", f"pool-{index:04}")
        runs.append((_requests(case), LongtailPool(key, setting, parameters)))
    return simulate_fleet(runs)


def row_of(run: Run, *, case_name: str, policy: str, seed: int, knob: float | None, bounds: Bounds) -> Row:
    """A run as a line of the results."""
    hours, waits = run.gpu_hours, run.waits
    return Row(
        trace=case_name,
        policy=policy,
        seed=seed,
        knob=knob,
        attainment_percent=100.0 * run.attainment,
        gpu_hours=hours.total,
        serving_gpu_hours=hours.serving,
        starting_gpu_hours=hours.starting,
        draining_gpu_hours=hours.draining,
        bound_gpu_hours=bounds.at_once_gpu_hours,
        cost_over_bound=hours.total / bounds.at_once_gpu_hours,
        wasted_tokens=float(run.wasted_tokens),
        killed_requests=float(run.killed_requests),
        scaling_actions=float(run.scaling_actions),
        direction_changes=float(run.direction_changes),
        wait_p50_seconds=waits.p50_seconds,
        wait_p95_seconds=waits.p95_seconds,
        wait_p99_seconds=waits.p99_seconds,
    )


def _requests(case: Case) -> Requests:
    return Requests.of(case.trace, duration_seconds=case.duration_seconds)
