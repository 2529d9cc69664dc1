"""The composition root: every part is made here, and started and stopped in this order.

Start: logs, settings and sources (a wrong one ends the start with a message), connection to the API server,
health server, fleet loop and sweep (they wait for the first complete lists), kopf with its watches. Only who has
listed the cluster stands for election: a leader that knows nothing would keep one from leading that does.

Stop (SIGTERM, SIGINT, or kopf's own end): kopf closes its watches; its cleanup handler ends loop and sweep, and
gives the Lease back; then the metrics' threads, the health server and the API connection go.

Why this order: at its end kopf cancels *every* asyncio task that was started after it, and it takes over
the signal handlers of the process. So whatever has to outlive or precede its shutdown is started before it,
and kopf's return is our shutdown signal.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

import kopf

from longtail.cluster.client import KubernetesApi, connect
from longtail.cluster.cordon import Cordons
from longtail.cluster.effort import EffortWriter
from longtail.cluster.events import EventRecorder
from longtail.cluster.kinds import PODS, ROUTERS, SCALERS, WATCHED, Kind
from longtail.cluster.lease import Lease
from longtail.cluster.snapshot import freeze
from longtail.cluster.status import StatusWriter
from longtail.cluster.store import Store
from longtail.cluster.sweep import count_objects, sweep_ghosts
from longtail.cluster.targets import Targets
from longtail.control.accounts import Accounts
from longtail.control.announcer import Announcer
from longtail.control.backfill import Backfill
from longtail.control.budget_metrics import BudgetCollector
from longtail.control.clock import Clock, SystemClock
from longtail.control.fold import Fold
from longtail.control.handlers import operator_settings, register
from longtail.control.health import Health
from longtail.control.leadership import Leadership, home_namespace
from longtail.control.loop import run_at_fixed_rate
from longtail.control.metrics import FleetCollector, OperatorMetrics
from longtail.control.placer import Placer
from longtail.control.settings import Settings
from longtail.control.thinking import EffortPublisher
from longtail.control.tick import FleetTick
from longtail.control.writer import Writer
from longtail.errors import ClusterError, Refused
from longtail.signals.reader import SignalReader

logger = logging.getLogger(__name__)

_LISTING_POLL_SECONDS = 0.5
_LISTING_PATIENCE_SECONDS = 30.0
_RELIST_SECONDS = 1.0
"""How long to wait for the rest of a new list before looking for what is missing in it."""


class App:
    """The operator's parts, connected."""

    def __init__(self, *, settings: Settings, api: KubernetesApi, clock: Clock) -> None:
        """Connect the parts; nothing runs yet.

        Raises:
            SettingsError: a metrics source, the prices or a GPU budget cannot be used.
        """
        self._settings = settings
        self._api = api
        self._clock = clock
        self.store = Store()
        self.metrics = OperatorMetrics(clock=clock)
        api.on_response = self.metrics.api_response
        self._hurry = asyncio.Event()
        self._relisted = asyncio.Event()
        self._listed = asyncio.Event()
        self._leadership = self._stand_for_election() if settings.leader_elect else None
        may_write = self._leadership.may_write if self._leadership is not None else _always
        self.metrics.leads(may_write)
        targets = Targets(api=api, store=self.store, refresh_seconds=settings.interval_seconds)
        self._reader = SignalReader(
            # A little less than what a tick has for all of them: see FleetTick.
            settings.metrics_sources(),
            live=True,
            patience_seconds=0.45 * settings.interval_seconds,
        )
        self._writer = Writer(
            store=self.store,
            placer=Placer(
                store=self.store,
                targets=targets,
                cordons=Cordons(api=api, store=self.store),
                clock=clock,
                concurrency=settings.concurrent_writes,
                may_write=may_write,
            ),
            statuses=StatusWriter(api=api, quiet_seconds=settings.status_interval_seconds),
            efforts=EffortPublisher(
                efforts=EffortWriter(api=api),
                clock=clock,
                concurrency=settings.concurrent_writes,
                may_write=may_write,
            ),
            announcer=Announcer(events=EventRecorder(api=api, instance=settings.instance), clock=clock),
            clock=clock,
            concurrency=settings.concurrent_writes,
            may_write=may_write,
        )
        fold = Fold()
        self.tick = FleetTick(
            store=self.store,
            targets=targets,
            reader=self._reader,
            writer=self._writer,
            clock=clock,
            metrics=self.metrics,
            interval_seconds=settings.interval_seconds,
            fold=fold,
            accounts=Accounts(prices=settings.prices(), leads=may_write),
            budgets=settings.gpu_budgets(),
            prices=settings.prices(),
        )
        self._backfill = Backfill(
            fold=fold,
            views=lambda: freeze(self.store, targets).values(),
            sources=settings.metrics_sources(),
            metrics=self.metrics,
            clock=clock,
            span_seconds=settings.backfill_seconds,
            interval_seconds=settings.interval_seconds,
        )
        self.metrics.registry.register(FleetCollector(outcomes=lambda: self.tick.outcomes, store=self.store))
        self.metrics.registry.register(BudgetCollector(fleet=lambda: self.tick.fleet))
        self.health = Health(
            clock=clock,
            metrics=self.metrics,
            patience_seconds=max(60.0, 5 * settings.interval_seconds),
            role=self._role,
        )
        self._background: list[asyncio.Task[None]] = []

    def object_listed(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """Take note of an object in a list. One that was known before: its watch had lost the thread."""
        if self.store.knows(kind, body):
            # What was deleted in the gap is missing in the new list, and nobody says so.
            self._relisted.set()
        self.store.upsert(kind, body)

    def object_seen(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """Take note of an object that is there."""
        self.store.upsert(kind, body)

    def object_gone(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """Take note of an object that was deleted."""
        self.store.remove(kind, body)

    async def connection(self) -> kopf.ConnectionInfo:
        """Return server and credentials for kopf, read anew: it asks again when they are refused."""
        credentials = await self._api.credentials()
        return kopf.ConnectionInfo(
            server=credentials.server,
            ca_path=credentials.ca_file,
            insecure=not credentials.verify_tls,
            scheme=credentials.scheme,
            token=credentials.token,
            certificate_path=credentials.certificate_file,
            private_key_path=credentials.private_key_file,
            proxy_url=credentials.proxy_url,
        )

    async def run(self) -> None:
        """Run until a signal ends it."""
        settings = self._settings
        await self.health.start(host=settings.health_host, port=settings.health_port)
        logger.info("health and metrics are served", extra={"port": self.health.port})
        stop_flag = asyncio.Event()
        self._background = [
            asyncio.create_task(self._decide_for_ever(), name="fleet loop"),
            asyncio.create_task(self._sweep_for_ever(), name="ghost sweep"),
        ]
        if self._leadership is not None:
            self._background.append(asyncio.create_task(self._lead_for_ever(self._leadership), name="leadership"))
        for task in self._background:
            # These never end by themselves: if one does, it is a bug, and a restart is the remedy.
            task.add_done_callback(lambda _: stop_flag.set())
        if settings.backfill_seconds > 0:
            self._background.append(asyncio.create_task(self._backfill.run(), name="backfill"))
        registry = kopf.OperatorRegistry()
        register(registry, self)
        namespaced = bool(settings.namespaces)
        try:
            await kopf.operator(
                registry=registry,
                settings=operator_settings(namespaced=namespaced, pod_label_selector=settings.pod_label_selector),
                standalone=True,
                clusterwide=not namespaced,
                namespaces=settings.namespaces,
                stop_flag=stop_flag,
            )
        finally:
            failed = [task for task in self._background if task.done() and not task.cancelled()]
            await self.stop()
            self._reader.close()
            await self.health.stop()
        for task in failed:
            task.result()

    async def stop(self) -> None:
        """End loop and sweep, and what we are; called by kopf's cleanup, and once more where it was not reached."""
        self.health.set_ready(False)
        running = [task for task in self._background if not task.done()]
        for task in running:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if running and self._leadership is not None:
            await self._leadership.release()

    def _stand_for_election(self) -> Leadership:
        settings, timing = self._settings, self._settings.election_timing()
        in_cluster = settings.kubeconfig is None and settings.context is None
        leadership = Leadership(
            lease=Lease(
                api=self._api,
                namespace=settings.lease_namespace or home_namespace(in_cluster=in_cluster),
                name=settings.lease_name,
                timeout_seconds=timing.request_seconds,
            ),
            instance=settings.instance,
            timing=timing,
            clock=self._clock,
            elected=self._begin_term,
        )
        self._api.write_seconds = leadership.write_seconds
        return leadership

    def _begin_term(self) -> None:
        self._writer.begin_term()
        self._hurry.set()

    def _role(self) -> str:
        return self._leadership.role if self._leadership is not None else "leader: there is no election"

    async def _lead_for_ever(self, leadership: Leadership) -> None:
        await self._listed.wait()
        await leadership.keep()

    async def _decide_for_ever(self) -> None:
        await self._wait_until_listed()
        self._listed.set()
        self.health.set_ready(True)
        logger.info("the cluster is listed; deciding begins")

        async def run(lag_seconds: float) -> None:
            try:
                await self.tick.run(lag_seconds)
            finally:
                self.health.beat()

        await run_at_fixed_rate(
            run,
            interval_seconds=self._settings.interval_seconds,
            clock=self._clock,
            metrics=self.metrics,
            hurry=self._hurry,
        )

    async def unlisted(self) -> list[str]:
        """Return the kinds of which the store does not hold all objects yet, or why that cannot be known."""
        try:
            return [kind.kind for kind in WATCHED if not await self._is_listed(kind)]
        except ClusterError as unanswered:
            return [str(unanswered)]

    async def _wait_until_listed(self) -> None:
        """Wait until the store holds all that the API server counts: half a list is no basis to decide on."""
        since = self._clock.monotonic_seconds()
        while True:
            missing = await self.unlisted()
            if not missing:
                return
            if self._clock.monotonic_seconds() - since > _LISTING_PATIENCE_SECONDS:
                since = self._clock.monotonic_seconds()
                logger.warning("still waiting for the first lists", extra={"missing": missing})
            self.health.beat()
            await asyncio.sleep(_LISTING_POLL_SECONDS)

    async def _is_listed(self, kind: Kind) -> bool:
        try:
            count = await count_objects(self._api, kind, **self._scope(kind))
        except Refused as forbidden:
            if kind not in (*SCALERS, *ROUTERS) and not kind.optional:
                raise
            # Without the right to see them there is no protection from a second writer, or no switch that
            # takes pods out of routing, but there is a service.
            logger.warning("not watched", extra={"kind": kind.kind, "why": str(forbidden)})
            return True
        return self.store.size(kind) >= count

    async def _sweep_for_ever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.sweep_interval_seconds):
                    await self._relisted.wait()
                    await asyncio.sleep(_RELIST_SECONDS)
            self._relisted.clear()
            for kind in WATCHED:
                try:
                    found = await sweep_ghosts(self._api, self.store, kind, **self._scope(kind))
                except ClusterError as unanswered:
                    logger.warning("no sweep", extra={"kind": kind.kind, "why": str(unanswered)})
                    continue
                if found:
                    self.metrics.ghosts_found(kind=kind.kind, count=found)
                    logger.info("forgot vanished objects", extra={"kind": kind.kind, "count": found})

    def _scope(self, kind: Kind) -> dict[str, Any]:
        selector = self._settings.pod_label_selector if kind is PODS else ""
        return {"namespaces": self._settings.namespaces, "label_selector": selector}


def _always() -> bool:
    return True


async def run_operator(settings: Settings) -> None:
    """Make the operator and run it until a signal ends it.

    Raises:
        SettingsError: the kubeconfig or a metrics source cannot be used.
    """
    kubeconfig = str(settings.kubeconfig) if settings.kubeconfig else None
    async with contextlib.AsyncExitStack() as cleanup:
        api = await cleanup.enter_async_context(await connect(kubeconfig=kubeconfig, context=settings.context))
        app = App(settings=settings, api=api, clock=SystemClock())
        if not settings.metrics_sources():
            logger.warning("no metrics source is configured: every service will say so and hold")
        await app.run()
