"""What is true of a service, as conditions: HPA's three with HPA's meanings and words, and some of our own.

================  ==========================================================================================
Ready             everything works: the summary that ``kubectl wait`` and dashboards look at
AbleToScale       the target can be read and written (HPA)
ScalingActive     a number can be computed (HPA)
ScalingLimited    a limit keeps the number from being what was computed (HPA)
MetricsAvailable  the engines are seen: fresh and from every pod that should report
Conflict          somebody else scales the same target: we hold, or leave each of their numbers for a grace
CapacityPending   replicas that were asked for are not coming, and why
TimeoutCascade    answers come too late and are asked for again: since when, how many, what would help
DrainReady        replicas can leave without cutting a request short, and be called back; else what to add
EffortReduced     requests are to think less than usual, until replicas come
LengthsChanged    answers have become longer or shorter, and what that costs
================  ==========================================================================================

Reasons are stable: alerts may compare them. Every condition is set from the first visit on, ``Unknown`` where
nothing can be said.
"""

from longtail.api.status import ConditionStatus
from longtail.cluster.evidence import PAUSE_ANNOTATION
from longtail.cluster.marks import DELETION_COST
from longtail.cluster.routing import cost_owners
from longtail.cluster.status import ConditionValue
from longtail.control.capacity import capacity_pending
from longtail.control.cascade import timeout_cascade
from longtail.control.fleet import victim_order
from longtail.control.lengths_changed import lengths_changed
from longtail.control.outcome import Outcome
from longtail.control.thinking import effort_reduced
from longtail.demand.observation import Quality, worst
from longtail.errors import SpecError
from longtail.policy.decision import Decision, Reason
from longtail.policy.fleet import DrainPolicy, Mode, VictimOrder

_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
_STABILIZED = frozenset({Reason.SCALE_UP_STABILIZED, Reason.SCALE_DOWN_STABILIZED})
_BLIND = frozenset({Reason.METRICS_MISSING, Reason.METRICS_STALE, Reason.METRICS_PARTIAL})


def conditions(outcome: Outcome) -> tuple[ConditionValue, ...]:
    """Return all conditions of a service, Ready first."""
    rest = (
        _able_to_scale(outcome),
        _scaling_active(outcome),
        _scaling_limited(outcome),
        _metrics_available(outcome),
        _conflict(outcome),
        capacity_pending(outcome),
        timeout_cascade(outcome),
        _drain_ready(outcome),
        effort_reduced(outcome),
        lengths_changed(outcome),
    )
    return (_ready(outcome, rest), *rest)


def _ready(outcome: Outcome, rest: tuple[ConditionValue, ...]) -> ConditionValue:
    view = outcome.view
    if view.problem is not None:
        return ConditionValue("Ready", _FALSE, view.problem.reason, view.problem.message)
    if _is_off(outcome):
        return ConditionValue("Ready", _TRUE, "ScalingDisabled", "mode is Off: nothing is read and nothing is done")
    if view.conflict is not None:
        return ConditionValue("Ready", _FALSE, view.conflict.reason, view.conflict.message)
    if view.record.paused:
        return ConditionValue("Ready", _TRUE, "Paused", f"annotation {PAUSE_ANNOTATION}: nothing is written")
    by_type = {condition.type: condition for condition in rest}
    for needed in ("AbleToScale", "MetricsAvailable", "ScalingActive"):
        condition = by_type[needed]
        if condition.status is not _TRUE:
            return ConditionValue("Ready", condition.status, condition.reason, condition.message)
    assert view.record.spec is not None
    words = "the target is scaled" if view.record.spec.mode is Mode.ACTIVE else "the number is published, not written"
    return ConditionValue("Ready", _TRUE, "Ready", words)


def _able_to_scale(outcome: Outcome) -> ConditionValue:
    view, decision = outcome.view, outcome.decision
    if view.problem is not None:
        if view.problem.reason == "InvalidSpec":
            return ConditionValue("AbleToScale", _UNKNOWN, "InvalidSpec", view.problem.message)
        return ConditionValue("AbleToScale", _FALSE, "FailedGetScale", view.problem.message)
    if outcome.scale_error is not None:
        return ConditionValue("AbleToScale", _FALSE, "FailedUpdateScale", str(outcome.scale_error))
    if outcome.rescaled and decision is not None:
        message = f"the target was asked for {outcome.asked} replicas"
        return ConditionValue("AbleToScale", _TRUE, "SucceededRescale", message)
    if decision is not None and decision.reason in _STABILIZED:
        return ConditionValue("AbleToScale", _TRUE, decision.reason, decision.message)
    return ConditionValue("AbleToScale", _TRUE, "ReadyForNewScale", "the target can be read")


