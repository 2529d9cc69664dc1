"""A random walk over loads, faults, crashes and other people's hands: no thought is cut by our doing, ever.

The whole of `step` runs, demand model included, against a ReplicaSet with a scheduler, an own idea of whom to
delete, and metrics that come and go. `LONGTAIL_WALK_STEPS` sets the number of steps (`make soak`: more).
"""

import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from longtail.demand.observation import Observation
from longtail.demand.parameters import CapacityOverride, ServiceParameters
from longtail.policy.decision import Decision
from longtail.policy.fleet import Behavior, DrainRules, Fleet, Limits, Mode, Service
from longtail.policy.memory import Memory
from longtail.policy.step import step

from .replica_set import COLD_START_SECONDS, SLOTS, OperatorDied, ReplicaSet
from .worlds import KEY, NOW, TICK, rules

STEPS = int(os.environ.get("LONGTAIL_WALK_STEPS", "5000"))
STEPS_PER_WALK = 100

BEHAVIOR = Behavior(scale_down=rules(window=60))
LOWEST, HIGHEST = 1, 12


class Walk(RuleBasedStateMachine):
    """One service, looked at after every step."""

    @initialize(replicas=st.integers(1, 8))
    def begin(self, replicas: int) -> None:
        self.pool = ReplicaSet(now=NOW, replicas=replicas)
        self.pool.settle()
        self.pool.pass_time(COLD_START_SECONDS)
        self.memory = Memory.empty()
        self.decision: Decision | None = None

    def look(self, observation: Observation | None = None, *, dies_before_write: int | None = None) -> None:
        """One tick of the operator on what it sees, then of the world on what was written."""
        pool = self.pool
        service = Service(
            key=KEY,
            mode=Mode.ACTIVE,
            parameters=ServiceParameters(
                capacity=CapacityOverride(max_concurrent_requests=SLOTS), startup_seconds=COLD_START_SECONDS
            ),
            limits=Limits(min_replicas=LOWEST, max_replicas=HIGHEST, behavior=BEHAVIOR),
            target=pool.target(),
            drain=DrainRules(max_seconds=900.0),
        )
        seen = observation or pool.observation()
        decisions, self.memory = step(
            fleet=Fleet(services=(service,)), observations={KEY: seen}, memory=self.memory, now=pool.now
        )
        self.decision = decisions[KEY]
        placement = self.decision.placement
        if placement is not None:
            try:
                pool.carry_out(placement, dies_before_write=dies_before_write)
            except OperatorDied:
                self.memory = Memory.empty()
        pool.settle()
        pool.pass_time(TICK)

    @rule(count=st.integers(0, 40), length=st.sampled_from([5.0, 30.0, 120.0, 600.0]))
    def load_comes(self, count: int, length: float) -> None:
        self.pool.arrive([length * (1 + n % 3) for n in range(count)])
        self.look()

    @rule(ticks=st.integers(1, 3))
    def time_passes(self, ticks: int) -> None:
        for _ in range(ticks):
            self.look()

    @rule(ticks=st.integers(1, 3))
    def metrics_are_gone(self, ticks: int) -> None:
        for _ in range(ticks):
            before = self.pool.replicas
            self.look(self.pool.observation(hidden=lambda _: True))
            assert self.pool.replicas >= before

    @rule(one_in=st.integers(2, 4), ticks=st.integers(1, 3))
    def some_pods_are_not_scraped(self, one_in: int, ticks: int) -> None:
        for _ in range(ticks):
            self.look(self.pool.observation(hidden=lambda name: int(name.split("-")[1]) % one_in == 0))

    @rule()
    def metrics_are_old(self) -> None:
        before = self.pool.replicas
        self.look(replace(self.pool.observation(age_seconds=200.0)))
        assert self.pool.replicas >= before

    @rule(write=st.integers(0, 4))
    def operator_dies_between_two_writes(self, write: int) -> None:
        self.look(dies_before_write=write)

    @rule()
    def operator_is_restarted(self) -> None:
        self.memory = Memory.empty()
        self.look()

    @precondition(lambda self: self.pool.pods)
    @rule(data=st.data())
    def a_pod_is_evicted(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.pool.pods)))
        self.pool.delete(name, cause="evicted")
        self.pool.settle()
        self.look()

    @rule(gpus=st.integers(0, 14))
    def gpus_come_and_go(self, gpus: int) -> None:
        self.pool.gpus = gpus
        self.look()

    @rule(replicas=st.integers(1, HIGHEST))
    def somebody_scales_by_hand(self, replicas: int) -> None:
        self.pool.replicas, self.pool.blame = replicas, "by hand"
        self.pool.settle()
        self.look()

    @precondition(lambda self: self.pool.pods)
    @rule(data=st.data(), ticks=st.integers(1, 3))
    def a_pod_is_not_ready_for_a_while(self, data: st.DataObject, ticks: int) -> None:
        pod = self.pool.pods[data.draw(st.sampled_from(sorted(self.pool.pods)))]
        if pod.ready_at is not None:
            pod.ready = False
            for _ in range(ticks):
                self.look()
            pod.ready = True

    @invariant()
    def no_work_is_lost_by_our_doing(self) -> None:
        if self.decision is not None:
            assert set(self.pool.killed) <= {"evicted", "by hand"}

    @invariant()
    def what_is_asked_for_is_within_the_limits(self) -> None:
        if self.decision is not None:
            assert LOWEST <= self.pool.replicas <= HIGHEST

    @invariant()
    def no_more_than_a_fifth_is_out_of_routing(self) -> None:
        if self.decision is not None and self.decision.placement is not None and self.decision.placement.cordon:
            ready = sum(pod.ready for pod in self.pool.pods.values())
            out = sum(not pod.routed for pod in self.pool.pods.values())
            assert out <= max(1, 0.2 * ready)

    def teardown(self) -> None:
        """Whatever happened: when all is well again the pool comes to rest, with nobody left outside."""
        if self.decision is None:
            return
        self.pool.gpus = 40
        for pod in self.pool.pods.values():
            pod.ready = pod.ready_at is not None
        # How long a burst is remembered is the model's affair; what is asked is that its number is reached.
        for tick in range(400):
            self.look()
            serving = sum(pod.routed for pod in self.pool.pods.values())
            if tick >= 60 and self.pool.replicas == serving == self.decision.desired:
                break
        assert self.pool.replicas == self.decision.desired
        assert [pod.name for pod in self.pool.pods.values() if not pod.routed] == []
        self.no_work_is_lost_by_our_doing()


@pytest.mark.parametrize("quarter", range(4))  # so that several cores can walk
def test_a_random_walk_cuts_no_thought(quarter: int) -> None:
    walk = settings(
        deadline=None,
        max_examples=max(STEPS // 4 // STEPS_PER_WALK, 1),
        stateful_step_count=STEPS_PER_WALK,
        suppress_health_check=list(HealthCheck),
        database=None,
    )

    class Quarter(Walk):
        """The same rules, another way."""

    # The same four walks every time, so that a red test means a change; where steps are asked for, new ones.
    if "LONGTAIL_WALK_STEPS" not in os.environ:
        Quarter = seed(quarter)(Quarter)  # type: ignore[misc]  # noqa: N806
    run_state_machine_as_test(Quarter, settings=walk)
