"""CapacityPending: replicas that were asked for and are not coming, in the words of whoever refuses them."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from longtail.api.status import ConditionStatus
from longtail.cluster.status import ConditionValue
from longtail.control.outcome import Outcome
from longtail.policy.decision import ShortageReason


def capacity_pending(outcome: Outcome) -> ConditionValue:
    """True as soon as the first of them is refused; the message says since when, and whether asking has stopped."""
    view, decision = outcome.view, outcome.decision
    if view.target is None:
        return ConditionValue("CapacityPending", ConditionStatus.UNKNOWN, "TargetUnavailable", "no pods are known")
    refused = list(_refused(outcome))
    shortage = decision.shortage if decision is not None else None
    if shortage is not None:
        message = f"no more replicas are asked for: {shortage.reason} since {_time(shortage.since)}: {shortage.message}"
        return ConditionValue("CapacityPending", ConditionStatus.TRUE, shortage.reason, message)
    if refused:
        (reason, message), count = Counter((reason, said) for reason, said, _ in refused).most_common(1)[0]
        since = min(at for _, _, at in refused)
        pods = "1 replica" if count == 1 else f"{count} replicas"
        told = f"{pods}, the first asked for at {_time(since)}: {message}" if since else message
        return ConditionValue("CapacityPending", ConditionStatus.TRUE, reason, told)
    loading = sum(not pod.pod.ready and not pod.pod.deleting for pod in view.pods)
    if loading:
        return ConditionValue("CapacityPending", ConditionStatus.FALSE, "Starting", f"{loading} replicas are starting")
    return ConditionValue("CapacityPending", ConditionStatus.FALSE, "NothingPending", "all replicas are there")


def _refused(outcome: Outcome) -> Iterator[tuple[ShortageReason, str, float]]:
    target = outcome.view.target
    assert target is not None
    pods = [record.pod for record in outcome.view.pods if not record.pod.deleting and not record.pod.ready]
    if target.refused_message and len(outcome.view.pods) < target.replicas:
        yield ShortageReason.FAILED_CREATE, target.refused_message, 0.0
    for pod in pods:
        if pod.unschedulable_message:
            yield ShortageReason.UNSCHEDULABLE, pod.unschedulable_message, pod.created_at
        elif pod.failure_message:
            yield ShortageReason.CONTAINER_NOT_STARTING, pod.failure_message, pod.created_at


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, tz=UTC):%Y-%m-%dT%H:%M:%SZ}"
