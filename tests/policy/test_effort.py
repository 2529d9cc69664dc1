"""Thinking less and more: which level a predicted shortage calls for, and when the thinking comes back."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.demand.estimate import Cascade, LevelDemand
from longtail.policy import effort
from longtail.policy.decision import Decision, Effort, Rung
from longtail.policy.fleet import EffortLevel, EffortPolicy, EffortRules, Mode, Service
from longtail.policy.ladder import decide
from longtail.policy.memory import ServiceMemory

from .worlds import KEY, NOW, TICK, WATCHED, demand, rung, seen, service, unseen

LEVELS = (EffortLevel("high"), EffortLevel("medium", 8192), EffortLevel("low", 2048))
RULES = EffortRules(policy=EffortPolicy.PUBLISH, levels=LEVELS, dwell_seconds=300.0)


def level(short: float, *, then: float | None = None, ahead: float | None = None, steady: float = 4.0) -> LevelDemand:
    """A level that is short of so many replicas, the same at all times unless said otherwise."""
    return LevelDemand(
        short_soon=short,
        short_ahead=short if ahead is None else ahead,
        short_then=short if then is None else then,
        steady=steady,
        mean_tokens=2000.0,
    )


def at(index: int, *, since: float = NOW - 3600) -> Effort:
    return Effort(index=index, level=LEVELS[index], since=since, because="")


def chosen(
    *levels: LevelDemand,
    last: Effort | None = None,
    cannot_grow: bool = False,
    cascade: Cascade | None = None,
    now: float = NOW,
) -> Effort:
    return effort.choose(
        RULES,
        demand=demand(20.0, levels=levels, replicas_coming=4.0, cascade=cascade),
        work={},
        last=last,
        cannot_grow=cannot_grow,
        now=now,
    )


@pytest.mark.parametrize(
    ("levels", "last", "index"),
    [
        pytest.param((level(-1),), None, 0, id="nothing is missing: as usual"),
        pytest.param((level(1), level(-0.1), level(-2)), None, 1, id="the mildest level that meets the shortage"),
        pytest.param((level(2), level(1.9), level(-0.5)), None, 2, id="two down at once where one is not enough"),
        pytest.param((level(3), level(2), level(1)), None, 2, id="the lowest where none is enough"),
        pytest.param((level(3), level(2), level(1.99)), None, 1, id="not lower for next to nothing"),
        pytest.param((level(3), level(3), level(3)), None, 0, id="not lower where it does not help"),
        pytest.param((level(-0.1), level(-1), level(0.5)), at(2), 2, id="the level there is does not meet it"),
        pytest.param((level(2), level(1), level(-2)), at(1), 2, id="further down when it gets worse"),
        pytest.param((level(-1, steady=3), level(-2), level(-3)), at(1), 0, id="back where there is room"),
        pytest.param((level(-1, steady=3), level(-2, steady=2), level(-3)), at(2), 1, id="back one level at a time"),
        pytest.param((level(-0.3, steady=3), level(-2), level(-3)), at(1), 1, id="not back into a pool nearly full"),
        pytest.param((level(-1, steady=3.7), level(-2), level(-3)), at(1), 1, id="not back into the next shortage"),
        pytest.param(
            (level(-1), level(-2), level(-3)), at(1, since=NOW - 100), 1, id="not back before the dwell is over"
        ),
        pytest.param((level(-1, steady=3),), at(2), 1, id="back where only the usual level was looked at"),
    ],
)
def test_the_level_follows_the_shortage(levels, last, index):
    assert chosen(*levels, last=last).index == index


def test_what_new_replicas_will_meet_calls_for_nothing():
    """Missing only after the start of a replica that is asked for now: growing is the answer."""
    levels = (level(-0.5, ahead=2, then=2), level(-1, ahead=1, then=1), level(-2))
    assert chosen(*levels).index == 0
    assert chosen(*levels, cannot_grow=True).index == 2


@pytest.mark.parametrize(
    ("levels", "last", "index"),
    [
        pytest.param((level(-3),), None, 1, id="one level down, whatever the demand"),
        pytest.param((level(0.1), level(0.05), level(-1)), None, 2, id="down for any shortage"),
        pytest.param((level(-3), level(-3, steady=1), level(-3)), at(2), 2, id="no way up"),
    ],
)
def test_while_clients_give_up_and_ask_again_thinking_stays_reduced(levels, last, index):
    cascade = Cascade(
        since=NOW - 60,
        aborted_per_second=3.0,
        finished_per_second=1.0,
        arrivals_per_second=6.0,
        distinct_per_second=3.0,
        patience_seconds=120.0,
        queue_limit=40.0,
    )
    assert chosen(*levels, last=last, cascade=cascade).index == index
    assert chosen(*levels, last=last).index < index


def test_since_is_when_the_level_was_entered():
    first = chosen(level(1), level(-1), last=at(0), now=NOW)
    second = chosen(level(1), level(-1), last=first, now=NOW + TICK)
    assert (first.since, second.since) == (NOW, NOW)


def test_why_is_told_with_figures():
    assert chosen(level(1.5), level(1), level(-0.25)).because == (
        "in the 120 s that a start takes 1.5 are missing of 4 replicas; at low 0.2 are left over"
    )


@given(
    st.lists(
        st.tuples(st.floats(-5, 5), st.floats(0.1, 12)).map(lambda each: level(each[0], steady=each[1])),
        min_size=1,
        max_size=3,
    ),
    st.integers(0, 2),
    st.floats(0, 1000),
    st.booleans(),
)
def test_it_never_goes_up_by_more_than_one_nor_within_the_dwell(levels, index, held, cannot_grow):
    last = at(index, since=NOW - held)
    after = chosen(*levels, last=last, cannot_grow=cannot_grow).index
    assert 0 <= after < len(LEVELS)
    assert after >= index - 1
    if held < RULES.dwell_seconds:
        assert after >= index


def with_effort(policy: EffortPolicy = EffortPolicy.PUBLISH, *, mode: Mode = Mode.ACTIVE, **over) -> Service:
    return replace(service(4, mode=mode, **over), effort=replace(RULES, policy=policy))


def decided(of: Service, need, *, memory: ServiceMemory = WATCHED, observation=None) -> tuple[Decision, ServiceMemory]:
    observation = observation or seen(20.0)
    return decide(service=of, observation=observation, demand=need, memory=memory, now=NOW)


def test_a_service_without_levels_has_no_effort():
    decision, memory = decided(service(4), demand(20.0))
    assert decision.effort is None
    assert memory.effort is None


def test_a_level_is_remembered_from_tick_to_tick():
    need = demand(20.0, levels=(level(1), level(-1), level(-2)), replicas_coming=4.0)
    decision, memory = decided(with_effort(), need)
    assert decision.effort is not None
    assert decision.effort.level.name == "medium"
    assert memory.effort == decision.effort


def test_levels_that_are_taken_out_of_the_spec_are_forgotten():
    _, memory = decided(service(4), demand(20.0), memory=replace(WATCHED, effort=at(2)))
    assert memory.effort is None


def test_while_thinking_is_reduced_the_pool_is_sized_for_all_of_it():
    """Else the pool would settle at a size for short thoughts, and nobody would ever think longer again."""
    need = demand(20.0, levels=(level(1, steady=6.3), level(0.1), level(-2)), replicas_coming=4.0)
    usual, _ = decided(with_effort(), need)
    reduced, _ = decided(with_effort(), need, memory=replace(WATCHED, effort=at(2)))
    assert usual.desired <= 4
    assert rung(reduced, Rung.EFFORT).because == "requests would need 7 replicas if they thought as usual"
    assert reduced.desired == 7


def test_at_the_largest_size_the_whole_cold_start_counts():
    need = demand(40.0, levels=(level(-0.5, ahead=1, then=1), level(-1, ahead=-0.1)), replicas_coming=4.0)
    free, _ = decided(with_effort(), need, observation=seen(40.0))
    full, _ = decided(with_effort(max_replicas=4), need, observation=seen(40.0))
    assert free.effort is not None
    assert full.effort is not None
    assert (free.effort.index, full.effort.index) == (0, 1)


def test_a_pool_that_is_not_seen_keeps_its_level_as_long_as_a_published_one_lasts():
    unknown = demand(None)
    lately = replace(WATCHED, effort=at(2), blind_since=NOW - 100)
    decision, memory = decided(with_effort(), unknown, memory=lately, observation=unseen())
    assert decision.effort is not None
    assert decision.effort.index == 2
    decision, _ = decided(with_effort(), unknown, memory=replace(memory, blind_since=NOW - 200), observation=unseen())
    assert decision.effort is not None
    assert decision.effort.index == 0


@pytest.mark.parametrize(
    ("policy", "mode", "told"),
    [
        pytest.param(EffortPolicy.PUBLISH, Mode.ACTIVE, True, id="published"),
        pytest.param(EffortPolicy.RECOMMEND, Mode.ACTIVE, False, id="recommended only"),
        pytest.param(EffortPolicy.PUBLISH, Mode.ADVISE, False, id="Advise writes nothing"),
    ],
)
def test_only_a_published_level_is_in_force(policy, mode, told):
    of = with_effort(policy, mode=mode)
    thinking = effort.parameters(of, memory=ServiceMemory(effort=at(1))).thinking
    assert thinking is not None
    assert (thinking.level, thinking.in_force) == (1, told)
    assert of.key == KEY


def test_a_level_beyond_those_of_a_new_spec_is_its_lowest():
    of = replace(service(4), effort=replace(RULES, levels=LEVELS[:2]))
    thinking = effort.parameters(of, memory=ServiceMemory(effort=at(2))).thinking
    assert thinking is not None
    assert thinking.level == 1
