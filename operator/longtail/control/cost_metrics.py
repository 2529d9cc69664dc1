"""GPU time and money as Prometheus counters, from the last tick's outcomes.

Counters grow on the leader alone (see `accounts`), so here ``sum by (namespace, name)`` over all operators is right,
where the gauges of `fleet_metrics` want ``max``. The gauges of this module are the same on each: ``max`` too.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from longtail.control.costs import Cost
from longtail.control.outcome import Outcome
from longtail.policy.accounting import PHASES, Account

_LABELS: Final = ("namespace", "name")


@dataclass(frozen=True, slots=True)
class _Sum:
    name: str
    help: str
    of: Callable[[Account], float | None]
    """None where nothing of it has been counted."""


_SUMS: Final = (
    _Sum(
        "longtail_gpu_idle_seconds",
        "GPU-seconds of ready replicas in which no kernel ran, where DCGM is read.",
        lambda counted: counted.idle if counted.watched else None,
    ),
    _Sum(
        "longtail_answered_requests",
        "Requests that the engines have answered.",
        lambda counted: counted.answered_requests if counted.answered_over else None,
    ),
    _Sum(
        "longtail_output_tokens",
        "Output tokens that the engines have written, reasoning included.",
        lambda counted: counted.output_tokens if counted.output_over else None,
    ),
    _Sum(
        "longtail_reasoning_tokens",
        "The part of them that is reasoning, where a gateway tells it.",
        lambda counted: counted.reasoning_tokens if counted.told_tokens else None,
    ),
)


def cost_families(outcomes: Collection[Outcome]) -> Iterator[Metric]:
    """Return GPU time by phase, its price and its product. A service whose GPUs are not known has no series."""
    known = [(outcome, outcome.cost) for outcome in outcomes if outcome.cost is not None]
    yield _gpus(known)
    yield _gpu_seconds(known)
    for each in _SUMS:
        family = CounterMetricFamily(each.name, each.help, labels=_LABELS)
        for outcome, cost in known:
            value = each.of(cost.counted)
            if value is not None:
                family.add_metric(outcome.view.record.key, value)
        yield family
    yield _hourly(known)
    yield _cost(known)
    yield _prices(known)


def _gpus(known: Iterable[tuple[Outcome, Cost]]) -> Metric:
    family = GaugeMetricFamily("longtail_gpus", "GPUs that the pods hold.", labels=(*_LABELS, "gpu_class"))
    for outcome, cost in known:
        family.add_metric((*outcome.view.record.key, cost.gpus.gpu_class), cost.held_gpus)
    return family


def _gpu_seconds(known: Iterable[tuple[Outcome, Cost]]) -> Metric:
    family = CounterMetricFamily(
        "longtail_gpu_seconds",
        f"GPU-seconds by phase ({', '.join(PHASES)}); counted by the leader.",
        labels=(*_LABELS, "gpu_class", "phase"),
    )
    for outcome, cost in known:
        for phase, gpu_seconds in zip(PHASES, cost.counted.by_phase, strict=True):
            family.add_metric((*outcome.view.record.key, cost.gpus.gpu_class, phase), gpu_seconds)
    return family


def _cost(known: Iterable[tuple[Outcome, Cost]]) -> Metric:
    family = CounterMetricFamily(
        "longtail_cost",
        "Cost of these GPU-seconds in the currency of the label, each at the price of its time.",
        labels=(*_LABELS, "gpu_class", "phase", "currency"),
    )
    for outcome, cost in known:
        if cost.price is None:
            continue
        for phase, amount in zip(PHASES, cost.amounts, strict=True):
            family.add_metric((*outcome.view.record.key, cost.gpus.gpu_class, phase, cost.price.currency), amount)
    return family


def _hourly(known: Iterable[tuple[Outcome, Cost]]) -> Metric:
    family = GaugeMetricFamily(
        "longtail_hourly_cost",
        "What the GPUs that the pods hold cost in an hour.",
        labels=(*_LABELS, "gpu_class", "currency"),
    )
    for outcome, cost in known:
        if cost.price is not None and cost.hourly_amount is not None:
            labels = (*outcome.view.record.key, cost.gpus.gpu_class, cost.price.currency)
            family.add_metric(labels, float(cost.hourly_amount))
    return family


def _prices(known: Iterable[tuple[Outcome, Cost]]) -> Metric:
    family = GaugeMetricFamily(
        "longtail_gpu_hourly_cost", "Price of one GPU for one hour.", labels=("gpu_class", "currency")
    )
    prices = {(cost.gpus.gpu_class, cost.price.currency): cost.price.amount for _, cost in known if cost.price}
    for labels, amount in sorted(prices.items()):
        family.add_metric(labels, float(amount))
    return family
