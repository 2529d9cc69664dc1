import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from longtail.api import to_policy
from longtail.api.resource import read_spec
from longtail.api.spec import EngineType, ReasoningServingSpec
from longtail.demand.parameters import ServiceParameters
from longtail.errors import SpecError
from longtail.policy.fleet import (
    Behavior,
    DrainDeadline,
    DrainPolicy,
    DrainRules,
    EffortClass,
    Fallback,
    Mode,
    PolicyType,
    ScalingPolicy,
    ScalingRules,
    SelectPolicy,
    ZeroRules,
)

MANIFESTS = yaml.safe_load((Path(__file__).parent / "manifests.yaml").read_text(encoding="utf-8"))


def spec(**over: Any) -> ReasoningServingSpec:
    return read_spec({"spec": {"scaleTargetRef": {"name": "r1"}, "maxReplicas": 24} | over})


@pytest.mark.parametrize("manifest", [pytest.param(m, id=name) for name, m in MANIFESTS["accepted"].items()])
def test_a_valid_spec_is_read(manifest: dict[str, Any]) -> None:
    assert read_spec({"spec": manifest}).max_replicas == manifest["maxReplicas"]


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in MANIFESTS["refused"].items()])
def test_an_invalid_spec_is_refused_and_the_message_names_the_field(case: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as refusal:
        read_spec({"spec": case["spec"]})
    assert case["blames"] in str(refusal.value)


def test_the_message_of_a_refusal_holds_the_value() -> None:
    with pytest.raises(SpecError, match=r"^spec.maxReplicas: .*, got 10001$"):
        spec(maxReplicas=10_001)


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(SpecError, match=r"spec\.mode.*; spec\.maxReplicas"):
        spec(mode="Auto", maxReplicas=0)


def test_a_long_value_does_not_flood_the_message() -> None:
    with pytest.raises(SpecError) as refusal:
        spec(metricsSource="x" * 5000)
    assert len(str(refusal.value)) < 200


def test_a_policy_that_is_wrong_is_blamed_once() -> None:
    with pytest.raises(SpecError) as refusal:
        spec(behavior={"scaleUp": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 15}]}})
    assert str(refusal.value).count("spec.behavior.scaleUp.policies") == 1


def test_an_object_without_a_spec_is_refused() -> None:
    with pytest.raises(SpecError, match=r"spec\.scaleTargetRef: Field required"):
        read_spec({"metadata": {"name": "r1"}})


def test_numbers_in_quotes_are_refused_as_the_api_server_does() -> None:
    with pytest.raises(SpecError, match=r"spec\.maxReplicas"):
        spec(maxReplicas="24")


def test_fields_of_a_newer_version_are_ignored() -> None:
    assert spec(mood={"policy": "Publish"}, objective={"timeToAnswerSeconds": 300}) == spec()


def test_sleep_and_fallback_are_read_in_seconds() -> None:
    whole = spec(
        minReplicas=0,
        scaleToZero={"idleSeconds": 600, "activation": {"query": "sum(door)"}},
        fallback={"replicas": 6},
    )
    assert to_policy.zero_rules(whole) == ZeroRules(idle_seconds=600.0, query=True, gateway=False)
    assert to_policy.fallback(whole) == Fallback(after_seconds=180.0, replicas=6)
    assert (to_policy.zero_rules(spec()), to_policy.fallback(spec())) == (None, None)
    assert to_policy.zero_rules(spec(scaleToZero={}, gateway={"inferencePool": "r1"})) == ZeroRules(
        idle_seconds=1800.0, query=False, gateway=True
    )


def test_classes_of_effort_keep_their_floors_and_their_order() -> None:
    classes = [
        {"name": "premium", "lowestLevel": "medium", "priority": 10},
        {"name": "batch", "lowestLevel": "minimal"},
    ]
    rules = to_policy.effort(spec(effort={"classes": classes}))
    assert rules is not None
    assert rules.classes == (EffortClass("premium", lowest=1, priority=10), EffortClass("batch", lowest=3, priority=0))
    assert hash(rules) == hash(to_policy.effort(spec(effort={"classes": classes})))


def test_the_smallest_spec_only_advises() -> None:
    smallest = spec()
    assert smallest.mode is Mode.ADVISE
    assert smallest.engine.type is EngineType.AUTO
    assert (smallest.min_replicas, smallest.metrics_source) == (1, "default")
    assert (smallest.scale_target_ref.api_version, smallest.scale_target_ref.kind) == (
        "apps/v1",
        "Deployment",
    )


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        spec().max_replicas = 3


def test_default_parameters_are_those_of_the_demand_model() -> None:
    assert to_policy.parameters(spec()) == ServiceParameters()


def test_default_behavior_is_that_of_the_policy() -> None:
    assert to_policy.limits(spec()).behavior == Behavior()


def test_default_drain_is_that_of_the_policy() -> None:
    assert to_policy.drain(spec()) == DrainRules()


def test_drain_rules_are_those_of_the_spec() -> None:
    assert to_policy.drain(spec(**_every_field())) == DrainRules(
        policy=DrainPolicy.IMMEDIATE, max_seconds=60.0, on_deadline=DrainDeadline.DELETE
    )


def test_half_a_behavior_keeps_the_defaults_of_the_other_half() -> None:
    half = to_policy.limits(spec(behavior={"scaleDown": {"stabilizationWindowSeconds": 60}})).behavior
    assert half.scale_up == Behavior().scale_up
    assert half.scale_down == dataclasses.replace(
        Behavior().scale_down, stabilization_window_seconds=60, reversible_window_seconds=None
    )


def test_units_are_converted() -> None:
    parameters = to_policy.parameters(spec(**_every_field()))
    assert parameters.objective.queue_wait_seconds == 5.0
    assert math.isclose(parameters.objective.attainment, 0.95)
    assert math.isclose(parameters.objective.time_per_output_token_seconds, 0.030)
    assert (parameters.capacity.max_concurrent_requests, parameters.capacity.kv_cache_tokens) == (64, 400_000)
    assert (parameters.mean_output_tokens, parameters.max_output_tokens) == (9000.0, 65536.0)
    assert parameters.startup_seconds == 240.0


def test_limits_are_those_of_the_spec() -> None:
    limits = to_policy.limits(spec(**_every_field()))
    assert (limits.min_replicas, limits.max_replicas) == (2, 24)
    assert limits.behavior.scale_down == ScalingRules(
        stabilization_window_seconds=600,
        policies=(ScalingPolicy(type=PolicyType.PERCENT, value=10, period_seconds=1800),),
        select_policy=SelectPolicy.DISABLED,
        tolerance=0.1,
    )


@pytest.mark.parametrize(
    ("quantity", "fraction"),
    [
        pytest.param("0.05", 0.05, id="decimal"),
        pytest.param("50m", 0.05, id="milli"),
        pytest.param("1", 1.0, id="whole-in-quotes"),
        pytest.param(1, 1.0, id="whole"),
    ],
)
def test_tolerance_is_a_quantity(quantity: int | str, fraction: float) -> None:
    assert to_policy.limits(spec(behavior={"scaleUp": {"tolerance": quantity}})).behavior.scale_up.tolerance == fraction


def _every_field() -> dict[str, Any]:
    every: dict[str, Any] = MANIFESTS["accepted"]["every-field"]
    return every
