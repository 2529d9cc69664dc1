"""From one service's demand to its decision, rung by rung. Every rung leaves its number and its words.

Order: Reactive, Forecast, Effort, Fallback, Floor, Ceiling, Behavior, Variants, Supply, Safety, ScaleToZero, GPUBudget,
Placement. The number counts replicas that serve: those asked for, less the cordoned ones; the last rung says how it
is brought about (see `placement`).

Three things are settled before the first rung, as in HPA: a service that is off or has no target is left
alone; a target at 0 replicas is somebody's pause, unless the pool may sleep (see `slumber`); a pool outside of
minReplicas..maxReplicas goes there at once, without behavior. The last one with a reservation: growing to
minReplicas needs no data, shrinking to maxReplicas does, because no replica is ever removed blind. Whoever must
shrink a pool during an outage of the metrics can set mode Off and scale by hand.
"""

import itertools
from dataclasses import dataclass, replace

from longtail.demand.estimate import Demand
from longtail.demand.observation import Observation
from longtail.policy import budget, effort, hands, needs, slumber, trust, variants, words
from longtail.policy.behavior import Verdict, direction, limit_rate, limited, stabilise, within_tolerance
from longtail.policy.budget import Ceiling
from longtail.policy.decision import Decision, LadderStep, Reason, Rung
from longtail.policy.fleet import Behavior, DrainPolicy, Fallback, Limits, Mode, Service
from longtail.policy.memory import ServiceMemory, event_since, remembered
from longtail.policy.needs import Need
from longtail.policy.placement import place
from longtail.policy.procurement import procure
from longtail.policy.roster import Roster, roster
from longtail.policy.trust import Trust
from longtail.policy.variants import Assignment


@dataclass(frozen=True, slots=True)
class _Wish:
    """What demand asks for, before any limit."""

    replicas: int
    exact: float
    steps: tuple[LadderStep, ...]


def decide(
    *,
    service: Service,
    pool: Roster | None = None,
    observation: Observation,
    demand: Demand,
    memory: ServiceMemory,
    now: float,
    ceiling: Ceiling | None = None,
    assignment: Assignment | None = None,
) -> tuple[Decision, ServiceMemory]:
    """One service's decision, and what to remember of it. Pure: the same arguments give the same result.

    ``pool`` is the roster of its target, where there is one already; ``ceiling`` what the GPU budget leaves it, and
    ``assignment`` what it is to do for the other variants of its model, or they for it.
    """
    memory = trust.look(memory, observation=observation, demand=demand, now=now)
    memory = hands.look(memory, service=service, now=now)
    target, limits = service.target, service.limits
    if target is None:
        # Nothing is decided, so the last decision stands: its change may still come to light.
        return _hold(memory.current, Reason.TARGET_UNAVAILABLE, "the target cannot be scaled", demand), memory
    pool = pool or roster(target)
    current = pool.serving
    event = event_since(memory, current=current)
    if event is not None:
        memory = replace(memory, events=(*memory.events, event))
    proposal = None
    if service.mode is Mode.OFF or (target.replicas == 0 and service.zero is None):
        why = "mode is Off" if service.mode is Mode.OFF else "scaled to 0 by somebody else, which is a pause"
        decision = _hold(current, Reason.SCALING_DISABLED, why, demand)
    else:
        decision, proposal, memory = _decided(
            service=service,
            pool=pool,
            observation=observation,
            demand=demand,
            memory=memory,
            now=now,
            ceiling=ceiling,
            assignment=assignment,
        )
        contested_by = hands.contested_by(memory, now=now)
        decision = replace(decision, contested_by=contested_by) if contested_by else decision
        elsewhere = assignment is not None and assignment.relieved
        decision, memory = effort.settle(
            decision, service=service, demand=demand, memory=memory, now=now, relieved=elsewhere
        )
    return decision, remembered(
        memory,
        current=current,
        desired=decision.desired,
        proposal=proposal,
        behavior=limits.behavior,
        now=now,
    )


