"""`spec.effort`: how much a pool may ask its gateway to think less while it is short of replicas."""

from typing import Annotated

from pydantic import Field

from longtail.api.schema import Model, Rule
from longtail.policy.fleet import EffortPolicy

Word = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")]
"""A name as in a Kubernetes label's value."""

_ENDLESS = 1_000_000_000
"""Stands for "no limit" where levels are compared."""


class EffortLevel(Model):
    """One level of thinking."""

    name: Word
    """Name of the level."""
    thinking_tokens: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    """Most reasoning tokens of a request at this level. Absent: as many as the client wants."""
    reasoning_effort: Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z]+$")] | None = None
    """What to ask of models that take a word instead of a budget, such as low for gpt-oss."""


class EffortClass(Model):
    """Requests that keep more of their thinking than others."""

    name: Word
    """What the gateway calls them, and the value of gateway.classLabel where there is one."""
    lowest_level: Word
    """Name of the lowest level that they may be given."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Who thinks less last: higher keeps its thinking longer. Requests of no class have 0. Needs gateway.classLabel."""


def _budget(level: EffortLevel) -> int:
    return _ENDLESS if level.thinking_tokens is None else level.thinking_tokens


_BUDGET = "(has({0}.thinkingTokens) ? {0}.thinkingTokens : " + f"{_ENDLESS})"


class Effort(Model):
    """When replicas cannot come in time, think less instead of letting requests wait until they are given up."""

    policy: EffortPolicy = EffortPolicy.RECOMMEND
    """Recommend shows the level, Publish tells the gateway too (ConfigMap NAME-effort), "Off" (quoted) does nothing."""
    levels: Annotated[
        tuple[EffortLevel, ...],
        Field(min_length=2, max_length=8, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = (
        EffortLevel(name="high"),
        EffortLevel(name="medium", thinking_tokens=8192),
        EffortLevel(name="low", thinking_tokens=2048),
        EffortLevel(name="minimal", thinking_tokens=512),
    )
    """From the usual level to the least thinking, each with fewer thinkingTokens than the one before."""
    answer_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 500
    """Tokens of an answer after its reasoning, where no gateway tells (gateway.model)."""
    dwell_seconds: Annotated[int, Field(ge=0, le=86_400)] = 300
    """Time at a level before more thinking is allowed again, 0 to 86400 seconds. Less thinking comes at once."""
    valid_seconds: Annotated[int, Field(ge=30, le=3600)] = 180
    """How long a published level lasts without being renewed, 30 to 3600 seconds. Then there is no limit."""
    classes: Annotated[
        tuple[EffortClass, ...],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    """Kinds of requests with a floor and a priority of their own. The gateway knows which request belongs to which."""

    rules = (
        Rule(
            cel=(
                f"self.levels.map(l, 0 - {_BUDGET.format('l')}).isSorted() && self.levels.all(l, "
                f"self.levels.exists_one(m, {_BUDGET.format('m')} == {_BUDGET.format('l')}))"
            ),
            message="each of effort.levels needs fewer thinkingTokens than the one before it",
            holds=lambda effort: all(
                _budget(more) > _budget(less) for more, less in zip(effort.levels, effort.levels[1:], strict=False)
            ),
            path=".levels",
        ),
        Rule(
            cel="self.levels.all(l, self.levels.exists_one(m, m.name == l.name))",
            message="effort.levels need names of their own",
            holds=lambda effort: len({level.name for level in effort.levels}) == len(effort.levels),
            path=".levels",
        ),
        Rule(
            cel="!has(self.classes) || self.classes.all(c, self.levels.exists(l, l.name == c.lowestLevel))",
            message="effort.classes: each lowestLevel is the name of one of effort.levels",
            holds=lambda effort: (
                {each.lowest_level for each in effort.classes} <= {level.name for level in effort.levels}
            ),
            path=".classes",
        ),
    )
