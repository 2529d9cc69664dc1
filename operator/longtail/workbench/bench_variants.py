"""What variants of one model save: two pools of different cost behind one gateway, against the same two on their own.

One production day is served by a cheap and a dear pool together, in three ways: with a fixed split of the traffic,
with a gateway that balances but pools that decide alone, and as variants. Each with as many cheap GPUs as are wanted,
and with a limit of them, as when a cluster has no more: then the dear ones must serve the rest.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from longtail.policy.fleet import ServiceKey, Variant
from longtail.workbench.bench_cost import digest_of_model, machine_in_words
from longtail.workbench.fleet.gateway import Gateway
from longtail.workbench.fleet.pilots import LongtailPool, parameters_of, simulate_fleet
from longtail.workbench.fleet.run import Run
from longtail.workbench.fleet.setting import Drain, ReplicaSize, Requests, Setting
from longtail.workbench.fleet.simulation import Simulation
from longtail.workbench.fleet.sizing import need_of
from longtail.workbench.scenarios import SEED
from longtail.workbench.traces import catalogue
from longtail.workbench.traces.trace import Trace

Progress = Callable[[str, float], None]
"""Told what is being done, and the share of all that is done, 0..1."""
HOUR = 3600.0
DAY = float(catalogue.DAY_SECONDS)
SHARE = 0.2
"""Of the requests of the real day."""
WARM_UP_SECONDS = 4 * HOUR
OBJECTIVE_SECONDS = 10.0
MAX_OUTPUT_TOKENS = 32_768.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the two pools."""

    name: str
    gpu_class: str
    gpu_hour_price: float
    size: ReplicaSize

    @property
    def cost_per_slot_hour(self) -> float:
        """What its tokens cost, as both keep the same pace."""
        return self.gpu_hour_price * self.size.gpus / self.size.slots


CHEAP = Kind("h100", "H100", 2.99, ReplicaSize(slots=24, gpus=8))
DEAR = Kind("l40s", "L40S", 1.10, ReplicaSize(slots=6, kv_capacity_tokens=100_000.0, gpus=8))
"""Dear by the token: a GPU costs a third and holds a quarter. Prices of the examples; capacities are assumed."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a pair of pools is run."""

    name: str
    split: float | None
    """Share of the requests that the cheap pool is sent; None: the gateway balances."""
    variants: bool
    limit: int | None
    """Replicas of the cheap pool that can have GPUs at a time; None: all."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What became of a pair of pools."""

    name: str
    limit: int | None
    attainment: float
    """Share of all requests that waited at most the objective, 0..1."""
    cost: float
    gpu_hours: tuple[float, float]
    """Of the cheap and the dear pool."""
    requests: tuple[int, int]
    direction_changes: tuple[int, int]
    killed_requests: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run, and on what."""

    ways: Sequence[Way]
    duration_seconds: float
    measured_from_seconds: float
    kinds: tuple[Kind, Kind] = (CHEAP, DEAR)
    cold_start_seconds: float = 180.0
    most: tuple[int, int] = (40, 120)
    seed: int = 0
    draw: int = SEED


@dataclass(frozen=True, slots=True)
class Outcome:
    """All pairs."""

    plan: Plan
    pairs: Sequence[Pair] = field(default_factory=tuple)

    def as_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists of them only."""
        return {"seed": self.plan.draw, "pairs": [asdict(pair) for pair in self.pairs]}


def real_plan(*, limit: int = 10, hours: float = 24.0, seed: int = SEED) -> Plan:
    """Three ways, without and with a limit of cheap GPUs."""
    ways = [
        Way(name, split, variants, most)
        for most in (None, limit)
        for name, split, variants in (
            ("fixed split, half each", 0.5, False),
            ("one gateway, each alone", None, False),
            ("variants", None, True),
        )
    ]
    return Plan(ways, duration_seconds=WARM_UP_SECONDS + hours * HOUR, measured_from_seconds=WARM_UP_SECONDS, draw=seed)


def run_variants_benchmark(data: Path, *, plan: Plan, progress: Progress) -> Outcome:
    """A real day."""
    progress("reading traces", 0.0)
    day = catalogue.r1_day(data).thinned(SHARE, seed=plan.draw).repeated(3, DAY)
    trace = day.window(DAY - WARM_UP_SECONDS, DAY - WARM_UP_SECONDS + plan.duration_seconds)

    def told(at_seconds: float) -> None:
        if at_seconds % HOUR == 0:
            progress(f"{len(plan.ways)} pairs, hour {at_seconds / HOUR:.0f}", at_seconds / plan.duration_seconds)

    return run_plan(trace, plan, told=told)


