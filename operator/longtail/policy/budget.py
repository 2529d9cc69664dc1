"""Who may have the GPUs of a quota: by priority, then by how surely the next replica is needed.

Each service says what it would do alone (its *wish*). Where the wishes do not fit, single replicas are put into one
order and granted as far as the budget reaches:

1. minReplicas of every service: nobody starves, whatever others' priorities.
2. The rest, strictly by priority.
3. Within a priority by the chance that the replica is needed. With demand D, in replicas, about normal with mean m and
   standard deviation s, the k-th replica does work that would otherwise not be in time with probability
   P(D > k - 1/2), for it covers (k-1, k]: so replicas are ordered by z = (k - 1/2 - m) / s, the smallest first. m is
   the expected demand one cold start ahead, or what is there now where that is more; s comes from the calibrated upper
   quantile, less what may wait within the objective. In other words: everybody of a priority is served to the *same
   quantile* of its demand, a lower one than the promised one.

The value of a GPU is counted in the share of it that would do such work, not in slots or requests: a slot of a large
model takes more GPUs than one of a small model, and a request of a thinker more slot-seconds than one of a chat. By
slots, or by requests, large models and long thoughts would be starved first.

4. Among equals who has a replica keeps it: another's must be needed more surely by `KEPT` standard deviations.
5. Services that are only advised come last: whether they follow nobody knows. What their targets hold is theirs.

Nobody is killed for another. A service above its share gets a lower ceiling, and shrinks as it always does (see
`placement`): cordoned, emptied, deleted, and called back at once when its share grows again. GPUs count as taken until
the pod is gone, so the others wait for them: a pool grows only into GPUs that are *free*.

Rejected: shares in proportion to wishes (Dynamo's planner), under which everybody misses a little and a large wish
is a large claim; maximising requests in time, which serves short answers only; a market or MIP: this order is optimal
up to the size of one replica, costs n log n, and can be told in a sentence.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from longtail.demand.estimate import Demand
from longtail.policy import needs, words
from longtail.policy.decision import Decision, LadderStep, Reason, Rung
from longtail.policy.fleet import Fleet, GpuBudget, Mode, Service, ServiceKey, Target
from longtail.policy.roster import Roster

Floats = NDArray[np.float64]

KEPT = 0.5
"""How much more surely a replica must be needed elsewhere to be taken from its owner, in standard deviations of demand:
a replica at an even chance is left for one at 69 %."""

_USUAL_QUANTILE = 0.95
"""Of an upper value that does not say which quantile it is."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What a budget leaves to one service."""

    replicas: int
    """Serving."""
    because: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What one service has and wants. Replicas but for ``gpus``."""

    key: ServiceKey
    budgets: tuple[int, ...]
    """Places of the budgets that it is subject to."""
    gpus: int
    """Of one replica."""
    priority: int
    active: bool
    """Its ceiling is kept to; otherwise it is an advice."""
    serving: int
    back: int
    """Cordoned ones, which may return without any new GPU."""
    held: int
    """All whose GPUs nobody else can have now: serving, cordoned, or on their way out."""
    apart: int
    """Of these, those that others keep out of routing: they neither serve nor go."""
    wish: int
    """Serving, were there no budget."""
    floor: int
    """Of ``wish``, what it is given before anybody's further wishes."""
    expected: float = 0.0
    spread: float = 1.0
    """Standard deviation of demand."""
    firm: bool = False
    """What it serves with cannot be judged, and is not to be taken away."""

    @property
    def within_reach(self) -> int:
        """Replicas that can serve without any new GPU."""
        return self.serving + self.back

    def most_held(self, serving: int) -> int:
        """Replicas whose GPUs are taken once so many are to serve."""
        return max(self.held, serving + self.held - self.within_reach)


@dataclass(slots=True)
class Share:
    """What a claim gets."""

    replicas: int = 0
    """Serving, once all have shrunk to their shares."""
    now: int = 0
    """Serving, as far as there are GPUs that nobody holds."""
    bound_by: int | None = None
    """Place of the budget that has no more for it."""
    waits_for: int | None = None
    """Place of the budget whose GPUs it waits for others to leave."""

    @property
    def limit(self) -> int | None:
        """Place of the budget that limits it now; None where none does."""
        return self.bound_by if self.waits_for is None else self.waits_for


def ceilings(
    services: Sequence[Service],
    *,
    pools: Sequence[Roster | None],
    decisions: Mapping[ServiceKey, Decision],
    budgets: Sequence[GpuBudget],
) -> dict[ServiceKey, Ceiling]:
    """The ceilings of the services that may not do what they would do alone.

    Args:
        services: of the whole fleet.
        pools: their rosters; None where there is no target.
        decisions: what each would do alone.
        budgets: at most one for each class and namespace.
    """
    if not budgets:
        return {}
    places = _places(budgets)
    claims = [
        _claim(service, pool, decisions[service.key], subject)
        for service, pool in zip(services, pools, strict=True)
        if pool is not None and (subject := _subject(service, places))
    ]
    shares = share(claims, [budget.gpus for budget in budgets])
    held = [0] * len(budgets)
    for claim in claims:
        for place in claim.budgets:
            held[place] += claim.held * claim.gpus
    return {
        claim.key: Ceiling(given.now, _because(claim, given, budgets[given.limit], held[given.limit]))
        for claim, given in zip(claims, shares, strict=True)
        if given.limit is not None and given.now < decisions[claim.key].desired
    }


