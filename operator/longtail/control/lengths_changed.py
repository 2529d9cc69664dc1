"""LengthsChanged: answers have become longer or shorter, by which factor, since when, and what that costs.

Figures have two digits, so that the noise of an estimate does not rewrite the status of the resource every minute.
"""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from longtail.api.status import ConditionStatus
from longtail.cluster.status import ConditionValue
from longtail.control.outcome import Outcome
from longtail.demand.drift import LEAST_FACTOR, LEAST_REQUESTS, SHOWN_SECONDS
from longtail.demand.estimate import LengthChange
from longtail.policy.fleet import Mode

_TYPE: Final = "LengthsChanged"
HOURS_A_DAY: Final = 24.0

Money = Callable[[float], str]
"""Replica-hours as money in words, such as ``"730 USD"``, whatever their sign."""


def lengths_changed(outcome: Outcome) -> ConditionValue:
    """True while a change is news; the message also gives its cost in money where prices are known."""
    view, decision = outcome.view, outcome.decision
    if view.record.spec is not None and view.record.spec.mode is Mode.OFF:
        return ConditionValue(_TYPE, ConditionStatus.UNKNOWN, "ScalingDisabled", "mode is Off: nothing is read")
    if view.target is None:
        return ConditionValue(_TYPE, ConditionStatus.UNKNOWN, "TargetUnavailable", "nothing was read")
    if decision is None or decision.demand is None:
        return ConditionValue(_TYPE, ConditionStatus.UNKNOWN, "NotDecidedYet", "no answer has been seen yet")
    lengths = decision.demand.lengths
    if lengths.change is not None:
        reason = "LongerAnswers" if lengths.change.factor > 1 else "ShorterAnswers"
        message = in_words(lengths.change, money=_money(outcome))
        return ConditionValue(_TYPE, ConditionStatus.TRUE, reason, message)
    if not lengths.watched:
        message = f"fewer than {LEAST_REQUESTS:.0f} answers have been seen, too few to tell others from them"
        return ConditionValue(_TYPE, ConditionStatus.UNKNOWN, "NotLearnedYet", message)
    message = (
        f"no change by {LEAST_FACTOR:g} times or more has been found in the last {SHOWN_SECONDS / 3600:.0f} hours; "
        f"an answer has {_figure(lengths.mean_tokens)} tokens on average"
    )
    return ConditionValue(_TYPE, ConditionStatus.FALSE, "LengthsSteady", message)


def in_words(change: LengthChange, *, money: Money | None = None) -> str:
    """What has changed, and what it costs a day at the present rate.

    >>> in_words(LengthChange(factor=2.41, since=1795511400.0, before_tokens=1790.0, requests_per_second=1.21,
    ...                       replicas=15.3))
    'answers have become 2.4 times as long since 09:10 UTC (1,800 → 4,300 tokens): at 1.2 requests a second that is \
15 replicas more, 370 replica-hours a day'
    """
    since = f"{datetime.fromtimestamp(change.since, tz=UTC):%H:%M} UTC"
    direction = "more" if change.replicas > 0 else "less"
    hours = HOURS_A_DAY * change.replicas
    cost = "" if money is None else f", {money(abs(hours))},"
    return (
        f"answers have become {_figure(change.factor)} times as long since {since} "
        f"({_figure(change.before_tokens)} → {_figure(change.now_tokens)} tokens): "
        f"at {_figure(change.requests_per_second)} requests a second that is {_figure(abs(change.replicas))} replicas "
        f"{direction}, {_figure(abs(hours))} replica-hours{cost} a day"
    )


def _money(outcome: Outcome) -> Money | None:
    cost = outcome.cost
    if cost is None or cost.price is None:
        return None
    gpus, price = cost.gpus.per_replica, cost.price
    return lambda hours: f"{_figure(hours * gpus * float(price.amount))} {price.currency}"


def _figure(value: float) -> str:
    """Two digits.

    >>> _figure(4312.0), _figure(15.3), _figure(2.41), _figure(0.347), _figure(0.0)
    ('4,300', '15', '2.4', '0.35', '0')
    """
    if value <= 0 or not math.isfinite(value):
        return "0"
    digits = max(1 - math.floor(math.log10(value)), 0)
    rounded = float(f"{value:.1e}")
    return f"{rounded:,.{digits}f}" if digits else f"{rounded:,.0f}"
