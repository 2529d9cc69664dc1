"""HPA v2's ``behavior``: tolerance, stabilisation windows, rate limits. HPA's arithmetic and words, no state.

Rules: kubernetes/kubernetes ``pkg/controller/podautoscaler/horizontal.go`` (the functions whose names contain
WithBehavior and WithScalingRules), KEP-853 and KEP-4951. Cut-offs are strict, as there: what is exactly as
old as a window or a period no longer counts, so that with a tick and a period of 15 s a pool may double at
every tick.

What HPA keeps in its controller comes in as arguments: past recommendations (un-stabilised) and past changes.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from longtail.policy.decision import Reason
from longtail.policy.fleet import Behavior, PolicyType, ScalingRules, SelectPolicy


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What a tick would have liked, before stabilisation."""

    at: float
    replicas: int


@dataclass(frozen=True, slots=True)
class ScaleEvent:
    """A change that was carried out: positive when replicas came, negative when they went."""

    at: float
    change: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The number after ``behavior``, and what changed it: None when nothing did."""

    replicas: int
    because: str
    reason: Reason | None = None


def window_seconds(rules: ScalingRules, *, reversible: bool) -> int:
    """The stabilisation window, which may be another one where replicas leave reversibly."""
    window = rules.reversible_window_seconds if reversible else None
    return rules.stabilization_window_seconds if window is None else window


def within_tolerance(*, exact: float, current: int, behavior: Behavior) -> bool:
    """Whether a need, in replicas and not rounded, is too close to ``current`` to move. ``current`` > 0.

    >>> from longtail.policy.fleet import ScalingRules
    >>> tenth = ScalingRules(stabilization_window_seconds=0, policies=(), tolerance=0.1)
    >>> both = Behavior(scale_up=tenth, scale_down=tenth)
    >>> [within_tolerance(exact=exact, current=10, behavior=both) for exact in (10.9, 11.1, 9.1, 8.9)]
    [True, False, True, False]
    """
    ratio = exact / current
    return 1 - behavior.scale_down.tolerance <= ratio <= 1 + behavior.scale_up.tolerance


def stabilise(
    *,
    proposal: int,
    current: int,
    behavior: Behavior,
    recommendations: Iterable[Recommendation],
    now: float,
    reversible: bool = False,
) -> Verdict:
    """Grow no further than the lowest recent recommendation, shrink no further than the highest."""
    window_up = behavior.scale_up.stabilization_window_seconds
    window_down = window_seconds(behavior.scale_down, reversible=reversible)
    up_since, down_since = now - window_up, now - window_down
    lowest = highest = proposal
    for past in recommendations:
        if past.at > up_since:
            lowest = min(lowest, past.replicas)
        if past.at > down_since:
            highest = max(highest, past.replicas)
    stable = min(max(current, lowest), highest)
    if stable == proposal:
        return Verdict(replicas=stable, because="")
    if proposal >= current:
        because = f"at least once in the last {window_up} s no more than {lowest} were needed: {stable} replicas"
        return Verdict(replicas=stable, because=because, reason=Reason.SCALE_UP_STABILIZED)
    because = f"up to {highest} were needed in the last {window_down} s: {stable} replicas"
    return Verdict(replicas=stable, because=because, reason=Reason.SCALE_DOWN_STABILIZED)


def limit_rate(*, proposal: int, current: int, behavior: Behavior, events: Iterable[ScaleEvent], now: float) -> Verdict:
    """Move from ``current`` towards ``proposal`` as far as the policies allow."""
    if proposal > current:
        limit = max(scale_up_limit(current=current, rules=behavior.scale_up, events=events, now=now), current)
        if proposal > limit:
            because = f"{_rate(behavior.scale_up)} to grow: {limit} of {proposal} replicas"
            return Verdict(replicas=limit, because=because, reason=Reason.SCALE_UP_LIMIT)
    if proposal < current:
        limit = min(scale_down_limit(current=current, rules=behavior.scale_down, events=events, now=now), current)
        if proposal < limit:
            because = f"{_rate(behavior.scale_down)} to shrink: {limit} replicas instead of {proposal}"
            return Verdict(replicas=limit, because=because, reason=Reason.SCALE_DOWN_LIMIT)
    return Verdict(replicas=proposal, because="")


def limited(*, wished: int, floored: int, bounded: int, verdict: Verdict) -> Reason | None:
    """Which limit made the number another one than was wished for; None where none did."""
    if verdict.reason in (Reason.SCALE_UP_LIMIT, Reason.SCALE_DOWN_LIMIT):
        return verdict.reason
    if verdict.replicas == bounded < floored:
        return Reason.TOO_MANY_REPLICAS
    if verdict.replicas == floored > wished:
        return Reason.TOO_FEW_REPLICAS
    return None


def direction(current: int, desired: int) -> Reason | None:
    """The reason of a change; None where there is none."""
    if desired == current:
        return None
    return Reason.SCALE_UP if desired > current else Reason.SCALE_DOWN


def scale_up_limit(*, current: int, rules: ScalingRules, events: Iterable[ScaleEvent], now: float) -> int:
    """Most replicas that the policies allow now. Below ``current`` when much was added lately."""
    limits = []
    for policy in rules.policies:
        start = _at_start_of_period(current=current, events=events, period=policy.period_seconds, now=now)
        if policy.type is PolicyType.PODS:
            limits.append(start + policy.value)
        else:
            # HPA's floating point: 10 % on top of 100 is 110.00000000000001, and its ceiling is 111.
            limits.append(math.ceil(start * (1 + policy.value / 100)))
    return _selected(current=current, select=rules.select_policy, smallest=min(limits), largest=max(limits))


def most_within(*, current: int, rules: ScalingRules, seconds: float) -> float:
    """About how many replicas there can be after some time of nothing but growth.

    >>> from longtail.policy.fleet import Behavior, PolicyType, ScalingPolicy
    >>> slow = ScalingRules(0, policies=(ScalingPolicy(PolicyType.PODS, 1, 60),))
    >>> most_within(current=4, rules=slow, seconds=180), most_within(current=4, rules=slow, seconds=10)
    (7.0, 5.0)
    >>> most_within(current=4, rules=Behavior().scale_up, seconds=30)
    16.0
    """
    sizes = []
    for policy in rules.policies:
        periods = max(int(seconds / policy.period_seconds), 1)
        if policy.type is PolicyType.PODS:
            sizes.append(float(current + policy.value * periods))
        else:
            sizes.append(round(current * math.exp(min(periods * math.log1p(policy.value / 100), 20.0)), 6))
    match rules.select_policy:
        case SelectPolicy.DISABLED:
            return float(current)
        case SelectPolicy.MIN:
            return min(sizes)
        case SelectPolicy.MAX:
            return max(sizes)


def scale_down_limit(*, current: int, rules: ScalingRules, events: Iterable[ScaleEvent], now: float) -> int:
    """Fewest replicas that the policies allow now. Above ``current`` when much was removed lately."""
    limits = []
    for policy in rules.policies:
        start = _at_start_of_period(current=current, events=events, period=policy.period_seconds, now=now)
        if policy.type is PolicyType.PODS:
            limits.append(start - policy.value)
        else:
            limits.append(math.trunc(start * (1 - policy.value / 100)))
    return _selected(current=current, select=rules.select_policy, smallest=max(limits), largest=min(limits))


def _selected(*, current: int, select: SelectPolicy, smallest: int, largest: int) -> int:
    """The limit of the chosen policy, by the size of the change that it allows."""
    match select:
        case SelectPolicy.DISABLED:
            return current
        case SelectPolicy.MIN:
            return smallest
        case SelectPolicy.MAX:
            return largest


def _at_start_of_period(*, current: int, events: Iterable[ScaleEvent], period: int, now: float) -> int:
    return current - sum(event.change for event in events if event.at > now - period)


def _rate(rules: ScalingRules) -> str:
    """The policies in words.

    >>> _rate(Behavior().scale_up)
    'behavior allows the larger of 100 % in 15 s and 4 pods in 15 s'
    """
    if rules.select_policy is SelectPolicy.DISABLED:
        return "behavior (selectPolicy Disabled) forbids"
    unit = {PolicyType.PERCENT: "%", PolicyType.PODS: "pods"}
    rates = [f"{policy.value} {unit[policy.type]} in {policy.period_seconds} s" for policy in rules.policies]
    which = "" if len(rates) == 1 else f"the {'larger' if rules.select_policy is SelectPolicy.MAX else 'smaller'} of "
    return f"behavior allows {which}{' and '.join(rates)}"
