"""Which pods leave routing, come back and are deleted, example by example."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from longtail.demand.observation import MISSING, Observation, PodReading, Signal
from longtail.policy.decision import Placement
from longtail.policy.fleet import DrainDeadline, DrainPolicy, DrainRules, Pod, Target, VictimOrder
from longtail.policy.idleness import ROUTING_LAG_SECONDS, IdleSamples, idle_samples
from longtail.policy.memory import ServiceMemory
from longtail.policy.placement import place
from longtail.policy.roster import roster

from .worlds import NOW, TICK, service

LONG_AGO = NOW - 3600
EMPTY = IdleSamples(last_at=NOW, previous_at=NOW - TICK)


def pod(name: str, **over: Any) -> Pod:
    index = int(name.rsplit("-", 1)[-1])
    plain: dict[str, Any] = {
        "name": name,
        "created_at": LONG_AGO,
        "scheduled_at": LONG_AGO,
        "ready_at": LONG_AGO + 60,
        "ready": True,
        "switch": True,
        "index": index,
    }
    return Pod(**(plain | over))


def working(count: int, **over: Any) -> list[Pod]:
    return [pod(f"r1-{n}", **over) for n in range(count)]


def cordoned(name: str, *, since: float = NOW - 120, **over: Any) -> Pod:
    return pod(name, cordoned=True, cordoned_at=since, **over)


def starting(name: str, **over: Any) -> Pod:
    return pod(name, ready=False, ready_at=None, **over)


def reading(name: str, running: float | None = 0.0, *, attained: float = 0.0, gpu: float | None = None) -> PodReading:
    return PodReading(
        name=name,
        running_requests=MISSING if running is None else Signal(value=running),
        waiting_requests=MISSING if running is None else Signal(value=0.0),
        attained_tokens=Signal(value=attained),
        gpu_active_ratio=MISSING if gpu is None else Signal(value=gpu),
    )


def placed(
    pods: Sequence[Pod],
    desired: int,
    *,
    asked: int | None = None,
    readings: Sequence[PodReading] = (),
    empty: Sequence[str] = (),
    may_shrink: bool = True,
    rules: DrainRules | None = None,
    order: VictimOrder = VictimOrder.CHOSEN,
    rolling: bool = False,
    memory: ServiceMemory | None = None,
) -> Placement:
    target = Target(
        replicas=len(pods) if asked is None else asked,
        ready_replicas=sum(p.ready for p in pods),
        pods=tuple(pods),
        victims=order,
        rolling=rolling,
    )
    before = memory or ServiceMemory(idle=dict.fromkeys(empty, EMPTY))
    placement, _ = place(
        service=replace(service(1), target=target, drain=rules or DrainRules()),
        pool=roster(target),
        observation=Observation(at_seconds=NOW, pods=tuple(readings)),
        desired=desired,
        may_shrink=may_shrink,
        memory=before,
        now=NOW,
    )
    return placement


def test_the_replica_with_the_fewest_requests_leaves_routing_and_none_is_deleted() -> None:
    loads = {"r1-0": 5.0, "r1-1": 2.0, "r1-2": 7.0}
    plan = placed(working(3), 2, readings=[reading(name, load) for name, load in loads.items()])
    assert (plan.cordon, plan.commit, plan.replicas) == (("r1-1",), (), 3)


def test_among_equals_the_replica_that_has_written_least_leaves() -> None:
    readings = [reading("r1-0", 2.0, attained=900.0), reading("r1-1", 2.0, attained=30.0)]
    assert placed(working(2), 1, readings=readings).cordon == ("r1-1",)


def test_a_replica_without_a_sample_is_taken_as_the_busiest() -> None:
    assert placed(working(2), 1, readings=[reading("r1-0", 7.0), reading("r1-1", None)]).cordon == ("r1-0",)


@pytest.mark.parametrize(
    ("replicas", "already_out", "leaving"),
    [
        pytest.param(3, 0, 1, id="one of a small pool"),
        pytest.param(10, 0, 2, id="a fifth"),
        pytest.param(4, 1, 0, id="the one that is out already counts"),
        pytest.param(20, 2, 2, id="the rest of the fifth"),
    ],
)
def test_at_most_a_fifth_is_out_of_routing_at_a_time(replicas: int, already_out: int, leaving: int) -> None:
    out = [cordoned(f"r1-{100 + n}") for n in range(already_out)]
    assert len(placed([*working(replicas), *out], 1).cordon) == leaving


def test_a_cordoned_replica_is_deleted_when_it_was_seen_empty_twice() -> None:
    pods = [*working(2), cordoned("r1-2")]
    assert placed(pods, 2).commit == ()
    plan = placed(pods, 2, empty=["r1-2"])
    assert (plan.commit, plan.asked, plan.replicas) == (("r1-2",), 3, 2)


def test_samples_from_before_the_cordon_prove_nothing() -> None:
    fresh = cordoned("r1-2", since=NOW - TICK)
    assert placed([*working(2), fresh], 2, empty=["r1-2"]).commit == ()


def test_load_that_returns_is_served_by_uncordoning_before_anything_is_started() -> None:
    pods = [*working(2), cordoned("r1-2"), cordoned("r1-3")]
    plan = placed(pods, 5, empty=["r1-2"], readings=[reading("r1-3", 4.0)])
    assert set(plan.uncordon) == {"r1-2", "r1-3"}
    assert (plan.commit, plan.replicas) == ((), 5)


def test_the_one_that_would_take_longest_to_empty_comes_back_first() -> None:
    pods = [*working(2), cordoned("r1-2"), cordoned("r1-3")]
    plan = placed(pods, 3, readings=[reading("r1-2", 1.0), reading("r1-3", 6.0)])
    assert plan.uncordon == ("r1-3",)


def test_a_start_gives_way_to_a_replica_that_is_there() -> None:
    plan = placed([*working(2), starting("r1-2"), cordoned("r1-3")], 3)
    assert (plan.uncordon, plan.commit, plan.asked, plan.replicas) == (("r1-3",), ("r1-2",), 4, 3)


def test_starts_that_are_no_longer_needed_are_taken_back_the_unscheduled_first() -> None:
    pods = [*working(2), starting("r1-2"), starting("r1-3", scheduled_at=None)]
    plan = placed(pods, 3)
    assert (plan.commit, plan.cordon, plan.replicas) == (("r1-3",), (), 3)


def test_nothing_is_deleted_while_a_pod_that_is_not_wanted_gone_would_go_first() -> None:
    """A ReplicaSet takes pods that are not ready before any deletion cost."""
    broken = pod("r1-2", ready=False)
    pods = [*working(2), broken, cordoned("r1-3")]
    assert placed(pods, 2, empty=["r1-3"]).commit == ()


def test_a_crashed_replica_holds_no_work_and_goes_first() -> None:
    crashed = pod("r1-2", ready=False, stopped=True)
    assert placed([*working(2), crashed], 2).commit == ("r1-2",)


def test_a_broken_replica_does_not_make_a_working_one_superfluous() -> None:
    pods = [*working(2), pod("r1-2", ready=False), pod("r1-3", ready=False)]
    plan = placed(pods, 2)
    assert (plan.cordon, plan.commit, plan.replicas) == ((), (), 4)


def test_in_doubt_nothing_is_deleted_and_nobody_leaves_but_growth_goes_on() -> None:
    pods = [*working(3), starting("r1-3"), cordoned("r1-4")]
    down = placed(pods, 1, empty=["r1-4", "r1-0"], may_shrink=False)
    assert (down.cordon, down.commit, down.replicas) == ((), (), 5)
    up = placed(pods, 6, may_shrink=False)
    assert (up.uncordon, up.replicas) == (("r1-4",), 6)


def test_a_plan_does_not_speak_of_starts_that_it_keeps() -> None:
    pods = [*working(2), starting("r1-2")]
    assert "no longer to be started" in placed(pods, 2).because
    assert placed(pods, 2, may_shrink=False).because == "nothing to place"


def test_during_a_rollout_nobody_leaves_and_nothing_is_deleted() -> None:
    plan = placed([*working(3), cordoned("r1-3")], 1, empty=["r1-3"], rolling=True)
    assert (plan.cordon, plan.commit, plan.replicas) == ((), (), 4)


class TestDeadline:
    late = cordoned("r1-2", since=NOW - 4000)

    def test_a_drain_that_takes_too_long_ends_with_the_replica_back_at_work(self) -> None:
        plan = placed([*working(2), self.late], 2, readings=[reading("r1-2", 3.0)])
        assert (plan.uncordon, plan.commit) == (("r1-2",), ())

    def test_it_does_so_even_when_nothing_is_known(self) -> None:
        assert placed([*working(2), self.late], 2, may_shrink=False).uncordon == ("r1-2",)

    def test_and_is_not_chosen_again_at_once(self) -> None:
        spared = ServiceMemory(spared_until={"r1-0": NOW + 60})
        assert placed(working(2), 1, readings=[reading("r1-1", 9.0)], memory=spared).cordon == ("r1-1",)

    def test_the_user_may_want_it_deleted_instead(self) -> None:
        rules = DrainRules(on_deadline=DrainDeadline.DELETE)
        plan = placed([*working(2), self.late], 2, readings=[reading("r1-2", 3.0)], rules=rules)
        assert (plan.uncordon, plan.commit) == ((), ("r1-2",))
        assert placed([*working(2), self.late], 2, rules=rules, may_shrink=False).commit == ()


class TestWithoutASwitch:
    def test_only_idle_replicas_go(self) -> None:
        plan = placed(working(3, switch=False), 1, empty=["r1-1"])
        assert (plan.cordon, plan.commit, plan.replicas) == ((), ("r1-1",), 2)

    def test_busy_ones_stay_and_the_plan_says_why(self) -> None:
        plan = placed(working(3, switch=False), 1)
        assert plan.replicas == 3
        assert "none can be taken out of routing" in plan.because


class TestHighestIndex:
    order = VictimOrder.HIGHEST_INDEX

    def test_the_highest_index_leaves_whatever_it_is_doing(self) -> None:
        readings = [reading("r1-0"), reading("r1-1"), reading("r1-2", 7.0)]
        assert placed(working(3), 2, readings=readings, order=self.order).cordon == ("r1-2",)

    def test_an_empty_replica_below_a_busy_one_waits_for_it(self) -> None:
        pods = [*working(8), cordoned("r1-8"), cordoned("r1-9")]
        assert placed(pods, 8, empty=["r1-8"], order=self.order).commit == ()
        assert placed(pods, 8, empty=["r1-9"], order=self.order).commit == ("r1-9",)

    def test_the_lowest_index_comes_back_first(self) -> None:
        pods = [*working(8), cordoned("r1-8"), cordoned("r1-9")]
        assert placed(pods, 9, order=self.order).uncordon == ("r1-8",)

    def test_without_a_switch_it_goes_only_if_it_is_idle(self) -> None:
        pods = working(3, switch=False)
        assert placed(pods, 2, empty=["r1-0"], order=self.order).commit == ()
        assert placed(pods, 2, empty=["r1-2"], order=self.order).commit == ("r1-2",)


class TestOtherHands:
    def test_a_replica_that_somebody_took_out_is_neither_counted_nor_touched(self) -> None:
        pods = [*working(3), pod("r1-3", isolated=True)]
        plan = placed(pods, 3, empty=["r1-3"])
        assert (plan.cordon, plan.uncordon, plan.commit, plan.replicas) == ((), (), (), 4)

    def test_a_replica_whose_deletion_is_under_way_cannot_be_called_back(self) -> None:
        pods = [*working(2), cordoned("r1-2", condemned=True)]
        plan = placed(pods, 3, asked=2)
        assert (plan.uncordon, plan.asked, plan.replicas) == ((), 2, 3)

    def test_a_deletion_that_was_announced_and_not_made_is_made_or_taken_back(self) -> None:
        """The operator died between the deletion cost and the lowering."""
        pods = [*working(2), cordoned("r1-2", condemned=True)]
        assert placed(pods, 2, empty=["r1-2"]).replicas == 2
        assert placed(pods, 3).uncordon == ("r1-2",)


def test_who_wants_deletion_at_once_gets_it_with_the_least_loaded_as_victims() -> None:
    readings = [reading("r1-0", 5.0), reading("r1-1", 1.0), reading("r1-2", 3.0)]
    plan = placed(working(3), 1, readings=readings, rules=DrainRules(policy=DrainPolicy.IMMEDIATE))
    assert (plan.cordon, plan.commit, plan.replicas) == ((), ("r1-1", "r1-2"), 1)


def test_replicas_without_a_pod_yet_are_taken_back_first() -> None:
    assert placed([*working(2), starting("r1-2")], 2, asked=4).replicas == 2


def test_without_a_single_pod_in_sight_nothing_is_taken_back() -> None:
    assert placed([], 1, asked=4).replicas == 4


class TestIdleness:
    def test_two_distinct_samples_are_needed(self) -> None:
        known: dict[str, IdleSamples] = {}
        for at in (0.0, 0.2, 15.0):
            known = idle_samples(known, Observation(at_seconds=at, pods=(reading("r1-0"),)))
        assert known == {"r1-0": IdleSamples(last_at=15.0, previous_at=0.0)}

    @pytest.mark.parametrize(
        "doubt",
        [
            pytest.param(reading("r1-0", 1.0), id="a request runs"),
            pytest.param(reading("r1-0", None), id="no sample"),
            pytest.param(reading("r1-0", 0.0, gpu=0.4), id="its GPU is busy"),
        ],
    )
    def test_one_doubt_and_it_starts_anew(self, doubt: PodReading) -> None:
        known = idle_samples({"r1-0": EMPTY}, Observation(at_seconds=NOW + TICK, pods=(doubt,)))
        assert known == {}

    def test_an_old_sample_counts_from_when_it_was_taken(self) -> None:
        old = replace(reading("r1-0"), running_requests=Signal(value=0.0, age_seconds=9.0))
        known = idle_samples({}, Observation(at_seconds=NOW, pods=(old,)))
        assert known["r1-0"].last_at == NOW - 9.0

    def test_the_lag_of_routing_is_waited_for(self) -> None:
        since = NOW - TICK - ROUTING_LAG_SECONDS
        assert placed([*working(2), cordoned("r1-2", since=since)], 2, empty=["r1-2"]).commit == ("r1-2",)
        assert placed([*working(2), cordoned("r1-2", since=since + 0.1)], 2, empty=["r1-2"]).commit == ()


def test_in_the_middle_of_a_rollout_not_even_a_start_is_taken_back() -> None:
    # The Deployment might take the lowering from the ReplicaSet whose pods are at work.
    plan = placed([*working(2), starting("r1-2")], 2, asked=4, rolling=True)
    assert (plan.replicas, plan.commit) == (4, ())


@pytest.mark.parametrize(
    ("pods", "empty", "asked", "replicas"),
    [
        pytest.param(working(3), ["r1-0", "r1-1", "r1-2"], 3, 1, id="all are idle"),
        pytest.param(working(3), ["r1-0", "r1-1"], 3, 3, id="one may be at work"),
        pytest.param([*working(1), starting("r1-9")], ["r1-0"], 2, 2, id="the other one might go"),
        pytest.param([*working(2), cordoned("r1-9")], ["r1-9"], 3, 3, id="the empty one would have to be named"),
        pytest.param(working(1), [], 3, 1, id="nobody goes where nobody is"),
    ],
)
def test_where_nobody_can_say_who_goes_nobody_may_be_at_work(pods, empty, asked: int, replicas: int) -> None:
    plan = placed(pods, 1, asked=asked, empty=empty, order=VictimOrder.UNKNOWN)
    assert (plan.replicas, plan.commit, plan.cordon) == (replicas, (), ())
