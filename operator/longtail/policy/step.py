"""One tick of the whole fleet: the pure fold that operator, backtest and tests share."""

from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from longtail.demand.model import estimate
from longtail.demand.observation import Observation
from longtail.policy import budget, effort
from longtail.policy.budget import Ceiling
from longtail.policy.decision import Decision
from longtail.policy.fleet import Fleet, ServiceKey
from longtail.policy.gateway_queue import one_queue
from longtail.policy.ladder import decide
from longtail.policy.memory import Memory, ServiceMemory
from longtail.policy.roster import roster
from longtail.policy.supply import supply_of
from longtail.policy.variants import Assignment, assignments, groups, learn

_ROUNDS = 3
"""How often what a budget does not give one variant may be passed on: it may be more than it gives the next."""
_NOTHING: Final[Mapping[ServiceKey, Any]] = MappingProxyType({})


def step(
    *, fleet: Fleet, observations: Mapping[ServiceKey, Observation], memory: Memory, now: float
) -> tuple[dict[ServiceKey, Decision], Memory]:
    """Decide for every service of the fleet. Pure: folding it over a recording replays a day.

    Args:
        fleet: the services of this tick, in any order. What is not in it is forgotten.
        observations: what was seen of them. A service without one was not seen.
        memory: what the last tick returned; `Memory.empty` before the first.
        now: Unix seconds. The scheduled time of the tick serves better than the clock: with jitter, a change
            of the last tick may or may not be older than a period of 15 s.

    Returns:
        A decision for each service, and the memory for the next tick.
    """
    # A fixed order: the model's arrays keep their rows from tick to tick, however the store is iterated.
    services = sorted(fleet.services, key=lambda service: service.key)
    keys = [service.key for service in services]
    seen = one_queue(services, [observations.get(key) or Observation(at_seconds=now) for key in keys])
    pools = [None if service.target is None else roster(service.target) for service in services]
    supplied = [
        supply_of(
            service.target,
            pool=pool,
            memory=memory.services.get(service.key) or ServiceMemory(),
            start_seconds=service.parameters.startup_seconds,
            now=now,
        )
        for service, pool in zip(services, pools, strict=True)
    ]
    demands, demand_memory = estimate(
        keys=keys,
        parameters=[
            effort.parameters(service, memory=before) for service, (_, before) in zip(services, supplied, strict=True)
        ],
        observations=seen,
        supplies=[supply for supply, _ in supplied],
        memory=memory.demand,
        now=now,
    )
    rows = {key: row for row, key in enumerate(keys)}
    decisions: dict[ServiceKey, Decision] = {}
    remembered: dict[ServiceKey, ServiceMemory] = {}

    def settle(
        some: Iterable[ServiceKey],
        shared: Mapping[ServiceKey, Assignment] = _NOTHING,
        ceilings: Mapping[ServiceKey, Ceiling] = _NOTHING,
    ) -> None:
        for key in some:
            row = rows[key]
            decisions[key], remembered[key] = decide(
                service=services[row],
                pool=pools[row],
                observation=seen[row],
                demand=demands[row],
                memory=supplied[row][1],
                now=now,
                ceiling=ceilings.get(key),
                assignment=shared.get(key),
            )

    settle(keys)
    # What everybody would do alone is known. Variants of a model share out the sum of it; then whoever may not have
    # what it asks for decides once more, with the ceiling that is left to it, and its variants have the rest.
    alone = partial(
        assignments,
        services,
        pools=pools,
        seen=seen,
        before=[before for _, before in supplied],
        decisions=dict(decisions),
        memories=dict(remembered),
        now=now,
    )
    variants = {key for group in groups(services).values() for key in group}
    shared: dict[ServiceKey, Assignment] = {}
    ceilings: dict[ServiceKey, Ceiling] = {}
    for _ in range(_ROUNDS):
        tight, before = {key: ceilings[key] for key in variants & ceilings.keys()}, shared
        if variants:
            shared = alone(ceilings=tight)
            settle({**before, **shared}, shared)
        ceilings = budget.ceilings(services, pools=pools, decisions=decisions, budgets=fleet.budgets)
        if all(ceilings[key] == tight.get(key) for key in variants & ceilings.keys()):
            break
    settle(ceilings, shared, ceilings)
    for key in variants:
        remembered[key] = learn(remembered[key], pool=pools[rows[key]], now=now)
    return decisions, Memory(services=remembered, demand=demand_memory)
