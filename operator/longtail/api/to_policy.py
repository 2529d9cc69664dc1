"""From what a user wrote to the values that demand and policy compute with: units change only here."""

from decimal import Decimal
from typing import Final

from longtail.api.scaling import ScaleDownRules, ScaleUpRules, ScalingBehavior
from longtail.api.spec import ReasoningServingSpec
from longtail.demand.parameters import CapacityOverride, Objective, ServiceParameters
from longtail.policy.fleet import (
    UNKNOWN_GPU_CLASS,
    Behavior,
    DrainRules,
    EffortClass,
    EffortLevel,
    EffortPolicy,
    EffortRules,
    Fallback,
    GpuShape,
    Limits,
    ScalingPolicy,
    ScalingRules,
    Variant,
    ZeroRules,
)

_MILLI: Final = Decimal("0.001")


def limits(spec: ReasoningServingSpec) -> Limits:
    """What the user allows."""
    return Limits(
        min_replicas=spec.min_replicas,
        max_replicas=spec.max_replicas,
        behavior=behavior(spec.behavior),
    )


def drain(spec: ReasoningServingSpec) -> DrainRules:
    """How replicas leave."""
    return DrainRules(
        policy=spec.drain.policy,
        max_seconds=float(spec.drain.max_seconds),
        on_deadline=spec.drain.on_deadline,
    )


def zero_rules(spec: ReasoningServingSpec) -> ZeroRules | None:
    """When the pool may sleep; None when it may not."""
    zero = spec.scale_to_zero
    if zero is None:
        return None
    return ZeroRules(
        idle_seconds=float(zero.idle_seconds),
        query=zero.activation is not None,
        gateway=spec.gateway is not None and spec.gateway.inference_pool is not None,
    )


def fallback(spec: ReasoningServingSpec) -> Fallback | None:
    """What to do when the pool has not been seen for long."""
    block = spec.fallback
    return None if block is None else Fallback(after_seconds=float(block.after_seconds), replicas=block.replicas)


def effort(spec: ReasoningServingSpec) -> EffortRules | None:
    """What may be thought less; None when nothing may."""
    block = spec.effort
    if block is None or block.policy is EffortPolicy.OFF:
        return None
    names = [level.name for level in block.levels]
    return EffortRules(
        policy=block.policy,
        levels=tuple(EffortLevel(level.name, level.thinking_tokens, level.reasoning_effort) for level in block.levels),
        answer_tokens=float(block.answer_tokens),
        dwell_seconds=float(block.dwell_seconds),
        valid_seconds=float(block.valid_seconds),
        classes=tuple(EffortClass(each.name, names.index(each.lowest_level), each.priority) for each in block.classes),
    )


def gpus(spec: ReasoningServingSpec, read: GpuShape | None) -> GpuShape | None:
    """The GPUs of one replica: what the user says, and for the rest what was read from the pods."""
    stated = spec.gpus
    count = stated.per_replica or (read.per_replica if read is not None else None)
    if count is None:
        return None
    known = read.gpu_class if read is not None else UNKNOWN_GPU_CLASS
    return GpuShape(gpu_class=stated.gpu_class.upper() if stated.gpu_class else known, per_replica=count)


def variant(spec: ReasoningServingSpec, *, gpu_hour_price: Decimal | None) -> Variant | None:
    """What it is a variant of; None where it serves its model alone."""
    if spec.variant_of is None:
        return None
    queue = spec.gateway.inference_pool if spec.gateway is not None else None
    price = None if gpu_hour_price is None else float(gpu_hour_price)
    return Variant(of=spec.variant_of, gpu_hour_price=price, queue=queue)


def behavior(block: ScalingBehavior) -> Behavior:
    """HPA v2's block as the policy reads it."""
    return Behavior(scale_up=_rules(block.scale_up), scale_down=_rules(block.scale_down))


def parameters(spec: ReasoningServingSpec) -> ServiceParameters:
    """What the user says about demand: a promise, some priors, some overrides."""
    return ServiceParameters(
        objective=Objective(
            queue_wait_seconds=float(spec.objective.queue_wait_seconds),
            attainment=spec.objective.attainment_percent / 100,
            time_per_output_token_seconds=spec.objective.time_per_output_token_milliseconds / 1000,
        ),
        capacity=CapacityOverride(
            max_concurrent_requests=spec.capacity.max_concurrent_requests,
            kv_cache_tokens=spec.capacity.kv_cache_tokens,
        ),
        mean_output_tokens=float(spec.lengths.mean_output_tokens),
        max_output_tokens=float(spec.lengths.max_output_tokens),
        startup_seconds=float(spec.startup.seconds),
    )


def _rules(rules: ScaleUpRules | ScaleDownRules) -> ScalingRules:
    window = rules.stabilization_window_seconds
    shrinking = Behavior().scale_down
    return ScalingRules(
        stabilization_window_seconds=shrinking.stabilization_window_seconds if window is None else window,
        reversible_window_seconds=shrinking.reversible_window_seconds if window is None else None,
        policies=tuple(
            ScalingPolicy(type=policy.type, value=policy.value, period_seconds=policy.period_seconds)
            for policy in rules.policies
        ),
        select_policy=rules.select_policy,
        tolerance=_fraction(rules.tolerance),
    )


def _fraction(quantity: int | str | None) -> float:
    """A Kubernetes quantity as a number.

    >>> _fraction("50m"), _fraction("0.05"), _fraction(0), _fraction(None)
    (0.05, 0.05, 0.0, 0.0)
    """
    if quantity is None:
        return 0.0
    text = str(quantity)
    return float(Decimal(text[:-1]) * _MILLI if text.endswith("m") else Decimal(text))
