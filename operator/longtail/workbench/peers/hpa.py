"""HPA v2 as a pure fold: the gates, the legacy path without ``behavior``, and the path with it.

Read from kubernetes/kubernetes v1.37.2, ``pkg/controller/podautoscaler/horizontal.go``
(``reconcileAutoscaler``, ``normalizeDesiredReplicas``, ``normalizeDesiredReplicasWithBehaviors``,
``storeScaleEvent``). The behavior arithmetic is the operator's own, ``policy.behavior``.

Quirks kept: out of bounds is corrected at once, without metrics, windows or rates; without ``behavior`` the
limit up is max(2·current, 4) and the window only holds decreases, its edge included; with it the edge is
excluded, and the limit up is max(2·current, current + 4) by default; the count at first sight is a
recommendation; an old scale event is overwritten by the next of its direction once it is past the longest
period of *that* direction, although the other direction may still have counted it; 0 replicas are left
alone unless HPA itself went there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from longtail.policy.behavior import Recommendation, ScaleEvent, limit_rate, stabilise
from longtail.policy.fleet import Behavior, ScalingRules
from longtail.workbench.peers.hpa_metrics import (
    Tolerances,
    average_value_replicas,
    combined,
    milli,
    milli_target,
    per_pod_replicas,
    value_replicas,
)
from longtail.workbench.peers.view import PeerView, samples

LEGACY_WINDOW_SECONDS = 300.0
"""``--horizontal-pod-autoscaler-downscale-stabilization``."""


@dataclass(frozen=True, slots=True)
class HpaMemory:
    """What the controller keeps in its process, and the condition ScaledToZero."""

    recommendations: tuple[Recommendation, ...] = ()
    ups: tuple[ScaleEvent, ...] = ()
    downs: tuple[ScaleEvent, ...] = ()
    scaled_to_zero: bool = False


@dataclass(frozen=True, slots=True)
class HpaSpec:
    """``minReplicas``, ``maxReplicas``, ``behavior`` (None is the legacy path) and the flag's tolerance."""

    min_replicas: int = 1
    max_replicas: int = 10
    behavior: Behavior | None = None
    tolerance: float = 0.1
    surge_bug: bool = True

    @property
    def tolerances(self) -> Tolerances:
        """The flag's, unless ``behavior`` sets its own (0 there means not set)."""
        if self.behavior is None:
            return Tolerances(up=self.tolerance, down=self.tolerance)
        return Tolerances(
            up=self.behavior.scale_up.tolerance or self.tolerance,
            down=self.behavior.scale_down.tolerance or self.tolerance,
        )


def reconcile(
    propose: Callable[[Tolerances], int | None],
    *,
    spec: HpaSpec,
    current: int,
    memory: HpaMemory,
    now: float,
) -> tuple[int, HpaMemory]:
    """One sync: the count to write (``current`` for none) and the controller's memory.

    ``propose`` is called only where the controller computes metrics; None from it is an error: nothing moves.
    """
    if not memory.recommendations:
        memory = replace(memory, recommendations=(Recommendation(now, current),))
    if current == 0 and not memory.scaled_to_zero:
        return 0, memory
    if current > spec.max_replicas:
        return _written(spec.max_replicas, spec=spec, current=current, memory=memory, now=now)
    if 0 < current < spec.min_replicas:
        return _written(spec.min_replicas, spec=spec, current=current, memory=memory, now=now)
    proposal = propose(spec.tolerances)
    if proposal is None:
        return current, memory
    if spec.behavior is None:
        desired = _legacy(proposal, spec=spec, current=current, memory=memory, now=now)
    else:
        desired = _with_behavior(proposal, behavior=spec.behavior, spec=spec, current=current, memory=memory, now=now)
    longest = _longest_window(spec)
    kept = tuple(r for r in memory.recommendations if r.at >= now - longest)
    memory = replace(memory, recommendations=(*kept, Recommendation(now, proposal)))
    if current == 0:
        desired = max(desired, spec.min_replicas)
    return _written(desired, spec=spec, current=current, memory=memory, now=now)


def _legacy(proposal: int, *, spec: HpaSpec, current: int, memory: HpaMemory, now: float) -> int:
    recent = [r.replicas for r in memory.recommendations if r.at >= now - LEGACY_WINDOW_SECONDS]
    highest = min(spec.max_replicas, max(2 * current, 4))
    stable = max(proposal, *recent) if recent else proposal
    return spec.min_replicas if stable < spec.min_replicas else min(stable, highest)


def _with_behavior(
    proposal: int, *, behavior: Behavior, spec: HpaSpec, current: int, memory: HpaMemory, now: float
) -> int:
    stable = stabilise(
        proposal=proposal,
        current=current,
        behavior=behavior,
        recommendations=memory.recommendations,
        now=now,
    ).replicas
    limited = limit_rate(
        proposal=stable, current=current, behavior=behavior, events=(*memory.ups, *memory.downs), now=now
    ).replicas
    return min(limited, spec.max_replicas) if limited > current else max(limited, spec.min_replicas)


