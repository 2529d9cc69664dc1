"""Ticks from end to end against an API server over real sockets; the signals are given by the test."""

import pytest

from longtail.cluster.client import KubernetesApi
from longtail.cluster.kinds import HPAS, SERVINGS
from longtail_fakes.kubernetes import KubernetesFake
from longtail_fakes.manifests import deployment, scaler, serving

from .ticking import GivenSignals, World, world_around


@pytest.fixture
def world(server: KubernetesFake, api: KubernetesApi, clock) -> World:
    return world_around(server, api, clock)


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
