"""A forecast at work: replicas are asked for one cold start before the requests are there that need them.

The engines are slower than in other tests. A request stays about 3 s and may wait for 1 s, the least that can be
allowed: with engines 50 times as fast as real ones it would stay for half a second, and a pool that may make
requests wait for twice their stay rightly waits for its queue.
"""

from __future__ import annotations

from functools import partial

import pytest

from longtail_e2e.world import World

pytestmark = pytest.mark.e2e

CALM, BUSY = 1.2, 9.0
"""Requests a second: about 3 and 25 at a time, where a replica has 8 slots."""


@pytest.fixture(scope="module")
def engine_speed() -> float:
    return 10.0


def test_a_pool_follows_its_load_one_cold_start_ahead_and_says_why(world: World) -> None:
    world.deploy(ready_seconds=6.0)
    world.serve(objective={"attainmentPercent": 90, "queueWaitSeconds": 1}, startup={"seconds": 6})
    world.wait_for_condition("Ready", "True")
    name = world.service()
    world.engines.rate(name, CALM)
    world.operator.wait_for_ticks(5)

    world.engines.ramp(name, since=CALM, until=BUSY, seconds=30.0)
    risen = world.wait_for_replicas(lambda replicas: replicas >= 4, seconds=120)
    reasons = world.growths()
    ahead = [why for why in reasons if why.split(": ")[1].startswith("one cold start ahead (")]
    assert len(ahead) > len(reasons) / 2, reasons
    world.wait(partial(world.sees, "r1", risen), f"{risen} ready replicas", seconds=60)
    status = world.get("rsv")["status"]
    assert status["replicas"]["desired"] >= 4
    assert "lastScaleTime" in status
    assert status["demand"]["slotsUpper"] >= status["demand"]["slotsForecast"]
    assert "Forecast" in {step["rung"] for step in status["decision"]["ladder"]}
    assert "Active" in world.cluster.kubectl("get", "rsv", "r1", "-n", world.namespace)
    answer = world.explain()
    for words in ("scales Deployment r1 between 1 and 6 replicas", "Reactive", "waiting need", "MetricsAvailable"):
        assert words in answer
    events = world.cluster.kubectl("get", "events", "-n", world.namespace)
    assert f"New size: {risen}; reason: " in events, events