def _decided(
    *,
    service: Service,
    pool: Roster,
    observation: Observation,
    demand: Demand,
    memory: ServiceMemory,
    now: float,
    ceiling: Ceiling | None,
    assignment: Assignment | None,
) -> tuple[Decision, int | None, ServiceMemory]:
    """The decision for a service that may be scaled, its proposal, and the memory."""
    assert service.target is not None
    zero, limits, current, proposal = service.zero, service.limits, pool.serving, None
    if zero is not None:
        clock = slumber.follow(memory.idle_clock, rules=zero, observation=observation, serving=current, now=now)
        memory = replace(memory, idle_clock=clock)
        limits = replace(limits, min_replicas=slumber.awake_floor(limits))
    trusted = trust.judge(
        observation=observation,
        demand=demand,
        pods=service.target.pods,
        memory=memory,
        # Warming up takes HPA's window, however soon a shrink could be taken back: it is about the history.
        behavior=service.limits.behavior,
        now=now,
        by_hand=hands.manual(service, memory=memory, now=now),
    )
    if zero is not None and current == 0:
        decision = slumber.asleep(
            service=service, rules=zero, observation=observation, demand=demand, clock=memory.idle_clock, now=now
        )
    elif limits.min_replicas <= current <= limits.max_replicas:
        wish = _wish(observation=observation, demand=demand, trusted=trusted, current=current)
        wish = _think_as_usual(wish, demand=demand, memory=memory)
        wish = _fall_back(wish, fallback=service.fallback, trusted=trusted, memory=memory, now=now)
        decision, proposal, memory = _climb(
            wish,
            service=service,
            pool=pool,
            limits=limits,
            trusted=trusted,
            demand=demand,
            memory=memory,
            now=now,
            assignment=assignment,
        )
        if zero is not None and trusted.doubt is None and not decision.hold and decision.desired <= current:
            decision = slumber.drowsy(
                decision, service=service, rules=zero, observation=observation, clock=memory.idle_clock, now=now
            )
    else:
        decision = _into_limits(current, limits=limits, trusted=trusted, demand=demand)
    if ceiling is not None:
        decision = budget.limited(decision, ceiling=ceiling, doubt=trusted.because if trusted.doubt else "")
    decision, memory = _placed(
        decision, service=service, pool=pool, observation=observation, trusted=trusted, memory=memory, now=now
    )
    return decision, proposal, memory


def _placed(
    decision: Decision,
    *,
    service: Service,
    pool: Roster,
    observation: Observation,
    trusted: Trust,
    memory: ServiceMemory,
    now: float,
) -> tuple[Decision, ServiceMemory]:
    """The decision with its last rung: which pods it concerns."""
    order = decision.limited_by is Reason.TOO_MANY_REPLICAS and trusted.doubt is Reason.WARMING_UP
    placement, memory = place(
        service=service,
        pool=pool,
        observation=observation,
        desired=decision.desired,
        may_shrink=trusted.doubt is None or order,
        memory=memory,
        now=now,
    )
    step = LadderStep(rung=Rung.PLACEMENT, replicas=decision.desired, because=placement.because)
    return replace(decision, placement=placement, ladder=(*decision.ladder, step)), memory


def _into_limits(current: int, *, limits: Limits, trusted: Trust, demand: Demand) -> Decision:
    if current < limits.min_replicas:
        because = f"{current} are fewer than minReplicas {limits.min_replicas}"
        step = LadderStep(rung=Rung.FLOOR, replicas=limits.min_replicas, because=because)
        reason, limited_by = Reason.SCALE_UP, Reason.TOO_FEW_REPLICAS
    else:
        because = f"{current} are more than maxReplicas {limits.max_replicas}"
        step = LadderStep(rung=Rung.CEILING, replicas=limits.max_replicas, because=because)
        reason, limited_by = Reason.SCALE_DOWN, Reason.TOO_MANY_REPLICAS
        # A ceiling is an order, not a conclusion from a history: it waits for data, not for the warm-up.
        if trusted.doubt is not None and trusted.doubt is not Reason.WARMING_UP:
            why = f"{because}, but {trusted.because}"
            held = LadderStep(rung=Rung.SAFETY, replicas=current, because=f"not shrunk: {trusted.because}")
            return replace(_hold(current, trusted.doubt, why, demand), ladder=(step, held))
    return Decision(
        current=current,
        desired=step.replicas,
        hold=False,
        reason=reason,
        message=f"{current} → {step.replicas} replicas: {because}",
        ladder=(step,),
        limited_by=limited_by,
        demand=demand,
    )


