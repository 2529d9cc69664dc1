"""Policies at the controls: longtail's own ``step``, a peer's rule, or a fixed number of replicas."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from longtail.demand.observation import Observation
from longtail.demand.parameters import CapacityOverride, Objective, ServiceParameters
from longtail.policy.decision import Decision
from longtail.policy.effort import is_told
from longtail.policy.fleet import (
    Behavior,
    DrainRules,
    EffortRules,
    Fleet,
    GpuBudget,
    GpuShape,
    Limits,
    Mode,
    Service,
    ServiceKey,
    Variant,
)
from longtail.policy.memory import Memory
from longtail.policy.step import step
from longtail.workbench.fleet.longtail_view import Baseline, observe, target_of
from longtail.workbench.fleet.peer_view import Counted, counted, peer_view
from longtail.workbench.fleet.pool import Orders
from longtail.workbench.fleet.run import Run
from longtail.workbench.fleet.scrape import Scrape
from longtail.workbench.fleet.setting import EPOCH_SECONDS, ReplicaSize, Requests, Setting
from longtail.workbench.fleet.simulation import Sight, Simulation
from longtail.workbench.peers.view import PeerView, Policy

M = TypeVar("M")

LONGTAIL = "longtail"
LONGTAIL_PERIOD_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Fixed:
    """So many replicas, whatever happens."""

    replicas: int
    period_seconds: float = 15.0

    @property
    def name(self) -> str:
        """With the number."""
        return f"fixed-{self.replicas}"

    def decide(self, sight: Sight) -> Orders:
        """Always the same."""
        del sight
        return Orders(replicas=self.replicas)


@dataclass(slots=True)
class Peer(Generic[M]):
    """A peer's rule. It writes ``replicas`` and nothing else, as all of them do."""

    policy: Policy[M]
    size: ReplicaSize
    _memory: M = field(init=False)
    _seen: Counted | None = field(init=False, default=None)
    _view: tuple[int, bool, PeerView] | None = field(init=False, default=None)
    """The last one, with what it depends on: some controllers sync seven times between two scrapes."""

    def __post_init__(self) -> None:
        self._memory = self.policy.initial()

    @property
    def name(self) -> str:
        """Of the policy."""
        return self.policy.name

    @property
    def period_seconds(self) -> float:
        """Of the policy."""
        return self.policy.period_seconds

    def decide(self, sight: Sight) -> Orders:
        """One sync of its controller."""
        now = EPOCH_SECONDS + sight.at_seconds
        replicas, self._memory = self.policy.decide(seen=self._look(sight), memory=self._memory, now=now)
        return Orders(replicas=replicas)

    def _look(self, sight: Sight) -> PeerView:
        for scrape in sight.scrapes:
            self._seen = counted(self._seen, scrape)
        last = self._view
        if last is not None and not sight.scrapes and last[:2] == (sight.version, sight.reachable):
            return last[2]
        view = peer_view(sight.pods, self._seen, replicas=sight.replicas, reachable=sight.reachable, size=self.size)
        self._view = sight.version, sight.reachable, view
        return view


def parameters_of(setting: Setting, *, attainment: float = 0.99, **others: Any) -> ServiceParameters:
    """What a user would write about the service of a setting, with the size of a replica stated.

    ``others`` are fields of `ServiceParameters`: the priors of lengths and cold start.
    """
    size = setting.replica
    cache = size.kv_capacity_tokens
    return ServiceParameters(
        objective=Objective(
            queue_wait_seconds=setting.objective_seconds,
            attainment=attainment,
            time_per_output_token_seconds=size.seconds_per_token,
        ),
        capacity=CapacityOverride(
            max_concurrent_requests=size.slots, kv_cache_tokens=None if cache is None else round(cache)
        ),
        **others,
    )


