"""A level of thinking on its way to the gateway, and what people are told of it."""

import json
from dataclasses import replace

import pytest

from longtail.api.spec import ReasoningServingSpec
from longtail.api.status import ConditionStatus
from longtail.cluster.effort import EffortWriter
from longtail.cluster.kinds import CONFIG_MAPS
from longtail.control.classes import class_families
from longtail.control.outcome import Outcome
from longtail.control.thinking import EffortPublisher, effort_reduced, effort_status
from longtail.policy.decision import Decision, Effort, Reason
from longtail.policy.fleet import EffortLevel

from .conftest import EPOCH
from .test_conditions import outcome

HIGH, MEDIUM, LOW = EffortLevel("high"), EffortLevel("medium", 8192), EffortLevel("low", 2048, "low")
CLASSES = [{"name": "premium", "lowestLevel": "medium"}, {"name": "batch", "lowestLevel": "low", "priority": -1}]
PATH = CONFIG_MAPS.path(namespace="inference", name="r1-effort")


def at(index: int, level: EffortLevel, *, since: float = EPOCH) -> Effort:
    return Effort(index=index, level=level, since=since, because="in the 120 s that a start takes 2 are missing")


def thinking(effort: Effort | None, *, mode: str = "Active", **block) -> Outcome:
    """An outcome whose spec has three levels, at one of them."""
    levels = [{"name": "high"}, {"name": "medium", "thinkingTokens": 8192}]
    levels.append({"name": "low", "thinkingTokens": 2048, "reasoningEffort": "low"})
    document = {
        "mode": mode,
        "scaleTargetRef": {"name": "r1"},
        "maxReplicas": 8,
        "gateway": {"model": "deepseek-r1"},
        "effort": {"policy": "Publish", "levels": levels, "classes": [{"name": "premium", "lowestLevel": "medium"}]}
        | block,
    }
    spec = ReasoningServingSpec.model_validate_json(json.dumps(document))
    decided = Decision(current=2, desired=2, hold=False, reason=Reason.DESIRED_WITHIN_RANGE, message="", effort=effort)
    made = outcome(decision=decided)
    return replace(made, view=replace(made.view, record=replace(made.view.record, spec=spec)))


class Publishing:
    def __init__(self, server, api, clock) -> None:
        self.server, self.clock = server, clock
        self.standby = False
        self.publisher = EffortPublisher(
            efforts=EffortWriter(api=api), clock=clock, concurrency=1, may_write=lambda: not self.standby
        )

    async def publish(self, of: Outcome) -> None:
        await self.publisher.publish({of.view.record.key: of})

    def document(self) -> dict:
        return json.loads(self.server.objects[PATH]["data"]["effort.json"])

    def writes(self) -> int:
        return sum(r.path == PATH and "dryRun" not in r.query for r in self.server.sent("PATCH"))


@pytest.fixture
def publishing(server, api, clock) -> Publishing:
    return Publishing(server, api, clock)


async def test_each_class_is_published_at_the_level_chosen_for_it(publishing):
    of = thinking(replace(at(0, HIGH), classes={"premium": 0, "batch": 2}), classes=CLASSES)
    await publishing.publish(of)
    document = publishing.document()
    assert (document["level"], document["thinkingTokens"]) == ("high", None)
    assert {name: each["thinkingTokens"] for name, each in document["classes"].items()} == {
        "premium": None,
        "batch": 2048,
    }
    await publishing.publish(of)
    assert publishing.writes() == 1
    await publishing.publish(thinking(replace(at(0, HIGH), classes={"premium": 0, "batch": 1}), classes=CLASSES))
    assert publishing.document()["classes"]["batch"]["thinkingTokens"] == 8192


def test_people_are_told_of_a_class_that_thinks_less_alone():
    of = thinking(replace(at(0, HIGH), classes={"premium": 0, "batch": 2}), classes=CLASSES)
    condition = effort_reduced(of)
    assert (condition.status, condition.reason) == (ConditionStatus.TRUE, "LessThinking")
    assert condition.message.startswith("level high (batch: low), since 2026-11-24T08:00:00Z: ")
    status = effort_status(of)
    assert status is not None
    assert [(each.name, each.level) for each in status.classes or ()] == [("premium", "high"), ("batch", "low")]
    assert [sample.value for family in class_families([of]) for sample in family.samples] == [0.0, 2.0]


