"""Scale to zero and back: when a pool may sleep, what wakes it, and what to do when nobody can tell.

Idle means that everything says so, freshly: no request runs or waits in the engines, none waits in the gateway,
nothing arrives at the door, nothing was begun or written since the last look, no GPU is at work. A long thought
is a running request. Idleness begins when ready pods report it, so a pool that was woken serves once, or is idle
for a whole idleSeconds, before it sleeps again.

A pool sleeps only while somebody could wake it: the signal that outlives the pods must answer. When that signal
is lost while the pool sleeps, requests may be waiting unseen. Sleep is a saving that rests on being woken; once
that is in doubt the saving ends: after a while the pool wakes to its smallest size, or to ``fallback.replicas``,
as anybody on call would do by hand.
"""

import math
from dataclasses import replace

from longtail.demand.estimate import Demand
from longtail.demand.observation import Observation, Signal
from longtail.policy.decision import Decision, LadderStep, Reason, Rung
from longtail.policy.fleet import Limits, Service, ZeroRules
from longtail.policy.idle_gaps import IdleClock, keep_awake_seconds, tick
from longtail.policy.idleness import gpu_busy

WAKE_PRICE_STARTS = 2.0
"""Price of waking up, in cold starts: one that the GPU loads and computes nothing, and one that somebody waits,
whose time is taken to be worth a GPU's."""

BLIND_SECONDS = 180.0
"""How long a sleeping pool does without the signal that would wake it, unless ``fallback`` says otherwise."""


def follow(clock: IdleClock, *, rules: ZeroRules, observation: Observation, serving: int, now: float) -> IdleClock:
    """The clock of idleness after one more look at a pool of so many serving replicas."""
    door = _door(rules, observation)
    unknown_since = (clock.unknown_since if clock.unknown_since is not None else now) if door is None else None
    return replace(tick(clock, idle=_idle(observation, door, serving=serving), now=now), unknown_since=unknown_since)


def asleep(
    *, service: Service, rules: ZeroRules, observation: Observation, demand: Demand, clock: IdleClock, now: float
) -> Decision:
    """What becomes of a pool without a serving replica."""
    limits = service.limits
    awake = awake_floor(limits)
    door = _door(rules, observation)
    if door is None:
        fallback = service.fallback
        patience = BLIND_SECONDS if fallback is None else fallback.after_seconds
        blind = 0.0 if clock.unknown_since is None else now - clock.unknown_since
        what = f"whether work waits at the door has not been known for {blind:.0f} s"
        if blind < patience:
            because = f"{what}; wakes up when it is {patience:.0f} s"
            return _awake_at(0, Reason.ACTIVATION_MISSING, because, demand)
        replicas = awake if fallback is None else min(max(fallback.replicas, awake), limits.max_replicas)
        return _awake_at(replicas, Reason.SCALE_UP, f"{what}: awake to be on the safe side", demand)
    working = max(door, _load(observation))
    if working <= 0:
        because = f"asleep, no work for {clock.idle_seconds(now):.0f} s"
        return _awake_at(0, Reason.SCALED_TO_ZERO, because, demand)
    queued = observation.gateway_waiting_requests
    waiting = queued.value if queued.fresh and queued.value is not None else 0.0
    wanted = math.ceil(waiting / demand.capacity.slots_per_replica)
    replicas = min(max(awake, wanted), limits.max_replicas)
    return _awake_at(replicas, Reason.SCALE_UP, f"work at the door ({working:g}): awake", demand)


def drowsy(
    decision: Decision,
    *,
    service: Service,
    rules: ZeroRules,
    observation: Observation,
    clock: IdleClock,
    now: float,
) -> Decision:
    """The decision of a pool that is seen without a doubt and does not grow, with the rung that may put it to sleep.

    Whatever its size: a forecast keeps a margin for work that may come, and that nobody has come for so long is
    what the user has declared to be worth no margin. A fifth of the pool leaves at a time (see `placement`).
    """
    assert decision.demand is not None
    idle, awake = clock.idle_seconds(now), awake_floor(service.limits)
    if clock.since is None or idle < rules.idle_seconds:
        return decision
    keep = keep_awake_seconds(
        gaps_seconds=clock.gaps_seconds,
        idle_seconds=rules.idle_seconds,
        wake_price_seconds=WAKE_PRICE_STARTS * decision.demand.startup.p90_seconds,
    )
    if _door(rules, observation) is None:
        because = f"no work for {idle:.0f} s, but nobody can say whether some comes: stays awake"
        return _with_step(decision, LadderStep(rung=Rung.ZERO, replicas=awake, because=because))
    if idle < keep:
        because = f"no work for {idle:.0f} s; past gaps make it worth staying awake for {keep:.0f} s"
        return _with_step(decision, LadderStep(rung=Rung.ZERO, replicas=awake, because=because))
    because = f"no work for {idle:.0f} s, and to stay awake is worth {keep:.0f} s"
    return replace(
        _with_step(decision, LadderStep(rung=Rung.ZERO, replicas=0, because=because)),
        desired=0,
        reason=Reason.SCALE_DOWN,
        message=f"{decision.current} → 0 replicas: {because}",
        limited_by=None,
    )


def _with_step(decision: Decision, step: LadderStep) -> Decision:
    return replace(decision, ladder=(*decision.ladder, step))


def _awake_at(replicas: int, reason: Reason, because: str, demand: Demand) -> Decision:
    head = "stays at 0" if replicas == 0 else f"0 → {replicas} replicas"
    return Decision(
        current=0,
        desired=replicas,
        hold=False,
        reason=reason,
        message=f"{head}: {because}",
        ladder=(LadderStep(rung=Rung.ZERO, replicas=replicas, because=because),),
        demand=demand,
    )


def awake_floor(limits: Limits) -> int:
    """Fewest replicas of a pool that is awake."""
    return max(limits.min_replicas, 1)


def _door(rules: ZeroRules, observation: Observation) -> float | None:
    """Work at the door; None unless every signal that was promised answers, or one of them tells of work."""
    promised = [
        signal
        for wanted, signal in (
            (rules.query, observation.activation),
            (rules.gateway, observation.gateway_waiting_requests),
        )
        if wanted
    ]
    known = [signal.value for signal in promised if signal.fresh and signal.value is not None]
    if any(value > 0 for value in known) or len(known) == len(promised):
        return max(known, default=0.0)
    return None


def _idle(observation: Observation, door: float | None, *, serving: int) -> bool | None:
    """True: no work for certain. False: work. None: nobody can say."""
    if (door or 0.0) > 0 or _load(observation) > 0 or gpu_busy(observation.gpu_active_ratio):
        return False
    if door is None:
        return None
    if serving == 0:
        return True
    told = observation.running_requests.fresh and observation.waiting_requests.fresh
    return True if told and observation.reporting_pods == observation.ready_pods > 0 else None


def _load(observation: Observation) -> float:
    """The largest sign of work, however doubtful: doubt keeps awake."""
    signs: tuple[Signal, ...] = (
        observation.running_requests,
        observation.waiting_requests,
        observation.gateway_waiting_requests,
        observation.first_tokens,
        observation.arrivals,
    )
    return max((sign.value for sign in signs if sign.value is not None), default=0.0)
