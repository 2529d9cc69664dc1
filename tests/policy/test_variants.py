"""Variants of one model: whose next replica starts, whose goes first, and that the group never has less than it needs."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.demand.observation import MISSING, Observation, Signal
from longtail.demand.parameters import ServiceParameters
from longtail.policy.decision import Decision, Reason, Rung, Shortage, ShortageReason
from longtail.policy.fleet import (
    DrainPolicy,
    DrainRules,
    Fleet,
    GpuBudget,
    GpuShape,
    Limits,
    Mode,
    Pod,
    SelectPolicy,
    Service,
    ServiceKey,
    Variant,
)
from longtail.policy.gateway_queue import one_queue
from longtail.policy.memory import Memory, RanOut, ServiceMemory
from longtail.policy.roster import roster
from longtail.policy.step import step
from longtail.policy.variants import Member, learn, share

from .replica_set import COLD_START_SECONDS, ReplicaSet
from .test_budget import load, pool
from .worlds import AT_ONCE, NOW, TICK, rung

untimed = settings(deadline=None)


def member(name: str, *, has: int = 4, need: int = 4, **over: Any) -> Member:
    fields: dict[str, Any] = {
        "key": ServiceKey("inference", name),
        "pace": 100.0,
        "cost": 1.0,
        "serving": has,
        "ready": has,
        "need": need,
        "own": need,
        "keep": need,
        "least": 1,
        "most": 20,
        "reach": 20,
    }
    return Member(**(fields | over))


def cheap(**over: Any) -> Member:
    return member("cheap", **over)


def dear(**over: Any) -> Member:
    return member("dear", **({"cost": 1.5} | over))


@pytest.mark.parametrize(
    ("members", "shares"),
    [
        pytest.param([cheap()], [4], id="alone"),
        pytest.param([cheap(need=5), dear(need=5)], [9, 4], id="the-next-one-on-the-cheapest"),
        pytest.param([cheap(calm=False, need=5), dear(need=5)], [6, 4], id="no-move-while-something-starts"),
        pytest.param([cheap(need=3), dear(need=3)], [5, 2], id="only-as-much-goes-as-is-ready-elsewhere"),
        pytest.param([cheap(has=7, need=3), dear(need=3)], [5, 1], id="the-dearest-goes-first"),
        pytest.param([cheap(has=6, ready=5, need=3), dear(need=3)], [5, 1], id="as-far-as-others-are-ready"),
        pytest.param([cheap(has=6, ready=4, need=3, calm=False), dear(need=3)], [5, 2], id="not-for-a-start"),
        pytest.param([cheap(most=4, need=6), dear()], [4, 6], id="maxReplicas-is-passed-on"),
        pytest.param(
            [cheap(has=6, ready=4, need=6, reach=4, calm=False), dear()], [6, 6], id="short-asks-on-and-others-serve"
        ),
        pytest.param([cheap(), dear(cost=1.05)], [4, 4], id="a-small-difference-moves-nobody"),
        pytest.param([cheap(), dear(pace=50.0)], [6, 4], id="a-smaller-replica-holds-less"),
        pytest.param([cheap(has=6, need=3), dear(has=4, need=3, yields=False)], [3, 3], id="who-may-not-shrink-stays"),
        pytest.param([cheap(need=3, moves=False, own=4), dear(need=3)], [4, 2], id="what-is-fixed-has-room"),
        pytest.param([cheap(need=6, moves=False, own=4), dear(need=3)], [4, 5], id="what-is-fixed-is-short"),
        pytest.param([cheap(moves=False), dear(moves=False)], [4, 4], id="nobody-moves"),
        pytest.param([cheap(need=5, calm=False), dear(back=1)], [4, 5], id="back-before-a-start"),
        pytest.param([cheap(has=9, need=2), dear(has=1, need=1)], [2, 1], id="nothing-needed"),
    ],
)
def test_shares(members: Sequence[Member], shares: Sequence[int]) -> None:
    assert [each.replicas for each in share(members)] == shares


def test_without_capacity_anywhere_all_is_asked_for_and_nobody_goes() -> None:
    given_to = share([cheap(has=6, ready=4, reach=4, most=8, need=8), dear(has=4, ready=2, reach=2, most=8, need=8)])
    assert [(each.replicas, each.now, each.covered) for each in given_to] == [(8, 4, False), (8, 2, False)]


# --- what holds of any group


@st.composite
def members_of(draw: st.DrawFn) -> Member:
    least = draw(st.integers(0, 3))
    most = draw(st.integers(max(least, 1), 14))
    serving = draw(st.integers(least, most))
    ready = draw(st.integers(0, serving))
    need = draw(st.integers(0, 16))
    own = min(max(draw(st.sampled_from([need, need, draw(st.integers(0, 16))])), least), most)
    return member(
        "",
        has=serving,
        need=need,
        ready=ready,
        own=own,
        keep=max(need, own) if draw(st.booleans()) else need,
        least=least,
        most=most,
        reach=draw(st.sampled_from([most, most, draw(st.integers(0, most))])),
        back=draw(st.integers(0, 2)),
        pace=draw(st.sampled_from([50.0, 100.0, 333.3])),
        cost=draw(st.sampled_from([1.0, 1.05, 1.5, 4.0])),
        moves=draw(st.sampled_from([True, True, True, False])),
        yields=draw(st.sampled_from([True, True, True, False])),
        calm=draw(st.sampled_from([True, True, True, False])),
    )


def named(members: Sequence[Member]) -> list[Member]:
    return [replace(each, key=ServiceKey("inference", f"s{n:02}")) for n, each in enumerate(members)]


any_group = st.lists(members_of(), min_size=2, max_size=6).map(named)


@untimed
@given(any_group)
def test_what_is_needed_is_given_as_far_as_it_can_be_had(members: Sequence[Member]) -> None:
    needed = sum(each.pace * each.need for each in members)
    fixed = sum(each.pace * each.own for each in members if not each.moves)
    most = fixed + sum(each.pace * min(each.most, each.reach) for each in members if each.moves)
    shares = share(members)
    had = sum(each.pace * given_to.now for each, given_to in zip(members, shares, strict=True))
    if any(each.moves for each in members):
        assert had >= min(needed, most) * (1 - 1e-9)


@untimed
@given(any_group)
def test_nobody_leaves_its_limits_or_moves_who_is_fixed(members: Sequence[Member]) -> None:
    for each, given_to in zip(members, share(members), strict=True):
        if each.moves:
            assert each.least <= given_to.replicas <= each.most
            assert given_to.now <= each.reach or given_to.now <= each.own
        else:
            assert given_to.replicas == each.own


@untimed
@given(any_group)
def test_what_is_ready_goes_only_where_others_that_are_ready_cover_it(members: Sequence[Member]) -> None:
    pairs = list(zip(members, share(members), strict=True))
    ready = sum(each.pace * min(each.ready, given_to.replicas) for each, given_to in pairs)
    keep = sum(each.pace * each.keep for each in members)
    for each, given_to in pairs:
        if given_to.replicas < min(each.own, each.serving):
            assert ready >= keep * (1 - 1e-9)
            assert each.yields


@untimed
@given(any_group, st.integers(0, 99))
def test_the_order_of_variants_has_no_influence(members: Sequence[Member], seed: int) -> None:
    mixed = list(members)
    Random(seed).shuffle(mixed)
    one = dict(zip([each.key for each in members], share(members), strict=True))
    assert one == dict(zip([each.key for each in mixed], share(mixed), strict=True))


@untimed
@given(any_group)
def test_under_the_same_need_a_group_comes_to_rest(members: Sequence[Member]) -> None:
    """Whatever is asked for becomes ready, whatever goes is gone: after a few rounds nothing moves any more."""
    group = [
        replace(each, reach=each.most, calm=True, back=0, own=min(max(each.need, each.least), each.most))
        for each in members
        if each.moves
    ]
    group = [replace(each, keep=each.need, ready=each.serving) for each in group]
    for _ in range(4):
        sizes = [given_to.replicas for given_to in share(group)]
        group = [replace(each, serving=size, ready=size) for each, size in zip(group, sizes, strict=True)]
    assert [given_to.replicas for given_to in share(group)] == [each.serving for each in group]


# --- whole ticks: replicas of 8 slots, of 8 GPUs on either class; a GPU-hour costs 3 here and 4 there

PRICES = {"h100": 3.0, "l40s": 4.0}


def variant(name: str, replicas: int, **over: Any) -> Service:
    """ "h100" is the cheap one here, whatever the market says."""
    gpus = GpuShape(name.upper(), 8)
    return pool(name, replicas, **({"gpus": gpus, "variant": Variant("r1", PRICES.get(name))} | over))


def pending(of: Service, count: int, *, since: float) -> Service:
    """The same with replicas more that no node takes."""
    target = of.target
    assert target is not None
    more = tuple(
        Pod(f"{of.key.name}-pending-{n}", created_at=since, unschedulable_message="0/9 nodes are available")
        for n in range(count)
    )
    return replace(of, target=replace(target, replicas=target.replicas + count, pods=(*target.pods, *more)))


def ticks(
    services: Sequence[Service], loads: dict[str, float], *budgets: GpuBudget, count: int = 25
) -> dict[str, Decision]:
    """What is decided after enough ticks with the same load for pools to be allowed to shrink."""
    memory = Memory.empty()
    for tick in range(count):
        seen = {of.key: load(of, loads[of.key.name], tick=tick) for of in services if of.key.name in loads}
        decisions, memory = step(
            fleet=Fleet(services, budgets), observations=seen, memory=memory, now=NOW + TICK * tick
        )
    return {key.name: decision for key, decision in decisions.items()}


def sizes(decided: dict[str, Decision]) -> dict[str, int]:
    return {name: decision.desired for name, decision in decided.items()}


def test_the_next_replica_starts_on_the_cheapest_and_both_say_why() -> None:
    decided = ticks([variant("h100", 3), variant("l40s", 3)], {"h100": 24, "l40s": 30}, count=1)
    h100, l40s = decided["h100"], decided["l40s"]
    assert (l40s.desired, l40s.limited_by, l40s.reason) == (3, Reason.VARIANTS, Reason.VARIANTS)
    assert (h100.desired, h100.limited_by, h100.reason) == (4, None, Reason.SCALE_UP)
    why = "variants of r1: 4 replicas here; a token here costs 0.75 of one on l40s"
    assert rung(h100, Rung.VARIANTS).because.startswith(why)
    assert why in h100.message
    assert "a token here costs 1.33 of one on h100" in l40s.message


def test_the_dearest_shrinks_first_and_by_the_reversible_way() -> None:
    """Each would take 7: 12 that are ready and 2 are those 14. One more on the cheaper, and the dearer has its least."""
    alone = ticks([variant("h100", 12), variant("l40s", 5, variant=None)], {"h100": 16, "l40s": 16})
    assert sizes(alone) == {"h100": 7, "l40s": 7}
    decided = ticks([variant("h100", 12), variant("l40s", 5)], {"h100": 16, "l40s": 16})
    assert sizes(decided) == {"h100": 13, "l40s": 2}
    l40s = decided["l40s"].placement
    assert l40s is not None
    assert (len(l40s.cordon), l40s.commit, l40s.replicas) == (1, (), 5)


@pytest.mark.parametrize(
    "over",
    [
        pytest.param({"drain": DrainRules(policy=DrainPolicy.IMMEDIATE)}, id="immediate-drain"),
        pytest.param({"mode": Mode.ADVISE}, id="advised"),
        pytest.param({"variant": None}, id="no-variant"),
        pytest.param({"variant": Variant("v3", 4.0)}, id="of-another-model"),
        pytest.param({"key": ServiceKey("elsewhere", "l40s")}, id="in-another-namespace"),
    ],
)
def test_who_is_not_shrunk_for_others(over: dict[str, Any]) -> None:
    decided = ticks([variant("h100", 12), variant("l40s", 5, **over)], {"h100": 16, "l40s": 16})
    assert decided["l40s"].desired >= 5


def test_what_holds_nobody_knows_how_much_takes_no_part() -> None:
    services = [variant("h100", 12), variant("l40s", 5, parameters=ServiceParameters())]
    loads = {"h100": 16.0, "l40s": 16.0}
    assert ticks(services, loads) == ticks([replace(of, variant=None) for of in services], loads)


def test_while_requests_wait_in_its_engines_a_variant_is_not_shrunk() -> None:
    services = [variant("h100", 9), variant("l40s", 2)]
    assert ticks(services, {"h100": 8, "l40s": 18})["l40s"].desired == 2


def test_what_cannot_be_had_is_served_by_others_and_still_asked_for() -> None:
    """Two of five replicas have found no node for an hour: two more on the dearer GPUs, and the two stay asked for."""
    services = [pending(variant("h100", 3), 2, since=NOW - 3600), variant("l40s", 1)]
    decided = ticks(services, {"h100": 40, "l40s": 8}, count=1)
    assert sizes(decided) == {"h100": 5, "l40s": 3}
    assert decided["h100"].supply_short
    assert "3 replicas here, as h100 cannot have what is needed" in decided["l40s"].message


def test_once_others_serve_it_what_cannot_be_had_stays_asked_for() -> None:
    """The load has moved: what is left of it on the cheaper variant is served by what is there."""
    services = [pending(variant("h100", 3), 2, since=NOW - 3600), variant("l40s", 8)]
    alone = ticks([replace(of, variant=None) for of in services], {"h100": 2, "l40s": 24})
    assert sizes(alone) == {"h100": 3, "l40s": 8}
    assert sizes(ticks(services, {"h100": 2, "l40s": 24})) == {"h100": 5, "l40s": 8}


def test_when_it_comes_the_dearer_ones_leave() -> None:
    decided = ticks([variant("h100", 20), variant("l40s", 3)], {"h100": 28, "l40s": 18})
    assert decided["l40s"].desired == 1


def test_what_a_budget_does_not_give_is_served_by_others() -> None:
    services = [variant("h100", 3), variant("l40s", 1)]
    decided = ticks(services, {"h100": 40, "l40s": 8}, GpuBudget("H100", 24), count=1)
    assert sizes(decided) == {"h100": 3, "l40s": 3}
    assert decided["h100"].limited_by is Reason.GPU_BUDGET
    both = ticks(services, {"h100": 40, "l40s": 8}, GpuBudget("H100", 24), GpuBudget("L40S", 16), count=1)
    assert sizes(both) == {"h100": 3, "l40s": 2}
    assert both["h100"].limited_by is Reason.GPU_BUDGET


def test_what_is_above_the_highest_number_is_served_by_others() -> None:
    services = [variant("h100", 3, limits=Limits(1, 4, AT_ONCE)), variant("l40s", 1)]
    assert sizes(ticks(services, {"h100": 40, "l40s": 8}, count=1)) == {"h100": 4, "l40s": 2}


def test_growing_for_others_is_as_fast_as_behavior_allows() -> None:
    services = [variant("h100", 3, limits=Limits(1, 3, AT_ONCE)), variant("l40s", 1)]
    decided = ticks(services, {"h100": 120, "l40s": 8}, count=1)
    assert decided["l40s"].desired == 5  # 4 pods in 15 s
    assert "behavior allows" in rung(decided["l40s"], Rung.VARIANTS).because


def test_a_variant_that_cannot_be_seen_keeps_what_it_has() -> None:
    decided = ticks([variant("h100", 4), variant("l40s", 5)], {"h100": 16})
    assert (decided["l40s"].desired, decided["l40s"].hold) == (5, True)
    alone = ticks([variant("h100", 4)], {"h100": 16})
    assert decided["h100"].desired == alone["h100"].desired


def test_without_prices_gpus_count_alike_and_without_gpus_replicas() -> None:
    dear = {"gpus": GpuShape("L40S", 4), "variant": Variant("r1")}
    loads = {"h100": 24, "l40s": 30}
    assert sizes(ticks([variant("h100", 3), variant("l40s", 3, **dear)], loads, count=1)) == {"h100": 3, "l40s": 6}
    alike = {"gpus": None, "variant": Variant("r1")}
    assert sizes(ticks([variant("h100", 3), variant("l40s", 3, **alike)], loads, count=1)) == {"h100": 4, "l40s": 3}


def test_a_group_that_is_only_advised_is_advised_as_a_group() -> None:
    services = [variant(name, 3, mode=Mode.ADVISE) for name in ("h100", "l40s")]
    assert sizes(ticks(services, {"h100": 30, "l40s": 24}, count=1)) == {"h100": 6, "l40s": 3}


def test_a_variant_needs_another_one() -> None:
    alone = {"h100": 40.0}
    assert ticks([variant("h100", 3)], alone) == ticks([pool("h100", 3, gpus=GpuShape("H100", 8))], alone)


def test_the_queue_of_one_gateway_is_counted_once() -> None:
    services = [
        variant(name, count, variant=Variant("r1", queue="r1-pool")) for name, count in (("h100", 3), ("l40s", 1))
    ]
    waiting = Signal(12.0)
    seen = [replace(load(of, 8), gateway_waiting_requests=waiting) for of in services]
    assert [each.gateway_waiting_requests for each in one_queue(services, seen)] == [Signal(9.0), Signal(3.0)]
    apart = [services[0], replace(services[1], variant=Variant("r1", queue="other"))]
    assert one_queue(apart, seen) == seen
    blind = [seen[0], Observation(at_seconds=NOW)]
    assert [each.gateway_waiting_requests for each in one_queue(services, blind)] == [Signal(12.0), MISSING]


def test_where_a_variant_ran_out_is_asked_on_both_at_once_until_more_is_had() -> None:
    """It had 3 when capacity was short. Two more are asked for there, and the others do not wait for them to fail."""
    services = [variant("h100", 3), variant("l40s", 1)]
    memory = replace(Memory.empty(), services={services[0].key: ServiceMemory(ran_out=RanOut(3, NOW - 3600))})
    seen = {of.key: load(of, requests) for of, requests in zip(services, (40, 8), strict=True)}
    decisions, after = step(fleet=Fleet(services), observations=seen, memory=memory, now=NOW)
    assert {key.name: each.desired for key, each in decisions.items()} == {"h100": 5, "l40s": 3}
    assert after.services[services[0].key].ran_out == RanOut(3, NOW - 3600)


@pytest.mark.parametrize(
    ("ready", "waiting", "since", "known"),
    [
        pytest.param(3, 2, 3600.0, RanOut(3, NOW), id="short-again"),
        pytest.param(4, 0, 3600.0, None, id="one-more-works"),
        pytest.param(2, 0, 3600.0, RanOut(3, NOW - 3600), id="fewer-are-needed"),
        pytest.param(2, 0, 90_000.0, None, id="a-day-later"),
    ],
)
def test_what_is_remembered_of_having_run_out(ready: int, waiting: int, since: float, known: RanOut | None) -> None:
    of = pending(variant("h100", ready), waiting, since=NOW - 600)
    assert of.target is not None
    shortage = Shortage(ShortageReason.UNSCHEDULABLE, "0/9", since=NOW - 600, declared_at=NOW - 400, retry_at=NOW)
    memory = ServiceMemory(ran_out=RanOut(3, NOW - since), shortage=shortage if waiting else None)
    assert learn(memory, pool=roster(of.target), now=NOW).ran_out == known


def test_a_number_that_the_target_does_not_take_is_passed_on() -> None:
    """What was written at the last tick is not there: the API server refuses it, say."""
    services = [variant("h100", 3), variant("l40s", 1)]
    decided = ticks(services, {"h100": 40, "l40s": 8}, count=1)
    assert sizes(decided) == {"h100": 5, "l40s": 1}
    assert sizes(ticks(services, {"h100": 40, "l40s": 8}, count=2))["l40s"] >= 3


@pytest.mark.parametrize(
    ("policies", "l40s"),
    [
        pytest.param(SelectPolicy.DISABLED, 3, id="never"),
        pytest.param(SelectPolicy.MAX, 1, id="fast-enough"),
    ],
)
def test_what_behavior_does_not_let_grow_is_passed_on(policies: SelectPolicy, l40s: int) -> None:
    behavior = replace(AT_ONCE, scale_up=replace(AT_ONCE.scale_up, select_policy=policies))
    services = [variant("h100", 3, limits=Limits(1, 20, behavior)), variant("l40s", 1)]
    assert ticks(services, {"h100": 40, "l40s": 8}, count=1)["l40s"].desired == l40s


# --- the loop closed: two workloads behind one gateway


class Pair:
    """Two workloads whose pods get the requests of one gateway, the least loaded first; the operator looks at both."""

    def __init__(self, h100: int, l40s: int, *, gpus: int = 40) -> None:
        self.sets = {"h100": ReplicaSet(now=NOW, replicas=h100, gpus=gpus), "l40s": ReplicaSet(now=NOW, replicas=l40s)}
        for each in self.sets.values():
            each.settle()
            each.pass_time(COLD_START_SECONDS)
        self.memory = Memory.empty()
        self.sizes: list[tuple[int, int]] = []

    def run(self, minutes: int, *, requests_a_tick: int) -> None:
        """Requests of a minute each come, decisions are carried out, time passes."""
        for _ in range(4 * minutes):
            for _ in range(requests_a_tick):
                self.arrive()
            services = [replace(variant(name, 1), target=each.target()) for name, each in self.sets.items()]
            now = self.sets["h100"].now
            seen = {of.key: self.sets[of.key.name].observation() for of in services}
            decisions, self.memory = step(fleet=Fleet(services), observations=seen, memory=self.memory, now=now)
            for key, decision in decisions.items():
                assert decision.placement is not None
                self.sets[key.name].carry_out(decision.placement)
            for each in self.sets.values():
                each.settle()
                each.pass_time(TICK)
            self.sizes.append((self.routed("h100"), self.routed("l40s")))

    def arrive(self) -> None:
        def load(name: str) -> float:
            pods = [pod for pod in self.sets[name].pods.values() if pod.ready and pod.routed]
            return min((len(pod.work) + pod.waiting for pod in pods), default=1e9)

        self.sets[min(self.sets, key=load)].arrive([60.0])

    def routed(self, name: str) -> int:
        return sum(pod.ready and pod.routed for pod in self.sets[name].pods.values())

    @property
    def waiting(self) -> int:
        return sum(pod.waiting for each in self.sets.values() for pod in each.pods.values())

    @property
    def killed(self) -> list[str]:
        return [cause for each in self.sets.values() for cause in each.killed]


def test_a_steady_load_moves_to_the_cheaper_variant_and_stays_there() -> None:
    """32 requests at a time: four replicas of either. Nobody waits meanwhile, nothing is cut, nothing flaps."""
    pair = Pair(2, 4)
    for _ in range(60):
        pair.run(1, requests_a_tick=8)
        assert pair.waiting == 0
    h100, l40s = pair.sizes[-1]
    assert l40s == 1
    assert 3 <= h100 <= 5
    assert len(set(pair.sizes[-80:])) == 1
    turns = sum(one != other for one, other in itertools.pairwise(pair.sizes))
    assert turns < 10
    assert pair.killed == []


def test_in_a_shortage_the_dearer_variant_serves_and_leaves_when_the_cheaper_one_comes() -> None:
    pair = Pair(2, 1, gpus=2)
    pair.run(30, requests_a_tick=10)
    h100, l40s = pair.sizes[-1]
    assert (h100, l40s >= 3, pair.waiting) == (2, True, 0)
    assert pair.sets["h100"].replicas > 2  # a pending pod keeps on asking
    pair.sets["h100"].gpus = 40
    pair.run(60, requests_a_tick=10)
    assert pair.sizes[-1] == (pair.sizes[-1][0], 1)
    assert pair.sizes[-1][0] >= 4
    assert pair.waiting == 0
    assert pair.killed == []