def run_plan(trace: Trace, plan: Plan, *, told: Callable[[float], None] | None = None) -> Outcome:
    """All pairs of a plan, as one fleet."""
    runs: list[tuple[Requests, LongtailPool]] = []
    gateways = []
    for number, way in enumerate(plan.ways):
        weights = None if way.split is None else (way.split, 1 - way.split)
        gateway = Gateway(
            trace, duration_seconds=plan.duration_seconds, pools=2, weights=weights, seed=plan.seed + number
        )
        gateways.append(gateway)
        for place, kind in enumerate(plan.kinds):
            key = ServiceKey(f"pair-{number}", kind.name)
            limit = way.limit if place == 0 else None
            pool = _pool(key, trace, plan, kind, most=plan.most[place], limit=limit, variants=way.variants)
            runs.append((gateway.requests(place), pool))

    def attach(simulations: Sequence[Simulation]) -> None:
        for number, gateway in enumerate(gateways):
            gateway.attach(simulations[2 * number : 2 * number + 2])

    def witness(at_seconds: float, gpus: Sequence[int]) -> None:
        del gpus
        if told is not None:
            told(at_seconds)

    results = simulate_fleet(runs, attach=attach, witness=witness)
    return Outcome(plan, [_pair(way, plan, results[2 * n : 2 * n + 2]) for n, way in enumerate(plan.ways)])


def _pool(
    key: ServiceKey, trace: Trace, plan: Plan, kind: Kind, *, most: int, limit: int | None, variants: bool
) -> LongtailPool:
    half = need_of(trace, kind.size, duration_seconds=plan.duration_seconds).at_start // 2
    setting = Setting(
        replica=kind.size,
        drain=Drain.GRACEFUL,
        cold_start_seconds=plan.cold_start_seconds,
        max_replicas=most,
        initial_replicas=max(min(half, most if limit is None else limit), 1),
        gpu_limit=() if limit is None else ((0.0, limit),),
        measured_from_seconds=plan.measured_from_seconds,
        objective_seconds=OBJECTIVE_SECONDS,
        seed=plan.seed,
    )
    parameters = parameters_of(setting, max_output_tokens=MAX_OUTPUT_TOKENS, startup_seconds=plan.cold_start_seconds)
    variant = Variant("r1", kind.gpu_hour_price) if variants else None
    return LongtailPool(key, setting, parameters, gpu_class=kind.gpu_class, variant=variant)


def _pair(way: Way, plan: Plan, runs: Sequence[Run]) -> Pair:
    cheap, dear = runs
    requests = cheap.waits.requests + dear.waits.requests
    within = sum(run.attainment * run.waits.requests for run in runs)
    return Pair(
        name=way.name,
        limit=way.limit,
        attainment=within / requests if requests else 1.0,
        cost=sum(run.gpu_hours.total * kind.gpu_hour_price for run, kind in zip(runs, plan.kinds, strict=True)),
        gpu_hours=(cheap.gpu_hours.total, dear.gpu_hours.total),
        requests=(cheap.waits.requests, dear.waits.requests),
        direction_changes=(cheap.direction_changes, dear.direction_changes),
        killed_requests=cheap.killed_requests + dear.killed_requests,
    )


def render(outcome: Outcome) -> str:
    """All figures as Markdown."""
    plan = outcome.plan
    cheap, dear = plan.kinds
    lines = [f"{machine_in_words()}; seed {plan.draw}; model `{digest_of_model()}`.", ""]
    titles = ["cheap replicas", "way", "in time", "cost, USD", f"{cheap.gpu_class}-hours", f"{dear.gpu_class}-hours"]
    titles += ["requests on the cheap", "turns", "killed"]
    lines += ["| " + " | ".join(titles) + " |", "|" + "|".join("---:" for _ in titles) + "|"]
    for pair in outcome.pairs:
        share = pair.requests[0] / max(sum(pair.requests), 1)
        row = (
            "as many as wanted" if pair.limit is None else f"{pair.limit} at most",
            pair.name,
            f"{100 * pair.attainment:.2f} %",
            f"{pair.cost:,.0f}",
            *(f"{hours:,.0f}" for hours in pair.gpu_hours),
            f"{100 * share:.0f} %",
            " + ".join(str(turns) for turns in pair.direction_changes),
            f"{pair.killed_requests}",
        )
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"
