"""Turns outcomes into Events: scale changes, and conditions that flip. Failures are logged and dropped."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from longtail.api.status import Condition, ConditionStatus
from longtail.cluster.events import EventRecorder, ObjectReference
from longtail.cluster.kinds import SERVINGS
from longtail.control.clock import Clock, rfc3339_micro
from longtail.control.outcome import Outcome
from longtail.errors import ClusterError

logger = logging.getLogger(__name__)

_BAD_WHEN: Final = {
    "Ready": ConditionStatus.FALSE,
    "MetricsAvailable": ConditionStatus.FALSE,
    "Conflict": ConditionStatus.TRUE,
    "CapacityPending": ConditionStatus.TRUE,
    "TimeoutCascade": ConditionStatus.TRUE,
    "DrainReady": ConditionStatus.FALSE,
    "EffortReduced": ConditionStatus.TRUE,
    "LengthsChanged": ConditionStatus.TRUE,
}
"""Conditions whose flips are announced, and when they are bad news. The others follow from these."""


@dataclass(frozen=True, slots=True)
class Flip:
    """The conditions of a service now, and their truth as it was known before."""

    outcome: Outcome
    conditions: Sequence[Condition]
    before: Mapping[str, str]


class Announcer:
    """Decides what is worth an Event."""

    def __init__(self, *, events: EventRecorder, clock: Clock) -> None:
        self._events = events
        self._clock = clock
        self._changes: dict[str, float] = {}
        """Since when the lengths of a resource have been what was told last."""

    def forget_all_but(self, uids: Collection[str]) -> None:
        """Forget resources that are no more."""
        self._events.forget_all_but(uids)
        self._changes = {uid: since for uid, since in self._changes.items() if uid in uids}

    async def placed(self, outcome: Outcome) -> None:
        """Announce that the target was scaled or pods were switched, and what could not be done."""
        decision = outcome.decision
        assert decision is not None
        serving, target = _serving(outcome), _target(outcome)
        time = rfc3339_micro(self._clock.unix_seconds())
        try:
            for reason, verb, pods in _switched(outcome):
                await self._events.switched(
                    serving=serving,
                    target=target,
                    reason=reason,
                    note=f"{verb}: {_list(pods)}",
                    time=time,
                    now=self._clock.monotonic_seconds(),
                )
            if outcome.asked is not None:
                await self._events.rescaled(
                    serving=serving,
                    target=target,
                    desired=outcome.asked,
                    reason=decision.message,
                    time=time,
                )
            if outcome.scale_error is not None:
                await self._events.rescale_failed(
                    serving=serving,
                    target=target,
                    note=str(outcome.scale_error),
                    time=time,
                    now=self._clock.monotonic_seconds(),
                )
        except ClusterError as failed:
            _log(outcome, failed)

    async def flipped(self, flip: Flip) -> None:
        """Announce every condition whose truth changed; its first sight is no change."""
        for condition in flip.conditions:
            if condition.type not in _BAD_WHEN or not self._is_news(condition, flip):
                continue
            try:
                await self._events.flipped(
                    serving=_serving(flip.outcome),
                    reason=condition.reason,
                    note=f"{condition.type} is {condition.status}: {condition.message}",
                    warning=condition.status is _BAD_WHEN[condition.type],
                    time=rfc3339_micro(self._clock.unix_seconds()),
                    now=self._clock.monotonic_seconds(),
                )
            except ClusterError as failed:
                _log(flip.outcome, failed)

    def _is_news(self, condition: Condition, flip: Flip) -> bool:
        was = flip.before.get(condition.type)
        if condition.type == "LengthsChanged":
            return self._is_new_change(condition.status, flip.outcome, was)
        return was is not None and was != str(condition.status)

    def _is_new_change(self, status: ConditionStatus, outcome: Outcome, was: str | None) -> bool:
        """One change may follow another while the condition stays True; that nothing is known is no news."""
        uid = outcome.view.record.uid
        if status is ConditionStatus.TRUE:
            told, self._changes[uid] = self._changes.get(uid), _changed_since(outcome)
            return was is not None and (was != str(status) or told not in {None, self._changes[uid]})
        self._changes.pop(uid, None)
        return status is ConditionStatus.FALSE and was == str(ConditionStatus.TRUE)


def _changed_since(outcome: Outcome) -> float:
    demand = outcome.decision.demand if outcome.decision is not None else None
    assert demand is not None
    assert demand.lengths.change is not None
    return demand.lengths.change.since


def _switched(outcome: Outcome) -> Iterator[tuple[str, str, Sequence[str]]]:
    """What happened to pods: the Event's reason, a verb, and the pods."""
    if outcome.uncordoned:
        yield "Uncordoned", "back in routing", outcome.uncordoned
    if outcome.cordoned:
        yield "Cordoned", "out of routing until empty", outcome.cordoned
    if outcome.drained:
        yield "Drained", "empty or never started, deleted", outcome.drained


def _list(pods: Sequence[str]) -> str:
    return ", ".join(pods[:10]) + (f" and {len(pods) - 10} more" if len(pods) > 10 else "")


def _log(outcome: Outcome, failed: ClusterError) -> None:
    extra = {"service": str(outcome.view.record.key), "why": str(failed)}
    logger.warning("an Event could not be posted", extra=extra)


def _serving(outcome: Outcome) -> ObjectReference:
    record = outcome.view.record
    return ObjectReference(
        api_version=SERVINGS.api_version,
        kind=SERVINGS.kind,
        namespace=record.key.namespace,
        name=record.key.name,
        uid=record.uid,
    )


def _target(outcome: Outcome) -> ObjectReference:
    target, reference = outcome.view.target, outcome.view.record.target
    assert target is not None
    assert reference is not None
    return ObjectReference(
        api_version=reference.api_version,
        kind=reference.kind,
        namespace=reference.namespace,
        name=reference.name,
        uid=target.uid,
    )
