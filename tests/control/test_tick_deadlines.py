"""A tick is over in time, whoever does not answer; in virtual time."""

import asyncio

import pytest

from longtail.cluster.kinds import DEPLOYMENTS, PODS, SERVINGS
from longtail.cluster.store import Store
from longtail.cluster.targets import Targets
from longtail.control.metrics import OperatorMetrics
from longtail.control.tick import FleetTick
from longtail_fakes.manifests import deployment, pod, serving

from .ticking import GivenSignals


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
