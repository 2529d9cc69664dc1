from typing import Any

import pytest
from pydantic import ValidationError

from longtail.api.status import (
    Condition,
    ConditionStatus,
    DecisionStatus,
    DemandStatus,
    LadderStepStatus,
    ReasoningServingStatus,
)
from longtail.policy.decision import Reason, Rung

NOW = "2026-11-24T08:00:00Z"


def written(status: ReasoningServingStatus) -> dict[str, Any]:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def test_status_is_written_in_camel_case_and_without_what_is_not_known() -> None:
    status = ReasoningServingStatus(
        observed_generation=3,
        demand=DemandStatus(running_requests=14, waiting_requests=0, owed_tokens=None),
    )
    assert written(status)["demand"] == {"runningRequests": 14, "waitingRequests": 0}


def test_zero_is_written_and_unknown_is_not() -> None:
    assert written(ReasoningServingStatus(demand=DemandStatus(owed_tokens=0)))["demand"] == {"owedTokens": 0}


def test_the_ladder_is_written_with_its_rungs() -> None:
    decision = DecisionStatus(
        reason=Reason.SCALE_UP,
        message="3 replicas",
        ladder=(LadderStepStatus(rung=Rung.REACTIVE, replicas=3, because="20 slots needed"),),
        time=NOW,
    )
    assert written(ReasoningServingStatus(decision=decision))["decision"]["ladder"] == [
        {"rung": "Reactive", "replicas": 3, "because": "20 slots needed"}
    ]


def test_a_long_message_is_cut_rather_than_losing_the_status() -> None:
    condition = Condition(
        type="Ready",
        status=ConditionStatus.FALSE,
        reason="TargetUnavailable",
        message="x" * 5000,
        last_transition_time=NOW,
    )
    assert len(condition.message) == 1024
    assert condition.message.endswith("x…")


def test_a_message_that_fits_is_left_alone() -> None:
    step = LadderStepStatus(rung=Rung.FLOOR, replicas=1, because="x" * 1024)
    assert step.because == "x" * 1024


@pytest.mark.parametrize("reason", [*Reason], ids=str)
def test_every_reason_of_a_decision_is_a_valid_word(reason: Reason) -> None:
    assert DecisionStatus(reason=reason, message="", time=NOW).reason == reason


def test_a_negative_count_is_a_bug_and_not_written() -> None:
    with pytest.raises(ValidationError, match="running_requests"):
        DemandStatus(running_requests=-1)
