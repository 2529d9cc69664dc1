"""A pool in time: requests, pods, scrapes and decisions, each at its moment."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from longtail.workbench.fleet.accounts import Phase
from longtail.workbench.fleet.deployment import Replica
from longtail.workbench.fleet.pool import Orders, Pool
from longtail.workbench.fleet.run import Run, Waits
from longtail.workbench.fleet.scrape import Scrape, Scraper
from longtail.workbench.fleet.setting import Requests, Setting

Progress = Callable[[float], None]
"""Told the share of a run that is done, 0..1, at most once a simulated hour."""
_PROGRESS_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What there is to decide on."""

    at_seconds: float
    """Since the start of the trace."""
    replicas: int
    """``spec.replicas``."""
    pods: Sequence[Replica]
    """As a watch of the cluster shows them. Not to be changed."""
    scrapes: Sequence[Scrape]
    """New ones since the last sight, oldest first: what the metrics store holds more than before."""
    reachable: bool
    """Whether the metrics store answers now."""
    version: int
    """Grows when any pod, or ``replicas``, has changed."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a gateway knows of a pool."""

    requests: int
    """On replicas that take new ones, and waiting."""
    slots: int
    """Of these replicas."""


class Pilot(Protocol):
    """A policy at the controls of one pool. It is told Unix seconds where it asks for time."""

    @property
    def name(self) -> str:
        """Of the policy."""

    @property
    def period_seconds(self) -> float:
        """How often it decides."""

    def decide(self, sight: Sight) -> Orders:
        """What is to be done now. Called every ``period_seconds``, with time going on."""


class Simulation:
    """One run, stopped at every decision."""

    def __init__(self, requests: Requests, setting: Setting, *, policy: str, period_seconds: float) -> None:
        """Make a run that has not begun.

        Args:
            requests: the work.
            setting: everything else.
            policy: name, for the result.
            period_seconds: a decision every so often, the first one period after the start.
        """
        self._requests = requests
        self._setting = setting
        self._policy = policy
        self._pool = Pool(requests, setting)
        self._scraper = Scraper(self._pool)
        self._period = period_seconds
        self._decisions = 0
        self._scraped = 0
        self._fresh: list[Scrape] = []
        self._measuring = False

    @property
    def at_seconds(self) -> float:
        """Now, since the start of the trace."""
        return self._pool.now_seconds

    @property
    def gpus_held(self) -> int:
        """GPUs of all pods that have one, those on their way out included."""
        phases = self._pool.deployment.phases()
        replicas = sum(count for phase, count in phases.items() if phase is not Phase.UNSCHEDULED)
        return replicas * self._setting.replica.gpus

    @property
    def load(self) -> Load:
        """As a gateway sees it now."""
        engines = self._pool.engines
        rows = [pod.row for pod in self._pool.serving_pods() if pod.routable]
        running = sum(engines.running(row) for row in rows)
        return Load(running + engines.waiting_requests, len(rows) * self._setting.replica.slots)

    def next_sight(self) -> Sight | None:
        """Let time pass until the next decision; None when the run is over."""
        self._decisions += 1
        due, end = self._decisions * self._period, self._requests.duration_seconds
        self._pass_time(min(due, end))
        if due > end:
            self._pool.finish()
            return None
        sight = Sight(
            at_seconds=due,
            replicas=self._pool.deployment.replicas,
            pods=tuple(self._pool.deployment.pods),
            scrapes=tuple(self._fresh),
            reachable=self._setting.scraping.reachable(due),
            version=self._pool.deployment.version,
        )
        self._fresh.clear()
        return sight

    def carry_out(self, orders: Orders) -> None:
        """Do what was decided on the last sight."""
        self._pool.carry_out(orders)

    def _pass_time(self, until: float) -> None:
        while True:
            at = min(until, self._pool.next_seconds, self._next_scrape, self._measuring_from)
            self._pool.advance(at)
            if at == self._measuring_from:
                self._pool.start_measuring()
                self._measuring = True
            if at == self._next_scrape:
                self._fresh.append(self._scraper.scrape())
                self._pool.tick()
                self._scraped += 1
            if at == until and self._pool.next_seconds > until:
                return

    @property
    def _next_scrape(self) -> float:
        scraping = self._setting.scraping
        return (self._scraped + 1) * scraping.interval_seconds - scraping.lag_seconds

    @property
    def _measuring_from(self) -> float:
        return math.inf if self._measuring else self._setting.measured_from_seconds

    def result(self) -> Run:
        """The books, after the end."""
        pool, accounts, waits = self._pool, self._pool.accounts, self._pool.waits
        return Run(
            requests=self._requests.name,
            policy=self._policy,
            seed=self._setting.seed,
            measured_seconds=max(self.at_seconds - self._setting.measured_from_seconds, 0.0),
            attainment=waits.within / waits.count if waits.count else 1.0,
            objective_seconds=self._setting.objective_seconds,
            waits=Waits(
                p50_seconds=waits.quantile(0.5),
                p95_seconds=waits.quantile(0.95),
                p99_seconds=waits.quantile(0.99),
                max_seconds=waits.longest,
                requests=waits.count,
            ),
            gpu_hours=accounts.gpu_hours(self._setting.replica.gpus),
            arrived_requests=pool.arrived_requests,
            finished_requests=pool.finished_requests,
            killed_requests=accounts.killed_requests,
            wasted_tokens=accounts.wasted_tokens,
            scaling_actions=accounts.scaling_actions,
            direction_changes=accounts.direction_changes,
            unscheduled_hours=accounts.unscheduled_hours,
            answers=pool.answers.result(),
            timeline=accounts.timeline(),
        )


def simulate(requests: Requests, setting: Setting, pilot: Pilot, *, progress: Progress | None = None) -> Run:
    """One policy on some requests, from start to end."""
    run = Simulation(requests, setting, policy=pilot.name, period_seconds=pilot.period_seconds)
    told = 0.0
    while (sight := run.next_sight()) is not None:
        run.carry_out(pilot.decide(sight))
        if progress is not None and sight.at_seconds - told >= _PROGRESS_SECONDS:
            told = sight.at_seconds
            progress(told / requests.duration_seconds)
    return run.result()
