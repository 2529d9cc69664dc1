"""The parts of an operator around a fake API server, ticked by hand; the signals are given by the test."""

import asyncio
from dataclasses import dataclass, field

from longtail.cluster.client import KubernetesApi
from longtail.cluster.cordon import Cordons
from longtail.cluster.effort import EffortWriter
from longtail.cluster.events import EventRecorder
from longtail.cluster.kinds import DEPLOYMENTS, PODS, SERVINGS
from longtail.cluster.status import StatusWriter
from longtail.cluster.store import Store
from longtail.cluster.targets import Targets
from longtail.control.announcer import Announcer
from longtail.control.metrics import FleetCollector, OperatorMetrics
from longtail.control.placer import Placer
from longtail.control.thinking import EffortPublisher
from longtail.control.tick import FleetTick
from longtail.control.writer import Writer
from longtail.demand.observation import Observation, PodReading, Signal
from longtail.errors import MetricsUnavailable
from longtail.signals.reader import Failure, Reading
from longtail_fakes.kubernetes import KubernetesFake
from longtail_fakes.manifests import deployment, pod, serving


@dataclass
class GivenSignals:
    """A reader that answers what the test says, as late as it says."""

    running: dict[str, float] = field(default_factory=dict)
    """By service name; a service that is not named has no metrics."""
    delay_seconds: float = 0.0
    asked: list[list[str]] = field(default_factory=list)

    async def read(self, services, at_seconds: float) -> Reading:
        self.asked.append([service.key.name for service in services])
        await asyncio.sleep(self.delay_seconds)
        observations, failures = {}, []
        for service in services:
            if service.key.name in self.running:
                observations[service.key] = self._observation(service, at_seconds)
            else:
                observations[service.key] = Observation(at_seconds=at_seconds, ready_pods=len(service.pods))
                error = MetricsUnavailable("Connection refused")
                failures.append(Failure(source="default", query="", services=[service.key], error=error))
        return Reading(observations=observations, failures=failures)

    def _observation(self, service, at_seconds: float) -> Observation:
        return Observation(
            at_seconds=at_seconds,
            interval_seconds=15.0,
            running_requests=Signal(self.running[service.key.name]),
            waiting_requests=Signal(0.0),
            ready_pods=len(service.pods),
            reporting_pods=len(service.pods),
            pods=tuple(self._reading(service, n) for n in range(len(service.pods))),
        )

    def _reading(self, service, number: int) -> PodReading:
        """The first pods have as much as fits into them."""
        slots = 8.0
        running = min(max(self.running[service.key.name] - slots * number, 0.0), slots)
        return PodReading(
            name=service.pods[number].name, running_requests=Signal(running), waiting_requests=Signal(0.0)
        )


@dataclass
class World:
    """The parts of an operator around a fake API server, ticked by hand every 15 s."""

    server: KubernetesFake
    store: Store
    signals: GivenSignals
    tick: FleetTick
    writer: Writer
    metrics: OperatorMetrics
    clock: object
    standby: bool = False

    def serve(self, name: str = "r1", *, replicas: int = 2, **spec) -> None:
        """A resource, its Deployment and its pods, in the API server and in the store."""
        self.see(SERVINGS, serving(name, capacity={"maxConcurrentRequests": 8}, **spec))
        self.see(DEPLOYMENTS, deployment(name, replicas=replicas))
        for number in range(replicas):
            self.see(PODS, pod(f"{name}-{number}"))

    def see(self, kind, body) -> None:
        self.store.upsert(kind, self.server.put(body))

    async def run(self, ticks: int = 1) -> None:
        """Tick, and let the watch bring back what was written."""
        for _ in range(ticks):
            await self.tick.run(0.0)
            for body in list(self.server.objects.values()):
                if body["kind"] == "Deployment":
                    self.store.upsert(DEPLOYMENTS, body)
            self.clock.now += 15.0

    def replicas(self, name: str = "r1") -> int:
        return self.server.objects[self.server.path_of(deployment(name))]["spec"]["replicas"]

    def status(self, name: str = "r1") -> dict:
        return self.server.objects[self.server.path_of(serving(name))].get("status", {})

    def condition(self, kind: str, name: str = "r1") -> tuple[str, str]:
        (found,) = (c for c in self.status(name)["conditions"] if c["type"] == kind)
        return found["status"], found["reason"]

    def events(self) -> list[tuple[str, str, str]]:
        bodies = [request.body for request in self.server.sent("POST")]
        return [(body["regarding"]["kind"], body["reason"], body["note"]) for body in bodies]

    def scaled(self) -> list[str]:
        """Names of the targets in the order in which they were written."""
        return [r.path.split("/")[-2] for r in self.server.sent("PATCH") if r.path.endswith("/scale")]


def world_around(server: KubernetesFake, api: KubernetesApi, clock) -> World:
    """An operator that leads, with nothing to do yet."""
    store, signals, metrics = Store(), GivenSignals(), OperatorMetrics(clock=clock)
    targets = Targets(api=api, store=store)
    made: list[World] = []
    writer = Writer(
        store=store,
        placer=Placer(
            store=store,
            targets=targets,
            cordons=Cordons(api=api, store=store),
            clock=clock,
            concurrency=1,
            may_write=lambda: not made[0].standby,
        ),
        statuses=StatusWriter(api=api),
        announcer=Announcer(events=EventRecorder(api=api, instance="longtail-0"), clock=clock),
        efforts=EffortPublisher(
            efforts=EffortWriter(api=api), clock=clock, concurrency=1, may_write=lambda: not made[0].standby
        ),
        clock=clock,
        concurrency=1,
        may_write=lambda: not made[0].standby,
    )
    tick = FleetTick(
        store=store,
        targets=targets,
        reader=signals,
        writer=writer,
        clock=clock,
        metrics=metrics,
        interval_seconds=15.0,
    )
    metrics.registry.register(FleetCollector(outcomes=lambda: tick.outcomes, store=store))
    made.append(
        World(server=server, store=store, signals=signals, tick=tick, writer=writer, metrics=metrics, clock=clock)
    )
    return made[0]
