"""From an outcome to ``status``: rounded, so that only news differs from what was written before."""

from collections.abc import Sequence

from longtail.api.status import (
    CapacityStatus,
    Condition,
    DecisionStatus,
    DemandStatus,
    LadderStepStatus,
    LengthChangeStatus,
    LengthsStatus,
    ReasoningServingStatus,
    ReplicasStatus,
    StartupStatus,
)
from longtail.cluster.status import quantise
from longtail.control.classes import class_status
from longtail.control.clock import rfc3339
from longtail.control.cost_status import cost_status
from longtail.control.lengths_changed import HOURS_A_DAY
from longtail.control.outcome import Outcome
from longtail.control.thinking import effort_status
from longtail.demand.estimate import Demand, LengthChange
from longtail.demand.observation import Observation
from longtail.policy.decision import Decision

_TEXT_LENGTH = 1024
_LADDER_LENGTH = 16


def build_status(
    outcome: Outcome,
    *,
    conditions: Sequence[Condition],
    previous: ReasoningServingStatus | None,
    time: str,
) -> ReasoningServingStatus:
    """Return the status of one service.

    Args:
        outcome: the tick's.
        conditions: stamped with their times.
        previous: as written last; what has not changed keeps its times.
        time: now, RFC 3339.
    """
    decision, observation = outcome.decision, outcome.observation
    demand = decision.demand if decision is not None else None
    scaled_before = previous.last_scale_time if previous else outcome.view.record.last_scale_time
    return ReasoningServingStatus(
        observed_generation=outcome.view.record.generation,
        conditions=tuple(conditions),
        summary=_summary(observation, demand),
        replicas=_replicas(outcome, decision),
        demand=_demand(observation, demand),
        lengths=_lengths(demand),
        startup=_startup(demand),
        capacity=_capacity(demand),
        classes=class_status(outcome),
        effort=effort_status(outcome),
        cost=cost_status(outcome.cost),
        decision=_decision(decision, previous=previous, time=time),
        last_scale_time=time if outcome.rescaled else scaled_before,
    )


def _replicas(outcome: Outcome, decision: Decision | None) -> ReplicasStatus | None:
    target = outcome.view.target
    if target is None or decision is None:
        return None
    pods = [record.pod for record in outcome.view.pods if not record.pod.deleting]
    return ReplicasStatus(
        current=decision.current,
        ready=sum(pod.ready and not pod.cordoned and not pod.isolated for pod in pods),
        pending=sum(not pod.ready and not pod.cordoned and not pod.isolated for pod in pods),
        draining=sum(pod.cordoned for pod in pods),
        desired=decision.desired,
    )


def _demand(observation: Observation | None, demand: Demand | None) -> DemandStatus | None:
    if observation is None:
        return None
    attainment = demand.attainment if demand else None
    coverage = demand.coverage if demand else None
    return DemandStatus(
        running_requests=quantise(observation.running_requests.value),
        waiting_requests=quantise(observation.waiting_everywhere.value),
        queued_reasoning_tokens=quantise(demand.queued_reasoning_tokens) if demand else None,
        owed_tokens=quantise(demand.owed_tokens) if demand else None,
        slots_now=quantise(demand.slots_now) if demand else None,
        kv_now_tokens=quantise(demand.kv_now_tokens) if demand else None,
        slots_forecast=quantise(demand.slots_forecast) if demand else None,
        slots_upper=quantise(demand.slots_upper) if demand else None,
        known_percent=observation.known_percent,
        coverage_percent=None if coverage is None else int(100 * coverage),
        attainment_percent=None if attainment is None else int(100 * attainment),
    )


def _lengths(demand: Demand | None) -> LengthsStatus | None:
    if demand is None:
        return None
    lengths = demand.lengths
    return LengthsStatus(
        mean_tokens=quantise(lengths.mean_tokens) or 0,
        p50_tokens=quantise(lengths.p50_tokens) or 0,
        p99_tokens=quantise(lengths.p99_tokens) or 0,
        tail_percent=round(100 * lengths.tail_share),
        change=_length_change(lengths.change),
    )


def _length_change(change: LengthChange | None) -> LengthChangeStatus | None:
    if change is None:
        return None
    return LengthChangeStatus(
        since=rfc3339(change.since),
        percent=quantise(100 * change.factor) or 0,
        before_tokens=quantise(change.before_tokens) or 0,
        replica_hours_per_day=quantise(HOURS_A_DAY * change.replicas) or 0,
    )


def _startup(demand: Demand | None) -> StartupStatus | None:
    if demand is None:
        return None
    return StartupStatus(
        p50_seconds=quantise(demand.startup.p50_seconds) or 0,
        p90_seconds=quantise(demand.startup.p90_seconds) or 0,
    )


def _capacity(demand: Demand | None) -> CapacityStatus | None:
    if demand is None:
        return None
    capacity = demand.capacity
    return CapacityStatus(
        slots_per_replica=quantise(capacity.slots_per_replica) or 0,
        kv_tokens_per_replica=quantise(capacity.kv_tokens_per_replica),
        bound_by=capacity.bound_by,
    )


def _decision(
    decision: Decision | None, *, previous: ReasoningServingStatus | None, time: str
) -> DecisionStatus | None:
    if decision is None:
        return None
    before = previous.decision if previous else None
    desired_before = previous.replicas.desired if previous and previous.replicas else None
    unchanged = before is not None and (before.reason, desired_before) == (decision.reason, decision.desired)
    return DecisionStatus(
        reason=decision.reason,
        message=decision.message[:_TEXT_LENGTH],
        ladder=tuple(
            LadderStepStatus(rung=step.rung, replicas=step.replicas, because=step.because[:_TEXT_LENGTH])
            for step in decision.ladder[:_LADDER_LENGTH]
        ),
        # Since when, not "as of": else every tick's decision would differ from the one before.
        time=before.time if before is not None and unchanged else time,
    )


def _summary(observation: Observation | None, demand: Demand | None) -> str | None:
    """Say the load in a few words: ``96 running, 12 waiting, 210000 tokens owed``."""
    if observation is None:
        return None
    figures = (
        ("running", observation.running_requests.value),
        ("waiting", observation.waiting_everywhere.value),
        ("tokens owed", demand.owed_tokens if demand else None),
    )
    return ", ".join(f"{'?' if value is None else quantise(value)} {what}" for what, value in figures)
