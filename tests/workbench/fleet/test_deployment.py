"""Pods as a ReplicaSet, a scheduler and a supply of GPUs make them."""

import pytest

from longtail.workbench.fleet.accounts import Phase
from longtail.workbench.fleet.deployment import Deployment
from longtail.workbench.fleet.setting import Setting


def grown(deployment, *, to, at):
    deployment.scale(to, at_seconds=at)
    deployment.schedule(at)


def settled(deployment, at):
    while deployment.next_seconds <= at:
        deployment.schedule(deployment.next_seconds)
        deployment.due(deployment.next_seconds)


def test_initial_replicas_are_there_at_once():
    deployment = Deployment(Setting(initial_replicas=2))
    ready, gone = deployment.due(0.0)
    assert (len(ready), gone, deployment.phases()[Phase.SERVING]) == (2, [], 2)


def test_cold_starts_are_drawn_around_the_mean_and_by_the_seed():
    def starts(seed):
        deployment = Deployment(Setting(initial_replicas=0, max_replicas=500, seed=seed))
        grown(deployment, to=500, at=100.0)
        return [pod.ready_due_seconds - 100.0 for pod in deployment.pods]

    drawn = starts(1)
    assert min(drawn) >= 144.0
    assert max(drawn) <= 216.0
    assert sum(drawn) / 500 == pytest.approx(180.0, abs=4 * 20.8 / 500**0.5)
    assert drawn == starts(1)
    assert drawn != starts(2)


def test_pods_without_a_gpu_go_first_then_those_that_start_then_the_newest_ready():
    deployment = Deployment(Setting(initial_replicas=1, gpu_limit=[(0.0, 4)], cold_start_spread=0.0))
    deployment.due(0.0)
    grown(deployment, to=2, at=10.0)
    settled(deployment, 190.0)  # pods 0 and 1 are ready
    grown(deployment, to=6, at=200.0)  # pods 2 and 3 start, 4 and 5 find no GPU
    victims = deployment.scale(1, at_seconds=210.0)
    assert [pod.name for pod in victims] == ["pod-5", "pod-4", "pod-3", "pod-2", "pod-1"]


def test_a_pod_waits_for_a_gpu_until_the_supply_grows_and_starts_then():
    deployment = Deployment(Setting(initial_replicas=1, gpu_limit=[(0.0, 1), (500.0, 2)], cold_start_spread=0.0))
    deployment.due(0.0)
    grown(deployment, to=3, at=10.0)
    assert deployment.phases()[Phase.UNSCHEDULED] == 2
    assert deployment.next_seconds == 500.0
    deployment.schedule(500.0)
    assert deployment.phases() == {Phase.UNSCHEDULED: 1, Phase.STARTING: 1, Phase.SERVING: 1, Phase.DRAINING: 0}
    assert deployment.pods[1].ready_due_seconds == 680.0


def test_wanted_counts_those_asked_for_less_the_cordoned():
    deployment = Deployment(Setting(initial_replicas=3))
    deployment.due(0.0)
    deployment.named(["pod-1"])[0].cordoned_seconds = 5.0
    deployment.touch()
    assert deployment.wanted == 2
    assert deployment.phases()[Phase.DRAINING] == 1
