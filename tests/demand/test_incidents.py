"""An incident teaches nothing: what is stale, partial or missing moves the state on, and leaves what was learned alone."""

import functools
from dataclasses import replace

import numpy as np
import pytest

from longtail.demand.memory import DemandMemory, FleetState
from longtail.demand.model import estimate
from longtail.demand.observation import MISSING, Buckets, Observation, Quality, Signal
from longtail.demand.parameters import ServiceParameters
from longtail.demand.supply import Supply

TICK = 15.0
LEARNED = ("lengths", "capacity", "startup", "attainment", "slots_experts", "kv_experts", "arrivals")
"""Parts of the state that only evidence may change."""
_CLOCKS = {"seconds", "short", "broken"}
"""Of the open window of attainment: they run on, and say that it will not be learned from."""


def healthy(tick: int) -> Observation:
    level = 20.0 + 5.0 * np.sin(tick / 7.0)
    return Observation(
        at_seconds=TICK * tick,
        interval_seconds=TICK if tick else 0.0,
        running_requests=Signal(float(level)),
        waiting_requests=Signal(0.0),
        kv_used_tokens=Signal(float(3000 * level)),
        kv_capacity_tokens=Signal(400_000.0),
        first_tokens=Signal(6.0),
        generated_tokens=Signal(float(level * TICK * 25)),
        prompt_tokens=Signal(6000.0),
        finished_output_tokens=Buckets(upper_bounds=(500.0, 2000.0, 8000.0, float("inf")), counts=(2.0, 3.0, 1.0, 0.0)),
        queue_wait_seconds=Buckets(upper_bounds=(1.0, 10.0, float("inf")), counts=(6.0, 0.0, 0.0)),
        ready_pods=4,
        reporting_pods=4,
    )


def damaged(observation: Observation, how: str) -> Observation:
    """What an incident makes of an observation: other numbers, of another quality."""
    changes: dict[str, object] = {"reporting_pods": 2 if how == Quality.PARTIAL else 0}
    for name in ("running_requests", "waiting_requests", "kv_used_tokens", "first_tokens", "generated_tokens"):
        quality = Quality(how)
        value = 9.0 * (getattr(observation, name).value or 1.0)
        age = 300.0 if quality is Quality.STALE else 0.0
        changes[name] = MISSING if quality is Quality.MISSING else Signal(value, age_seconds=age, quality=quality)
    if how == Quality.MISSING:
        changes |= {"finished_output_tokens": None, "queue_wait_seconds": None, "interval_seconds": 0.0}
    return replace(observation, **changes)


def fold(memory: DemandMemory, observations: list[Observation], *, first: int) -> DemandMemory:
    for tick, observation in enumerate(observations, start=first):
        _, memory = estimate(
            keys=["r1"],
            parameters=[ServiceParameters()],
            observations=[observation],
            supplies=[Supply(ready_replicas=4)],
            memory=memory,
            now=TICK * tick,
        )
    return memory


def learned(state: FleetState | None, part: str) -> list[np.ndarray]:
    assert state is not None
    found = getattr(state, part)
    return [np.asarray(getattr(found, name)) for name in found.__slots__ if name not in _CLOCKS]


@functools.cache
def before() -> DemandMemory:
    """After half an hour of health."""
    return fold(DemandMemory.empty(), [healthy(tick) for tick in range(120)], first=0)


@functools.cache
def incident(how: Quality) -> tuple[DemandMemory, DemandMemory]:
    """After one look and after twenty minutes of an incident: the first look still ends an interval that was seen."""
    during = fold(before(), [damaged(healthy(120), how)], first=120)
    return during, fold(during, [damaged(healthy(tick), how) for tick in range(121, 200)], first=121)


@pytest.mark.parametrize("part", LEARNED)
@pytest.mark.parametrize("how", [Quality.STALE, Quality.PARTIAL, Quality.MISSING])
def test_twenty_minutes_of_an_incident_teach_nothing(how: Quality, part: str) -> None:
    during, after = incident(how)
    for was, now in zip(learned(during.state, part), learned(after.state, part), strict=True):
        np.testing.assert_allclose(now, was, rtol=1e-9)


@pytest.mark.parametrize("how", [Quality.STALE, Quality.PARTIAL])
def test_the_first_look_after_an_incident_is_no_burst(how: Quality) -> None:
    _, after = incident(how)
    back = fold(after, [healthy(200)], first=200)
    known = before().state
    assert known is not None
    assert back.state is not None
    assert back.state.arrivals.rates.max() <= 1.5 * known.arrivals.rates.max()
