"""All policies on all cases, on all cores, going on where an earlier run was stopped.

On the first seed every policy is swept. On the others only those that came near the best one are, starting from
the knobs that were best: to say how far behind a policy is that is far behind needs no second seed.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from longtail.errors import SettingsError
from longtail.workbench.evaluation.case import Case, CaseName, open_case
from longtail.workbench.evaluation.journal import Journal, code_digest
from longtail.workbench.evaluation.rows import DEFAULT, Row, at_attainment
from longtail.workbench.evaluation.search import Search, Tried
from longtail.workbench.evaluation.trial import ORACLES, Bounds, bounds_of, fly, fly_longtail, row_of
from longtail.workbench.fleet.pilots import LONGTAIL
from longtail.workbench.fleet.policies import knobs, truth_of
from longtail.workbench.fleet.run import Run

Progress = Callable[[str, float], None]
"""(what is going on, share done 0..1)."""
NEAR = 1.15
"""A policy up to this many times as dear as the cheapest peer on the first seed is run on the others."""
LONGTAIL_CURVE = (0.9, 0.97, 0.995, 0.998)
"""Objectives besides the default that longtail's curve is drawn through."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be compared."""

    cases: Sequence[CaseName]
    policies: Sequence[str] | None = None
    """None is all of them, oracles included."""
    seeds: int = 3
    attainments_percent: Sequence[float] = (95.0, 99.0, 99.5)
    most_runs: int = 9
    """Of one policy on one case and seed."""
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that was found."""

    runs: Sequence[Row]
    """Every run, as it was."""
    rows: Sequence[Row]
    """Longtail at its defaults, and every policy at every attainment that it reached."""
    bounds: Mapping[tuple[str, int], Bounds]
    """By trace and seed."""
    cases: Mapping[str, CaseName]
    families: Mapping[str, str]


def run_frontier(plan: Plan, *, journal: Journal, progress: Progress) -> Results:
    """Make the runs that the journal lacks, and read off what they say.

    Raises:
        SettingsError: a policy is not known.
        TraceError: a trace cannot be read.
    """
    runs: list[Row] = []
    bounds: dict[tuple[str, int], Bounds] = {}
    cases: dict[str, CaseName] = {}
    families: dict[str, str] = {}
    with _workers(plan.workers) as workers:
        for place, name in enumerate(plan.cases):
            case = open_case(name, 0)
            if case.name in cases:
                raise SettingsError(f"trace: {case.name!r} is given twice")
            cases[case.name], families[case.name] = name, case.family.value if case.family else "own"

            def tell(doing: str, share: float, place: int = place) -> None:
                progress(doing, (place + share) / len(plan.cases))

            table = _Comparison(plan, name, case, journal, workers, tell)
            runs += table.run()
            bounds |= {(case.name, seed): bound for seed, bound in table.bounds.items()}
    return Results(runs, results_rows(runs, plan.attainments_percent), bounds, cases, families)


def results_rows(runs: Sequence[Row], attainments_percent: Sequence[float]) -> list[Row]:
    """Longtail at its defaults, and every policy in hindsight at every attainment that it reaches."""
    rows = [
        replace(row, tuned=DEFAULT, attainment_target_percent=99.0)
        for row in runs
        if row.policy == LONGTAIL and row.knob is None
    ]
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in runs:
        groups.setdefault((row.trace, row.policy, row.seed), []).append(row)
    for group in groups.values():
        found = (at_attainment(group, target) for target in attainments_percent)
        rows += [row for row in found if row is not None]
    return rows


@contextmanager
def _workers(count: int) -> Iterator[ProcessPoolExecutor]:
    # numpy's own threads would fight the other workers for the cores.
    kept = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(slots=True)
class _Comparison:
    """Of all policies on one case."""

    plan: Plan
    name: CaseName
    case: Case
    """Of the first seed."""
    journal: Journal
    workers: ProcessPoolExecutor
    progress: Progress
    bounds: dict[int, Bounds] = field(default_factory=dict)
    runs: list[Row] = field(default_factory=list)

    def run(self) -> list[Row]:
        """Longtail, then the first seed, then the others."""
        grids = self._grids()
        for seed in range(self.plan.seeds):
            self.bounds[seed] = self._bounds(seed)
        if LONGTAIL in grids:
            self._longtail()
        peers = {policy: grid for policy, grid in grids.items() if policy != LONGTAIL}
        order = self._targets()
        self._sweep({(policy, 0): Search(grid, order, most_runs=self.plan.most_runs) for policy, grid in peers.items()})
        near = self._near(peers)
        self._sweep(
            {
                (policy, seed): Search(peers[policy], order, start=start, most_runs=max(len(start) + 2, 4))
                for policy, start in near.items()
                for seed in range(1, self.plan.seeds)
            }
        )
        return self.runs

    def _targets(self) -> list[float]:
        """99 % first, where it is asked for: it is what is judged."""
        return sorted(self.plan.attainments_percent, key=lambda percent: (percent != 99.0, percent))

    def _grids(self) -> dict[str, tuple[float, ...]]:
        setting = self.case.setting()
        known = {name: knob.grid for name, knob in knobs(setting, truth=truth_of(self.case.trace, setting)).items()}
        if self.plan.policies is None:
            return known
        for policy in self.plan.policies:
            if policy not in known:
                raise SettingsError(f"policies: no {policy!r} among {', '.join(known)}")
        return {policy: known[policy] for policy in self.plan.policies}

    def _key(self, seed: int, **more: Any) -> dict[str, Any]:
        return {"case": open_case(self.name, seed).digest(), "code": code_digest(), **more}

    def _bounds(self, seed: int) -> Bounds:
        key = {"case": open_case(self.name, seed).digest(), "bound": "grid 15 s"}
        known = self.journal.find(key)
        if isinstance(known, list):
            return Bounds(*known)
        self.progress(f"{self.case.name}: lower bound", 0.0)
        found = self.workers.submit(bounds_of, self.name, seed).result()
        self.journal.add(key, [found.at_once_gpu_hours, found.waiting_gpu_hours])
        return found

    def _longtail(self) -> None:
        """All seeds and objectives as one fleet."""
        knob_values: Sequence[float | None] = (None, *LONGTAIL_CURVE)
        missing = []
        for seed in range(self.plan.seeds):
            for knob in knob_values:
                known = self.journal.find_row(self._key(seed, policy=LONGTAIL, knob=knob))
                if known is None:
                    missing.append((self.name, seed, knob))
                else:
                    self.runs.append(known)
        parts = [missing[place :: self.plan.workers] for place in range(self.plan.workers)]
        self.progress(f"{self.case.name}: {LONGTAIL}", 0.0)
        flights = [(part, self.workers.submit(fly_longtail, part)) for part in parts if part]
        for part, future in flights:
            for (_, seed, knob), run in zip(part, future.result(), strict=True):
                self._made(run, policy=LONGTAIL, seed=seed, knob=knob)

    def _made(self, run: Run, *, policy: str, seed: int, knob: float | None) -> Row:
        row = row_of(run, case_name=self.case.name, policy=policy, seed=seed, knob=knob, bounds=self.bounds[seed])
        self.journal.add(self._key(seed, policy=policy, knob=knob), row)
        self.runs.append(row)
        return row

    def _sweep(self, searches: Mapping[tuple[str, int], Search]) -> None:
        """Keep every worker busy with the next run of some search."""
        flying: dict[Future[Run], tuple[str, int, float]] = {}
        waiting, done = list(searches), 0

        def launch(policy: str, seed: int) -> bool:
            """The next run of a search, or the ones that the journal knows already."""
            search = searches[policy, seed]
            while (knob := search.next()) is not None:
                known = self.journal.find_row(self._key(seed, policy=policy, knob=knob))
                if known is None:
                    flying[self.workers.submit(fly, self.name, seed, policy, knob)] = (policy, seed, knob)
                    return True
                self.runs.append(known)
                search.tell(Tried(knob, known.attainment_percent, known.gpu_hours))
            return False

        while waiting or flying:
            while waiting and len(flying) < self.plan.workers:
                done += not launch(*waiting.pop(0))
            for future in wait(flying, return_when=FIRST_COMPLETED).done if flying else ():
                policy, seed, knob = flying.pop(future)
                row = self._made(future.result(), policy=policy, seed=seed, knob=knob)
                searches[policy, seed].tell(Tried(knob, row.attainment_percent, row.gpu_hours))
                done += not launch(policy, seed)
                self.progress(f"{self.case.name}: {policy}", done / len(searches))

    def _near(self, policies: Mapping[str, Any]) -> dict[str, list[float]]:
        """Policies for the other seeds, with the knobs around their best."""
        target = self._targets()[0]
        best = {}
        for policy in policies:
            mine = [row for row in self.runs if row.policy == policy and row.seed == 0]
            found = at_attainment(mine, target)
            if found is not None:
                by_distance = sorted(mine, key=lambda row: abs(row.attainment_percent - target))
                best[policy] = (found.gpu_hours, [row.knob for row in by_distance[:2] if row.knob is not None])
        peers = [cost for policy, (cost, _) in best.items() if policy not in ORACLES]
        limit = NEAR * min(peers, default=float("inf"))
        return {policy: start for policy, (cost, start) in best.items() if policy in ORACLES or cost <= limit}
