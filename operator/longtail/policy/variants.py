"""Several services that serve one model behind one gateway: whose next replica starts, and whose goes first.

The gateway spreads requests over the pods of all variants, so their demand is one. Everybody says first what it would
do alone; the sum of that, in output tokens per second at the promised pace, is what the group needs. It is then given
to the variants by *cost per token*: the price of a replica-hour over the tokens that its slots write in that hour.

1. Each keeps its minReplicas. The rest is filled from the cheapest to the dearest.
2. What a variant cannot have (no node, no quota, no GPU budget, maxReplicas, a behavior that does not let it grow so
   fast within a cold start, a target that does not take the number) is passed on to the next one. It goes on asking for
   it: once it comes, the dearer ones go. What could not be had within the last day is asked for on both at once.
3. Replicas that are there, or can be called back, come before any that would have to be started, unless nothing is on
   the move anywhere in the group and the new one is cheaper by `WORTH`.
4. Nobody shrinks below what it would do alone before *ready* replicas cover what all would do alone; those of the
   dearest go first, by the reversible way only, and not while requests wait in its own engines: those cannot move.

What a variant is fixed at, because it is blind, in doubt, asleep, Off or only advised, counts with its need and with
what it has. Where no variant is Active the advice is given as if all were.

Capacity is one number, slots at the promised pace, which a KV cache may be the bound of: a group of which one variant
is bound by slots and another by its cache is shared in slots of each.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from longtail.demand.observation import Observation
from longtail.policy import words
from longtail.policy.behavior import ScaleEvent, limit_rate, most_within, window_seconds
from longtail.policy.budget import Ceiling
from longtail.policy.decision import Decision, LadderStep, Rung
from longtail.policy.fleet import Behavior, DrainPolicy, Mode, Service, ServiceKey
from longtail.policy.memory import RanOut, ServiceMemory
from longtail.policy.needs import whole
from longtail.policy.roster import Roster

WORTH = 0.1
"""A replica that is there gives way to a new one only where this share of the cost of its tokens is saved: a move
costs a cold start and a drain, and capacities are learned, so that costs differ a little from tick to tick."""

RAN_OUT_SECONDS = 86_400.0
"""For so long a variant that ran out is not relied on for more: a quota that was full yesterday will be today. It is
asked all the same, and one replica more clears it, so that a wrong guess costs one cold start on dearer GPUs."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a variant should serve with."""

    replicas: int
    because: str
    relieved: bool = False
    """Others serve what cannot be had here."""


@dataclass(frozen=True, slots=True)
class Member:
    """What one variant has and needs. Replicas but for ``pace`` and ``cost``."""

    key: ServiceKey
    pace: float
    """Output tokens per second of a replica at the promised pace, > 0."""
    cost: float
    """Of a token, in a unit that the whole group shares."""
    serving: int
    ready: int
    """Of ``serving``, those that work."""
    need: int
    """What its demand asks for, or did within the window of its behavior, whether or not it can be had."""
    own: int
    """What it would do alone, were there GPUs: after windows and rates."""
    least: int
    most: int
    """As the user allows."""
    reach: int
    """Most that can be had now."""
    back: int = 0
    """Cordoned ones that may return."""
    keep: int = 0
    """What it would not go below alone."""
    moves: bool = True
    """False: it is fixed at ``own``."""
    yields: bool = True
    """It may be shrunk below ``own``."""
    calm: bool = True
    """Nothing starts, leaves, or is in doubt."""

    @property
    def there(self) -> int:
        """Replicas that take no cold start from now on."""
        return self.serving + self.back


@dataclass(frozen=True, slots=True)
class Share:
    """What a member gets."""

    replicas: int
    """To serve, what it asks for in vain included."""
    now: int
    """Of these, as far as they can be had."""
    covered: bool
    """All that the group needs can be had somewhere."""


def groups(services: Iterable[Service]) -> dict[tuple[str, str], list[ServiceKey]]:
    """Variants by namespace and what they are variants of; those that stand alone left out."""
    found: dict[tuple[str, str], list[ServiceKey]] = {}
    for service in services:
        if service.variant is not None:
            found.setdefault((service.key.namespace, service.variant.of), []).append(service.key)
    return {group: keys for group, keys in found.items() if len(keys) > 1}


