"""What people and Prometheus are told of classes of requests."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.control.classes import class_families, class_status, whole_percents
from longtail.control.outcome import Outcome
from longtail.demand.estimate import ClassDemand

from .test_fleet_metrics import DECISION, DEMAND, outcome

PREMIUM = ClassDemand("premium", 0.12345, 1526.4, 0.81, 0.333)
REST = ClassDemand("", 0.0, 800.0, None, 0.667)


def divided(*classes: ClassDemand) -> Outcome:
    return outcome(decision=replace(DECISION, demand=replace(DEMAND, classes=classes)))


def test_status_tells_rounded_figures_and_calls_the_rest_other():
    premium, rest = class_status(divided(PREMIUM, REST)) or ()
    assert premium.model_dump(by_alias=True) == {
        "name": "premium",
        "requestsPerSecond": "0.12",
        "meanTokens": 1500,
        "reasoningPercent": 81,
        "workPercent": 33,
    }
    assert (rest.name, rest.requests_per_second, rest.reasoning_percent, rest.work_percent) == ("other", "0", None, 67)


def test_a_name_that_is_too_long_is_cut_rather_than_refused():
    (only,) = class_status(divided(replace(PREMIUM, name="x" * 300, work_share=1.0))) or ()
    assert only.name == "x" * 63


@pytest.mark.parametrize("of", [outcome(), outcome(decision=None), outcome(decision=replace(DECISION, demand=None))])
def test_where_requests_are_alike_nothing_is_told(of):
    assert class_status(of) is None
    assert [sample for family in class_families([of]) for sample in family.samples] == []


def test_gauges_tell_each_figure_that_is_known_by_class():
    samples = [sample for family in class_families([divided(PREMIUM, REST)]) for sample in family.samples]
    assert {(sample.name, sample.labels["class"]): sample.value for sample in samples} == {
        ("longtail_class_requests_per_second", "premium"): 0.12345,
        ("longtail_class_requests_per_second", "other"): 0.0,
        ("longtail_class_mean_output_tokens", "premium"): 1526.4,
        ("longtail_class_mean_output_tokens", "other"): 800.0,
        ("longtail_class_reasoning_ratio", "premium"): 0.81,
        ("longtail_class_work_ratio", "premium"): 0.333,
        ("longtail_class_work_ratio", "other"): 0.667,
    }


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=17).filter(lambda parts: sum(parts) > 0))
def test_percents_add_up_and_are_no_further_off_than_one(parts):
    shares = [part / sum(parts) for part in parts]
    percents = whole_percents(shares)
    assert sum(percents) == 100
    assert all(0 <= 100 * share - percent + 1 <= 2 for share, percent in zip(shares, percents, strict=True))
