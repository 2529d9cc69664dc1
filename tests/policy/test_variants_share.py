"""How a group of variants shares what it needs: a table, and what holds of any group."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.policy.fleet import ServiceKey
from longtail.policy.variants import Member, share

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
