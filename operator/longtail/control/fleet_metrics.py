"""The figures of every service as gauges: what `status` says, unrounded, for dashboards and alerts.

They are made from the last tick's outcomes when somebody scrapes. A figure that is not known has no series: an
alert on a 0 that nobody measured would be a lie. Every replica of the operator publishes them, for a standby decides
too: aggregate with ``max by (namespace, name)``.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from longtail.api.status import ConditionStatus
from longtail.control.conditions import conditions
from longtail.control.outcome import Outcome
from longtail.demand.estimate import Demand, LengthChange
from longtail.demand.observation import Observation
from longtail.policy.decision import Decision, Rung
from longtail.policy.fleet import Mode

_LABELS: Final = ("namespace", "name")
_FEARED: Final = frozenset(
    {"ScalingLimited", "Conflict", "CapacityPending", "TimeoutCascade", "EffortReduced", "LengthsChanged"}
)
"""Conditions that are well when False; all others are well when True."""


@dataclass(frozen=True, slots=True)
class _Figure:
    name: str
    help: str
    of: Callable[[Outcome, Decision], float | None]


def _demand(read: Callable[[Demand], float | None]) -> Callable[[Outcome, Decision], float | None]:
    return lambda _, decision: None if decision.demand is None else read(decision.demand)


def _seen(read: Callable[[Observation], float | None]) -> Callable[[Outcome, Decision], float | None]:
    return lambda outcome, _: None if outcome.observation is None else read(outcome.observation)


def _change(read: Callable[[LengthChange], float]) -> Callable[[Outcome, Decision], float | None]:
    return _demand(lambda demand: None if demand.lengths.change is None else read(demand.lengths.change))


def _limit(name: str) -> Callable[[Outcome, Decision], float | None]:
    return lambda outcome, _: float(getattr(outcome.view.record.spec, name))


def _serving(*, ready: bool) -> Callable[[Outcome, Decision], float]:
    def count(outcome: Outcome, _: Decision) -> float:
        pods = (record.pod for record in outcome.view.pods)
        return sum(not (pod.deleting or pod.cordoned or pod.isolated) and pod.ready is ready for pod in pods)

    return count


def _draining(outcome: Outcome, _: Decision) -> float:
    return sum(record.pod.cordoned and not record.pod.deleting for record in outcome.view.pods)


def _effort_level(_: Outcome, decision: Decision) -> float | None:
    return None if decision.effort is None else float(decision.effort.index)


def _thinking_tokens(_: Outcome, decision: Decision) -> float | None:
    return None if decision.effort is None else decision.effort.level.thinking_tokens


def _fallback(_: Outcome, decision: Decision) -> float:
    return float(any(step.rung is Rung.FALLBACK for step in decision.ladder))


_FIGURES: Final = (
    _Figure("longtail_desired_replicas", "Replicas that the target should ask for.", lambda _, d: d.desired),
    _Figure(
        "longtail_current_replicas",
        "Replicas that the target asks for, less those that are draining.",
        lambda _, decision: decision.current,
    ),
    _Figure("longtail_min_replicas", "spec.minReplicas.", _limit("min_replicas")),
    _Figure("longtail_max_replicas", "spec.maxReplicas.", _limit("max_replicas")),
    _Figure("longtail_ready_replicas", "Replicas that get requests.", _serving(ready=True)),
    _Figure("longtail_pending_replicas", "Replicas that wait for a node, load or crash.", _serving(ready=False)),
    _Figure("longtail_draining_replicas", "Replicas out of routing that finish what they have.", _draining),
    _Figure(
        "longtail_supply_short",
        "1 while more replicas are needed than the cluster gives.",
        lambda _, decision: float(decision.supply_short),
    ),
    _Figure(
        "longtail_timeout_cascade",
        "1 while answers come too late and are asked for again.",
        _demand(lambda demand: float(demand.cascade is not None)),
    ),
    _Figure("longtail_fallback_active", "1 while spec.fallback decides, for want of metrics.", _fallback),
    _Figure(
        "longtail_effort_level", "Index of the level of effort in spec.effort.levels; 0 is the usual.", _effort_level
    ),
    _Figure(
        "longtail_effort_thinking_tokens",
        "Most reasoning tokens of a request at that level; no series where there is no limit.",
        _thinking_tokens,
    ),
    _Figure("longtail_running_requests", "Requests that hold a slot.", _seen(lambda o: o.running_requests.value)),
    _Figure(
        "longtail_waiting_requests",
        "Requests that wait for a slot, in the engines and at the gateway.",
        _seen(lambda o: o.waiting_everywhere.value),
    ),
    _Figure("longtail_kv_used_tokens", "Tokens in the KV caches.", _seen(lambda o: o.kv_used_tokens.value)),
    _Figure(
        "longtail_kv_capacity_tokens", "Tokens the KV caches can hold.", _seen(lambda o: o.kv_capacity_tokens.value)
    ),
    _Figure("longtail_metrics_known_percent", "Share of the ready pods that report.", _seen(lambda o: o.known_percent)),
    _Figure(
        "longtail_owed_tokens",
        "Output tokens still to be written for the requests at hand.",
        _demand(lambda demand: demand.owed_tokens),
    ),
    _Figure(
        "longtail_demand_slots",
        "Slots that the requests at hand need at the promised pace.",
        _demand(lambda demand: demand.slots_now),
    ),
    _Figure(
        "longtail_demand_slots_forecast",
        "Slots expected to be needed one cold start ahead.",
        _demand(lambda demand: demand.slots_forecast),
    ),
    _Figure(
        "longtail_demand_slots_upper",
        "Calibrated quantile of the slots needed one cold start ahead.",
        _demand(lambda demand: demand.slots_upper),
    ),
    _Figure("longtail_forecast_quantile", "Level of that quantile, 0 to 1.", _demand(lambda demand: demand.quantile)),
    _Figure(
        "longtail_forecast_coverage_ratio",
        "Share of past quantiles that held, 0 to 1.",
        _demand(lambda demand: demand.coverage),
    ),
    _Figure(
        "longtail_attainment_ratio",
        "Share of requests that waited at most spec.objective.queueWaitSeconds, 0 to 1.",
        _demand(lambda demand: demand.attainment),
    ),
    _Figure(
        "longtail_output_length_mean_tokens",
        "Estimated mean length of an answer, reasoning included.",
        _demand(lambda demand: demand.lengths.mean_tokens),
    ),
    _Figure(
        "longtail_output_length_p99_tokens",
        "Estimated 99th percentile of the length of an answer.",
        _demand(lambda demand: demand.lengths.p99_tokens),
    ),
    _Figure(
        "longtail_output_length_change_ratio",
        "Mean length of an answer over that before its last change; no series while lengths are steady.",
        _change(lambda change: change.factor),
    ),
    _Figure(
        "longtail_output_length_change_replicas",
        "Replicas that this change takes more at the present rate; below 0: less.",
        _change(lambda change: change.replicas),
    ),
    _Figure(
        "longtail_cold_start_p90_seconds",
        "90th percentile of the time from asking for a replica to its first request.",
        _demand(lambda demand: demand.startup.p90_seconds),
    ),
)


def fleet_families(outcomes: Collection[Outcome]) -> Iterable[Metric]:
    """Return one family per figure, and one of the conditions that are not as they should be."""
    decided = [(outcome, outcome.decision) for outcome in outcomes if _has_a_number(outcome)]
    for figure in _FIGURES:
        family = GaugeMetricFamily(figure.name, figure.help, labels=_LABELS)
        for outcome, decision in decided:
            assert decision is not None
            value = figure.of(outcome, decision)
            if value is not None:
                family.add_metric(outcome.view.record.key, value)
        yield family
    yield _conditions(outcomes)


def _has_a_number(outcome: Outcome) -> bool:
    spec = outcome.view.record.spec
    return (
        spec is not None
        and spec.mode is not Mode.OFF
        and outcome.decision is not None
        and outcome.view.target is not None
    )


def _conditions(outcomes: Collection[Outcome]) -> Metric:
    # The healthy ones, nine for each service, would be most of all series, and nobody asks for them.
    family = GaugeMetricFamily(
        "longtail_status_condition",
        "1 for each condition that says something is wrong; a healthy service has no such series.",
        labels=(*_LABELS, "type", "reason"),
    )
    for outcome in outcomes:
        for condition in conditions(outcome):
            wrong = ConditionStatus.TRUE if condition.type in _FEARED else ConditionStatus.FALSE
            if condition.status is wrong and condition.reason != "ScalingDisabled":
                family.add_metric([*outcome.view.record.key, condition.type, condition.reason], 1.0)
    return family
