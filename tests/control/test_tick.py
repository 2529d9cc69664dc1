"""Ticks from end to end against an API server over real sockets; the signals are given by the test."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
import pytest
from prometheus_client import REGISTRY

from longtail.cluster.client import KubernetesApi
from longtail.cluster.cordon import Cordons
from longtail.cluster.effort import EffortWriter
from longtail.cluster.events import EventRecorder
from longtail.cluster.kinds import DEPLOYMENTS, HPAS, PODS, SERVINGS
from longtail.cluster.status import StatusWriter
from longtail.cluster.store import Store
from longtail.cluster.targets import Targets
from longtail.control.announcer import Announcer
from longtail.control.health import Health
from longtail.control.metrics import FleetCollector, OperatorMetrics
from longtail.control.placer import Placer
from longtail.control.thinking import EffortPublisher
from longtail.control.tick import FleetTick
from longtail.control.writer import Writer
from longtail.demand.observation import Observation, PodReading, Signal
from longtail.errors import MetricsUnavailable
from longtail.policy.fleet import ServiceKey
from longtail.signals.reader import Failure, Reading
from longtail_fakes.kubernetes import KubernetesFake
from longtail_fakes.manifests import deployment, pod, scaler, serving


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


@pytest.fixture
def world(server: KubernetesFake, api: KubernetesApi, clock) -> World:
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


async def test_a_busy_pool_grows_and_everybody_is_told(world: World) -> None:
    world.serve()
    world.signals.running["r1"] = 30.0
    await world.run()
    assert world.replicas() == 4
    status = world.status()
    assert status["replicas"]["desired"] == 4
    assert status["lastScaleTime"] == "2026-11-24T08:00:00Z"
    assert world.condition("AbleToScale") == ("True", "SucceededRescale")
    assert [(kind, reason) for kind, reason, _ in world.events()] == [
        ("ReasoningServing", "SuccessfulRescale"),
        ("Deployment", "SuccessfulRescale"),
    ]
    assert world.events()[0][2].startswith("New size: 4; reason: ")


async def test_an_idle_pool_shrinks_only_after_its_window(world: World) -> None:
    world.serve(replicas=4)
    world.signals.running["r1"] = 0.0
    await world.run(20)
    assert world.replicas() == 4
    await world.run(5)
    assert world.replicas() < 4


async def test_a_quiet_fleet_writes_nothing_after_the_first_status(world: World) -> None:
    world.serve(replicas=1)
    world.signals.running["r1"] = 5.0
    await world.run(3)
    written = len(world.server.requests)
    await world.run(3)
    assert len(world.server.requests) == written


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"mode": "Advise"}, id="advise"),
        pytest.param({"mode": "Off"}, id="off"),
    ],
)
async def test_nothing_is_scaled_unless_active(world: World, spec) -> None:
    world.serve(**spec)
    world.signals.running["r1"] = 80.0
    await world.run(3)
    assert world.replicas() == 2
    assert world.scaled() == []
    assert world.events() == []


def published(world: World, name: str = "r1") -> float | None:
    labels = {"namespace": "inference", "name": name}
    return world.metrics.registry.get_sample_value("longtail_desired_replicas", labels)


async def test_advice_is_published_for_an_hpa_to_follow(world: World) -> None:
    world.serve(mode="Advise")
    world.signals.running["r1"] = 30.0
    await world.run()
    assert published(world) == 4
    assert world.status()["replicas"]["desired"] == 4


async def test_a_deleted_resource_is_gone_from_everywhere_at_the_next_tick(world: World) -> None:
    world.serve()
    world.signals.running["r1"] = 10.0
    await world.run()
    assert published(world) == 2
    world.store.remove(SERVINGS, serving())
    written = len(world.server.sent("PATCH"))
    await world.run(2)
    assert published(world) is None
    assert len(world.server.sent("PATCH")) == written


async def test_off_is_not_even_read(world: World) -> None:
    world.serve(mode="Off")
    await world.run()
    assert world.signals.asked == [[]]
    assert published(world) is None
    assert world.condition("ScalingActive") == ("False", "ScalingDisabled")


async def test_without_metrics_a_pool_is_held_and_says_so(world: World) -> None:
    world.serve(replicas=4)
    world.signals.running["r1"] = 0.0
    await world.run(2)
    del world.signals.running["r1"]
    await world.run(40)
    assert world.replicas() == 4
    assert world.condition("MetricsAvailable") == ("False", "MetricsMissing")
    assert ("ReasoningServing", "MetricsMissing") in {(kind, reason) for kind, reason, _ in world.events()}


async def test_one_service_without_metrics_does_not_keep_another_from_growing(world: World) -> None:
    world.serve("blind", replicas=3)
    world.serve("r1")
    world.signals.running["r1"] = 30.0
    await world.run()
    assert (world.replicas("blind"), world.replicas("r1")) == (3, 4)


async def test_more_replicas_are_asked_for_before_fewer(world: World) -> None:
    world.serve("a-shrinks", replicas=12)
    world.serve("z-grows", replicas=2, minReplicas=3, maxReplicas=4)
    world.signals.running = {"a-shrinks": 8.0, "z-grows": 8.0}
    await world.run(2)
    world.see(
        SERVINGS, serving("z-grows", minReplicas=4, maxReplicas=4, generation=2, capacity={"maxConcurrentRequests": 8})
    )
    await world.run()
    # Idle twice, marked, and only then fewer: in the very tick in which the other one grows.
    assert world.scaled() == ["z-grows", "z-grows", "a-shrinks"]
    assert (world.replicas("a-shrinks"), world.replicas("z-grows")) == (8, 4)


async def test_somebody_elses_change_since_the_decision_is_respected(world: World) -> None:
    world.serve()
    world.signals.running["r1"] = 30.0
    world.server.put(deployment(replicas=7))  # not seen by our watch yet
    await world.tick.run(0.0)
    assert world.replicas() == 7
    assert world.condition("AbleToScale")[0] == "True"


async def test_a_refused_write_is_a_condition_an_event_and_a_new_try(world: World) -> None:
    world.serve()
    world.signals.running["r1"] = 30.0
    world.server.fail("PATCH", "/scale", status=403, answer={"message": "no right to scale"})
    await world.run()
    assert world.replicas() == 2
    assert world.condition("AbleToScale") == ("False", "FailedUpdateScale")
    assert any(reason == "FailedRescale" for _, reason, _ in world.events())
    await world.run()
    assert world.replicas() >= 4
    assert world.condition("Ready")[0] == "True"


async def test_an_hpa_on_the_target_makes_an_active_resource_advise(world: World) -> None:
    world.serve()
    world.store.upsert(HPAS, scaler())
    world.signals.running["r1"] = 30.0
    await world.run(2)
    assert world.replicas() == 2
    assert published(world) >= 4
    assert world.condition("Conflict") == ("True", "HorizontalPodAutoscalerPresent")
    world.store.remove(HPAS, scaler())
    await world.run()
    assert world.replicas() >= 4


async def test_a_resource_edited_while_its_tick_runs_is_looked_at_anew(world: World) -> None:
    world.serve()
    world.signals.running["r1"] = 30.0

    async def edit(services, at_seconds):
        world.see(SERVINGS, serving(generation=2, mode="Off"))
        return await GivenSignals.read(world.signals, services, at_seconds)

    world.signals.read = edit
    await world.run()
    assert world.replicas() == 2


async def test_a_standby_decides_but_writes_nothing(world: World) -> None:
    world.serve()
    world.signals.running["r1"] = 30.0
    world.standby = True
    await world.run()
    assert published(world) == 4
    assert world.server.sent("PATCH") == []
    world.standby = False
    await world.run()
    assert world.replicas() >= 4


async def test_who_begins_to_lead_goes_on_from_what_others_wrote(world: World) -> None:
    world.serve(maxReplicas=4)
    world.signals.running["r1"] = 30.0
    await world.run()
    world.standby = True
    # Another leader saw the metrics fail, and recovered; we know of it by the watch alone.
    path = world.server.path_of(serving())
    theirs = world.server.objects[path]
    theirs["status"]["lastScaleTime"] = "2026-11-24T09:00:00Z"
    for condition in theirs["status"]["conditions"]:
        condition["lastTransitionTime"] = "2026-11-24T09:00:01Z"
    world.store.upsert(SERVINGS, theirs)
    before = world.server.objects[path]["status"]["conditions"]
    await world.run()
    world.standby = False
    world.writer.begin_term()
    sent = len(world.server.sent("PATCH"))
    await world.run()
    # Nothing has changed for us since we last wrote, but what is there now is not ours.
    assert len(world.server.sent("PATCH")) > sent
    assert world.status()["lastScaleTime"] == "2026-11-24T09:00:00Z"
    times = {c["type"]: c["lastTransitionTime"] for c in before if (c["type"], c["status"]) in _truths(world)}
    assert len(times) >= 5
    assert times.items() <= {c["type"]: c["lastTransitionTime"] for c in world.status()["conditions"]}.items()


def _truths(world: World) -> set[tuple[str, str]]:
    return {(condition["type"], condition["status"]) for condition in world.status()["conditions"]}


async def test_resources_that_cannot_work_say_why(world: World) -> None:
    world.see(SERVINGS, serving("lost"))
    world.see(SERVINGS, serving("broken", maxReplicas="many"))
    await world.run()
    assert world.condition("Ready", "lost") == ("False", "TargetNotFound")
    assert world.condition("Ready", "broken") == ("False", "InvalidSpec")
    assert "'many'" in world.status("broken")["conditions"][0]["message"]


async def test_an_api_server_that_refuses_every_status_does_not_stop_the_scaling(world: World) -> None:
    world.serve()
    world.signals.running["r1"] = 30.0
    world.server.fail("PATCH", "/status", status=500, times=50)
    world.server.fail("POST", "/events", status=500, times=50)
    await world.run()
    assert world.replicas() == 4


async def test_what_is_logged_at_info_is_news(world: World, caplog) -> None:
    caplog.set_level("INFO", logger="longtail.control.tick")
    world.serve(replicas=1)
    world.signals.running["r1"] = 5.0
    await world.run(5)
    decided = [record for record in caplog.records if record.message == "decided"]
    assert len(decided) == len({(record.desired, record.reason) for record in decided})


def test_a_late_prometheus_means_hold(run_virtually, virtual_clock) -> None:
    """The metrics have half an interval; after that the services are blind, and the tick goes on."""
    store, signals, metrics = Store(), GivenSignals(delay_seconds=60.0), OperatorMetrics(clock=virtual_clock)
    signals.running["r1"] = 80.0
    store.upsert(SERVINGS, serving())
    store.upsert(DEPLOYMENTS, deployment())
    store.upsert(PODS, pod("r1-0"))
    seen: list[float] = []

    class Nobody:
        """Takes the outcomes and writes nothing."""

        async def scale(self, outcomes):
            seen.append(virtual_clock.monotonic_seconds())
            return outcomes

        async def report(self, outcomes):
            pass

    tick = FleetTick(
        store=store,
        targets=Targets(api=None, store=store),
        reader=signals,
        writer=Nobody(),
        clock=virtual_clock,
        metrics=metrics,
        interval_seconds=15.0,
    )
    run_virtually(tick.run(0.0))
    (outcome,) = tick.outcomes
    assert seen == pytest.approx([7.5])
    assert (outcome.decision.hold, outcome.decision.desired) == (True, 2)
    assert "no answer within 7.5 s" in str(outcome.metrics_error)


def test_writes_that_take_too_long_are_cut_at_four_fifths_of_the_interval(run_virtually, virtual_clock) -> None:
    class Stuck:
        """Never gets an answer."""

        async def scale(self, outcomes):
            await asyncio.sleep(3600)

    store, metrics = Store(), OperatorMetrics(clock=virtual_clock)
    tick = FleetTick(
        store=store,
        targets=Targets(api=None, store=store),
        reader=GivenSignals(),
        writer=Stuck(),
        clock=virtual_clock,
        metrics=metrics,
        interval_seconds=15.0,
    )

    async def timed() -> float:
        await tick.run(0.0)
        return virtual_clock.monotonic_seconds()

    assert run_virtually(timed()) == pytest.approx(12.0)
    assert metrics.registry.get_sample_value("longtail_ticks_total", {"result": "cut"}) == 1


@pytest.mark.parametrize(
    ("act", "livez", "readyz"),
    [
        pytest.param(lambda health, clock: None, 200, 503, id="before-the-first-lists"),
        pytest.param(lambda health, clock: health.set_ready(True), 200, 200, id="deciding"),
        pytest.param(lambda health, clock: (health.set_ready(True), setattr(clock, "now", 61.0)), 503, 503, id="hung"),
    ],
)
async def test_probes_tell_waiting_from_hung(clock, act: Callable, livez: int, readyz: int) -> None:
    metrics = OperatorMetrics(clock=clock)
    health = Health(clock=clock, metrics=metrics, patience_seconds=60.0, role=lambda: "standby: nobody leads")
    await health.start(host="127.0.0.1", port=0)
    try:
        act(health, clock)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{health.port}", trust_env=False) as http:
            live, ready = await http.get("/livez"), await http.get("/readyz")
            answers = [live.status, ready.status]
            # A standby serves its metrics and waits: it is as ready as the leader.
            assert ready.status == 503 or await ready.text() == "ok, standby: nobody leads\n"
            text = await (await http.get("/metrics")).text()
    finally:
        await health.stop()
    assert answers == [livez, readyz]
    assert "longtail_tick_lag_seconds_bucket" in text


def test_the_registry_is_our_own() -> None:
    assert not [name for name in REGISTRY._names_to_collectors if name.startswith("longtail")]


def test_a_service_key_is_spelled_as_people_do() -> None:
    assert str(ServiceKey("inference", "r1")) == "inference/r1"