def held_gpus(fleet: Fleet) -> list[tuple[GpuBudget, int]]:
    """Every budget of a fleet with the GPUs that are held of it."""
    places = _places(fleet.budgets)
    gpus = [0] * len(fleet.budgets)
    for service in fleet.services:
        for place in _subject(service, places):
            assert service.gpus is not None
            gpus[place] += 0 if service.target is None else _held(service.target) * service.gpus.per_replica
    return list(zip(fleet.budgets, gpus, strict=True))


def share(claims: Sequence[Claim], gpus: Sequence[int]) -> list[Share]:
    """What each claim gets of budgets of so many GPUs. The order of the claims has no influence.

    >>> r1 = Claim(ServiceKey("a", "r1"), (0,), 8, 0, True, serving=2, back=0, held=2, apart=0, wish=4, floor=1)
    >>> v3 = replace(r1, key=ServiceKey("a", "v3"), priority=10, wish=5)
    >>> [(given.replicas, given.now) for given in share([r1, v3], [48])]
    [(1, 1), (5, 4)]
    """
    contested = _contested(claims, gpus)
    books = _Books(gpus, claims, contested)
    shares = [Share() if contested.intersection(claim.budgets) else Share(claim.wish, claim.wish) for claim in claims]
    for index, number in _in_order(claims, contested):
        if number == shares[index].replicas:  # else one before it did not fit
            books.grant(claims[index], shares[index])
    for claim, given in zip(claims, shares, strict=True):
        # What is there of minReplicas stays, even where all minReplicas together are more than the budget.
        given.now = max(given.now, min(claim.serving, claim.floor))
    return shares


class _Books:
    """What is left of every budget while replicas are granted one by one."""

    def __init__(self, gpus: Sequence[int], claims: Sequence[Claim], contested: frozenset[int]) -> None:
        self._contested = contested
        self._left, self._free = list(gpus), list(gpus)
        for claim in claims:
            fixed = claim.apart if claim.active else claim.held
            _take(self._left, claim, fixed)
            _take(self._free, claim, claim.held)

    def grant(self, claim: Claim, given: Share) -> None:
        """One replica more, if there is room for it."""
        new = given.replicas >= claim.within_reach
        if claim.active or new:
            given.bound_by = self._short_of(self._left, claim)
            if given.bound_by is not None:
                return
            _take(self._left, claim, 1)
        given.replicas += 1
        if new:
            given.waits_for = given.waits_for if given.waits_for is not None else self._short_of(self._free, claim)
            if given.waits_for is not None:
                return
            _take(self._free, claim, 1)
        given.now += 1

    def _short_of(self, of: Sequence[int], claim: Claim) -> int | None:
        return next((place for place in claim.budgets if place in self._contested and of[place] < claim.gpus), None)


def _take(of: list[int], claim: Claim, replicas: int) -> None:
    for place in claim.budgets:
        of[place] -= replicas * claim.gpus


def limited(decision: Decision, *, ceiling: Ceiling, doubt: str) -> Decision:
    """The decision under a ceiling, with the rung that says so.

    Args:
        decision: what the service would do alone.
        ceiling: below what it desires, else nothing changes.
        doubt: why it may not be shrunk; empty when it may.
    """
    if decision.desired <= ceiling.replicas:
        return decision
    current, wished = decision.current, decision.desired
    number, because = ceiling.replicas, ceiling.because
    if doubt and number < current:
        number, because = min(current, wished), f"{because}; not shrunk: {doubt}"
    step = LadderStep(rung=Rung.BUDGET, replicas=number, because=because)
    head = f"stays at {current}" if number == current else f"{current} → {number} replicas"
    direction = Reason.SCALE_UP if number > current else Reason.SCALE_DOWN
    return replace(
        decision,
        desired=number,
        reason=direction if number != current else decision.reason if decision.hold else Reason.GPU_BUDGET,
        message=f"{head}: {words.replicas(wished)} would serve, but {because}",
        ladder=(*decision.ladder, step),
        limited_by=Reason.GPU_BUDGET,
    )


def _places(budgets: Sequence[GpuBudget]) -> dict[tuple[str, str | None], int]:
    return {(budget.gpu_class, budget.namespace): place for place, budget in enumerate(budgets)}


def _subject(service: Service, places: Mapping[tuple[str, str | None], int]) -> tuple[int, ...]:
    """Places of the budgets that a service is subject to."""
    if service.gpus is None:
        return ()
    names = (None, service.key.namespace)
    return tuple(places[at] for name in names if (at := (service.gpus.gpu_class, name)) in places)


