"""Requests by class: the largest one by one, all others in one sum, and no guess where the proxy is silent."""

import pytest

from longtail.demand.observation import UNDIVIDED, ClassCount, Observation, Quality
from longtail.signals import classes
from longtail.signals.observe import ServiceSignals
from longtail.signals.reader import queries
from longtail.signals.samples import Point
from longtail.signals.sources import LabelNames

from .points import Ticks, pod, point, service, vllm

COUNTED = ("class_requests", "class_answers", "class_tokens", "class_reasoning")
DIVIDED = service(pod("a"), gateway_model="r1", class_label="team")


def proxy(
    total: tuple[float, ...], *, age: float = 2.0, model: str = "r1", **by_team: tuple[float, ...]
) -> list[Point]:
    """What a proxy counted of a model in all, and of each team."""
    points = [point("litellm/sample_age", model, age)]
    points += [point(f"litellm/team/all/{name}", model, value) for name, value in zip(COUNTED, total, strict=True)]
    for team, values in by_team.items():
        labels = {"team": team} if team else {}
        points += [
            point(f"litellm/team/{name}", model, value, **labels)
            for name, value in zip(COUNTED, values, strict=True)
            if value
        ]
    return points


def look(points: list[Point], *, of: ServiceSignals = DIVIDED, **how: bool) -> Observation:
    observation: Observation = Ticks(of).see(vllm("a", running=1), points, **how)
    return observation


def test_what_is_not_told_apart_is_all_less_the_others() -> None:
    seen = look(proxy((20, 100, 90_000, 60_000), small=(5, 20, 10_000, 0), large=(9, 30, 60_000, 50_000))).classes
    assert seen.counts == (
        ClassCount("large", 9, 30, 60_000, 50_000),
        ClassCount("small", 5, 20, 10_000, 0),
        ClassCount("", 6, 50, 20_000, 10_000),
    )
    assert (seen.quality, seen.age_seconds) == (Quality.FRESH, 2.0)


@pytest.mark.parametrize("name", ["", "None", "other"])
def test_a_request_without_a_class_is_of_the_rest(name: str) -> None:
    nameless = proxy((7, 7, 700, 0), **{name: (5, 5, 500, 0), "gold": (2, 2, 200, 0)})
    assert [(each.name, each.output_tokens) for each in look(nameless).classes.counts] == [("gold", 200), ("", 500)]


@pytest.mark.parametrize(
    ("points", "of"),
    [
        pytest.param([], DIVIDED, id="nothing was counted"),
        pytest.param(proxy((1, 1, 1, 1), model="r2", gold=(1, 1, 1, 1)), DIVIDED, id="another model"),
        pytest.param(proxy((1, 1, 1, 1), gold=(1, 1, 1, 1)), service(pod("a"), gateway_model="r1"), id="no label"),
    ],
)
def test_requests_are_alike_where_nobody_tells_them_apart(points: list[Point], of: ServiceSignals) -> None:
    assert look(points, of=of).classes == UNDIVIDED


def test_a_proxy_that_is_not_scraped_any_more_is_stale() -> None:
    assert look(proxy((1, 1, 1, 1), age=90.0, gold=(1, 1, 1, 1))).classes.quality is Quality.STALE


def test_an_answer_that_may_lack_a_part_is_partial() -> None:
    assert look(proxy((1, 1, 1, 1), gold=(1, 1, 1, 1)), partial=True).classes.quality is Quality.PARTIAL


def test_one_query_more_for_each_label_whatever_the_number_of_services() -> None:
    plain = [service(pod("a"), name=f"p{i}", gateway_model="r1") for i in range(9)]
    divided = [service(pod("a"), name=f"d{i}", gateway_model="r1", class_label="team") for i in range(9)]
    others = [service(pod("a"), name=f"o{i}", gateway_model="r1", class_label="user") for i in range(9)]
    before = queries(plain, LabelNames())
    after = queries([*plain, *divided, *others], LabelNames())
    assert after[: len(before)] == before
    assert [query.name for query in after[len(before) :]] == ["classes-team", "classes-user"]


def test_however_many_values_a_label_has_the_answer_is_small() -> None:
    for part in classes.parts("end_user"):
        one_by_one = "by (requested_model, end_user)" in part.expression
        assert one_by_one == (f"topk by (requested_model) ({classes.MOST}," in part.expression)
