"""Less important requests think less first, and no more of them than it takes."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.demand.estimate import ClassDemand, LevelDemand
from longtail.policy import effort
from longtail.policy.decision import Effort
from longtail.policy.fleet import EffortClass, EffortLevel, EffortPolicy, EffortRules
from longtail.policy.ladder import decide
from longtail.policy.memory import ServiceMemory
from longtail.policy.stages import ClassMemory, Stage, demand_at, learn, stages

from .worlds import NOW, TICK, WATCHED, demand, seen, service

LEVELS = (EffortLevel("high"), EffortLevel("medium", 8192), EffortLevel("low", 2048))
PREMIUM, BATCH = EffortClass("premium", 1, priority=10), EffortClass("batch", 2, priority=-1)
RULES = EffortRules(policy=EffortPolicy.PUBLISH, levels=LEVELS, dwell_seconds=300.0, classes=(PREMIUM, BATCH))
THIRDS = {"premium": 1 / 3, "batch": 1 / 3, "": 1 / 3}


def level(short: float, *, mean: float = 2000.0) -> LevelDemand:
    return LevelDemand(short_soon=short, short_ahead=short, short_then=short, steady=2.0, mean_tokens=mean)


def chosen(*shorts: float, last: Effort | None = None, work=THIRDS, rules: EffortRules = RULES) -> Effort:
    need = demand(20.0, levels=tuple(level(short) for short in shorts), replicas_coming=4.0)
    return effort.choose(rules, demand=need, work=work, last=last, cannot_grow=False, now=NOW)


def at(usual: int, **classes: int) -> Effort:
    return Effort(usual, LEVELS[usual], since=NOW - 3600, because="", classes={"premium": 0, "batch": 0} | classes)


def told(choice: Effort) -> str:
    return effort.spelled(RULES, Stage(choice.index, choice.classes))


def test_one_class_after_the_other_and_each_no_lower_than_its_floor():
    assert [effort.spelled(RULES, stage) for stage in stages(RULES, apart=True)] == [
        "high",
        "high (batch: medium)",
        "high (batch: low)",
        "medium (premium: high, batch: low)",
        "low (premium: high)",
        "low (premium: medium)",
    ]


def test_all_together_where_nobody_tells_whose_the_work_is():
    assert [effort.spelled(RULES, stage) for stage in stages(RULES, apart=False)] == [
        "high",
        "medium",
        "low (premium: medium)",
    ]


@pytest.mark.parametrize(
    ("shorts", "last", "expected"),
    [
        pytest.param((-1, -2, -3), None, "high", id="nothing is missing"),
        pytest.param((0.5, -1.5, -3.5), None, "high (batch: medium)", id="a third of the relief is enough"),
        pytest.param((1, -1, -3), None, "high (batch: low)", id="the least important to its floor first"),
        pytest.param((2.4, 0.4, -1.6), None, "low (premium: high)", id="then those of no class"),
        pytest.param((3, 1, 0.5), None, "low (premium: medium)", id="then the most important"),
        pytest.param((-2, -3, -4), at(0, batch=2), "high (batch: medium)", id="back step by step"),
        pytest.param((-2, -3, -4), at(2, batch=2, premium=1), "low (premium: high)", id="the most important first"),
    ],
)
def test_the_least_important_pay_for_the_shortage_as_far_as_that_is_enough(shorts, last, expected):
    assert told(chosen(*shorts, last=last)) == expected


def test_a_class_without_work_is_not_asked_for_what_it_cannot_give():
    choice = chosen(1, -1, -3, work={"premium": 0.5, "batch": 0.0, "": 0.5})
    assert told(choice) == "medium (premium: high, batch: low)"


def test_when_shares_become_known_the_choice_goes_on_where_it_was_worth_as_much():
    before = chosen(1, -0.3, -3, work={}, last=None)
    assert told(before) == "medium"
    after = chosen(1, -0.3, -3, last=before)
    assert told(after) == "high (batch: low)"


def test_since_is_when_any_class_changed():
    first = chosen(0.5, -1.5, -3.5, last=at(0))
    assert first.since == NOW
    assert chosen(0.5, -1.5, -3.5, last=replace(first, since=NOW - TICK)).since == NOW - TICK
    assert chosen(1.5, -0.5, -3, last=replace(first, since=NOW - TICK)).since == NOW


CLASSES = st.lists(
    st.builds(EffortClass, st.sampled_from(["a", "b", "c", "d"]), st.integers(0, 2), st.integers(-2, 2)),
    max_size=4,
    unique_by=lambda each: each.name,
)


@given(CLASSES, st.booleans())
def test_each_stage_is_less_thinking_than_the_one_before_it_and_none_is_below_a_floor(classes, apart):
    rules = replace(RULES, classes=tuple(classes))
    found = stages(rules, apart=apart)
    assert found[0] == Stage(0, {each.name: 0 for each in classes})
    assert found[-1] == Stage(2, {each.name: each.lowest for each in classes})
    for before, after in pairwise(found):
        assert after.usual >= before.usual
        assert all(after.classes[name] >= before.classes[name] for name in before.classes)
        assert after != before
    if apart:
        for stage in found:
            for less in classes:
                for more in classes:
                    if more.priority > less.priority and stage.classes[more.name] > 0:
                        assert stage.classes[less.name] == less.lowest


@given(CLASSES, st.lists(st.floats(0, 1), min_size=5, max_size=5), st.lists(st.floats(0, 5), min_size=3, max_size=3))
def test_what_is_missing_never_grows_from_stage_to_stage(classes, weights, shorts):
    rules = replace(RULES, classes=tuple(classes))
    names = ["", *(each.name for each in classes)]
    total = sum(weights[: len(names)])
    work = {name: weight / total for name, weight in zip(names, weights, strict=False)} if total > 1e-6 else {}
    levels = [level(short) for short in sorted(shorts, reverse=True)]
    found = [demand_at(stage, levels, work=work).short_then for stage in stages(rules, apart=bool(work))]
    assert all(after <= before + 1e-9 for before, after in pairwise(found))
    if work and not classes:
        assert found == pytest.approx([each.short_then for each in levels])


def test_those_with_long_answers_save_more_than_their_part_of_the_work():
    usual = LevelDemand(2.0, 2.0, 2.0, steady=6.0, mean_tokens=2000.0)
    low = LevelDemand(-2.0, -2.0, -2.0, steady=2.0, mean_tokens=1000.0, saved={"batch": 0.75, "": 0.25})
    work = {"batch": 0.5, "": 0.5}
    alone = demand_at(Stage(0, {"batch": 1}), (usual, low), work=work)
    assert (alone.short_soon, alone.steady, alone.mean_tokens) == (-1.0, 3.0, 1250.0)
    assert demand_at(Stage(1, {"batch": 1}), (usual, low), work=work).steady == 2.0
    assert demand_at(Stage(0, {"batch": 0}), (usual, low), work=work) == usual


@given(
    st.dictionaries(st.sampled_from(["", "a", "b"]), st.tuples(st.floats(0.01, 1), st.floats(0, 1)), min_size=1),
    st.floats(-5, 5),
)
def test_with_all_at_one_level_the_demand_is_that_of_the_level(classes, short):
    total = sum(part for part, _ in classes.values())
    work = {name: part / total for name, (part, _) in classes.items()}
    low = replace(level(short), saved={name: share for name, (_, share) in classes.items()})
    found = demand_at(Stage(1, dict.fromkeys(set(classes) - {""}, 1)), (level(1), low), work=work)
    assert found.short_then == pytest.approx(short)


def of_classes(**parts: tuple[float, float]) -> tuple[ClassDemand, ...]:
    """Requests a second and mean length by class; ``rest`` is that of no class."""
    whole = sum(rate * mean for rate, mean in parts.values())
    return tuple(
        ClassDemand("" if name == "rest" else name, rate, mean, None, rate * mean / whole)
        for name, (rate, mean) in parts.items()
    )


def test_classes_that_the_spec_does_not_name_are_of_no_class():
    memory = learn(
        ClassMemory(),
        demand=demand(20.0, classes=of_classes(batch=(1.0, 4000), team=(1.0, 1000), rest=(1.0, 3000))),
        rules=RULES,
        limited=False,
        now=NOW,
    )
    assert memory.work == {"batch": pytest.approx(0.5), "": pytest.approx(0.5)}
    assert memory.mean_tokens == {"batch": pytest.approx(4000), "": pytest.approx(2000)}


USUAL = learn(
    ClassMemory(),
    demand=demand(20.0, classes=of_classes(batch=(1.0, 4000), rest=(1.0, 4000))),
    rules=RULES,
    limited=False,
    now=NOW,
)
"""Half of the work is batch."""


def test_a_class_that_thinks_less_is_as_much_work_as_usual():
    """Else it would seem to give nothing more, and the next class would be asked as well."""
    cut = demand(20.0, classes=of_classes(batch=(1.0, 1000), rest=(1.0, 4000)))
    during = learn(USUAL, demand=cut, rules=RULES, limited=True, now=NOW + 600)
    after = learn(during, demand=cut, rules=RULES, limited=False, now=NOW + 600 + 3000)
    later = learn(after, demand=cut, rules=RULES, limited=False, now=NOW + 600 + 4000)
    assert [memory.work["batch"] for memory in (during, after, later)] == [
        pytest.approx(0.5),
        pytest.approx(0.5),
        pytest.approx(0.2),
    ]


def test_how_many_requests_a_class_sends_is_believed_at_once():
    burst = demand(20.0, classes=of_classes(batch=(3.0, 1000), rest=(1.0, 4000)))
    assert learn(USUAL, demand=burst, rules=RULES, limited=True, now=NOW + 60).work["batch"] == pytest.approx(0.75)


def test_shares_outlive_a_silence_of_the_gateway():
    known = ClassMemory(mean_tokens={"": 2000.0}, work={"": 1.0})
    assert learn(known, demand=demand(20.0), rules=RULES, limited=False, now=NOW).work == {"": 1.0}


def test_the_fold_learns_the_classes_and_chooses_by_them():
    need = demand(
        20.0,
        levels=(level(1), level(-1), level(-3)),
        replicas_coming=4.0,
        classes=of_classes(batch=(1.0, 4000), premium=(1.0, 4000), rest=(1.0, 4000)),
    )
    of = replace(service(4), effort=RULES)
    decision, memory = decide(service=of, observation=seen(20.0), demand=need, memory=WATCHED, now=NOW)
    assert decision.effort is not None
    assert told(decision.effort) == "high (batch: low)"
    assert (decision.effort.index, decision.effort.lowest) == (0, 2)
    assert memory.classes.work["batch"] == pytest.approx(1 / 3)
    assert effort.usual_need(need, last=decision.effort) is not None
    thinking = effort.parameters(of, memory=ServiceMemory(effort=decision.effort)).thinking
    assert thinking is not None
    assert thinking.level == 2
    again = effort.parameters(of, memory=memory).thinking
    assert again is not None
    assert again.stretches == {name: pytest.approx(1.0) for name in ("batch", "premium", "")}
    assert ServiceMemory().classes == ClassMemory()
