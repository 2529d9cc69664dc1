"""A service follows the pods of a cluster and takes its definition at its word."""

from typing import Any

import pytest
from pydantic import ValidationError

from longtail.workbench.engine.service import (
    Fault,
    PodState,
    RateDefinition,
    Service,
    ServiceDefinition,
    endpoints_of_list,
    pods_of_list,
)


def service(**fields: object) -> Service:
    definition = ServiceDefinition.model_validate({"name": "r1", "rate": {"points": [[0, 2]]}, **fields})
    return Service(definition, speed=1.0, now_seconds=0.0)


def names(subject: Service) -> list[str]:
    return list(subject.pool.pods)


def pod(name: str, **fields: object) -> dict[str, object]:
    meta = {"name": name, "uid": f"uid-{name}", "labels": {"app": "r1"}, **fields.pop("metadata", {})}  # type: ignore[dict-item]
    status = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"restartCount": 0}],
        **fields,
    }
    return {"metadata": meta, "status": status}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        pytest.param(pod("a"), PodState("a", "uid-a/0"), id="ready"),
        pytest.param(
            pod("a", conditions=[{"type": "Ready", "status": "False"}]),
            PodState("a", "uid-a/0", ready=False),
            id="not ready",
        ),
        pytest.param(
            pod("a", conditions=None, containerStatuses=None),
            PodState("a", "uid-a/0", ready=False),
            id="pending",
        ),
        pytest.param(
            pod("a", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}),
            PodState("a", "uid-a/0", terminating=True),
            id="terminating",
        ),
        pytest.param(pod("a", containerStatuses=[{"restartCount": 3}]), PodState("a", "uid-a/3"), id="restarted"),
    ],
)
def test_a_pod_is_read_from_a_list(item, expected):
    assert pods_of_list({"items": [item]}) == [expected]


def test_only_pods_with_the_route_label_get_requests():
    items = [pod("a"), pod("b", metadata={"labels": {"route": "open"}}), pod("c", metadata={"labels": None})]
    states = pods_of_list({"items": items}, route_label="route=open")
    assert [state.routable for state in states] == [False, True, False]


def test_only_the_ready_endpoints_of_a_service_get_requests() -> None:
    def endpoint(pod: str, **conditions: bool) -> dict[str, Any]:
        return {"targetRef": {"kind": "Pod", "name": pod}, "conditions": conditions}

    slices = [
        {"endpoints": [endpoint("a", ready=True), endpoint("b", ready=False)]},
        # No condition means ready; an address without a pod is none of ours; an empty slice has null.
        {"endpoints": [endpoint("c"), {"addresses": ["10.0.0.9"]}]},
        {"endpoints": None},
    ]
    ready = endpoints_of_list({"items": slices})
    assert ready == {"a", "c"}
    items = [{"metadata": {"name": name}} for name in "abcd"]
    states = pods_of_list({"items": items}, endpoints=ready)
    assert [state.name for state in states if state.routable] == ["a", "c"]


def test_ready_pods_appear_and_gone_pods_go():
    subject = service()
    subject.follow([PodState("a"), PodState("b", ready=False)], now_seconds=1.0)
    assert names(subject) == ["a"]
    subject.follow([PodState("a"), PodState("b")], now_seconds=2.0)
    assert names(subject) == ["a", "b"]
    subject.follow([PodState("b")], now_seconds=3.0)
    assert names(subject) == ["b"]


def test_a_pod_that_is_no_longer_ready_keeps_its_work_and_gets_no_more():
    subject = service()
    subject.follow([PodState("a"), PodState("b")], now_seconds=1.0)
    subject.follow([PodState("a", ready=False), PodState("b")], now_seconds=2.0)
    assert names(subject) == ["a", "b"]
    assert not subject.pool.pods["a"].routable
    subject.follow([PodState("a"), PodState("b")], now_seconds=3.0)
    assert subject.pool.pods["a"].routable


@pytest.mark.parametrize(
    ("sigterm", "left"),
    [
        pytest.param("abort", [], id="vLLM's default loses everything at once"),
        pytest.param("drain", ["a"], id="a draining server works until it is gone"),
    ],
)
def test_a_terminating_pod(sigterm, left):
    subject = service(sigterm=sigterm)
    subject.follow([PodState("a")], now_seconds=0.0)
    subject.pool.advance(10.0)
    subject.follow([PodState("a", terminating=True)], now_seconds=10.0)
    assert names(subject) == left
    assert (subject.pool.truth().killed_requests > 0) == (left == [])
    assert subject.pool.truth().routable_pods == 0
    subject.follow([], now_seconds=11.0)
    assert names(subject) == []


