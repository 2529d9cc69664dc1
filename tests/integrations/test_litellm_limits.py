"""What becomes of a request under a level, engine by engine, and what is a document. LiteLLM itself: e2e/tests."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.cluster.effort import document
from longtail.policy.decision import Effort
from longtail.policy.fleet import EffortClass, EffortLevel, EffortPolicy, EffortRules
from longtail_limits import EFFORTS, Document, Level, Malformed, Target, limited

LOW = Level("low", 1024, "low")
FIELD = {"vllm": ("thinking_token_budget",), "sglang": ("custom_params", "thinking_budget")}


def budget(value: object, engine: str) -> dict[str, Any]:
    body: Any = value
    for key in reversed(FIELD[engine]):
        body = {key: body}
    return body


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize(
    ("own", "expected"),
    [
        pytest.param(None, 1024, id="no-wish"),
        pytest.param(-1, 1024, id="no-limit"),
        pytest.param(1025, 1024, id="more"),
        pytest.param(1024, None, id="as-much"),
        pytest.param(1, None, id="less"),
        pytest.param(0, None, id="nothing"),
    ],
)
def test_a_budget_is_the_least_of_both(engine: str, own: int | None, expected: int | None) -> None:
    request = {"model": "r1", "temperature": 0.6} | ({} if own is None else budget(own, engine))
    before = copy.deepcopy(request)
    result = limited(request, LOW, Target("n/r1", engine))
    assert result == (None if expected is None else request | budget(expected, engine))
    assert request == before


@pytest.mark.parametrize("own", ["5", 5.0, True, -2, [5], {}])
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_what_is_no_budget_is_left_to_the_engine(engine: str, own: object) -> None:
    with pytest.raises(Malformed):
        limited(budget(own, engine), LOW, Target("n/r1", engine))


def test_other_parameters_of_sglang_stay() -> None:
    request = {"custom_params": {"other": 1, "thinking_budget": 9000}}
    assert limited(request, LOW, Target("n/r1", "sglang")) == {"custom_params": {"other": 1, "thinking_budget": 1024}}
    assert request == {"custom_params": {"other": 1, "thinking_budget": 9000}}


def test_both_places_of_a_budget_are_lowered() -> None:
    request = {"thinking_token_budget": 5000, "extra_body": {"thinking_token_budget": 3000, "top_k": 5}}
    expected = {"thinking_token_budget": 1024, "extra_body": {"thinking_token_budget": 1024, "top_k": 5}}
    assert limited(request, LOW, Target("n/r1")) == expected


@pytest.mark.parametrize(
    ("own", "most", "expected"),
    [
        pytest.param({}, "low", "low", id="the-engines-default-is-medium"),
        pytest.param({}, "medium", None, id="not-lower-than-the-default"),
        pytest.param({}, "high", None, id="never-above-the-default"),
        pytest.param({"reasoning_effort": "high"}, "low", "low", id="more"),
        pytest.param({"reasoning_effort": "high"}, "medium", "medium", id="more-than-the-default"),
        pytest.param({"reasoning_effort": "minimal"}, "low", None, id="less"),
        pytest.param({"reasoning_effort": "none"}, "low", None, id="nothing"),
        pytest.param({"reasoning_effort": "high"}, None, None, id="no-limit"),
    ],
)
def test_an_effort_is_the_least_of_both(own: dict[str, str], most: str | None, expected: str | None) -> None:
    result = limited(own, Level("x", 5, most), Target("n/r1", "reasoning_effort"))
    assert result == (None if expected is None else {"reasoning_effort": expected})


@pytest.mark.parametrize(
    "request_", [{"thinking": {"type": "enabled", "budget_tokens": 9}}, {"reasoning_effort": 5}, {"reasoning": {}}]
)
def test_an_effort_in_other_words_is_left_alone(request_: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        limited(request_, LOW, Target("n/r1", "reasoning_effort"))


def test_a_published_effort_of_another_scale_is_not_applied() -> None:
    with pytest.raises(Malformed, match="gründlich"):
        limited({}, Level("x", None, "gründlich"), Target("n/r1", "reasoning_effort"))


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        pytest.param({}, {"max_tokens": 1324}, id="no-wish"),
        pytest.param({"max_tokens": 9000}, {"max_tokens": 1324}, id="more"),
        pytest.param({"max_completion_tokens": 9000}, {"max_completion_tokens": 1324}, id="the-newer-name"),
        pytest.param(
            {"max_tokens": 9000, "max_completion_tokens": 50},
            {"max_tokens": 1324, "max_completion_tokens": 50},
            id="both",
        ),
        pytest.param({"max_tokens": 1000}, None, id="less"),
    ],
)
def test_the_whole_is_cut_only_as_far_as_said(own: dict[str, int], expected: dict[str, int] | None) -> None:
    assert limited(own, LOW, Target("n/r1", "max_tokens", answer_tokens=300)) == expected


COUNTS = st.none() | st.integers(-1, 100_000)


@given(
    engine=st.sampled_from(["vllm", "sglang", "reasoning_effort", "max_tokens"]),
    own=COUNTS,
    beside=COUNTS,
    soft=st.none() | st.integers(0, 100_000),
    effort=st.none() | st.sampled_from(EFFORTS),
    level=st.builds(
        Level,
        name=st.just("x"),
        thinking_tokens=st.none() | st.integers(0, 100_000),
        reasoning_effort=st.none() | st.sampled_from(EFFORTS),
    ),
)
def test_nothing_is_ever_raised(
    engine: str, own: int | None, beside: int | None, soft: int | None, effort: str | None, level: Level
) -> None:
    request: dict[str, Any] = {
        "thinking_token_budget": own,
        "custom_params": {"thinking_budget": own},
        "max_tokens": own,
        "extra_body": {"thinking_token_budget": beside, "custom_params": {"thinking_budget": beside}},
        "reasoning_effort": effort,
    }
    if soft is not None and engine != "reasoning_effort":
        request["thinking"] = {"type": "enabled", "budget_tokens": soft}
    before = copy.deepcopy(request)
    result = limited(request, level, Target("n/r1", engine, answer_tokens=10))
    assert request == before
    for place in (("thinking_token_budget",), ("custom_params", "thinking_budget"), ("max_tokens",)):
        for prefix in ((), ("extra_body",)):
            old, new = at(request, (*prefix, *place)), at(result or request, (*prefix, *place))
            assert new == old or old in (None, -1) or new < old
            if soft is not None and place != ("max_tokens",):
                assert new in (old, None) or new <= soft
    new_effort = (result or request)["reasoning_effort"]
    assert new_effort == effort or EFFORTS.index(new_effort) < EFFORTS.index(effort or "medium")


def at(body: Any, place: tuple[str, ...]) -> Any:
    for key in place:
        body = (body or {}).get(key)
    return body


def test_the_hook_reads_what_the_operator_writes() -> None:
    usual, low = EffortLevel("normal", None, None), EffortLevel("low", 1024, "low")
    rules = EffortRules(
        policy=EffortPolicy.PUBLISH,
        levels=(usual, low),
        answer_tokens=500,
        dwell_seconds=60.0,
        classes=(EffortClass("premium", lowest=0),),
    )
    record = _Record("inference/r1")
    effort = Effort(index=1, level=low, since=1_700_000_000.0, because="short")
    body = document(record, effort, rules=rules, model="r1", valid_until="2026-11-27T20:01:00Z")  # type: ignore[arg-type]
    read = Document.parse(json.dumps(body))
    assert (read.service, read.model, read.valid_until) == ("inference/r1", "r1", 1795809660.0)
    assert read.usual == Level("low", 1024, "low")
    assert read.classes == {"premium": Level("normal", None, None)}
    assert read.classes["premium"].unlimited
    assert not read.usual.unlimited


class _Record:
    """All that the document takes of a record."""

    def __init__(self, key: str) -> None:
        self.key = key


def test_targets_name_what_is_wrong_with_them() -> None:
    assert Target.parse("m", {"service": "n/r1"}, "sglang") == Target("n/r1", "sglang")
    for body in ({"engine": "tgi"}, {"engine": "max_tokens"}, {"servise": "n/r1"}, {"default_effort": "lots"}, 5):
        with pytest.raises(ValueError, match="LONGTAIL_EFFORT_MODELS: m"):
            Target.parse("m", body, "vllm")
