"""The fold over whole fleets, with the real demand model."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from longtail.demand.observation import Observation, Quality, Signal
from longtail.demand.parameters import CapacityOverride, ServiceParameters
from longtail.policy.decision import Decision, Reason, Rung
from longtail.policy.fleet import Fleet, Service, ServiceKey
from longtail.policy.memory import Memory
from longtail.policy.step import step

from .worlds import AT_ONCE, NOW, TICK, pods, rung, seen, service

PARAMETERS = ServiceParameters(capacity=CapacityOverride(max_concurrent_requests=8))


def named(name: str, replicas: int | None = 4) -> Service:
    return replace(
        service(replicas, behavior=AT_ONCE),
        key=ServiceKey(namespace="inference", name=name),
        parameters=PARAMETERS,
    )


def at(tick: int, running: float, waiting: float = 0.0, *, ready: int = 4) -> Observation:
    return replace(
        seen(running, waiting, ready_pods=ready, reporting_pods=ready),
        at_seconds=NOW + TICK * tick,
        interval_seconds=0.0 if tick == 0 else TICK,
    )


def fold(
    services: Sequence[Service],
    ticks: Sequence[Mapping[ServiceKey, Observation]],
    memory: Memory | None = None,
) -> tuple[list[dict[ServiceKey, Decision]], Memory]:
    memory, history = memory or Memory.empty(), []
    for tick, observations in enumerate(ticks):
        decisions, memory = step(fleet=Fleet(services), observations=observations, memory=memory, now=NOW + TICK * tick)
        history.append(decisions)
    return history, memory


def test_every_service_gets_a_decision() -> None:
    services = [named("a"), named("b", None), named("c", 0)]
    (decisions,), memory = fold(services, [{services[0].key: at(0, 60)}])
    assert {key.name: decision.reason for key, decision in decisions.items()} == {
        "a": Reason.SCALE_UP,
        "b": Reason.TARGET_UNAVAILABLE,
        "c": Reason.SCALING_DISABLED,
    }
    assert set(memory.services) == {each.key for each in services}


def test_an_empty_fleet_is_no_fault() -> None:
    decisions, memory = step(fleet=Fleet(()), observations={}, memory=Memory.empty(), now=NOW)
    assert (decisions, memory.services) == ({}, {})


def test_a_service_that_was_not_seen_is_held() -> None:
    (decisions,), _ = fold([named("a")], [{}])
    (decision,) = decisions.values()
    assert (decision.desired, decision.hold, decision.reason) == (4, True, Reason.METRICS_MISSING)


def test_the_number_rests_on_the_demand_that_is_handed_on() -> None:
    (decisions,), _ = fold([named("a")], [{named("a").key: at(0, 20, 40)}])
    (decision,) = decisions.values()
    assert decision.demand is not None
    assert decision.demand.slots_now == pytest.approx(60, rel=0.01)
    assert decision.desired == 8
    assert rung(decision, Rung.REACTIVE).replicas == 8


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_services_has_no_influence(seed: int) -> None:
    names = [f"s{n}" for n in range(12)]
    services = [named(name, replicas=1 + n % 5) for n, name in enumerate(names)]
    ticks = [{each.key: at(tick, 7.0 * n + tick, n) for n, each in enumerate(services)} for tick in range(4)]
    shuffled = random.Random(seed).sample(services, k=len(services))
    assert fold(shuffled, ticks)[0] == fold(services, ticks)[0]


def test_a_neighbour_has_no_influence() -> None:
    alone, broken = named("a"), named("b", None)
    ticks = [{alone.key: at(tick, 30 + tick)} for tick in range(4)]
    with_neighbour, _ = fold([alone, broken], ticks)
    without, _ = fold([alone], ticks)
    assert [decisions[alone.key] for decisions in with_neighbour] == [decisions[alone.key] for decisions in without]


def test_an_older_memory_can_be_continued_from() -> None:
    of = named("a")
    first, memory = fold([of], [{of.key: at(0, 30)}])
    once = step(fleet=Fleet([of]), observations={of.key: at(1, 3)}, memory=memory, now=NOW + TICK)[0]
    again = step(fleet=Fleet([of]), observations={of.key: at(1, 3)}, memory=memory, now=NOW + TICK)[0]
    assert once == again
    assert first[0][of.key].desired == 4


def test_a_service_that_is_gone_is_forgotten() -> None:
    a, b = named("a"), named("b")
    _, memory = fold([a, b], [{}])
    _, memory = fold([a], [{}], memory)
    assert set(memory.services) == {a.key}
    assert memory.demand.keys == (a.key,)


def test_a_cold_start_that_was_seen_moves_the_horizon() -> None:
    of = named("a", 2)
    assert of.target is not None
    loading = replace(pods(1, ready=False, age=0.0, prefix="new")[0], created_at=NOW)
    before = replace(of, target=replace(of.target, pods=(*of.target.pods, loading)))
    ready = replace(loading, ready=True, ready_at=NOW + 600)
    after = replace(of, target=replace(of.target, pods=(*of.target.pods, ready)))
    first, memory = step(fleet=Fleet([before]), observations={}, memory=Memory.empty(), now=NOW + TICK)
    then, _ = step(fleet=Fleet([after]), observations={}, memory=memory, now=NOW + 615)
    short, long = first[of.key].demand, then[of.key].demand
    assert short is not None
    assert long is not None
    assert long.startup.p90_seconds > short.startup.p90_seconds


def test_a_pool_follows_a_rise_and_a_fall_and_sits_out_an_outage() -> None:
    """Load 8 -> 80 -> 8 requests; while the metrics are gone for five minutes at the top nothing moves."""
    rise, outage, fall, end = 4, range(20, 40), 60, 100
    replicas, memory, sizes = 2, Memory.empty(), []
    for tick in range(end):
        load = 80.0 if rise <= tick < fall else 8.0
        of = named("a", replicas)
        observed = {} if tick in outage else {of.key: at(tick, load, ready=replicas)}
        decisions, memory = step(fleet=Fleet([of]), observations=observed, memory=memory, now=NOW + TICK * tick)
        replicas = decisions[of.key].desired
        sizes.append(replicas)
    top = sizes[outage[0] - 1]
    assert top >= 10  # 80 requests of 8 a replica, and what the forecast adds
    assert [sizes[tick] for tick in outage] == [top] * len(outage)
    assert min(sizes[rise + 1 : fall]) >= 10
    assert sizes[-1] < top


def test_one_stale_service_does_not_hold_another() -> None:
    a, b = named("a"), named("b")
    old = Signal(value=3.0, age_seconds=200.0, quality=Quality.STALE)
    ticks = [{a.key: at(0, 60), b.key: replace(at(0, 0), running_requests=old, waiting_requests=old)}]
    (decisions,), _ = fold([a, b], ticks)
    assert decisions[a.key].reason is Reason.SCALE_UP
    assert decisions[b.key].reason is Reason.METRICS_STALE


def test_a_service_key_is_spelled_as_people_do() -> None:
    assert str(ServiceKey("inference", "r1")) == "inference/r1"