@pytest.mark.parametrize("incarnation", [pytest.param("u/1", id="container"), pytest.param("v/0", id="pod")])
def test_another_incarnation_under_the_same_name_starts_from_nothing(incarnation):
    subject = service()
    subject.follow([PodState("a", "u/0")], now_seconds=0.0)
    subject.pool.advance(10.0)
    subject.follow([PodState("a", incarnation)], now_seconds=10.0)
    assert subject.pool.pods["a"].engines[0].reading().generated_tokens == 0
    assert subject.pool.truth().killed_requests > 0
    killed = subject.pool.truth().killed_requests
    subject.follow([PodState("a", incarnation)], now_seconds=11.0)
    assert subject.pool.truth().killed_requests == killed


def test_speed_compresses_everything_by_the_same_factor():
    definition = ServiceDefinition.model_validate(
        {"name": "r1", "rate": {"points": [[0, 1], [100, 5], [200, 0]]}, "seed": 3}
    )
    truths = []
    for speed in (1.0, 10.0):
        subject = Service(definition, speed=speed, now_seconds=0.0)
        subject.follow([PodState("a")], now_seconds=0.0)
        subject.pool.advance(150.0 / speed)
        truths.append(subject.pool.truth())
    slow, fast = truths
    assert fast.arrived_requests == slow.arrived_requests
    assert fast.totals.generated_tokens == pytest.approx(slow.totals.generated_tokens, rel=0.001)
    assert fast.wait_p99_seconds == pytest.approx(slow.wait_p99_seconds / 10, rel=0.05)


def test_a_frozen_page_stays_and_thaws():
    subject = service()
    subject.follow([PodState("a"), PodState("b")], now_seconds=0.0)
    subject.set_fault(Fault(kind="freeze", pods=("a",)))
    subject.pool.advance(1.0)
    frozen, other = subject.page("a"), subject.page("b")
    subject.pool.advance(30.0)
    assert subject.page("a") == frozen
    assert subject.page("b") != other
    subject.set_fault(Fault(kind="none"))
    assert subject.page("a") != frozen


@pytest.mark.parametrize(
    ("kind", "text"), [("nan", " NaN\n"), ("inf", " +Inf\n"), ("negative", " -1.0\n"), ("million", " 1e+06\n")]
)
def test_a_page_of_impossible_numbers(kind, text):
    subject = service()
    subject.follow([PodState("a")], now_seconds=0.0)
    subject.set_fault(Fault(kind=kind))
    samples = [line for line in subject.page("a").splitlines(keepends=True) if not line.startswith("#")]
    assert samples
    assert all(line.endswith(text) for line in samples)


def test_another_rate_and_a_pause_take_effect_from_now():
    subject = service()
    subject.pause(paused=True, now_seconds=10.0)
    before = subject.pool.truth().arrived_requests
    subject.set_rate(RateDefinition(points=((0.0, 100.0),)), now_seconds=20.0)
    subject.pool.advance(100.0)
    assert subject.pool.truth().arrived_requests == before > 0
    subject.pause(paused=False, now_seconds=100.0)
    subject.pool.advance(110.0)
    assert subject.pool.truth().arrived_requests - before == pytest.approx(1000, rel=0.15)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        pytest.param({"profile": "abacus"}, "profile must be one of .*'abacus'", id="unknown profile"),
        pytest.param({"slots": 0}, "slots", id="no slots"),
        pytest.param({"kv_capacity_tokens": 100}, "max_model_len_tokens", id="model longer than cache"),
        pytest.param({"engine": "sglang", "engines_per_pod": 2}, "engines_per_pod", id="SGLang with two engines"),
        pytest.param({"rate": {"points": [[5, 1], [0, 1]]}}, "ascending", id="points out of order"),
        pytest.param({"rate": {"points": [[0, -1]]}}, "rate.points", id="negative rate"),
        pytest.param({"gap_cv": float("nan")}, "gap_cv", id="variation of NaN"),
        pytest.param({"colour": "red"}, "colour", id="unknown field"),
        pytest.param({"name": "Not/AName"}, "name", id="bad name"),
    ],
)
def test_a_wrong_definition_is_refused_by_field(fields, named):
    with pytest.raises(ValidationError, match=named):
        ServiceDefinition.model_validate({"name": "r1", **fields})
