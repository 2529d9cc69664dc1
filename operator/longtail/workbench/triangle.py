"""Cost, quality and latency of one service, from its own past: every level of thinking under every promise. Pure.

A backtest (see `backtest`) of the resource at several attainments gives cost against waiting. The same with shorter
answers gives one such line for each level of effort: a budget of T reasoning tokens makes min(L, T + answer) of a
length L, so that requests leave their slots sooner by the ratio of the means, and everything else stays as recorded.
Clients are taken to ask as often as they did, and every one of them to be within the budget's reach.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from longtail.demand.observation import Buckets, Observation
from longtail.policy.fleet import EffortLevel, EffortRules, Service
from longtail.workbench.backtest import Candidate, Learned, Look, backtest
from longtail.workbench.backtest_scores import Row
from longtail.workbench.fluid import Interval, intervals

ATTAINMENTS_PERCENT = (50, 70, 80, 90, 95, 97, 99)
"""Promises that are tried: all that the resource allows, roughly."""


@dataclass(frozen=True, slots=True)
class Saving:
    """What a limit does to the answers of the recording."""

    limit_tokens: float
    length_ratio: float
    """Mean length with the limit over that without, 0..1."""
    cut_share: float
    """Share of the answers that are made shorter, 0..1."""


@dataclass(frozen=True, slots=True)
class Point:
    """One level under one promise."""

    level: EffortLevel
    saving: Saving
    attainment_percent: int
    """That was asked for."""
    row: Row
    """What came of it."""

    @property
    def name(self) -> str:
        """How a user chooses it: ``low@95``."""
        return f"{self.level.name}@{self.attainment_percent}"


def triangle(
    looks: Sequence[Look],
    service: Service,
    rules: EffortRules,
    learned: Learned,
    *,
    gpus_per_replica: float = 1.0,
    progress: Callable[[float], None] = lambda _: None,
) -> list[Point]:
    """All levels under all promises, level by level.

    Raises:
        ValueError: the recording has no lengths of answers, or never a time at which the load is known.
    """
    load = intervals([look.observation for look in looks])
    answer = answer_tokens(looks, learned, default=rules.answer_tokens)
    lengths = [found for look in looks if (found := look.observation.finished_output_tokens) is not None]
    points: list[Point] = []
    for number, level in enumerate(rules.levels):
        saved = saving(lengths, limit_tokens=limit_of(level, answer))
        done = number / len(rules.levels)
        result = backtest(
            [_shorter_look(look, saved) for look in looks],
            [_asking(service, percent) for percent in ATTAINMENTS_PERCENT],
            [],
            replace(learned, mean_tokens=learned.mean_tokens * saved.length_ratio),
            load=[_sooner(one, saved.length_ratio) for one in load],
            gpus_per_replica=gpus_per_replica,
            progress=lambda share, done=done: progress(done + share / len(rules.levels)),  # type: ignore[misc]
        )
        rows = {row.name: row for row in result.rows}
        points += [Point(level, saved, percent, rows[str(percent)]) for percent in ATTAINMENTS_PERCENT]
    return points


def best(points: Sequence[Point]) -> list[Point]:
    """The points of each level that no other point of it beats in both cost and mean wait, by cost."""
    kept = []
    for point in points:
        others = [other.row for other in points if other.level == point.level and other is not point]
        mine = (point.row.gpu_hours, point.row.mean_wait_seconds)
        beaten = any(
            (row.gpu_hours, row.mean_wait_seconds) != mine
            and row.gpu_hours <= mine[0]
            and row.mean_wait_seconds <= mine[1]
            for row in others
        )
        if not beaten:
            kept.append(point)
    return kept


def limit_of(level: EffortLevel, answer_tokens: float) -> float:
    """Longest answer at a level, in tokens."""
    return math.inf if level.thinking_tokens is None else level.thinking_tokens + answer_tokens


def answer_tokens(looks: Sequence[Look], learned: Learned, *, default: float) -> float:
    """Mean tokens after the reasoning: from the gateway's counters where the recording has them."""
    shares = [s.value for look in looks if (s := look.observation.reasoning_share).value is not None and s.fresh]
    return max((1 - sum(shares) / len(shares)) * learned.mean_tokens, 1.0) if shares else default


