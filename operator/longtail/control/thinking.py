"""How much may be thought, told: to the gateway by a ConfigMap, to people by a condition and by status."""

import logging
from collections.abc import Callable, Iterable, Mapping

from longtail.api import to_policy
from longtail.api.status import ClassEffortStatus, ConditionStatus, EffortStatus
from longtail.cluster.effort import EffortWriter, document
from longtail.cluster.status import ConditionValue
from longtail.control.clock import Clock, rfc3339
from longtail.control.fleet import effective_mode
from longtail.control.outcome import Outcome
from longtail.control.parallel import in_parallel
from longtail.errors import ClusterError
from longtail.policy.decision import Effort
from longtail.policy.effort import is_told
from longtail.policy.fleet import ServiceKey

logger = logging.getLogger(__name__)


class EffortPublisher:
    """Publishes the levels of the services whose spec asks for it."""

    def __init__(
        self, *, efforts: EffortWriter, clock: Clock, concurrency: int, may_write: Callable[[], bool] = lambda: True
    ) -> None:
        self._efforts = efforts
        self._clock = clock
        self._concurrency = concurrency
        self._may_write = may_write

    def begin_term(self) -> None:
        """Forget what was published: somebody else may have published since."""
        self._efforts.forget_all_but(())

    async def publish(self, outcomes: Mapping[ServiceKey, Outcome]) -> None:
        """Write the levels that are due. What could not be written expires, and is tried again at the next tick."""
        if not self._may_write():
            return
        self._efforts.forget_all_but(outcome.view.record.uid for outcome in outcomes.values())
        failures: list[str] = []

        async def write(item: tuple[Outcome, Effort]) -> None:
            failure = await self._write(*item)
            failures.extend([] if failure is None else [failure])

        await in_parallel(write, list(self._due(outcomes.values())), limit=self._concurrency)
        if failures:
            logger.warning("levels of thinking not published", extra={"count": len(failures), "first": failures[0]})

    def _due(self, outcomes: Iterable[Outcome]) -> Iterable[tuple[Outcome, Effort]]:
        now = self._clock.monotonic_seconds()
        for outcome in outcomes:
            effort = outcome.decision.effort if outcome.decision is not None else None
            if effort is None or not is_published(outcome):
                continue
            record = outcome.view.record
            assert record.spec is not None
            assert record.spec.effort is not None
            if self._efforts.due(record, effort, valid_seconds=record.spec.effort.valid_seconds, now=now):
                yield outcome, effort

    async def _write(self, outcome: Outcome, effort: Effort) -> str | None:
        """Publish one level; return why it could not be."""
        record = outcome.view.record
        assert record.spec is not None
        rules = to_policy.effort(record.spec)
        assert rules is not None
        body = document(
            record,
            effort,
            rules=rules,
            model=record.spec.gateway.model if record.spec.gateway is not None else None,
            valid_until=rfc3339(self._clock.unix_seconds() + rules.valid_seconds),
        )
        try:
            await self._efforts.write(record, effort, body, now=self._clock.monotonic_seconds())
        except ClusterError as failed:
            return f"{record.key}: {failed}"
        return None


def is_published(outcome: Outcome) -> bool:
    """Whether the gateway is told the level of a service."""
    spec = outcome.view.record.spec
    if spec is None or spec.effort is None or outcome.view.target is None:
        return False
    return is_told(spec.effort.policy, effective_mode(outcome.view))


def effort_status(outcome: Outcome) -> EffortStatus | None:
    """The level of a service for its status."""
    effort = outcome.decision.effort if outcome.decision is not None else None
    if effort is None:
        return None
    return EffortStatus(
        level=effort.level.name,
        thinking_tokens=effort.level.thinking_tokens,
        published=is_published(outcome),
        since=rfc3339(effort.since),
        because=effort.because,
        classes=_class_levels(outcome, effort),
    )


def _class_levels(outcome: Outcome, effort: Effort) -> tuple[ClassEffortStatus, ...] | None:
    spec = outcome.view.record.spec
    if not effort.classes or spec is None or spec.effort is None:
        return None
    names = [level.name for level in spec.effort.levels]
    last = len(names) - 1
    return tuple(ClassEffortStatus(name=name, level=names[min(at, last)]) for name, at in effort.classes.items())


def effort_reduced(outcome: Outcome) -> ConditionValue:
    """Whether requests are to think less than usual."""
    effort = outcome.decision.effort if outcome.decision is not None else None
    if effort is None:
        return ConditionValue("EffortReduced", ConditionStatus.FALSE, "EffortDisabled", "there are no levels of effort")
    if effort.lowest == 0:
        message = f"requests think as usual: {effort.because}"
        return ConditionValue("EffortReduced", ConditionStatus.FALSE, "UsualEffort", message)
    reason = "LessThinking" if is_published(outcome) else "LessThinkingRecommended"
    tokens = effort.level.thinking_tokens
    limit = "" if tokens is None else f", at most {tokens:,} reasoning tokens"
    apart = [each for each in _class_levels(outcome, effort) or () if each.level != effort.level.name]
    others = f" ({', '.join(f'{each.name}: {each.level}' for each in apart)})" if apart else ""
    message = f"level {effort.level.name}{limit}{others}, since {rfc3339(effort.since)}: {effort.because}"
    return ConditionValue("EffortReduced", ConditionStatus.TRUE, reason, message)
