"""Two pools behind one gateway: where requests go, and what it saves that the pools know of each other."""

import numpy as np
import pytest

from longtail.workbench.bench_variants import Kind, Outcome, Plan, Way, render, run_plan
from longtail.workbench.fleet.setting import ReplicaSize
from longtail.workbench.traces.trace import Trace

HOUR = 3600.0
CHEAP = Kind("cheap", "A", 1.0, ReplicaSize(slots=8, gpus=1))
DEAR = Kind("dear", "B", 1.0, ReplicaSize(slots=4, gpus=1))
WAYS = (
    Way("split", 0.5, False, None),
    Way("alone", None, False, None),
    Way("variants", None, True, None),
    Way("short", None, True, 3),
)


def swinging(*, hours: int = 2) -> Trace:
    """Between 0.5 and 2.5 requests a second, up and down within an hour; each stays for 20 s: 10 to 50 slots' work."""
    rng = np.random.default_rng(1)
    at = np.arange(hours * HOUR)
    rate = 1.5 + np.sin(2 * np.pi * at / HOUR)
    arrived = np.sort(np.repeat(at, rng.poisson(rate)) + rng.random())
    return Trace("swinging", arrived, np.full(len(arrived), 100), np.full(len(arrived), 400))


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    plan = Plan(
        WAYS,
        duration_seconds=2 * HOUR,
        measured_from_seconds=0.5 * HOUR,
        kinds=(CHEAP, DEAR),
        cold_start_seconds=60.0,
        most=(20, 40),
    )
    return run_plan(swinging(), plan)


def test_every_request_is_sent_once(outcome: Outcome) -> None:
    measured = (swinging().arrival_seconds >= 0.5 * HOUR).sum()
    for pair in outcome.pairs:
        assert sum(pair.requests) == pytest.approx(measured, rel=0.03)  # those of the edges, begun before or after


def test_as_variants_the_pools_cost_less_and_serve_as_well(outcome: Outcome) -> None:
    split, alone, variants, _ = outcome.pairs
    assert variants.cost < 0.9 * min(split.cost, alone.cost)
    assert variants.attainment > 0.97
    assert variants.gpu_hours[1] < alone.gpu_hours[1] / 2
    assert variants.killed_requests == 0


def test_what_the_cheap_pool_cannot_have_is_served_by_the_dear_one(outcome: Outcome) -> None:
    short = outcome.pairs[3]
    assert short.gpu_hours[0] <= 3 * 1.5
    assert short.attainment > 0.9
    assert short.gpu_hours[1] > 4.0


def test_the_figures_can_be_read(outcome: Outcome) -> None:
    text = render(outcome)
    assert all(way.name in text for way in WAYS)
    assert len(outcome.as_dict()["pairs"]) == 4
