"""In which order classes of requests think less: a list of stages, each a little less thinking than the one before.

The least important class goes down level by level to its floor, then the next one, and so on; those of equal priority
go down together. Requests of no class have priority 0. What is chosen among the stages is in `effort`.

A stage is worth what its classes' parts of the work are worth, and long answers are worth more than short ones: the
demand at it lies between those at the levels. The parts are those of *usual* lengths. What the gateway counts while a
class thinks less is shorter, and the class would seem to be no work at all, as if there were nothing more to gain
from it; so lengths are remembered from before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from longtail.demand.estimate import Demand, LevelDemand
from longtail.demand.observation import CLASS_LENGTH_SECONDS
from longtail.policy.fleet import EffortRules

_FIGURES: Final = ("short_soon", "short_ahead", "short_then", "steady", "mean_tokens")


@dataclass(frozen=True, slots=True)
class Stage:
    """Index of the level of each kind of request."""

    usual: int
    """Of requests of no class."""
    classes: Mapping[str, int] = field(default_factory=dict)

    @property
    def lowest(self) -> int:
        """The least thinking that anybody is asked for."""
        return max(self.usual, *self.classes.values(), 0)


@dataclass(frozen=True, slots=True)
class ClassMemory:
    """What is remembered of the classes of a service. The empty name is that of all requests of no class."""

    mean_tokens: Mapping[str, float] = field(default_factory=dict)
    """Usual mean length of their answers."""
    work: Mapping[str, float] = field(default_factory=dict)
    """Part of the work that would be theirs at usual lengths: they add up to 1. Empty where it was never known."""
    limited_at: float | None = None
    """When any of them was last asked to think less, Unix seconds."""


@lru_cache(maxsize=1024)
def stages(rules: EffortRules, *, apart: bool) -> Sequence[Stage]:
    """From usual thinking for all to the least. Not ``apart``, all go down together, each no lower than its floor.

    16 classes of four levels take 0.1 ms, and most services of a fleet have the same rules or none.
    """
    priorities = {each.name: each.priority if apart else 0 for each in rules.classes}
    now = Stage(0, dict.fromkeys(priorities, 0))
    found = [now]
    for priority in sorted({0, *priorities.values()}):
        for level in range(1, len(rules.levels)):
            classes = {
                each.name: min(level, each.lowest) if priorities[each.name] == priority else now.classes[each.name]
                for each in rules.classes
            }
            now = Stage(level if priority == 0 else now.usual, classes)
            if now != found[-1]:
                found.append(now)
    return tuple(found)


def demand_at(stage: Stage, levels: Sequence[LevelDemand], *, work: Mapping[str, float]) -> LevelDemand:
    """The demand at a stage: what a level saves, as far as it is saved by those who are at that level.

    Where all are at one level it is that level's. Of the shortage at the worst moment it is no more than an estimate,
    since the worst moments of two levels may differ.
    """
    if not work:
        return levels[stage.lowest]
    gains = [0.0] * len(levels)
    for name in work:
        at = stage.classes.get(name, stage.usual)
        gains[at] += _part_of_saving(name, levels[at], work)

    def mixed(name: str) -> float:
        usual = float(getattr(levels[0], name))
        return usual + sum(
            gain * (float(getattr(level, name)) - usual)
            for gain, level in zip(gains[1:], levels[1:], strict=True)
            if gain
        )

    return replace(levels[0], **{name: mixed(name) for name in _FIGURES}, saved={})


def _part_of_saving(name: str, level: LevelDemand, work: Mapping[str, float]) -> float:
    """How much of what a level saves is saved of the output of one class, 0..1."""
    total = sum(part * level.saved.get(each, 0.0) for each, part in work.items())
    return work[name] * level.saved.get(name, 0.0) / total if total > 0 else work[name]


def stretches(memory: ClassMemory) -> Mapping[str, float]:
    """Usual mean length of each class over the common one.

    >>> stretches(ClassMemory(mean_tokens={"chat": 1000.0, "": 4000.0}, work={"chat": 0.5, "": 0.5}))
    {'chat': 0.625, '': 2.5}
    """
    requests = sum(part / memory.mean_tokens[name] for name, part in memory.work.items())
    return {name: memory.mean_tokens[name] * requests for name in memory.work}


def learn(memory: ClassMemory, *, demand: Demand, rules: EffortRules, limited: bool, now: float) -> ClassMemory:
    """The memory after a tick; ``limited`` says that some were asked to think less up to now."""
    limited_at = now if limited else memory.limited_at
    if not demand.classes:
        return replace(memory, limited_at=limited_at)
    names = {each.name for each in rules.classes}
    requests: dict[str, float] = {}
    tokens: dict[str, float] = {}
    for each in demand.classes:
        name = each.name if each.name in names else ""
        # In a quiet time the shares are those of the hour, and there are no requests to go by.
        sent = each.work_share / each.mean_tokens
        requests[name] = requests.get(name, 0.0) + sent
        tokens[name] = tokens.get(name, 0.0) + sent * each.mean_tokens
    means = {name: tokens[name] / sent for name, sent in requests.items() if sent > 0}
    if limited_at is not None and now - limited_at <= CLASS_LENGTH_SECONDS:
        means |= memory.mean_tokens
    work = {name: requests[name] * means[name] for name in requests if name in means}
    total = sum(work.values())
    return ClassMemory(means, {name: part / total for name, part in work.items()}, limited_at)
