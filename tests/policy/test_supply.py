from dataclasses import replace
from typing import Any

import pytest

from longtail.policy.fleet import Pod, Target
from longtail.policy.memory import ServiceMemory
from longtail.policy.supply import supply_of

from .worlds import NOW, pods

MET = ServiceMemory(met=True)


def pod(name: str = "new", **over: Any) -> Pod:
    return replace(Pod(name=name, created_at=NOW - 100, ready_at=NOW - 10, ready=True), **over)


def target(*some: Pod, replicas: int | None = None) -> Target:
    return Target(replicas=len(some) if replicas is None else replicas, ready_replicas=0, pods=some)


def cold_starts(*some: Pod, memory: ServiceMemory = MET) -> list[float]:
    supply, _ = supply_of(target(*some), memory=memory, start_seconds=180.0, now=NOW)
    return list(supply.cold_starts_seconds)


def test_pods_are_counted_by_what_they_do() -> None:
    loading = Pod(name="loading", created_at=NOW - 40)
    leaving = pod("leaving", deleting=True)
    gone_dark = pod("gone-dark", ready=False, deleting=True)
    supply, _ = supply_of(
        target(*pods(2), loading, leaving, gone_dark, replicas=3), memory=MET, start_seconds=180.0, now=NOW
    )
    assert supply.ready_replicas == 2
    assert list(supply.pending_ages_seconds) == [40.0]
    assert supply.draining_replicas == 1


def test_a_replica_without_a_pod_yet_is_pending_since_now() -> None:
    supply, _ = supply_of(target(*pods(2), replicas=5), memory=MET, start_seconds=180.0, now=NOW)
    assert list(supply.pending_ages_seconds) == [0.0, 0.0, 0.0]


def test_a_clock_that_is_behind_gives_no_negative_age() -> None:
    supply, _ = supply_of(target(Pod(name="early", created_at=NOW + 3)), memory=MET, start_seconds=180.0, now=NOW)
    assert list(supply.pending_ages_seconds) == [0.0]


def test_without_pods_the_counts_of_the_target_have_to_do() -> None:
    supply, _ = supply_of(Target(replicas=5, ready_replicas=3), memory=MET, start_seconds=180.0, now=NOW)
    assert (supply.ready_replicas, list(supply.pending_ages_seconds)) == (3, [0.0, 0.0])


def test_no_target_supplies_nothing() -> None:
    supply, memory = supply_of(None, memory=MET, start_seconds=180.0, now=NOW)
    assert (supply.ready_replicas, memory) == (0, MET)


def test_a_cold_start_lasts_from_creation_to_first_ready() -> None:
    assert cold_starts(pod()) == [90.0]


def test_an_hour_without_gpus_is_no_cold_start_of_an_hour() -> None:
    assert cold_starts(pod(created_at=NOW - 3600, ready_at=NOW - 10)) == [3 * 180.0]


def test_a_cold_start_is_learned_once() -> None:
    _, memory = supply_of(target(pod()), memory=MET, start_seconds=180.0, now=NOW)
    assert cold_starts(pod(), memory=memory) == []


def test_a_pod_that_flaps_is_not_learned_again() -> None:
    _, memory = supply_of(target(pod()), memory=MET, start_seconds=180.0, now=NOW)
    _, memory = supply_of(target(pod(ready=False, ready_at=None)), memory=memory, start_seconds=180.0, now=NOW)
    assert cold_starts(pod(ready_at=NOW + 900), memory=memory) == []


def test_a_pod_that_is_gone_is_forgotten() -> None:
    _, memory = supply_of(target(pod()), memory=MET, start_seconds=180.0, now=NOW)
    _, memory = supply_of(target(), memory=memory, start_seconds=180.0, now=NOW)
    assert memory.known_pods == frozenset()


@pytest.mark.parametrize(
    "untold",
    [
        pytest.param(pod(restarted=True), id="restarted"),
        pytest.param(pod(ready=False, ready_at=None), id="not-ready-yet"),
        pytest.param(pod(ready_at=NOW - 101), id="ready-before-it-was-made"),
    ],
)
def test_some_pods_teach_nothing(untold: Pod) -> None:
    assert cold_starts(untold) == []


def test_a_restarted_pod_is_not_learned_later_either() -> None:
    _, memory = supply_of(target(pod(restarted=True)), memory=MET, start_seconds=180.0, now=NOW)
    assert cold_starts(pod(), memory=memory) == []


def test_pods_that_were_ready_at_first_sight_teach_nothing() -> None:
    # What they show is the last change of their condition, which a flap of yesterday makes a day long.
    supply, memory = supply_of(target(pod()), memory=ServiceMemory(), start_seconds=180.0, now=NOW)
    assert list(supply.cold_starts_seconds) == []
    assert memory.met
    assert cold_starts(pod(), memory=memory) == []
    assert cold_starts(pod(), pod("later"), memory=memory) == [90.0]


def test_a_pod_seen_loading_at_first_sight_is_learned_when_it_is_ready() -> None:
    loading = replace(pod(), ready=False, ready_at=None)
    _, memory = supply_of(target(loading), memory=ServiceMemory(), start_seconds=180.0, now=NOW - 50)
    assert cold_starts(pod(), memory=memory) == [90.0]