def _held(target: Target) -> int:
    """Replicas whose GPUs nobody else can have: pods above what is asked for are there until somebody deletes them."""
    going = sum(pod.deleting for pod in target.pods)
    return max(target.replicas, len(target.pods) - going) + going


def _claim(service: Service, pool: Roster, decision: Decision, places: tuple[int, ...]) -> Claim:
    assert service.gpus is not None
    assert service.target is not None
    ours = decision.reason is not Reason.SCALING_DISABLED
    wish = _wish(decision) if ours else pool.serving
    awake = service.limits.min_replicas if service.zero is None else max(service.limits.min_replicas, 1)
    expected, spread = _outlook(decision.demand)
    return Claim(
        key=service.key,
        budgets=places,
        gpus=service.gpus.per_replica,
        priority=service.priority,
        active=ours and service.mode is Mode.ACTIVE,
        serving=pool.serving,
        back=sum(pod.switch for pod in pool.cordoned),
        held=_held(service.target),
        apart=len(pool.isolated),
        wish=wish,
        floor=min(awake, wish),
        expected=expected,
        spread=spread,
        firm=decision.hold,
    )


def _wish(decision: Decision) -> int:
    """What would serve without a budget: of a pool that may only grow so fast, where it grows to."""
    if decision.limited_by is not Reason.SCALE_UP_LIMIT or decision.supply_short:
        return decision.desired
    bounded = (step.replicas for step in decision.ladder if step.rung is Rung.CEILING)
    return max(decision.desired, *bounded)


def _outlook(demand: Demand | None) -> tuple[float, float]:
    """Mean and standard deviation of demand in replicas; what is not known is wide open."""
    if demand is None or demand.slots_now is None:
        return 0.0, math.inf
    capacity = demand.capacity
    slots = max(demand.slots_now, demand.slots_forecast or 0.0)
    expected = slots / capacity.slots_per_replica
    if capacity.kv_tokens_per_replica:
        expected = max(expected, (demand.kv_now_tokens or 0.0) / capacity.kv_tokens_per_replica)
    spread = math.sqrt(max(slots, 1.0)) / capacity.slots_per_replica  # at least that of independent requests
    upper = needs.forecast_up(demand)
    if upper is not None:
        level = NormalDist().inv_cdf(max(demand.quantile or _USUAL_QUANTILE, 0.6))
        spread = max(spread, (upper.exact - expected) / level)
    return expected, spread


def _contested(claims: Sequence[Claim], gpus: Sequence[int]) -> frozenset[int]:
    """Budgets that do not have room for all wishes."""
    wished = [0] * len(gpus)
    for claim in claims:
        for place in claim.budgets:
            wished[place] += claim.most_held(claim.wish) * claim.gpus
    return frozenset(place for place, most in enumerate(gpus) if wished[place] > most)


def _in_order(claims: Sequence[Claim], contested: frozenset[int]) -> Iterator[tuple[int, int]]:
    """The replicas that are wished for, one by one: (place of the claim, how many of it come before).

    Shapes: one entry a replica.
    """
    places = [index for index, claim in enumerate(claims) if contested.intersection(claim.budgets)]
    places.sort(key=lambda index: claims[index].key)
    some = [claims[index] for index in places]
    wishes = np.array([claim.wish for claim in some], np.int64)
    owner = np.repeat(np.arange(len(some)), wishes)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(wishes) - wishes, wishes)

    def of(values: Iterable[float]) -> Floats:
        return np.fromiter(values, np.float64, len(some))[owner]

    active = of(claim.active for claim in some) > 0
    first = number < np.where(active, of(claim.floor for claim in some), of(claim.within_reach for claim in some))
    rounds = np.where(first, 0, np.where(active, 1, 2))
    # By how many standard deviations a replica lies above expected demand: the smaller, the surer it is needed.
    surplus = (number + 0.5 - of(claim.expected for claim in some)) / of(claim.spread for claim in some)
    served = number < of(claim.serving for claim in some)
    surplus = np.where(served, surplus - KEPT, surplus)
    surplus[served & (of(claim.firm for claim in some) > 0)] = -np.inf
    order = np.lexsort((number, owner, surplus, -of(claim.priority for claim in some), rounds))
    for place, at in zip(owner[order].tolist(), number[order].tolist(), strict=True):
        yield places[place], at


def _because(claim: Claim, given: Share, budget: GpuBudget, held: int) -> str:
    where = "" if budget.namespace is None else f" in namespace {budget.namespace}"
    others = held - claim.held * claim.gpus
    text = f"GPU budget of {budget.gpu_class}{where}: {others} of {budget.gpus} GPUs are others'"
    text += f", {words.replicas(given.replicas)} of {claim.gpus} are its share"
    return text if given.now >= given.replicas else f"{text}, {given.now} until others have left"
