"""GPUs of a quota: who gets them, that they are never more than there are, and that nobody is killed for them."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.demand.observation import Signal
from longtail.policy.budget import Claim, Share, ceilings, share
from longtail.policy.decision import Reason, Rung
from longtail.policy.fleet import Fleet, GpuBudget, GpuShape, Limits, Mode, Service, ServiceKey, ZeroRules
from longtail.policy.memory import Memory
from longtail.policy.roster import roster
from longtail.policy.step import step

from .pools import load, pool, ticks
from .worlds import AT_ONCE, NOW, rung

untimed = settings(deadline=None)


def claim(name: str = "r1", *, has: int = 2, wish: int = 4, **over: Any) -> Claim:
    fields: dict[str, Any] = {
        "key": ServiceKey("inference", name),
        "budgets": (0,),
        "gpus": 1,
        "priority": 0,
        "active": True,
        "serving": has,
        "back": 0,
        "held": has,
        "apart": 0,
        "wish": wish,
        "floor": min(1, wish),
        "expected": float(wish),
        "spread": 1.0,
    }
    return Claim(**(fields | over))


@pytest.mark.parametrize(
    ("claims", "gpus", "shares", "now"),
    [
        pytest.param([claim("a"), claim("b")], 8, [4, 4], [4, 4], id="room-for-all"),
        pytest.param([claim("a", has=3), claim("b", has=3)], 6, [3, 3], [3, 3], id="equals-keep-what-they-have"),
        pytest.param(
            [claim("a", has=4, spread=3.0), claim("b", spread=3.0)],
            6,
            [4, 2],
            [4, 2],
            id="two-more-are-not-worth-a-move",
        ),
        pytest.param(
            [claim("a", has=5, wish=5), claim("b", has=1, wish=5)], 6, [3, 3], [3, 1], id="four-more-that-are-sure-are"
        ),
        pytest.param([claim("a", has=4), claim("b", priority=9)], 6, [2, 4], [2, 2], id="the-more-important-first"),
        pytest.param([claim("a", has=4), claim("b", priority=9, wish=9)], 6, [1, 5], [1, 2], id="down-to-the-floor"),
        pytest.param([claim("a", has=4, floor=3), claim("b", priority=9)], 6, [3, 3], [3, 2], id="a-higher-floor"),
        pytest.param(
            [claim("a", has=3, floor=3), claim("b", has=0, priority=9, floor=3)],
            4,
            [1, 3],
            [3, 1],
            id="floors-too-many",
        ),
        pytest.param([claim("a", gpus=8), claim("b", gpus=1)], 34, [3, 4], [3, 4], id="a-large-one-that-does-not-fit"),
        pytest.param([claim("a"), claim("b", spread=4.0)], 6, [4, 2], [4, 2], id="the-surer-need-first"),
        pytest.param([claim("a", has=3), claim("b", has=0, wish=0)], 2, [2, 0], [2, 0], id="a-sleeper-takes-nothing"),
        pytest.param(
            [claim("a", has=2), claim("b", has=2, held=4, wish=3)], 6, [4, 2], [2, 2], id="leaving-is-not-left"
        ),
        pytest.param(
            [claim("a", wish=6), claim("b", has=1, back=1, held=2)], 6, [4, 2], [4, 2], id="back-takes-no-gpu"
        ),
        pytest.param(
            [claim("a", has=3), claim("b", has=3, active=False, wish=5)], 6, [3, 3], [3, 3], id="advice-keeps-its-own"
        ),
        pytest.param(
            [claim("a", has=1), claim("b", has=1, active=False, priority=9)], 4, [3, 1], [3, 1], id="advice-comes-last"
        ),
        pytest.param(
            [claim("a", has=4), claim("b", has=2, apart=1, held=3)], 6, [3, 2], [3, 2], id="kept-apart-is-held"
        ),
        pytest.param([claim("a", has=4), claim("b", has=4)], 0, [0, 0], [1, 1], id="no-gpu-at-all"),
        pytest.param(
            [claim("a", has=4, firm=True, spread=100.0), claim("b", has=0, wish=4)],
            4,
            [3, 1],
            [3, 0],
            id="unseen-stays",
        ),
    ],
)
def test_shares(claims: Sequence[Claim], gpus: int, shares: Sequence[int], now: Sequence[int]) -> None:
    given = share(claims, [gpus])
    assert ([each.replicas for each in given], [each.now for each in given]) == (shares, now)


def test_a_budget_of_a_namespace_is_part_of_that_of_all() -> None:
    """12 for all, 4 of them for namespace 1 at most: its second service gets what the first leaves."""
    inside = [claim("a", budgets=(0, 1), wish=9), claim("b", budgets=(0, 1), wish=9, priority=1)]
    given = share([*inside, claim("c", wish=20)], [12, 4])
    assert [each.replicas for each in given] == [1, 3, 8]
    assert [each.bound_by for each in given[1:]] == [1, 0]


def test_two_of_a_priority_are_served_to_the_same_quantile() -> None:
    """Demand of 20 ± 2 and of 10 ± 1 replicas, and 27 for both: each is served one standard deviation below its mean."""
    steady = claim("steady", has=0, wish=24, expected=20.0, spread=2.0)
    small = claim("small", has=0, wish=12, expected=10.0, spread=1.0)
    assert [each.replicas for each in share([steady, small], [27])] == [18, 9]


# --- what holds of any fleet

small_counts = st.integers(0, 12)


@st.composite
def claims_of(draw: st.DrawFn, *, sizes: Sequence[int] = (1, 2, 8), budgets: int = 1) -> Claim:
    serving, back, going, apart = (draw(small_counts), *(draw(st.integers(0, 2)) for _ in range(3)))
    wish = draw(small_counts)
    return claim(
        "",
        has=serving,
        wish=wish,
        budgets=draw(st.sampled_from([(0,), (0, 1), (0, 2)])) if budgets > 1 else (0,),
        gpus=draw(st.sampled_from(sizes)),
        priority=draw(st.integers(0, 2)),
        active=draw(st.sampled_from([True, True, True, False])),
        back=back,
        apart=apart,
        held=serving + back + going + apart,
        floor=draw(st.integers(0, wish)),
        expected=draw(st.floats(0, 15)),
        spread=draw(st.floats(0.01, 10)),
        firm=draw(st.booleans()),
    )


def named(claims: Sequence[Claim]) -> list[Claim]:
    return [replace(each, key=ServiceKey("inference", f"s{n:02}")) for n, each in enumerate(claims)]


@untimed
@given(
    st.lists(claims_of(budgets=3), max_size=12).map(named),
    st.tuples(*[st.integers(0, 120)] * 3),
)
def test_nobody_asks_for_more_than_there_is(claims: Sequence[Claim], gpus: tuple[int, ...]) -> None:
    """Whatever all do at once, no budget is exceeded, but by what was held before; shares alone never exceed it."""
    shares = share(claims, gpus)
    for place, most in enumerate(gpus):
        mine = [(c, s) for c, s in zip(claims, shares, strict=True) if place in c.budgets]
        before = sum(c.held * c.gpus for c, _ in mine)
        after = sum(c.most_held(s.now) * c.gpus for c, s in mine if c.active)
        after += sum(c.held * c.gpus for c, s in mine if not c.active)
        assert after <= max(most, before)
        if all(c.active for c, _ in mine):
            assert sum((s.replicas + c.apart) * c.gpus for c, s in mine) <= max(
                most, sum(c.apart * c.gpus for c, _ in mine)
            )
    for each, given_to in zip(claims, shares, strict=True):
        assert given_to.now <= max(each.wish, 0)
        assert given_to.now >= min(each.serving, each.floor)


@untimed
@given(st.lists(claims_of(budgets=3), max_size=10).map(named), st.integers(0, 99))
def test_the_order_of_services_has_no_influence(claims: Sequence[Claim], seed: int) -> None:
    mixed = list(claims)
    Random(seed).shuffle(mixed)
    one = dict(zip([each.key for each in claims], share(claims, [40, 15, 15]), strict=True))
    other = dict(zip([each.key for each in mixed], share(mixed, [40, 15, 15]), strict=True))
    assert one == other


@untimed
@given(st.lists(claims_of(sizes=(2,)), max_size=10).map(named), st.integers(0, 120), st.integers(1, 40))
def test_a_larger_budget_takes_nothing_from_anybody(claims: Sequence[Claim], gpus: int, more: int) -> None:
    """Where replicas are of one size. Else a large one that fits now may take what small ones had."""
    before, after = share(claims, [gpus]), share(claims, [gpus + more])
    assert all(one.replicas <= other.replicas for one, other in zip(before, after, strict=True))
    assert all(one.now <= other.now for one, other in zip(before, after, strict=True))


@untimed
@given(st.lists(claims_of(sizes=(1,)), min_size=2, max_size=8).map(named), st.integers(0, 100), st.integers(0, 3))
def test_a_share_that_is_taken_is_kept(claims: Sequence[Claim], gpus: int, noise: int) -> None:
    """Once all have what they were given, the same needs, or needs that differ a little, move nobody."""
    active = [replace(each, active=True, apart=0, back=0, firm=False) for each in claims]
    there = [
        replace(each, serving=given_to.replicas, held=given_to.replicas)
        for each, given_to in zip(active, share(active, [gpus]), strict=True)
    ]
    jitter = Random(noise)
    moved = [replace(each, expected=each.expected + 0.2 * each.spread * jitter.uniform(-1, 1)) for each in there]
    if sum(each.floor for each in there) <= gpus:
        assert [each.replicas for each in share(moved, [gpus])] == [each.serving for each in there]


@untimed
@given(st.lists(claims_of(), min_size=1, max_size=10).map(named), st.integers(0, 60))
def test_a_higher_priority_is_never_a_loss(claims: Sequence[Claim], gpus: int) -> None:
    first, *rest = claims
    raised = replace(first, priority=first.priority + 1)
    assert (
        share([raised, *rest], [gpus])[0].replicas >= share(claims, [gpus])[0].replicas
        or len({c.gpus for c in claims}) > 1
    )


# --- whole ticks


def test_a_pool_does_not_grow_into_gpus_of_others_and_says_so() -> None:
    services = [pool("a", 4), pool("b", 2)]
    decision = ticks(services, {"a": 31, "b": 60}, GpuBudget("H100", 56), count=1)["b"]
    assert (decision.desired, decision.limited_by, decision.reason) == (3, Reason.GPU_BUDGET, Reason.SCALE_UP)
    step = rung(decision, Rung.BUDGET)
    assert step.because.startswith("GPU budget of H100: 32 of 56 GPUs are others', ")
    assert step.because in decision.message
    assert decision.placement is not None
    assert decision.placement.replicas == 3


def test_the_less_important_pool_leaves_by_the_reversible_way_and_the_other_waits_for_it() -> None:
    services = [pool("batch", 5), pool("chat", 2, priority=10)]
    decided = ticks(services, {"batch": 40, "chat": 40}, GpuBudget("H100", 56))
    batch, chat = decided["batch"], decided["chat"]
    assert batch.placement is not None
    assert chat.placement is not None
    assert (batch.desired, batch.reason, batch.limited_by) == (1, Reason.SCALE_DOWN, Reason.GPU_BUDGET)
    assert len(batch.placement.cordon) == 1  # a fifth of the pool at a time
    assert (batch.placement.commit, batch.placement.replicas) == ((), 5)
    assert (chat.desired, chat.placement.replicas) == (2, 2)
    assert chat.message.startswith("stays at 2: ")
    assert "until others have left" in chat.message


@pytest.mark.parametrize(
    ("other", "desired"),
    [
        pytest.param(pool("b", 5), 2, id="active"),
        pytest.param(pool("b", 5, mode=Mode.ADVISE), 2, id="advised"),
        pytest.param(pool("b", 5, mode=Mode.OFF), 2, id="off"),
        pytest.param(pool("b", 5, gpus=GpuShape("L40S", 8)), 7, id="another-class"),
        pytest.param(pool("b", 5, gpus=None), 7, id="unknown-shape"),
        pytest.param(replace(pool("b", 5), target=None), 7, id="no-target"),
        pytest.param(pool("b", 5, gpus=GpuShape("H100", 2)), 5, id="smaller-replicas"),
    ],
)
def test_what_counts(other: Service, desired: int) -> None:
    decided = ticks([pool("a", 2), other], {"a": 56, "b": 40}, GpuBudget("H100", 56), count=1)
    assert decided["a"].desired == desired - (desired == 7)  # 4 pods in 15 s at most: 2 → 6


@pytest.mark.parametrize("gpus", [None, GpuShape("L40S", 8)], ids=["unknown", "another-class"])
def test_without_a_budget_of_its_class_a_pool_is_not_limited(gpus: GpuShape | None) -> None:
    decided = ticks([pool("a", 2, gpus=gpus)], {"a": 40}, GpuBudget("H100", 0), GpuBudget("H100", 0, "inference"))
    assert (decided["a"].desired, decided["a"].limited_by) == (6, Reason.SCALE_UP_LIMIT)


def test_a_pool_that_cannot_be_seen_is_not_shrunk_for_others() -> None:
    services = [pool("blind", 5), pool("chat", 2, priority=10)]
    decided = ticks(services, {"chat": 40}, GpuBudget("H100", 56))
    blind = decided["blind"]
    assert (blind.desired, blind.hold, blind.reason) == (5, True, Reason.METRICS_MISSING)
    assert decided["chat"].desired == 2


def test_a_pool_that_wakes_up_gets_its_first_replica_before_anybody_else_keeps_more() -> None:
    asleep = pool("asleep", 0, zero=ZeroRules(idle_seconds=300.0), limits=Limits(0, 20, AT_ONCE))
    busy = pool("busy", 3, priority=10)
    knock = {asleep.key: replace(load(asleep, 0), activation=Signal(1.0)), busy.key: load(busy, 60)}
    for gpus, sizes in ((24, (0, 2)), (32, (1, 3)), (40, (1, 4))):
        fleet = Fleet([asleep, busy], [GpuBudget("H100", gpus)])
        decisions, _ = step(fleet=fleet, observations=knock, memory=Memory.empty(), now=NOW)
        assert (decisions[asleep.key].desired, decisions[busy.key].desired) == sizes


def test_pods_on_their_way_out_hold_their_gpus() -> None:
    leaving = pool("a", 3)
    assert leaving.target is not None
    gone = tuple(replace(pod, deleting=n > 0) for n, pod in enumerate(leaving.target.pods))
    leaving = replace(leaving, target=replace(leaving.target, replicas=1, pods=gone))
    decided = ticks([leaving, pool("b", 2)], {"a": 4, "b": 60}, GpuBudget("H100", 48), count=1)
    assert decided["b"].desired == 3


def test_without_budgets_nothing_is_computed() -> None:
    of = pool("a", 2)
    assert of.target is not None
    assert ceilings([of], pools=[roster(of.target)], decisions={}, budgets=()) == {}
    assert share([], []) == []
    assert Share().limit is None
