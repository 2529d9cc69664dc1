"""GPU budgets as gauges: how many GPUs each allows, and how many of them are held.

Made from the last tick's fleet when somebody scrapes, as the figures of services are (see `fleet_metrics`).
"""

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from longtail.policy.budget import held_gpus
from longtail.policy.fleet import Fleet

_LABELS: Final = ("class", "namespace")


class BudgetCollector:
    """Collects the gauges; without a budget there is none."""

    def __init__(self, *, fleet: Callable[[], Fleet]) -> None:
        self._fleet = fleet

    def collect(self) -> Iterable[Metric]:
        """Yield what is allowed and what is held."""
        allowed = GaugeMetricFamily(
            "longtail_gpu_budget_gpus", "GPUs of a class that services may take together.", labels=_LABELS
        )
        held = GaugeMetricFamily(
            "longtail_gpu_budget_held_gpus",
            "Of these, GPUs of replicas that are asked for or not gone yet.",
            labels=_LABELS,
        )
        for budget, gpus in held_gpus(self._fleet()):
            labels = (budget.gpu_class, budget.namespace or "")
            allowed.add_metric(labels, budget.gpus)
            held.add_metric(labels, gpus)
        yield allowed
        yield held