def _scaling_active(outcome: Outcome) -> ConditionValue:
    view, decision = outcome.view, outcome.decision
    if view.problem is not None:
        return ConditionValue("ScalingActive", _FALSE, view.problem.reason, view.problem.message)
    if _is_off(outcome):
        return ConditionValue("ScalingActive", _FALSE, "ScalingDisabled", "mode is Off")
    if decision is None:
        return ConditionValue("ScalingActive", _UNKNOWN, "NotDecidedYet", "no decision has been made yet")
    if view.record.paused:
        return ConditionValue("ScalingActive", _FALSE, "Paused", f"annotation {PAUSE_ANNOTATION}: nothing is written")
    return _number_active(decision)


def _number_active(decision: Decision) -> ConditionValue:
    if decision.reason is Reason.ACTIVATION_MISSING:
        return ConditionValue("ScalingActive", _FALSE, decision.reason, decision.message)
    if decision.hold and decision.reason in _BLIND:
        # HPA's word for "the metrics do not allow a number".
        return ConditionValue("ScalingActive", _FALSE, "FailedGetExternalMetric", decision.message)
    return ConditionValue("ScalingActive", _TRUE, "ValidMetricFound", "a number can be computed")


def _scaling_limited(outcome: Outcome) -> ConditionValue:
    decision = outcome.decision
    if decision is None or outcome.view.problem is not None or decision.hold:
        return ConditionValue("ScalingLimited", _UNKNOWN, "NotDecided", "there is no number to limit")
    if decision.limited_by is None:
        return ConditionValue("ScalingLimited", _FALSE, Reason.DESIRED_WITHIN_RANGE, "the number is within its limits")
    return ConditionValue("ScalingLimited", _TRUE, decision.limited_by, decision.message)


def _metrics_available(outcome: Outcome) -> ConditionValue:
    observation, error = outcome.observation, outcome.metrics_error
    if outcome.view.problem is not None or _is_off(outcome):
        reason = "ScalingDisabled" if _is_off(outcome) else "TargetUnavailable"
        return ConditionValue("MetricsAvailable", _UNKNOWN, reason, "nothing was read")
    if isinstance(error, SpecError):
        return ConditionValue("MetricsAvailable", _FALSE, "UnknownMetricsSource", str(error))
    if observation is None:
        return ConditionValue("MetricsAvailable", _UNKNOWN, "NotReadYet", "nothing has been read yet")
    quality = worst(observation.running_requests.quality, observation.waiting_requests.quality)
    seen = f"{observation.reporting_pods} of {observation.ready_pods} ready pods report"
    message = f"{seen}; {error}" if error is not None else seen
    if quality is Quality.FRESH:
        return ConditionValue("MetricsAvailable", _TRUE, "MetricsFresh", message)
    return ConditionValue("MetricsAvailable", _FALSE, f"Metrics{quality}", message)


def _conflict(outcome: Outcome) -> ConditionValue:
    conflict, decision = outcome.view.conflict, outcome.decision
    if conflict is None and decision is not None and decision.contested_by:
        message = (
            f"{decision.contested_by} keeps setting the target's replicas: each of its numbers stands for "
            "manualScalingGraceSeconds; take spec.replicas out of what it applies, or use mode Advise"
        )
        return ConditionValue("Conflict", _TRUE, "ReplicasContested", message)
    if conflict is None:
        return ConditionValue("Conflict", _FALSE, "NoConflict", "nobody else scales the target")
    return ConditionValue("Conflict", _TRUE, conflict.reason, conflict.message)


def _drain_ready(outcome: Outcome) -> ConditionValue:
    view, decision = outcome.view, outcome.decision
    if view.problem is not None or view.routing is None or view.record.spec is None:
        return ConditionValue("DrainReady", _UNKNOWN, "TargetUnavailable", "the target cannot be read")
    if view.record.spec.drain.policy is DrainPolicy.IMMEDIATE:
        message = "drain.policy is Immediate: replicas are deleted at once, and what they work on is lost"
        return ConditionValue("DrainReady", _FALSE, "PolicyImmediate", message)
    if victim_order(view) is VictimOrder.UNKNOWN:
        message = "nobody can say which pod the target's controller deletes: it shrinks only when all are idle"
        return ConditionValue("DrainReady", _FALSE, "VictimUnknown", message)
    placement = decision.placement if decision is not None else None
    owners = cost_owners(view.pods, commit=placement.commit if placement is not None else ())
    if owners:
        message = (
            f"{DELETION_COST} of {owners[0]} was set by somebody else: remove the annotation, "
            "else nobody can say which pod would be deleted"
        )
        return ConditionValue("DrainReady", _FALSE, "DeletionCostOwned", message)
    problem = view.routing.problem
    if problem is not None:
        status = _UNKNOWN if problem.reason == "NoPods" else _FALSE
        return ConditionValue("DrainReady", status, problem.reason, problem.message)
    reason = "ReadinessGate" if view.routing.by_gate else "RoutingLabel"
    return ConditionValue("DrainReady", _TRUE, reason, view.routing.message)


def _is_off(outcome: Outcome) -> bool:
    spec = outcome.view.record.spec
    return spec is not None and spec.mode is Mode.OFF
