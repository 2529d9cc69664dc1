"""From the frozen cluster to what the pure core and the signal reader take. No I/O, no clock."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from longtail.api import to_policy
from longtail.api.spec import CustomMetrics, ReasoningServingSpec
from longtail.cluster.gpus import common_gpus
from longtail.cluster.kinds import LEADER_WORKER_SETS, STATEFUL_SETS
from longtail.cluster.records import ScaleRecord
from longtail.cluster.snapshot import ServingView
from longtail.control.prices import Prices
from longtail.demand.parameters import ServiceParameters
from longtail.policy.fleet import Fleet, GpuBudget, GpuShape, Mode, Service, Target, VictimOrder
from longtail.signals.custom import CustomNames
from longtail.signals.observe import Engine, ServiceSignals

_INDEXED = {(kind.group, kind.kind) for kind in (STATEFUL_SETS, LEADER_WORKER_SETS)}


def effective_mode(view: ServingView) -> Mode:
    """Return how far to go: with a second writer on the target, or paused, no further than advice."""
    assert view.record.spec is not None
    mode, hands_off = view.record.spec.mode, view.conflict is not None or view.record.paused
    return Mode.ADVISE if mode is Mode.ACTIVE and hands_off else mode


def build_fleet(
    views: Iterable[ServingView], *, budgets: Sequence[GpuBudget] = (), prices: Prices | None = None
) -> Fleet:
    """Return the fleet as the policy sees it. A resource whose spec cannot be read is not part of it."""
    services = tuple(_service(view, view.record.spec, prices) for view in views if view.record.spec)
    return Fleet(services=services, budgets=budgets)


def build_signals(views: Iterable[ServingView]) -> tuple[ServiceSignals, ...]:
    """Return what must be read: every service that has a target and is not switched off."""
    return tuple(
        _signals(view, view.record.spec)
        for view in views
        if view.record.spec and view.target is not None and view.record.spec.mode is not Mode.OFF
    )


def _service(view: ServingView, spec: ReasoningServingSpec, prices: Prices | None) -> Service:
    gpus = replica_gpus(view, spec)
    price = None if prices is None or gpus is None else prices.of(gpus.gpu_class)
    return Service(
        key=view.record.key,
        mode=effective_mode(view),
        parameters=_parameters(view, spec),
        limits=to_policy.limits(spec),
        target=None if view.target is None else policy_target(view, view.target),
        drain=to_policy.drain(spec),
        zero=to_policy.zero_rules(spec),
        fallback=to_policy.fallback(spec),
        manual_grace_seconds=float(spec.manual_scaling_grace_seconds),
        effort=to_policy.effort(spec),
        created_at=view.record.created_at,
        gpus=gpus,
        priority=spec.priority,
        variant=to_policy.variant(spec, gpu_hour_price=None if price is None else price.amount),
    )


def _parameters(view: ServingView, spec: ReasoningServingSpec) -> ServiceParameters:
    """What the spec says, with the cold start that was measured before the last restart as the prior."""
    parameters, measured = to_policy.parameters(spec), view.record.startup_p90_seconds
    return parameters if measured is None else replace(parameters, startup_seconds=float(measured))


def replica_gpus(view: ServingView, spec: ReasoningServingSpec) -> GpuShape | None:
    """Return the GPUs of one replica. Of a kind that is not watched its pods have to tell."""
    template = None if view.target is None else view.target.gpus
    read = template or common_gpus(record.gpus for record in view.pods if not record.pod.deleting)
    return to_policy.gpus(spec, read)


def policy_target(view: ServingView, target: ScaleRecord) -> Target:
    """Return the target of a view as the policy reads it."""
    pods = tuple(record.pod for record in view.pods)
    return Target(
        replicas=target.replicas,
        # Counted from the pods themselves: the workload's own count arrives by another watch and may
        # contradict them for a moment.
        ready_replicas=sum(pod.ready and not pod.deleting for pod in pods),
        pods=pods,
        victims=victim_order(view),
        rolling=target.rolling or len(_replica_sets(view)) > 1,
        refused_message=target.refused_message,
        writer=target.writer,
    )


def victim_order(view: ServingView) -> VictimOrder:
    """Return who goes when replicas are lowered: known of the workloads of apps, and of whatever makes ReplicaSets."""
    assert view.target is not None
    if (view.target.key.group, view.target.key.kind) in _INDEXED:
        return VictimOrder.HIGHEST_INDEX
    owners = {record.owner[0] for record in view.pods if not record.pod.deleting}
    return VictimOrder.CHOSEN if owners <= {"ReplicaSet"} else VictimOrder.UNKNOWN


def _replica_sets(view: ServingView) -> set[str]:
    """ReplicaSets with living pods: two of them in the middle of a rollout."""
    return {record.owner[1] for record in view.pods if record.owner[0] == "ReplicaSet" and not record.pod.deleting}


def _signals(view: ServingView, spec: ReasoningServingSpec) -> ServiceSignals:
    return ServiceSignals(
        key=view.record.key,
        pods=tuple(record.pod for record in view.pods),
        source=spec.metrics_source,
        engine=Engine(spec.engine.type.value),
        custom=_custom(spec.engine.custom) if spec.engine.custom is not None else None,
        inference_pool=spec.gateway.inference_pool if spec.gateway is not None else None,
        gateway_model=spec.gateway.model if spec.gateway is not None else None,
        class_label=spec.gateway.class_label if spec.gateway is not None else None,
        activation_query=_activation(spec),
    )


def _activation(spec: ReasoningServingSpec) -> str | None:
    zero = spec.scale_to_zero
    return zero.activation.query if zero is not None and zero.activation is not None else None


def _custom(names: CustomMetrics) -> CustomNames:
    return CustomNames(
        running_requests=names.running_requests,
        waiting_requests=names.waiting_requests,
        kv_used_ratio=names.kv_cache_usage_ratio or "",
        kv_used_tokens=names.kv_cache_used_tokens or "",
        kv_capacity_tokens=names.kv_cache_capacity_tokens or "",
        generated_tokens=names.generated_tokens or "",
        preemptions=names.preemptions or "",
        output_tokens_histogram=names.output_tokens or "",
        queue_wait_seconds_histogram=names.queue_wait_seconds or "",
        first_token_seconds_histogram=names.first_token_seconds or "",
    )
