"""What the operator tells Prometheus about itself, in a registry of its own.

Fleet figures are not gauges that are set and have to be unset: they are collected from the last tick's
outcomes when somebody scrapes, so a deleted resource is gone from them at once. An HPA or KEDA may act on
``longtail_desired_replicas``: it is published for every resource that has a number, Advise or Active.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from longtail.cluster.kinds import WATCHED
from longtail.cluster.store import Store
from longtail.control.classes import class_families
from longtail.control.clock import Clock
from longtail.control.cost_metrics import cost_families
from longtail.control.fleet_metrics import fleet_families
from longtail.control.outcome import Outcome

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)


class OperatorMetrics:
    """Counters and histograms that the operator's parts feed."""

    def __init__(self, *, clock: Clock) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._lag = Histogram(
            "longtail_tick_lag_seconds",
            "How late a tick started.",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._step = Histogram(
            "longtail_tick_step_seconds",
            "Duration of each step of a tick; step is one of refresh, freeze, read, decide, account, scale, report.",
            ["step"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._ticks = Counter(
            "longtail_ticks",
            "Ticks by how they ended: done, cut (the deadline cut its writes short) or failed.",
            ["result"],
            registry=self.registry,
        )
        self._api = Counter(
            "longtail_kubernetes_requests",
            "Requests to the Kubernetes API, by method and status code; code 0: no answer.",
            ["method", "code"],
            registry=self.registry,
        )
        self._queries = Counter(
            "longtail_metrics_query_failures",
            "Queries to a metrics source that had no usable answer.",
            ["source", "query"],
            registry=self.registry,
        )
        self._decisions = Counter(
            "longtail_decisions", "Decisions by their reason.", ["reason"], registry=self.registry
        )
        self._pods = Counter(
            "longtail_pod_changes",
            "Pods taken out of routing (cordon), put back (uncordon), and deleted by lowering replicas (commit).",
            ["change"],
            registry=self.registry,
        )
        self._ghosts = Counter(
            "longtail_ghosts",
            "Records of vanished objects that a sweep found, by kind.",
            ["kind"],
            registry=self.registry,
        )
        self._backfill = Gauge(
            "longtail_backfill_ratio",
            "Share of the past that has been replayed from the metrics sources since the start; 1 when done.",
            registry=self.registry,
        )
        self._last_tick = Gauge(
            "longtail_last_tick_timestamp_seconds",
            "When the last tick ended.",
            registry=self.registry,
        )

    def leads(self, may_write: Callable[[], bool]) -> None:
        """Publish whether we lead; asked by each scrape, for a leadership may end without anybody's doing."""
        gauge = Gauge(
            "longtail_leader",
            "Whether this operator writes: 1 for the leader, 0 for a standby.",
            registry=self.registry,
        )
        gauge.set_function(may_write)

    def backfilled(self, share: float) -> None:
        """Tell how much of the past has been replayed, 0..1."""
        self._backfill.set(share)

    def tick_lag(self, seconds: float) -> None:
        """Tell how late a tick started."""
        self._lag.observe(seconds)

    def tick_failed(self) -> None:
        """Tell that a tick raised an error."""
        self._ticks.labels(result="failed").inc()

    def tick_ended(self, *, cut: bool) -> None:
        """Tell that a tick ended, and whether its deadline cut it short."""
        self._ticks.labels(result="cut" if cut else "done").inc()
        self._last_tick.set(self._clock.unix_seconds())

    def api_response(self, method: str, code: int) -> None:
        """Tell that the API server answered; 0 means that it did not."""
        self._api.labels(method=method, code=str(code)).inc()

    def query_failed(self, *, source: str, query: str) -> None:
        """Tell that a query had no usable answer."""
        self._queries.labels(source=source, query=query or "all").inc()

    def decided(self, reason: str) -> None:
        """Tell the reason of a decision."""
        self._decisions.labels(reason=reason).inc()

    def placed(self, outcome: Outcome) -> None:
        """Tell what was done to the pods of a service."""
        for change, pods in (
            ("cordon", outcome.cordoned),
            ("uncordon", outcome.uncordoned),
            ("commit", outcome.drained),
        ):
            if pods:
                self._pods.labels(change=change).inc(len(pods))

    def ghosts_found(self, *, kind: str, count: int) -> None:
        """Tell how many records a sweep dropped."""
        self._ghosts.labels(kind=kind).inc(count)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step of a tick."""
        start = self._clock.monotonic_seconds()
        try:
            yield
        finally:
            self._step.labels(step=name).observe(self._clock.monotonic_seconds() - start)

    def text(self) -> bytes:
        """Return everything as Prometheus reads it."""
        return generate_latest(self.registry)


class FleetCollector(Collector):
    """Figures of every service, from the last tick, and the sizes of the store."""

    def __init__(self, *, outcomes: Callable[[], Collection[Outcome]], store: Store) -> None:
        self._outcomes = outcomes
        self._store = store

    def collect(self) -> Iterable[Metric]:
        """Return the families; called by a scrape."""
        size = GaugeMetricFamily("longtail_store_objects", "Objects in the store, by kind.", labels=["kind"])
        for kind in WATCHED:
            size.add_metric([kind.kind], self._store.size(kind))
        yield size
        yield from fleet_families(self._outcomes())
        yield from cost_families(self._outcomes())
        yield from class_families(self._outcomes())