def saving(lengths: Sequence[Buckets], *, limit_tokens: float) -> Saving:
    """What a limit does to the answers that finished.

    Raises:
        ValueError: none did.

    >>> half = saving([Buckets(upper_bounds=(1000.0, 2000.0, math.inf), counts=(1.0, 1.0, 0.0))], limit_tokens=1000.0)
    >>> round(half.length_ratio, 2), half.cut_share
    (0.74, 0.5)
    """
    counts: dict[tuple[float, ...], list[float]] = {}
    for histogram in lengths:
        sums = counts.setdefault(tuple(histogram.upper_bounds), [0.0] * len(histogram.counts))
        for bucket, count in enumerate(histogram.counts):
            sums[bucket] += count
    total = sum(map(sum, counts.values()))
    if not total:
        raise ValueError("the recording has no lengths of answers: the engine needs a histogram of its output tokens")
    whole = sum(_tokens(bounds, sums, math.inf) for bounds, sums in counts.items())
    left = sum(_tokens(bounds, sums, limit_tokens) for bounds, sums in counts.items())
    longer = sum(_longer(bounds, sums, limit_tokens) for bounds, sums in counts.items())
    return Saving(limit_tokens=limit_tokens, length_ratio=left / whole, cut_share=longer / total)


def _tokens(bounds: Sequence[float], counts: Sequence[float], limit: float) -> float:
    """Tokens of all requests of a histogram, each at most ``limit``: the integral of how many are longer."""
    low, alive, tokens = 0.0, sum(counts), 0.0
    for high, count in zip(_closed(bounds), counts, strict=True):
        width = max(min(high, limit) - low, 0.0)
        left = alive - count
        if count <= 0:
            tokens += alive * width
        elif left <= 0:  # the last ones: evenly over their bucket
            part = width / (high - low)
            tokens += alive * width * (1 - part / 2)
        else:
            hazard = math.log(alive / left) / (high - low)
            tokens += alive * -math.expm1(-hazard * width) / hazard
        low, alive = high, left
    return tokens


def _longer(bounds: Sequence[float], counts: Sequence[float], limit: float) -> float:
    """Requests that are longer than ``limit``."""
    low, longer = 0.0, 0.0
    for high, count in zip(_closed(bounds), counts, strict=True):
        longer += count * min(max((high - limit) / (high - low), 0.0), 1.0)
        low = high
    return longer


def _closed(bounds: Sequence[float]) -> list[float]:
    """Upper bounds with an end to the last one, twice the one before."""
    return [bound if math.isfinite(bound) else 2 * max(bounds[-2], 1.0) for bound in bounds]


def _asking(service: Service, percent: int) -> Candidate:
    objective = replace(service.parameters.objective, attainment=percent / 100)
    asking = replace(service, parameters=replace(service.parameters, objective=objective), effort=None)
    return Candidate(str(percent), asking)


def _sooner(load: Interval, ratio: float) -> Interval:
    """An interval in which the same requests in service would have finished sooner."""
    return replace(load, finished=load.finished / ratio, service_seconds=load.service_seconds * ratio)


def _shorter_look(look: Look, saved: Saving) -> Look:
    """A look at requests cut at a limit, as many in service as there were: more of them finish."""
    seen: Observation = look.observation
    if saved.length_ratio >= 1.0:
        return look
    finished, more = seen.finished_output_tokens, 1 / saved.length_ratio
    prompts = seen.prompt_tokens
    shorter = replace(
        seen,
        finished_output_tokens=None if finished is None else _cut(finished, saved.limit_tokens, more),
        prompt_tokens=prompts if prompts.value is None else replace(prompts, value=prompts.value * more),
    )
    return replace(look, observation=shorter)


def _cut(lengths: Buckets, limit: float, more: float) -> Buckets:
    """Endings beyond the limit moved to its bucket, and all of them ``more`` times as many."""
    counts, bounds = [0.0] * len(lengths.counts), lengths.upper_bounds
    last = next((number for number, bound in enumerate(bounds) if bound >= limit), len(bounds) - 1)
    for number, count in enumerate(lengths.counts):
        counts[min(number, last)] += count * more
    return Buckets(upper_bounds=bounds, counts=tuple(counts))
