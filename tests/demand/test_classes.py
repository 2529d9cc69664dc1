"""The work by class: shares of a whole, whatever was counted."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.demand.classes import divide
from longtail.demand.model import DemandMemory, estimate
from longtail.demand.observation import ClassCount, Classes, Observation, Quality, Signal
from longtail.demand.parameters import ServiceParameters
from longtail.demand.supply import Supply

AMOUNTS = st.floats(0, 1e9) | st.just(0.0) | st.floats(0, 1e-9)
COUNTS = st.lists(st.builds(ClassCount, st.text(max_size=3), AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS), max_size=17)


def fresh(*counts: ClassCount) -> Classes:
    return Classes(counts, age_seconds=3.0, quality=Quality.FRESH)


def count(
    name: str, *, requests: float, mean: float, answers: float | None = None, reasoning: float = 0.0
) -> ClassCount:
    answered = 6 * requests if answers is None else answers
    return ClassCount(name, requests, answered, answered * mean, reasoning * answered * mean)


@given(COUNTS)
def test_the_shares_are_those_of_a_whole(counts):
    found = divide(fresh(*counts))
    assert [each.name for each in found] in ([], [each.name for each in counts])
    for each in found:
        assert 0 <= each.work_share <= 1
        assert each.mean_tokens > 0
        assert math.isfinite(each.mean_tokens)
        assert each.requests_per_second >= 0
        assert each.reasoning_share is None or 0 <= each.reasoning_share <= 1
    if found:
        assert sum(each.work_share for each in found) == pytest.approx(1)


def test_few_requests_of_long_answers_are_as_much_work_as_many_of_short_ones():
    chat, batch = divide(fresh(count("chat", requests=9000, mean=500), count("batch", requests=900, mean=5000)))
    assert chat.work_share == pytest.approx(0.5, abs=0.01)
    assert (chat.requests_per_second, batch.requests_per_second) == (15.0, 1.5)
    assert batch.mean_tokens == pytest.approx(5000, rel=0.01)


def test_of_a_few_answers_the_common_length_is_believed():
    few = divide(fresh(count("usual", requests=900, mean=1000), count("rare", requests=1, mean=30_000, answers=1)))[1]
    assert 1000 < few.mean_tokens < 5000


def test_a_class_that_starts_now_has_its_share_before_its_hour_is_over():
    usual, burst = divide(
        fresh(count("usual", requests=100, mean=1000), count("burst", requests=300, mean=1000, answers=300))
    )
    assert burst.work_share == pytest.approx(0.75)
    assert usual.work_share == pytest.approx(0.25)


def test_while_nobody_asks_the_shares_are_those_of_the_hour():
    found = divide(fresh(count("a", requests=0, mean=1000, answers=30), count("b", requests=0, mean=1000, answers=10)))
    assert [each.work_share for each in found] == [pytest.approx(0.75), pytest.approx(0.25)]


@pytest.mark.parametrize("quality", [Quality.STALE, Quality.PARTIAL, Quality.MISSING])
def test_what_is_old_or_not_whole_divides_nothing(quality):
    assert divide(replace(fresh(count("a", requests=10, mean=1000)), quality=quality)) == ()


def test_the_reasoning_of_an_engine_that_tells_none_is_not_known():
    told, untold = divide(fresh(count("a", requests=9, mean=100, reasoning=0.8), count("b", requests=9, mean=100)))
    assert told.reasoning_share == pytest.approx(0.8)
    assert untold.reasoning_share is None


def test_a_service_has_its_own_classes_and_others_none():
    divided = Observation(
        at_seconds=0.0, running_requests=Signal(3.0), classes=fresh(count("gold", requests=60, mean=2000))
    )
    demands, _ = estimate(
        keys=["plain", "divided"],
        parameters=[ServiceParameters()] * 2,
        observations=[replace(divided, classes=Classes()), divided],
        supplies=[Supply(ready_replicas=1)] * 2,
        memory=DemandMemory.empty(),
        now=0.0,
    )
    assert demands[0].classes == ()
    assert [(each.name, each.work_share) for each in demands[1].classes] == [("gold", 1.0)]
