"""From the frozen cluster to what the pure core and the signal reader take. No I/O, no clock."""

from collections.abc import Iterable
from dataclasses import replace

from longtail.api import to_policy
from longtail.api.spec import CustomMetrics, ReasoningServingSpec
from longtail.cluster.snapshot import ServingView
from longtail.demand.parameters import ServiceParameters
from longtail.policy.fleet import Fleet, Mode, Service, Target
from longtail.signals.custom import CustomNames
from longtail.signals.observe import Engine, ServiceSignals


def effective_mode(view: ServingView) -> Mode:
    """Return how far to go: with a second writer on the target, no further than advice."""
    assert view.record.spec is not None
    mode = view.record.spec.mode
    return Mode.ADVISE if mode is Mode.ACTIVE and view.conflict is not None else mode


def build_fleet(views: Iterable[ServingView]) -> Fleet:
    """Return the fleet as the policy sees it. A resource whose spec cannot be read is not part of it."""
    return Fleet(services=tuple(_service(view, view.record.spec) for view in views if view.record.spec))


def build_signals(views: Iterable[ServingView]) -> tuple[ServiceSignals, ...]:
    """Return what must be read: every service that has a target and is not switched off."""
    return tuple(
        _signals(view, view.record.spec)
        for view in views
        if view.record.spec and view.target is not None and view.record.spec.mode is not Mode.OFF
    )


def _service(view: ServingView, spec: ReasoningServingSpec) -> Service:
    return Service(
        key=view.record.key,
        mode=effective_mode(view),
        parameters=_parameters(view, spec),
        limits=to_policy.limits(spec),
        target=_target(view),
    )


def _parameters(view: ServingView, spec: ReasoningServingSpec) -> ServiceParameters:
    """What the spec says, with the cold start that was measured before the last restart as the prior."""
    parameters, measured = to_policy.parameters(spec), view.record.startup_p90_seconds
    return parameters if measured is None else replace(parameters, startup_seconds=float(measured))


def _target(view: ServingView) -> Target | None:
    if view.target is None:
        return None
    pods = tuple(record.pod for record in view.pods)
    return Target(
        replicas=view.target.replicas,
        # Counted from the pods themselves: the workload's own count arrives by another watch and may
        # contradict them for a moment.
        ready_replicas=sum(pod.ready and not pod.deleting for pod in pods),
        pods=pods,
    )


def _signals(view: ServingView, spec: ReasoningServingSpec) -> ServiceSignals:
    return ServiceSignals(
        key=view.record.key,
        pods=tuple(record.pod for record in view.pods),
        source=spec.metrics_source,
        engine=Engine(spec.engine.type.value),
        custom=_custom(spec.engine.custom) if spec.engine.custom is not None else None,
        inference_pool=spec.gateway.inference_pool if spec.gateway is not None else None,
        gateway_model=spec.gateway.model if spec.gateway is not None else None,
    )


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