def _longest_window(spec: HpaSpec) -> float:
    if spec.behavior is None:
        return LEGACY_WINDOW_SECONDS
    rules = (spec.behavior.scale_up, spec.behavior.scale_down)
    return float(max(r.stabilization_window_seconds for r in rules))


def _written(desired: int, *, spec: HpaSpec, current: int, memory: HpaMemory, now: float) -> tuple[int, HpaMemory]:
    if desired == current:
        return current, memory
    memory = replace(memory, scaled_to_zero=desired == 0)
    if spec.behavior is None:
        return desired, memory
    event = ScaleEvent(at=now, change=desired - current)
    if desired > current:
        return desired, replace(memory, ups=_stored(memory.ups, event, rules=spec.behavior.scale_up))
    return desired, replace(memory, downs=_stored(memory.downs, event, rules=spec.behavior.scale_down))


def _stored(events: tuple[ScaleEvent, ...], event: ScaleEvent, *, rules: ScalingRules) -> tuple[ScaleEvent, ...]:
    """The last outdated event gives its place to the new one; there is none: append."""
    longest = max((policy.period_seconds for policy in rules.policies), default=0)
    outdated = [i for i, past in enumerate(events) if past.at < event.at - longest]
    if not outdated:
        return (*events, event)
    return (*events[: outdated[-1]], event, *events[outdated[-1] + 1 :])


Query = Callable[[PeerView], float | None]
"""A PromQL sum as a function of the view; None is an empty result."""


@dataclass(frozen=True, slots=True)
class External:
    """An External metric with ``averageValue``, or with ``value`` when ``average`` is False.

    An empty result is an error to HPA. (KEDA, in between, may turn it into 0: see ``keda``.)
    """

    query: Query
    target: float
    average: bool = True

    def propose(self, seen: PeerView, *, spec: HpaSpec, tolerances: Tolerances) -> int | None:
        """Replicas that this metric asks for; None on an error."""
        total = self.query(seen) if seen.metrics_reachable else None
        if total is None:
            return None
        return external_proposal(
            total, target=self.target, average=self.average, seen=seen, spec=spec, tolerances=tolerances
        )


def external_proposal(
    total: float, *, target: float, average: bool, seen: PeerView, spec: HpaSpec, tolerances: Tolerances
) -> int:
    """What an External metric of this value asks for."""
    if average:
        return average_value_replicas(
            total=total,
            target=target,
            status_replicas=seen.status_replicas,
            spec_replicas=seen.spec_replicas,
            tolerances=tolerances,
            surge_bug=spec.surge_bug,
        )
    return value_replicas(
        total=total,
        target=target,
        spec_replicas=seen.spec_replicas,
        ready_replicas=seen.ready_replicas,
        tolerances=tolerances,
    )


@dataclass(frozen=True, slots=True)
class PerPod:
    """A Pods metric: mean of a number of each pod against a target."""

    attribute: str
    target: float

    def propose(self, seen: PeerView, *, spec: HpaSpec, tolerances: Tolerances) -> int | None:
        """Replicas that this metric asks for; None on an error."""
        del spec
        found = samples(seen.pods, self.attribute) if seen.metrics_reachable else {}
        if not found:
            return None
        pending = frozenset(pod.name for pod in seen.pods if pod.pending)
        usage = {name: milli(value) for name, value in found.items() if name not in pending}
        target = milli_target(self.target)
        return per_pod_replicas(
            usage=usage,
            pending=pending,
            missing=frozenset(pod.name for pod in seen.pods) - pending - usage.keys(),
            target=target,
            fill_when_low=target,
            spec_replicas=seen.spec_replicas,
            tolerances=tolerances,
        )


@dataclass(frozen=True, slots=True)
class Hpa:
    """An HPA with its metrics: syncs every 15 s. The knob scales all targets, their ratio stays."""

    metrics: tuple[External | PerPod, ...]
    spec: HpaSpec = HpaSpec()
    name: str = "hpa"
    knob: str = "factor on all targets"
    period_seconds: float = 15.0

    def tuned(self, value: float) -> Self:
        """The same HPA with every target times ``value``."""
        return replace(self, metrics=tuple(replace(m, target=m.target * value) for m in self.metrics))

    def initial(self) -> HpaMemory:
        """A controller that has just started."""
        return HpaMemory()

    def decide(self, *, seen: PeerView, memory: HpaMemory, now: float) -> tuple[int, HpaMemory]:
        """One sync."""

        def propose(tolerances: Tolerances) -> int | None:
            proposals = [m.propose(seen, spec=self.spec, tolerances=tolerances) for m in self.metrics]
            return combined(proposals, spec_replicas=seen.spec_replicas)

        return reconcile(propose, spec=self.spec, current=seen.spec_replicas, memory=memory, now=now)
