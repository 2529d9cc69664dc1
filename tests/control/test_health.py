"""The probes and the metrics of the operator over HTTP."""

from collections.abc import Callable

import aiohttp
import pytest
from prometheus_client import REGISTRY

from longtail.control.health import Health
from longtail.control.metrics import OperatorMetrics


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