def assignments(
    services: Sequence[Service],
    *,
    pools: Sequence[Roster | None],
    seen: Sequence[Observation],
    decisions: Mapping[ServiceKey, Decision],
    before: Sequence[ServiceMemory],
    memories: Mapping[ServiceKey, ServiceMemory],
    ceilings: Mapping[ServiceKey, Ceiling],
    now: float,
) -> dict[ServiceKey, Assignment]:
    """What variants should do otherwise than alone.

    Args:
        services: of the whole fleet.
        pools: their rosters; None where there is no target.
        seen: their observations.
        decisions: what each would do alone.
        before: what was remembered of the services until now.
        memories: after these decisions.
        ceilings: what GPU budgets leave those that may not have all they ask for.
        now: Unix seconds.
    """
    found: dict[ServiceKey, Assignment] = {}
    rows = {service.key: row for row, service in enumerate(services)}
    for (_, of), keys in groups(services).items():
        known = [
            (services[row], pool, seen[row], before[row])
            for row in sorted(rows[key] for key in keys)
            if (pool := pools[row]) is not None and _known(decisions[services[row].key])
        ]
        advise = not any(service.mode is Mode.ACTIVE for service, _, _, _ in known)
        costs = _costs([(service, decisions[service.key]) for service, _, _, _ in known])
        members = [
            _member(
                service,
                pool,
                observation,
                cost=cost,
                decision=decisions[service.key],
                last=last,
                memory=memories[service.key],
                ceiling=ceilings.get(service.key),
                advise=advise,
                now=now,
            )
            for (service, pool, observation, last), cost in zip(known, costs, strict=True)
        ]
        shares = share(members)
        for member, given in zip(members, shares, strict=True):
            if member.moves and given.replicas != member.own:
                because = f"variants of {of}: {_because(member, given, members, shares)}"
                relieved = given.covered and given.now < given.replicas
                found[member.key] = Assignment(given.replicas, because, relieved)
            elif member.moves and given.covered and given.now < given.replicas:
                because = f"variants of {of}: what is not to be had here is served by others"
                found[member.key] = Assignment(given.replicas, because, relieved=True)
    return found


def learn(memory: ServiceMemory, *, pool: Roster | None, now: float) -> ServiceMemory:
    """The memory of a variant with the number at which it ran out of capacity."""
    known = memory.ran_out
    if pool is None:
        return memory
    if known is not None and (_had(pool) > known.replicas or now - known.at > RAN_OUT_SECONDS):
        known = None
    if memory.shortage is not None and len(pool.working) < pool.serving:
        known = RanOut(_had(pool), now)
    return memory if known == memory.ran_out else replace(memory, ran_out=known)


def share(members: Sequence[Member]) -> list[Share]:
    """What each member gets; those that are fixed get what they have. The order of the members has no influence.

    >>> h100 = Member(ServiceKey("a", "h100"), 800.0, 1.0, serving=2, ready=2, need=4, own=4, keep=4, least=1, most=9,
    ...               reach=2, calm=False)
    >>> l40s = replace(h100, key=ServiceKey("a", "l40s"), pace=200.0, cost=1.2, need=2, own=2, keep=2, reach=9)
    >>> [(given.replicas, given.now) for given in share([h100, l40s])]
    [(4, 2), (9, 9)]
    """
    moving = [member for member in members if member.moves]
    if len(members) < 2 or not moving:
        return [Share(member.own, member.own, covered=True) for member in members]
    needed = sum(member.pace * member.need for member in members)
    needed -= sum(member.pace * member.own for member in members if not member.moves)
    can_move = all(member.calm for member in members)
    now = _filled(moving, needed, {member.key: min(member.most, member.reach) for member in moving}, can_move=can_move)
    wished = _filled(moving, needed, {member.key: member.most for member in moving}, can_move=can_move)
    covered = sum(member.pace * now[member.key] for member in moving) >= needed * (1 - 1e-9)
    asked = {
        member.key: max(now[member.key], wished[member.key]) if member.reach < member.most else now[member.key]
        for member in moving
    }
    final = _made_before_broken(members, asked)
    return [
        Share(final[member.key], min(final[member.key], member.reach) if member.moves else member.own, covered)
        for member in members
    ]


