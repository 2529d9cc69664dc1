"""HPA's golden vectors that concern ``behavior``, and what must hold whatever the vector."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.policy.behavior import (
    Recommendation,
    ScaleEvent,
    limit_rate,
    scale_down_limit,
    scale_up_limit,
    stabilise,
    window_seconds,
    within_tolerance,
)
from longtail.policy.decision import Reason
from longtail.policy.fleet import Behavior, PolicyType, ScalingPolicy, ScalingRules, SelectPolicy

untimed = settings(deadline=None)
NOW = 1000.0
DEFAULT = Behavior()


def past(*recommendations: tuple[float, int]) -> tuple[Recommendation, ...]:
    """Recommendations by their age in seconds."""
    return tuple(Recommendation(at=NOW - age, replicas=replicas) for age, replicas in recommendations)


def changed(*events: tuple[float, int]) -> tuple[ScaleEvent, ...]:
    """Changes by their age in seconds."""
    return tuple(ScaleEvent(at=NOW - age, change=change) for age, change in events)


def pods(value: int, period: int = 15) -> ScalingPolicy:
    return ScalingPolicy(type=PolicyType.PODS, value=value, period_seconds=period)


def percent(value: int, period: int = 15) -> ScalingPolicy:
    return ScalingPolicy(type=PolicyType.PERCENT, value=value, period_seconds=period)


def rules(
    *policies: ScalingPolicy, select: SelectPolicy = SelectPolicy.MAX, window: int = 0, tolerance: float = 0.0
) -> ScalingRules:
    return ScalingRules(
        stabilization_window_seconds=window, policies=policies, select_policy=select, tolerance=tolerance
    )


def with_windows(*, up: int = 0, down: int = 300) -> Behavior:
    return Behavior(
        scale_up=replace(DEFAULT.scale_up, stabilization_window_seconds=up),
        scale_down=replace(DEFAULT.scale_down, stabilization_window_seconds=down),
    )


@pytest.mark.parametrize(
    ("exact", "current", "tolerance", "stays"),
    [
        pytest.param(10.9, 10, 0.1, True, id="golden-1-ratio-1.09"),
        pytest.param(11.1, 10, 0.1, False, id="golden-2-ratio-1.11"),
        pytest.param(9.1, 10, 0.1, True, id="ratio-0.91"),
        pytest.param(8.9, 10, 0.1, False, id="ratio-0.89-not-rounded-to-0.9"),
        pytest.param(10.0, 10, 0.0, True, id="no-tolerance-and-no-difference"),
        pytest.param(10.01, 10, 0.0, False, id="no-tolerance-and-a-difference"),
    ],
)
def test_a_need_within_tolerance_of_the_current_count_is_no_reason_to_move(
    exact: float, current: int, tolerance: float, stays: bool
) -> None:
    behavior = Behavior(scale_up=rules(tolerance=tolerance), scale_down=rules(tolerance=tolerance))
    assert within_tolerance(exact=exact, current=current, behavior=behavior) is stays


def test_each_direction_has_its_own_tolerance() -> None:
    behavior = Behavior(scale_up=rules(tolerance=0.0), scale_down=rules(tolerance=0.5))
    assert within_tolerance(exact=5.0, current=10, behavior=behavior)
    assert not within_tolerance(exact=10.5, current=10, behavior=behavior)


@pytest.mark.parametrize(
    ("proposal", "recommendations", "expected"),
    [
        pytest.param(3, past((290, 10), (150, 8)), 10, id="golden-6-the-highest-still-counts"),
        pytest.param(3, past((300, 10), (150, 8)), 8, id="golden-6-the-highest-has-just-expired"),
        pytest.param(3, past((400, 10), (350, 8)), 3, id="nothing-left-in-the-window"),
        pytest.param(3, (), 3, id="no-past"),
        pytest.param(3, past((15, 50)), 10, id="a-higher-past-never-grows-the-pool"),
        pytest.param(12, past((15, 3)), 12, id="growing-is-not-stabilised-by-default"),
    ],
)
def test_shrinking_goes_no_further_than_the_highest_recent_recommendation(
    proposal: int, recommendations: Sequence[Recommendation], expected: int
) -> None:
    verdict = stabilise(proposal=proposal, current=10, behavior=DEFAULT, recommendations=recommendations, now=NOW)
    assert verdict.replicas == expected
    assert verdict.reason is (None if expected == proposal else Reason.SCALE_DOWN_STABILIZED)


@pytest.mark.parametrize(
    ("recommendations", "expected"),
    [
        pytest.param(past((30, 12), (59, 11)), 11, id="the-lowest-in-the-window"),
        pytest.param(past((30, 12), (60, 11)), 12, id="the-lowest-has-just-expired"),
        pytest.param(past((30, 2)), 10, id="a-lower-past-never-shrinks-the-pool"),
    ],
)
def test_growing_goes_no_further_than_the_lowest_recent_recommendation(
    recommendations: Sequence[Recommendation], expected: int
) -> None:
    verdict = stabilise(proposal=20, current=10, behavior=with_windows(up=60), recommendations=recommendations, now=NOW)
    assert (verdict.replicas, verdict.reason) == (expected, Reason.SCALE_UP_STABILIZED)
    assert "60 s" in verdict.because


def test_the_default_rate_doubles_or_adds_four_every_tick() -> None:
    # Golden vector 5: 1, then 5, 10, 20, 40, 50. With the legacy rule (vector 4) the first step would be 4.
    current, sizes = 1, []
    events: list[ScaleEvent] = []
    for tick in range(5):
        now = NOW + 15.0 * tick
        verdict = limit_rate(proposal=50, current=current, behavior=DEFAULT, events=events, now=now)
        events.append(ScaleEvent(at=now, change=verdict.replicas - current))
        current = verdict.replicas
        sizes.append(current)
    assert sizes == [5, 10, 20, 40, 50]


def test_a_change_inside_its_period_uses_up_the_rate() -> None:
    # Golden vector 5, second half: the base of the period is 1, so 5 is as far as it goes.
    verdict = limit_rate(proposal=50, current=5, behavior=DEFAULT, events=changed((14.9, 4)), now=NOW)
    assert (verdict.replicas, verdict.reason) == (5, Reason.SCALE_UP_LIMIT)


def test_a_change_exactly_one_period_old_no_longer_counts() -> None:
    verdict = limit_rate(proposal=50, current=5, behavior=DEFAULT, events=changed((15.0, 4)), now=NOW)
    assert verdict.replicas == 10


@pytest.mark.parametrize(
    ("current", "up", "events", "limit"),
    [
        pytest.param(10, rules(pods(4)), (), 14, id="pods"),
        pytest.param(10, rules(percent(25)), (), 13, id="percent-is-rounded-up"),
        pytest.param(100, rules(percent(10)), (), 111, id="percent-in-the-floating-point-of-hpa"),
        pytest.param(10, rules(pods(4), percent(100)), (), 20, id="max-takes-the-larger-change"),
        pytest.param(10, rules(pods(4), percent(100), select=SelectPolicy.MIN), (), 14, id="min-takes-the-smaller"),
        pytest.param(10, rules(pods(4), select=SelectPolicy.DISABLED), (), 10, id="disabled"),
        pytest.param(10, rules(pods(4, 60)), changed((30, 3)), 11, id="what-was-added-counts-against-it"),
        pytest.param(10, rules(pods(4, 60)), changed((30, -3)), 17, id="what-was-removed-counts-for-it"),
        pytest.param(10, rules(pods(4, 60)), changed((90, 3)), 14, id="older-than-the-period"),
        pytest.param(10, rules(pods(1, 15), pods(6, 60)), changed((30, 5)), 11, id="each-policy-has-its-period"),
    ],
)
def test_the_limit_of_growing(current: int, up: ScalingRules, events: Sequence[ScaleEvent], limit: int) -> None:
    assert scale_up_limit(current=current, rules=up, events=events, now=NOW) == limit


@pytest.mark.parametrize(
    ("current", "down", "events", "limit"),
    [
        pytest.param(10, rules(pods(4)), (), 6, id="pods"),
        pytest.param(10, rules(percent(25)), (), 7, id="percent-is-cut-off"),
        pytest.param(10, rules(percent(100)), (), 0, id="everything"),
        pytest.param(10, rules(pods(4), percent(10)), (), 6, id="max-takes-the-larger-change"),
        pytest.param(10, rules(pods(4), percent(10), select=SelectPolicy.MIN), (), 9, id="min-takes-the-smaller"),
        pytest.param(10, rules(pods(4), select=SelectPolicy.DISABLED), (), 10, id="disabled"),
        pytest.param(10, rules(pods(4, 60)), changed((30, -3)), 9, id="what-was-removed-counts-against-it"),
        pytest.param(10, rules(pods(4, 60)), changed((30, 3)), 3, id="what-was-added-counts-for-it"),
    ],
)
def test_the_limit_of_shrinking(current: int, down: ScalingRules, events: Sequence[ScaleEvent], limit: int) -> None:
    assert scale_down_limit(current=current, rules=down, events=events, now=NOW) == limit


def test_too_much_added_lately_stops_growth_and_does_not_reverse_it() -> None:
    behavior = Behavior(scale_up=rules(pods(1, 60)))
    verdict = limit_rate(proposal=20, current=10, behavior=behavior, events=changed((30, 5)), now=NOW)
    assert verdict.replicas == 10


def test_too_much_removed_lately_stops_shrinking_and_does_not_reverse_it() -> None:
    behavior = Behavior(scale_down=rules(pods(1, 60)))
    verdict = limit_rate(proposal=2, current=10, behavior=behavior, events=changed((30, -5)), now=NOW)
    assert (verdict.replicas, verdict.reason) == (10, Reason.SCALE_DOWN_LIMIT)


@pytest.mark.parametrize(
    ("up", "words"),
    [
        pytest.param(rules(pods(4)), "behavior allows 4 pods in 15 s", id="one"),
        pytest.param(
            rules(pods(4), percent(10, 60), select=SelectPolicy.MIN),
            "behavior allows the smaller of 4 pods in 15 s and 10 % in 60 s",
            id="smaller-of-two",
        ),
        pytest.param(rules(pods(4), select=SelectPolicy.DISABLED), "selectPolicy Disabled", id="disabled"),
    ],
)
def test_a_limit_says_which_policies_made_it(up: ScalingRules, words: str) -> None:
    verdict = limit_rate(proposal=99, current=10, behavior=Behavior(scale_up=up), events=(), now=NOW)
    assert words in verdict.because


policies = st.builds(
    ScalingPolicy,
    type=st.sampled_from(PolicyType),
    value=st.integers(1, 400),
    period_seconds=st.integers(1, 1800),
)
directions = st.builds(
    ScalingRules,
    stabilization_window_seconds=st.integers(0, 3600),
    policies=st.lists(policies, min_size=1, max_size=4).map(tuple),
    select_policy=st.sampled_from(SelectPolicy),
    tolerance=st.sampled_from([0.0, 0.1]),
)
behaviors = st.builds(Behavior, scale_up=directions, scale_down=directions)
ages = st.floats(0, 4000)
replicas = st.integers(1, 500)
recommendations = st.lists(
    st.builds(Recommendation, at=ages.map(lambda age: NOW - age), replicas=replicas), max_size=12
)
events = st.lists(st.builds(ScaleEvent, at=ages.map(lambda age: NOW - age), change=st.integers(-50, 50)), max_size=6)


@untimed
@given(proposal=replicas, current=replicas, behavior=behaviors, recommendations=recommendations)
def test_stabilising_ends_between_where_we_are_and_where_we_would_go(
    proposal: int, current: int, behavior: Behavior, recommendations: list[Recommendation]
) -> None:
    verdict = stabilise(proposal=proposal, current=current, behavior=behavior, recommendations=recommendations, now=NOW)
    assert min(proposal, current) <= verdict.replicas <= max(proposal, current)
    assert (verdict.reason is None) == (verdict.replicas == proposal)


@untimed
@given(proposal=replicas, current=replicas, behavior=behaviors, events=events)
def test_limiting_the_rate_ends_between_where_we_are_and_where_we_would_go(
    proposal: int, current: int, behavior: Behavior, events: list[ScaleEvent]
) -> None:
    verdict = limit_rate(proposal=proposal, current=current, behavior=behavior, events=events, now=NOW)
    assert min(proposal, current) <= verdict.replicas <= max(proposal, current)
    assert (verdict.reason is None) == (verdict.replicas == proposal)


@untimed
@given(
    proposals=st.tuples(replicas, replicas).map(sorted),
    current=replicas,
    behavior=behaviors,
    recommendations=recommendations,
    events=events,
)
def test_a_larger_proposal_never_ends_lower(
    proposals: list[int],
    current: int,
    behavior: Behavior,
    recommendations: list[Recommendation],
    events: list[ScaleEvent],
) -> None:
    def after(proposal: int) -> int:
        stable = stabilise(
            proposal=proposal, current=current, behavior=behavior, recommendations=recommendations, now=NOW
        )
        return limit_rate(proposal=stable.replicas, current=current, behavior=behavior, events=events, now=NOW).replicas

    lower, higher = map(after, proposals)
    assert lower <= higher


def test_a_shrink_that_can_be_taken_back_needs_a_short_window_unless_the_user_sets_one() -> None:
    default, explicit = (
        Behavior(),
        Behavior(scale_down=ScalingRules(stabilization_window_seconds=300, policies=())),
    )
    assert window_seconds(default.scale_down, reversible=True) == 60
    assert window_seconds(default.scale_down, reversible=False) == 300
    assert window_seconds(explicit.scale_down, reversible=True) == 300