def _wish(*, observation: Observation, demand: Demand, trusted: Trust, current: int) -> _Wish:
    floor = needs.reactive(demand=demand, observation=observation, blind_pods=trusted.blind_pods)
    if floor is None or not trusted.countable:
        return _wish_of_evidence(observation=observation, demand=demand, trusted=trusted, current=current)
    reactive = LadderStep(rung=Rung.REACTIVE, replicas=floor.replicas, because=floor.because)
    upper, peak = needs.forecast_up(demand), needs.forecast_down(demand)
    if upper is None:
        return _Wish(replicas=floor.replicas, exact=floor.exact, steps=(reactive,))
    up = _larger(floor, upper)
    down = None if peak is None else _larger(floor, peak)
    if up.replicas > current:
        replicas, exact, because = up.replicas, up.exact, upper.because
    elif down is not None and down.replicas < current:
        replicas, exact, because = down.replicas, down.exact, (peak or upper).because
    else:
        # Between the two the forecast has no say: it does not ask for more, and does not allow less.
        replicas, exact, because = current, float(current), (peak or upper).because
    if replicas == floor.replicas:
        because = f"{because}, no reason to differ from the reactive number"
    forecast = LadderStep(rung=Rung.FORECAST, replicas=replicas, because=because)
    return _Wish(replicas=replicas, exact=exact, steps=(reactive, forecast))


def _wish_of_evidence(*, observation: Observation, demand: Demand, trusted: Trust, current: int) -> _Wish:
    least = needs.evidence(demand=demand, observation=observation)
    replicas = current if least is None else max(current, least.replicas)
    known = "" if least is None else f"; {least.because}"
    because = f"{trusted.because}{known}; stays at least at {current}"
    step = LadderStep(rung=Rung.REACTIVE, replicas=replicas, because=because)
    return _Wish(replicas=replicas, exact=float(replicas), steps=(step,))


def _think_as_usual(wish: _Wish, *, demand: Demand, memory: ServiceMemory) -> _Wish:
    """The wish of a pool whose users are asked to think less: never fewer replicas than they would use otherwise."""
    usual = effort.usual_need(demand, last=memory.effort)
    if usual is None or usual <= wish.exact:
        return wish
    replicas = needs.whole(usual)
    because = f"requests would need {words.replicas(replicas)} if they thought as usual"
    step = LadderStep(rung=Rung.EFFORT, replicas=replicas, because=because)
    return _Wish(replicas=replicas, exact=usual, steps=(*wish.steps, step))


def _fall_back(wish: _Wish, *, fallback: Fallback | None, trusted: Trust, memory: ServiceMemory, now: float) -> _Wish:
    """The wish of a pool that has not been seen for as long as the user can bear: never a smaller one."""
    if fallback is None or trusted.countable or memory.blind_since is None:
        return wish
    blind = now - memory.blind_since
    if blind < fallback.after_seconds:
        return wish
    replicas = max(wish.replicas, fallback.replicas)
    because = f"not seen for {blind:.0f} s of {fallback.after_seconds:.0f} s: at least {fallback.replicas} replicas"
    step = LadderStep(rung=Rung.FALLBACK, replicas=replicas, because=because)
    return _Wish(replicas=replicas, exact=max(wish.exact, float(replicas)), steps=(*wish.steps, step))


def _larger(floor: Need, forecast: Need) -> Need:
    return max(floor, forecast, key=lambda need: need.exact)


