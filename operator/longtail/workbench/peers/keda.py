"""KEDA's Prometheus trigger with the HPA that it generates: activation, cooldown, null handling, fallback.

Read from kedacore/keda 8b4f083 (2026-08-20): ``pkg/scalers/prometheus_scaler.go`` (``ExecutePromQuery``),
``pkg/scaling/executor/scale_scaledobjects.go`` (loop K), ``pkg/fallback/fallback.go``.

Two loops. K, the operator's, every ``pollingInterval``: 0 <-> 1 and the cooldown. H, the HPA's, every 15 s:
its external metric makes the operator query Prometheus again, so ``pollingInterval`` says nothing about 1
<-> N.

Quirks kept: an empty result, NaN and infinities are 0 by default, so a lost series shrinks a pool and then
takes it to 0; a query error holds, until more than ``failureThreshold`` failures *in either loop* bring the
fallback; static fallback may lower a pool, and ``fallback.replicas: 0`` lets an error run into the cooldown;
inactive for the cooldown takes *any* count to 0 in one step, past HPA's behavior; from 0 it goes to
max(1, min) at once; the HPA's own minimum is never below 1.
"""

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from longtail.policy.fleet import Behavior
from longtail.workbench.peers.hpa import HpaMemory, HpaSpec, Query, external_proposal, reconcile
from longtail.workbench.peers.hpa_metrics import Tolerances, combined
from longtail.workbench.peers.view import PeerView


class FallbackBehavior(enum.StrEnum):
    """``fallback.behavior``."""

    STATIC = "static"
    CURRENT_REPLICAS = "currentReplicas"
    CURRENT_REPLICAS_IF_HIGHER = "currentReplicasIfHigher"
    CURRENT_REPLICAS_IF_LOWER = "currentReplicasIfLower"


@dataclass(frozen=True, slots=True)
class Fallback:
    """``fallback`` of a ScaledObject."""

    failure_threshold: int
    replicas: int
    behavior: FallbackBehavior = FallbackBehavior.STATIC

    def pretended(self, *, current: int) -> int:
        """Replicas that the made-up metric shall ask for."""
        match self.behavior:
            case FallbackBehavior.STATIC:
                return self.replicas
            case FallbackBehavior.CURRENT_REPLICAS:
                return current
            case FallbackBehavior.CURRENT_REPLICAS_IF_HIGHER:
                return max(current, self.replicas)
            case FallbackBehavior.CURRENT_REPLICAS_IF_LOWER:
                return min(current, self.replicas)


@dataclass(frozen=True, slots=True)
class Trigger:
    """One Prometheus trigger. ``average`` False is ``metricType: Value``."""

    query: Query
    threshold: float
    activation_threshold: float = 0.0
    average: bool = True
    ignore_null_values: bool = True

    def read(self, seen: PeerView) -> float | None:
        """The metric as KEDA hands it on; None is an error."""
        if not seen.metrics_reachable:
            return None
        value = self.query(seen)
        if value is None or not math.isfinite(value):
            return 0.0 if self.ignore_null_values else None
        return value


@dataclass(frozen=True, slots=True)
class ScaledObject:
    """The fields that decide. ``min_replicas`` is ``minReplicaCount`` and may be 0."""

    min_replicas: int = 0
    max_replicas: int = 100
    idle_replicas: int | None = None
    polling_seconds: float = 30.0
    cooldown_seconds: float = 300.0
    initial_cooldown_seconds: float = 0.0
    fallback: Fallback | None = None
    behavior: Behavior | None = None

    @property
    def hpa(self) -> HpaSpec:
        """The HPA that KEDA generates."""
        return HpaSpec(min_replicas=max(1, self.min_replicas), max_replicas=self.max_replicas, behavior=self.behavior)


@dataclass(frozen=True, slots=True)
class KedaMemory:
    """Status of the ScaledObject, and the memory of its HPA."""

    hpa: HpaMemory = HpaMemory()  # noqa: RUF009 - frozen, so sharing it is safe
    failures: tuple[int, ...] = ()
    created: float | None = None
    last_active: float | None = None
    next_poll: float | None = None


@dataclass(frozen=True, slots=True)
class Keda:
    """A ScaledObject with its triggers; the knob scales all thresholds, their ratio stays."""

    triggers: tuple[Trigger, ...]
    scaled_object: ScaledObject = ScaledObject()
    name: str = "keda"
    knob: str = "factor on all thresholds"
    period_seconds: float = 15.0

    def tuned(self, value: float) -> Self:
        """The same ScaledObject with every threshold times ``value``."""
        return replace(self, triggers=tuple(replace(t, threshold=t.threshold * value) for t in self.triggers))

    def initial(self) -> KedaMemory:
        """Just created; both loops start at the first view."""
        return KedaMemory(failures=(0,) * len(self.triggers))

    def decide(self, *, seen: PeerView, memory: KedaMemory, now: float) -> tuple[int, KedaMemory]:
        """Loop K when it is due, else loop H."""

        def read(index: int) -> float | None:
            return self.triggers[index].read(seen)

        return step(self.scaled_object, triggers=self.triggers, read=read, seen=seen, memory=memory, now=now)