def _filled(
    members: Sequence[Member], needed: float, most: Mapping[ServiceKey, int], *, can_move: bool
) -> dict[ServiceKey, int]:
    """The replicas of each that serve ``needed`` tokens per second, from the cheapest on."""
    given, dust = {}, 1e-9 * needed  # of floating point
    blocks: list[tuple[bool, float, ServiceKey, int, Member]] = []
    for member in members:
        # Who may not be shrunk below what it would do alone is there in any case.
        firm, top = 0 if member.yields else min(member.own, member.serving), most[member.key]
        first = min(max(member.least, firm), top)
        given[member.key] = first
        needed -= member.pace * first
        there = min(member.there, top)
        kept = 1.0 - WORTH if can_move else 1.0
        blocks.append((False, member.cost * kept, member.key, max(there - first, 0), member))
        blocks.append((not can_move, member.cost, member.key, max(top - max(there, first), 0), member))
    for _, _, key, count, member in sorted(blocks, key=lambda block: block[:3]):
        if needed <= max(dust, 0.0):
            break
        more = min(whole(needed / member.pace), count)
        given[key] += more
        needed -= member.pace * more
    return given


def _made_before_broken(members: Sequence[Member], asked: Mapping[ServiceKey, int]) -> dict[ServiceKey, int]:
    """What each is asked for, but above it as long as what is ready does not cover what all would do alone."""
    final = {
        member.key: max(asked.get(member.key, 0), member.own) if member.moves else member.own for member in members
    }
    keep = sum(member.pace * member.keep for member in members)
    ready = {member.key: member.pace * min(member.ready, final[member.key]) for member in members}
    for member in sorted(members, key=lambda each: (-each.cost, each.key)):
        if not member.moves or asked[member.key] >= member.own:
            continue
        begun = max(asked[member.key], min(member.own, member.serving))
        others = sum(at for key, at in ready.items() if key != member.key)
        least = whole(max(keep * (1 - 1e-9) - others, 0.0) / member.pace)
        may_go = member.yields and least <= member.ready
        final[member.key] = min(max(asked[member.key], least), begun) if may_go else begun
        ready[member.key] = member.pace * min(member.ready, final[member.key])
    return final


def rungs(
    own: int,
    assignment: Assignment | None,
    *,
    current: int,
    behavior: Behavior,
    events: Iterable[ScaleEvent],
    now: float,
) -> tuple[LadderStep, ...]:
    """From what a variant would do alone to what it is given, as fast as its behavior allows; empty without that."""
    if assignment is None:
        return ()
    limited = limit_rate(proposal=assignment.replicas, current=current, behavior=behavior, events=events, now=now)
    number = min(limited.replicas, own) if assignment.replicas < own else max(limited.replicas, own)
    because = "; ".join(part for part in (assignment.because, limited.because) if part)
    return (LadderStep(rung=Rung.VARIANTS, replicas=number, because=because),)


def _known(decision: Decision) -> bool:
    return decision.demand is not None and decision.demand.capacity.bound_by != "Prior"


def _pace(service: Service, decision: Decision) -> float:
    assert decision.demand is not None
    return decision.demand.capacity.slots_per_replica / service.parameters.objective.time_per_output_token_seconds


def _costs(known: Sequence[tuple[Service, Decision]]) -> list[float]:
    """Of a token on each, in one unit: of money, else of GPUs, else of replicas, whichever is known of all."""
    priced = all(service.variant is not None and service.variant.gpu_hour_price is not None for service, _ in known)
    counted = all(service.gpus is not None for service, _ in known)
    costs = []
    for service, decision in known:
        gpus = service.gpus.per_replica if service.gpus is not None and counted else 1
        price = service.variant.gpu_hour_price if service.variant is not None and priced and counted else None
        costs.append(gpus * (1.0 if price is None else price) / (3600.0 * _pace(service, decision)))
    return costs


