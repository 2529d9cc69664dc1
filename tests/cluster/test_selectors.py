"""Selectors match what Kubernetes' own would; the examples are those of its documentation, and harder ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.cluster.selectors import Selector, from_object, from_string
from longtail.errors import SpecError

GPU_PROD = {"app": "r1", "environment": "prod", "tier": "gpu", "empty": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        pytest.param("app=r1", True, id="equal"),
        pytest.param("app==r1", True, id="double-equal"),
        pytest.param("app!=r1", False, id="not-equal"),
        pytest.param("absent!=r1", True, id="not-equal-holds-without-the-label"),
        pytest.param("environment in (prod, qa)", True, id="in"),
        pytest.param("environment notin (prod,qa)", False, id="notin"),
        pytest.param("absent notin (prod)", True, id="notin-holds-without-the-label"),
        pytest.param("app,!absent", True, id="exists-and-not-exists"),
        pytest.param("!app", False, id="not-exists"),
        pytest.param("app=r1,environment in (prod),tier=cpu", False, id="all-must-hold"),
        pytest.param("empty=", True, id="empty-value"),
        pytest.param("", False, id="nothing-selects-nothing"),
    ],
)
def test_a_selector_string_matches_as_in_kubernetes(text: str, matches: bool) -> None:
    assert from_string(text).matches(GPU_PROD) is matches


@pytest.mark.parametrize("text", ["a=b c", "in (x)", "a in x", "=,"], ids=repr)
def test_a_string_that_is_no_selector_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(SpecError, match="selector"):
        from_string(text)


def test_both_spellings_of_a_selector_are_the_same() -> None:
    structured = from_object(
        {
            "matchLabels": {"app": "r1"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["gpu", "tpu"]},
                {"key": "old", "operator": "DoesNotExist"},
                {"key": "environment", "operator": "Exists"},
                {"key": "zone", "operator": "NotIn", "values": ["a"]},
            ],
        }
    )
    written = from_string("app=r1,tier in (gpu,tpu),!old,environment,zone notin (a)")
    assert set(structured.requirements) == set(written.requirements)


LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"), max_size=3)


@given(labels=LABELS, other=LABELS)
def test_match_labels_select_exactly_the_supersets(labels: dict[str, str], other: dict[str, str]) -> None:
    selector: Selector = from_object({"matchLabels": labels})
    assert selector.matches(other) is (bool(labels) and labels.items() <= other.items())
