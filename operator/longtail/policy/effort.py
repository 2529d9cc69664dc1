"""How much requests may think: less, when a shortage is coming that no replica can meet in time.

What is asked for now serves one cold start from now. Until then, and beyond where no more replicas can be had, the
only thing that can still be changed is how long the answers are that begin from now on. So the level follows the
*predicted* shortage (see `demand.levels`), not the queue: when the queue is there it is too late for 43 % of it.

While clients give up and ask again (`demand.cascade`) there is no going up, and one level down at least.

Down at once, to the mildest level at which all are in time, or to the one that leaves the least undone. Up by one
level after `dwell_seconds`, and only with room to spare both within the cold start and in the long run, for going up
brings the work back: a level that was left because of 20 % too much demand is not to be taken back at 19 %.
Where the gateway tells how the work divides among classes of requests, one class goes down after the other (`stages`).
While thinking is reduced the pool is sized for what it would be otherwise (`usual_need`): quality is lent, not sold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from longtail.demand.estimate import Demand, LevelDemand
from longtail.demand.parameters import ServiceParameters, Thinking
from longtail.policy import words
from longtail.policy.decision import Decision, Effort, Reason
from longtail.policy.fleet import EffortPolicy, EffortRules, Mode, Service
from longtail.policy.memory import ServiceMemory
from longtail.policy.stages import Stage, demand_at, learn, stages, stretches

ROOM = 0.1
"""Share of the replicas that must be left over at a level before it is gone back to."""
LEAST = 0.1
"""Share of the replicas that must be missing for thinking to be asked for: less is a few seconds more in a queue."""
WORTH = 0.02
"""Share of the replicas that a lower level must save more than a milder one to be preferred."""


def is_told(policy: EffortPolicy, mode: Mode) -> bool:
    """Whether the gateway is told the level: only in mode Active, for Advise writes nothing."""
    return policy is EffortPolicy.PUBLISH and mode is Mode.ACTIVE


def in_force(service: Service) -> bool:
    """Whether a level that is chosen for a service limits its requests."""
    return service.effort is not None and is_told(service.effort.policy, service.mode)


def parameters(service: Service, *, memory: ServiceMemory) -> ServiceParameters:
    """What the demand model is told of a service, with its levels and the one that was chosen last."""
    last = memory.effort
    rules = service.effort
    if rules is None:
        return service.parameters
    thinking = Thinking(
        budgets_tokens=tuple(
            float("inf") if level.thinking_tokens is None else float(level.thinking_tokens) for level in rules.levels
        ),
        answer_tokens=rules.answer_tokens,
        level=0 if last is None else min(last.lowest, len(rules.levels) - 1),
        in_force=in_force(service),
        stretches=stretches(memory.classes),
    )
    return replace(service.parameters, thinking=thinking)


def usual_need(demand: Demand, *, last: Effort | None) -> float | None:
    """Replicas for as much thinking as usual, not rounded, while there is less; None at the usual level."""
    if last is None or last.lowest == 0 or not demand.levels:
        return None
    usual = demand.levels[0]
    return max(usual.steady / (1 - ROOM), demand.replicas_coming + usual.short_then)


def settle(
    decision: Decision, *, service: Service, demand: Demand, memory: ServiceMemory, now: float, relieved: bool = False
) -> tuple[Decision, ServiceMemory]:
    """The decision with the level of thinking for the pool as it will be, and the memory of it.

    ``relieved`` tells that other variants of the model grow for what this one cannot have.
    """
    rules, last = service.effort, memory.effort
    if rules is None:
        return decision, memory if last is None else replace(memory, effort=None)
    limited = last is not None and last.lowest > 0 and in_force(service)
    classes = learn(memory.classes, demand=demand, rules=rules, limited=limited, now=now)
    cannot_grow = decision.supply_short or decision.limited_by in {Reason.TOO_MANY_REPLICAS, Reason.GPU_BUDGET}
    cannot_grow = cannot_grow and not relieved
    if memory.blind_since is None and demand.levels:
        chosen = choose(rules, demand=demand, work=classes.work, last=last, cannot_grow=cannot_grow, now=now)
    elif last is not None and memory.blind_since is not None and now - memory.blind_since < rules.valid_seconds:
        chosen = last
    else:
        # Like a published level that nobody renews: after a while everybody thinks as usual.
        usual = stages(rules, apart=False)[0]
        chosen = _at(rules, usual, last=last, because="it is not known whether requests will have to wait", now=now)
    return replace(decision, effort=chosen), replace(memory, effort=chosen, classes=classes)


def choose(
    rules: EffortRules,
    *,
    demand: Demand,
    work: Mapping[str, float],
    last: Effort | None,
    cannot_grow: bool,
    now: float,
) -> Effort:
    """The level from now on.

    Args:
        rules: the user's.
        demand: with its levels.
        work: parts of the work by class; empty where not known.
        last: what was chosen before; None at first.
        cannot_grow: more replicas than those on their way are not to be had, or not allowed.
        now: Unix seconds.
    """
    order, coming = stages(rules, apart=bool(work)), demand.replicas_coming
    levels = [demand_at(each, demand.levels, work=work) for each in order if each.lowest < len(demand.levels)]
    index = _place(order, levels, last, demand=demand, work=work)
    window = "one cold start ahead" if cannot_grow else f"in the {demand.startup.p50_seconds:.0f} s that a start takes"
    usual = f"{window} {_missing(levels[0], cannot_grow)} of {words.number(coming)} replicas"
    # Where clients give up and ask again every second counts, and what is written for them is lost.
    least = 0.0 if demand.cascade is not None else LEAST * coming
    if index < len(levels) and _short(levels[index], cannot_grow) > least:
        index = _enough(levels, index, cannot_grow=cannot_grow, worth=WORTH * coming)
        told = f"{usual}; at {spelled(rules, order[index])} {_missing(levels[index], cannot_grow)}"
        because = told if index else usual
    elif demand.cascade is not None:
        index, because = max(index, 1), "clients give up waiting and ask again"
    elif index == 0:
        because = usual
    else:
        because = _obstacle(levels[min(index, len(levels)) - 1], rules, demand=demand, last=last, now=now)
        if not because:
            index, because = index - 1, "there is room for more thinking"
    return _at(rules, order[index], last=last, because=because, now=now)


def spelled(rules: EffortRules, stage: Stage) -> str:
    """A stage in words: its level, and the classes that have another one.

    >>> from longtail.policy.fleet import EffortClass, EffortLevel
    >>> levels = (EffortLevel("high"), EffortLevel("low", 2048))
    >>> rules = EffortRules(EffortPolicy.PUBLISH, levels, classes=(EffortClass("batch", 1, -1),))
    >>> [spelled(rules, each) for each in stages(rules, apart=True)]
    ['high', 'high (batch: low)', 'low']
    """
    others = [f"{name}: {rules.levels[at].name}" for name, at in stage.classes.items() if at != stage.usual]
    return rules.levels[stage.usual].name + (f" ({', '.join(others)})" if others else "")


def _place(
    order: Sequence[Stage],
    levels: Sequence[LevelDemand],
    last: Effort | None,
    *,
    demand: Demand,
    work: Mapping[str, float],
) -> int:
    """Where among the stages the last choice is; of one that is no stage any more, where it would be worth as much."""
    if last is None:
        return 0
    before = Stage(last.index, last.classes)
    if before in order:
        return order.index(before)
    known = len(demand.levels)
    now = Stage(min(last.index, known - 1), {name: min(at, known - 1) for name, at in last.classes.items()})
    short = demand_at(now, demand.levels, work=work).short_then
    return next((at for at, each in enumerate(levels) if each.short_then <= short), len(levels) - 1)


def _obstacle(milder: LevelDemand, rules: EffortRules, *, demand: Demand, last: Effort | None, now: float) -> str:
    """Why a milder level has to wait; empty when it has not."""
    coming = demand.replicas_coming
    if last is not None and now - last.since < rules.dwell_seconds:
        return f"enough for all; at this level for {now - last.since:.0f} s, to stay {rules.dwell_seconds:.0f} s"
    most = max(milder.steady, coming + milder.short_ahead)
    if most <= (1 - ROOM) * coming:
        return ""
    return f"more thinking would take {words.number(most)} of {words.number(coming)} replicas, and 1 in 10 is kept free"


def _enough(levels: Sequence[LevelDemand], index: int, *, cannot_grow: bool, worth: float) -> int:
    """The mildest level, from ``index`` down, that meets the shortage, else the mildest of those that do most."""
    for level in range(index, len(levels)):
        if _short(levels[level], cannot_grow) <= 0:
            return level
    least = min(each.short_then for each in levels[index:])
    return next(level for level in range(index, len(levels)) if levels[level].short_then <= least + worth)


def _short(level: LevelDemand, cannot_grow: bool) -> float:
    return level.short_ahead if cannot_grow else level.short_soon


def _missing(level: LevelDemand, cannot_grow: bool) -> str:
    short = _short(level, cannot_grow)
    return f"{words.number(short)} are missing" if short > 0 else f"{words.number(-short)} are left over"


def _at(rules: EffortRules, stage: Stage, *, last: Effort | None, because: str, now: float) -> Effort:
    level = rules.levels[stage.usual]
    same = last is not None and (last.level, last.classes) == (level, stage.classes)
    since = last.since if last is not None and same else now
    return Effort(index=stage.usual, level=level, since=since, because=because, classes=stage.classes)