def step(
    scaled_object: ScaledObject,
    *,
    triggers: Sequence[Trigger],
    read: Callable[[int], float | None],
    seen: PeerView,
    memory: KedaMemory,
    now: float,
) -> tuple[int, KedaMemory]:
    """Both loops at one moment. ``read`` gives trigger i's value, or None for an error.

    When K moves the target, H sees the new count at its next sync.
    """
    memory = replace(memory, created=memory.created if memory.created is not None else now)
    if memory.next_poll is None or now >= memory.next_poll:
        memory = replace(memory, next_poll=now + scaled_object.polling_seconds)
        replicas, memory = _poll(scaled_object, triggers=triggers, read=read, seen=seen, memory=memory, now=now)
        if replicas != seen.spec_replicas:
            return replicas, memory
    if seen.spec_replicas == 0:
        return 0, memory  # the HPA of a ScaledObject never went to 0 itself: it is disabled
    memory, values, _ = _values(scaled_object, triggers=triggers, read=read, seen=seen, memory=memory)

    def propose(tolerances: Tolerances) -> int | None:
        proposals = [
            None
            if value is None
            else external_proposal(
                value,
                target=trigger.threshold,
                average=trigger.average,
                seen=seen,
                spec=scaled_object.hpa,
                tolerances=tolerances,
            )
            for trigger, value in zip(triggers, values, strict=True)
        ]
        return combined(proposals, spec_replicas=seen.spec_replicas)

    replicas, hpa = reconcile(propose, spec=scaled_object.hpa, current=seen.spec_replicas, memory=memory.hpa, now=now)
    return replicas, replace(memory, hpa=hpa)


def _values(
    scaled_object: ScaledObject,
    *,
    triggers: Sequence[Trigger],
    read: Callable[[int], float | None],
    seen: PeerView,
    memory: KedaMemory,
) -> tuple[KedaMemory, list[float | None], list[bool]]:
    """Metric values with fallback in them (None: error), and which of them are made up; failures counted."""
    values: list[float | None] = []
    made_up: list[bool] = []
    failures: list[int] = []
    fallback = scaled_object.fallback
    for index, trigger in enumerate(triggers):
        value = read(index)
        failed = 0 if value is not None or fallback is None else memory.failures[index] + 1
        failures.append(failed)
        falls_back = value is None and fallback is not None and failed > fallback.failure_threshold
        if falls_back:
            assert fallback is not None
            value = _pretended(fallback, trigger=trigger, seen=seen)
        made_up.append(falls_back and value is not None)
        values.append(value)
    return replace(memory, failures=tuple(failures)), values, made_up


def _pretended(fallback: Fallback, *, trigger: Trigger, seen: PeerView) -> float | None:
    """Threshold times replicas; by ready replicas for a Value metric, and impossible without any."""
    replicas = float(fallback.pretended(current=seen.spec_replicas))
    if not trigger.average:
        if seen.ready_replicas == 0:
            return None
        replicas /= seen.ready_replicas
    return int(trigger.threshold * 1000 * replicas) / 1000


def _poll(
    scaled_object: ScaledObject,
    *,
    triggers: Sequence[Trigger],
    read: Callable[[int], float | None],
    seen: PeerView,
    memory: KedaMemory,
    now: float,
) -> tuple[int, KedaMemory]:
    """Loop K: the executor."""
    memory, values, made_up = _values(scaled_object, triggers=triggers, read=read, seen=seen, memory=memory)
    error = any(value is None for value in values)  # a made-up metric is active and no error
    active = any(
        invented or (value is not None and value > trigger.activation_threshold)
        for trigger, value, invented in zip(triggers, values, made_up, strict=True)
    )
    current, idle, low = seen.spec_replicas, scaled_object.idle_replicas, scaled_object.min_replicas
    if active:
        if current == 0 or (idle is not None and current < low):
            return max(low, 1), replace(memory, last_active=now)
        return current, memory if error else replace(memory, last_active=now)
    fallback = scaled_object.fallback
    if error and (fallback is None or fallback.replicas != 0):
        return current, memory
    if (idle is not None and current > idle) or (current > 0 and low == 0):
        return (_rested(scaled_object) if _cooled(scaled_object, memory, now=now) else current), memory
    return (low if idle is None and current < low else current), memory


def _rested(scaled_object: ScaledObject) -> int:
    return scaled_object.min_replicas if scaled_object.idle_replicas is None else scaled_object.idle_replicas


def _cooled(scaled_object: ScaledObject, memory: KedaMemory, *, now: float) -> bool:
    if memory.last_active is not None:
        return memory.last_active + scaled_object.cooldown_seconds < now
    assert memory.created is not None
    return memory.created + scaled_object.initial_cooldown_seconds < now