async def test_a_level_is_published_with_its_end_and_its_classes(publishing):
    await publishing.publish(thinking(at(2, LOW)))
    assert publishing.document() == {
        "service": "inference/r1",
        "model": "deepseek-r1",
        "level": "low",
        "thinkingTokens": 2048,
        "reasoningEffort": "low",
        "validUntil": "2026-11-24T08:03:00Z",
        "generation": int(EPOCH),
        "classes": {"premium": {"level": "medium", "thinkingTokens": 8192, "reasoningEffort": None}},
    }
    metadata = publishing.server.objects[PATH]["metadata"]
    assert metadata["labels"] == {"longtail.dev/effort": "r1"}
    assert [owner["kind"] for owner in metadata["ownerReferences"]] == ["ReasoningServing"]


async def test_a_level_is_renewed_before_it_ends_and_not_at_every_tick(publishing):
    for _ in range(8):
        await publishing.publish(thinking(at(2, LOW)))
        publishing.clock.now += 15.0
    assert publishing.writes() == 2
    assert publishing.document()["validUntil"] == "2026-11-24T08:04:00Z"


async def test_a_change_is_published_at_once(publishing):
    await publishing.publish(thinking(at(2, LOW)))
    publishing.clock.now += 15.0
    await publishing.publish(thinking(at(1, MEDIUM, since=EPOCH + 15)))
    assert publishing.document()["level"] == "medium"
    assert publishing.document()["generation"] == int(EPOCH) + 15


async def test_the_usual_level_is_published_once_after_another_and_never_on_its_own(publishing):
    await publishing.publish(thinking(at(0, HIGH)))
    assert publishing.writes() == 0
    await publishing.publish(thinking(at(1, MEDIUM)))
    for _ in range(20):
        publishing.clock.now += 15.0
        await publishing.publish(thinking(at(0, HIGH)))
    assert publishing.writes() == 2
    assert publishing.document()["thinkingTokens"] is None


@pytest.mark.parametrize(
    "of",
    [
        pytest.param(thinking(at(2, LOW), policy="Recommend"), id="recommended only"),
        pytest.param(thinking(at(2, LOW), mode="Advise"), id="mode Advise writes nothing"),
        pytest.param(thinking(None), id="nothing chosen"),
    ],
)
async def test_what_is_not_to_be_published_is_not(publishing, of):
    await publishing.publish(of)
    assert PATH not in publishing.server.objects


async def test_a_standby_publishes_nothing(publishing):
    publishing.standby = True
    await publishing.publish(thinking(at(2, LOW)))
    assert PATH not in publishing.server.objects


async def test_somebody_elses_config_map_is_left_alone(publishing, caplog):
    publishing.server.put(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"namespace": "inference", "name": "r1-effort"},
            "data": {"notes": "mine"},
        }
    )
    await publishing.publish(thinking(at(2, LOW)))
    assert publishing.server.objects[PATH]["data"] == {"notes": "mine"}
    assert "levels of thinking not published" in caplog.text


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        pytest.param(thinking(None), ("False", "EffortDisabled"), id="no levels"),
        pytest.param(thinking(at(0, HIGH)), ("False", "UsualEffort"), id="as usual"),
        pytest.param(thinking(at(2, LOW)), ("True", "LessThinking"), id="published"),
        pytest.param(thinking(at(2, LOW), policy="Recommend"), ("True", "LessThinkingRecommended"), id="recommended"),
    ],
)
def test_a_condition_says_whether_less_is_thought(of, expected):
    condition = effort_reduced(of)
    assert (condition.status.value, condition.reason) == expected


def test_the_condition_names_level_limit_and_cause():
    assert effort_reduced(thinking(at(2, LOW))).message == (
        "level low, at most 2,048 reasoning tokens, since 2026-11-24T08:00:00Z: "
        "in the 120 s that a start takes 2 are missing"
    )
    assert effort_reduced(thinking(at(2, LOW))).status is ConditionStatus.TRUE


def test_the_status_shows_the_level():
    status = effort_status(thinking(at(2, LOW)))
    assert status is not None
    assert (status.level, status.thinking_tokens, status.published) == ("low", 2048, True)
    assert effort_status(thinking(None)) is None