@dataclass(slots=True)
class LongtailPool:
    """One pool as a service of longtail's fleet. It decides nothing itself.

    Its sights become services and observations, its decisions orders.
    """

    key: ServiceKey
    setting: Setting
    parameters: ServiceParameters
    behavior: Behavior = field(default_factory=Behavior)
    drain: DrainRules = field(default_factory=DrainRules)
    gpu_class: str = ""
    """Of its replicas; empty where no budget is to apply."""
    priority: int = 0
    effort: EffortRules | None = None
    variant: Variant | None = None
    decision: Decision | None = None
    """The last one, for whoever wants to explain it."""
    _scrape: Scrape | None = field(init=False, default=None)
    _baseline: Baseline | None = field(init=False, default=None)

    def see(self, sight: Sight) -> tuple[Service, Observation]:
        """The service and its observation."""
        self._scrape = sight.scrapes[-1] if sight.scrapes else self._scrape
        scrape = self._scrape if sight.reachable else None
        observation = observe(
            sight.pods, scrape, baseline=self._baseline, size=self.setting.replica, at_seconds=sight.at_seconds
        )
        if scrape is not None:
            self._baseline = Baseline(looked_at_seconds=sight.at_seconds, scrape=scrape)
        service = Service(
            key=self.key,
            mode=Mode.ACTIVE,
            parameters=self.parameters,
            limits=Limits(self.setting.min_replicas, self.setting.max_replicas, self.behavior),
            target=target_of(sight.pods, replicas=sight.replicas),
            drain=self.drain,
            gpus=GpuShape(self.gpu_class, self.setting.replica.gpus) if self.gpu_class else None,
            priority=self.priority,
            effort=self.effort,
            variant=self.variant,
        )
        return service, observation

    def orders(self, sight: Sight, decision: Decision) -> Orders:
        """What the operator's writer would do."""
        self.decision = decision
        placement = decision.placement
        if placement is None:
            return Orders(replicas=sight.replicas, thinking_tokens=self._thinking_tokens(decision))
        return Orders(
            replicas=placement.replicas,
            cordon=placement.cordon,
            uncordon=placement.uncordon,
            commit=placement.commit,
            thinking_tokens=self._thinking_tokens(decision),
        )

    def _thinking_tokens(self, decision: Decision) -> int | None:
        """The limit that gateways read: only where it is published."""
        if self.effort is None or not is_told(self.effort.policy, Mode.ACTIVE) or decision.effort is None:
            return None
        return decision.effort.level.thinking_tokens


@dataclass(slots=True)
class Longtail:
    """longtail with one service."""

    pool: LongtailPool
    period_seconds: float = LONGTAIL_PERIOD_SECONDS
    name: str = LONGTAIL
    _memory: Memory = field(init=False, default_factory=Memory.empty)

    def decide(self, sight: Sight) -> Orders:
        """One tick."""
        service, observation = self.pool.see(sight)
        decisions, self._memory = step(
            fleet=Fleet((service,)),
            observations={service.key: observation},
            memory=self._memory,
            now=EPOCH_SECONDS + sight.at_seconds,
        )
        return self.pool.orders(sight, decisions[service.key])


def longtail(
    setting: Setting,
    *,
    attainment: float = 0.99,
    drain: DrainRules | None = None,
    effort: EffortRules | None = None,
    **priors: float,
) -> Longtail:
    """Longtail as a user would set it up for a setting, everything else at its defaults."""
    parameters = parameters_of(setting, attainment=attainment, **priors)
    pool = LongtailPool(
        ServiceKey("simulated", "pool"), setting, parameters, drain=drain or DrainRules(), effort=effort
    )
    return Longtail(pool)


Witness = Callable[[float, Sequence[int]], None]
"""Told, after every tick, the seconds since the start and the GPUs that each pool holds until the next one."""


def simulate_fleet(
    runs: Sequence[tuple[Requests, LongtailPool]],
    *,
    budgets: Sequence[GpuBudget] = (),
    witness: Witness | None = None,
    attach: Callable[[Sequence[Simulation]], None] | None = None,
) -> list[Run]:
    """Many pools under one longtail, tick by tick together, which costs hardly more than one.

    ``step`` is made of array operations over a fleet: alone a service pays for their overhead. But for ``budgets``
    and variants no service influences another, so each result is that of a run of its own. Keys must differ.
    ``attach`` is given the pools before the first request, for gateways that look at them.
    """
    simulations = [
        Simulation(requests, pool.setting, policy=LONGTAIL, period_seconds=LONGTAIL_PERIOD_SECONDS)
        for requests, pool in runs
    ]
    if attach is not None:
        attach(simulations)
    memory, running = Memory.empty(), list(range(len(runs)))
    while running:
        sights = {index: sight for index in running if (sight := simulations[index].next_sight()) is not None}
        running = list(sights)
        seen = {index: runs[index][1].see(sight) for index, sight in sights.items()}
        if not seen:
            break
        decisions, memory = step(
            fleet=Fleet(tuple(service for service, _ in seen.values()), budgets),
            observations={service.key: observation for service, observation in seen.values()},
            memory=memory,
            now=EPOCH_SECONDS + next(iter(sights.values())).at_seconds,
        )
        for index, sight in sights.items():
            pool = runs[index][1]
            simulations[index].carry_out(pool.orders(sight, decisions[pool.key]))
        if witness is not None:
            witness(next(iter(sights.values())).at_seconds, [simulation.gpus_held for simulation in simulations])
    return [simulation.result() for simulation in simulations]