def _climb(
    wish: _Wish,
    *,
    service: Service,
    pool: Roster,
    limits: Limits,
    trusted: Trust,
    demand: Demand,
    memory: ServiceMemory,
    now: float,
    assignment: Assignment | None,
) -> tuple[Decision, int | None, ServiceMemory]:
    """The decision, the proposal to remember for stabilisation (None: the tick has none to give), and the memory."""
    assert service.target is not None
    current = pool.serving
    reversible = service.drain.policy is DrainPolicy.REVERSIBLE and any(pod.switch for pod in service.target.pods)
    floored = max(wish.replicas, limits.min_replicas)
    bounded = min(floored, limits.max_replicas)
    proposal, verdict = _behave(
        bounded,
        wish=wish,
        behavior=limits.behavior,
        reversible=reversible,
        memory=memory,
        current=current,
        now=now,
    )
    shared = variants.rungs(
        verdict.replicas, assignment, current=current, behavior=limits.behavior, events=memory.events, now=now
    )
    served = shared[-1].replicas if shared else verdict.replicas
    supply = procure(
        served,
        target=service.target,
        pool=pool,
        highest=limits.max_replicas,
        known=memory.shortage,
        patience_seconds=demand.startup.p90_seconds,
        now=now,
    )
    number = supply.replicas
    held = trusted.doubt is not None and (number < current or (number == current and not trusted.countable))
    held = held or (number > current and not trusted.may_grow)
    desired = current if held else number
    safety = f"not {'grown' if number > current else 'shrunk'}: {trusted.because}" if held else trusted.because
    ladder = (
        *wish.steps,
        LadderStep(rung=Rung.FLOOR, replicas=floored, because=f"minReplicas is {limits.min_replicas}"),
        LadderStep(rung=Rung.CEILING, replicas=bounded, because=f"maxReplicas is {limits.max_replicas}"),
        LadderStep(rung=Rung.BEHAVIOR, replicas=verdict.replicas, because=verdict.because),
        *shared,
        LadderStep(rung=Rung.SUPPLY, replicas=number, because=supply.because),
        LadderStep(rung=Rung.SAFETY, replicas=desired, because=safety),
    )
    reason = trusted.doubt if held else direction(current, desired) or (Reason.SUPPLY_SHORT if supply.felt else None)
    limited_by = limited(wished=wish.replicas, floored=floored, bounded=bounded, verdict=verdict)
    if served != verdict.replicas:
        limited_by = Reason.VARIANTS if served < verdict.replicas else None
    decision = Decision(
        current=current,
        desired=desired,
        hold=held,
        reason=reason or verdict.reason or limited_by or Reason.DESIRED_WITHIN_RANGE,
        message=_message(current, wish, ladder),
        ladder=ladder,
        limited_by=limited_by,
        demand=demand,
        shortage=supply.shortage if supply.felt else None,
    )
    if supply.shortage != memory.shortage:
        memory = replace(memory, shortage=supply.shortage)
    return decision, _to_remember(proposal, trusted=trusted, current=current), memory


def _behave(
    bounded: int,
    *,
    wish: _Wish,
    behavior: Behavior,
    reversible: bool,
    memory: ServiceMemory,
    current: int,
    now: float,
) -> tuple[int, Verdict]:
    """The proposal after tolerance, and what windows and rates make of it."""
    if bounded != current and within_tolerance(exact=wish.exact, current=current, behavior=behavior):
        because = f"a need of {wish.exact:.2f} replicas is within the tolerance of {current}"
        return current, Verdict(replicas=current, because=because)
    stable = stabilise(
        proposal=bounded,
        current=current,
        behavior=behavior,
        recommendations=memory.recommendations,
        now=now,
        reversible=reversible,
    )
    limited = limit_rate(proposal=stable.replicas, current=current, behavior=behavior, events=memory.events, now=now)
    because = "; ".join(part.because for part in (stable, limited) if part.because)
    return bounded, Verdict(
        replicas=limited.replicas,
        because=because or "within all windows and rates",
        reason=limited.reason or stable.reason,
    )


def _to_remember(proposal: int, *, trusted: Trust, current: int) -> int | None:
    """A blind tick proposes nothing, unless evidence asks for more; a contradictory one what there is."""
    if trusted.doubt is Reason.GPU_BUSY:
        return max(proposal, current)
    return proposal if trusted.countable or proposal > current else None


def _message(current: int, wish: _Wish, ladder: tuple[LadderStep, ...]) -> str:
    """What was wished for and why, and the last rung that made something else of it."""
    desired = ladder[-1].replicas
    head = f"stays at {current}" if desired == current else f"{current} → {desired} replicas"
    wished = next(step for step in wish.steps if step.replicas == wish.replicas)
    changes = [
        after.because
        for before, after in itertools.pairwise(ladder[len(wish.steps) - 1 :])
        if before.replicas != after.replicas
    ]
    return f"{head}: {'; '.join((wished.because, *changes[-1:]))}"


def _hold(current: int, reason: Reason, message: str, demand: Demand) -> Decision:
    return Decision(current=current, desired=current, hold=True, reason=reason, message=message, demand=demand)