def _member(
    service: Service,
    pool: Roster,
    observation: Observation,
    *,
    cost: float,
    decision: Decision,
    last: ServiceMemory,
    memory: ServiceMemory,
    ceiling: Ceiling | None,
    advise: bool,
    now: float,
) -> Member:
    assert service.target is not None
    rungs = {step.rung: step.replicas for step in decision.ladder}
    acts = service.mode is Mode.ACTIVE or (advise and service.mode is Mode.ADVISE)
    moves = acts and not decision.hold and decision.desired > 0 and Rung.BEHAVIOR in rungs
    calm = pool.serving == len(pool.working) and not pool.cordoned and memory.shortage is None
    member = Member(
        key=service.key,
        pace=_pace(service, decision),
        cost=cost,
        serving=pool.serving,
        ready=min(len(pool.working), pool.serving),
        need=decision.desired,
        own=decision.desired if acts else decision.current,
        keep=decision.desired,
        least=0,
        most=service.limits.max_replicas,
        reach=service.limits.max_replicas,
        moves=moves,
        calm=calm and not decision.hold and ceiling is None,
    )
    if not moves:
        return member
    wish = next(
        before.replicas
        for before, after in zip(decision.ladder, decision.ladder[1:], strict=False)
        if after.rung is Rung.FLOOR
    )
    bounded, own = rungs[Rung.CEILING], rungs[Rung.BEHAVIOR]
    reversible = service.drain.policy is DrainPolicy.REVERSIBLE and any(pod.switch for pod in pool.working)
    reach = _reach(service, pool, last=last, memory=memory, ceiling=ceiling)
    need = min(wish, own + max(wish - min(bounded, reach), 0))
    # What its window remembers it needs too; what only its rate keeps it from leaving it does not.
    since = now - window_seconds(service.limits.behavior.scale_down, reversible=reversible)
    lately = max((past.replicas for past in memory.recommendations if past.at > since), default=0)
    need = max(need, min(own, lately))
    return replace(
        member,
        need=need,
        own=own,
        keep=need if own == bounded else max(own, need),
        least=max(service.limits.min_replicas, 1),
        reach=reach,
        back=sum(pod.switch for pod in pool.cordoned),
        yields=reversible and not observation.waiting_requests.value,
    )


def _reach(
    service: Service, pool: Roster, *, last: ServiceMemory, memory: ServiceMemory, ceiling: Ceiling | None
) -> int:
    """Replicas that can be had: while capacity is short those that work, load on a node, or may return."""
    back, behavior = sum(pod.switch for pod in pool.cordoned), service.limits.behavior
    start_seconds = memory.start_seconds or service.parameters.startup_seconds
    fast = most_within(current=pool.serving, rules=behavior.scale_up, seconds=start_seconds)
    most = int(min(service.limits.max_replicas, max(fast, pool.serving + back)))
    if ceiling is not None:
        most = min(most, ceiling.replicas)
    if service.mode is Mode.ACTIVE and last.decided_at is not None and last.desired > max(pool.serving, last.current):
        most = min(most, pool.serving + back)  # the target has not taken the number: the next may fare no better
    had = _had(pool) + back
    if memory.shortage is not None:
        return min(most, had)
    return most if last.ran_out is None else min(most, max(had, last.ran_out.replicas))


def _had(pool: Roster) -> int:
    """Replicas that have their GPUs, and serve or will."""
    return len(pool.working) + sum(pod.scheduled_at is not None and not pod.failure_message for pod in pool.starting)


def _because(member: Member, given: Share, members: Sequence[Member], shares: Sequence[Share]) -> str:
    others = [(each, share) for each, share in zip(members, shares, strict=True) if each is not member]
    if given.replicas > member.own:
        stuck = [each.key.name for each, share in others if share.now < share.replicas]
        if stuck:
            return f"{words.replicas(given.replicas)} here, as {words.some(stuck)} cannot have what is needed"
        if given.now < given.replicas:
            return f"{words.replicas(given.replicas)} here as soon as they are to be had, {given.now} now"
        dearest = max((each for each, _ in others), key=lambda each: (each.cost, each.key))
        return f"{words.replicas(given.replicas)} here; {_compared(member, dearest)}"
    cheapest = min((each for each, _ in others), key=lambda each: (each.cost, each.key))
    return f"{words.replicas(given.replicas)} here are enough beside the others; {_compared(member, cheapest)}"


def _compared(member: Member, other: Member) -> str:
    return f"a token here costs {member.cost / other.cost if other.cost else 1.0:.2f} of one on {other.key.name}"
