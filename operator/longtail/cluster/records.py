"""What we remember of a watched object: frozen records of the few fields that a tick reads.

Kopf hands over whole bodies, managedFields included; keeping those would cost many times the memory. Each
kind has one reader here, from the API's JSON to a record. Nothing in this file knows a clock or a socket.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from longtail.api.resource import read_spec
from longtail.api.spec import ReasoningServingSpec
from longtail.cluster.selectors import Selector, from_object, from_string
from longtail.errors import SpecError
from longtail.policy.fleet import Pod, ServiceKey


class TargetKey(NamedTuple):
    """Identity of something with ``/scale``. Without the version: apps/v1 and apps/v2 would be one object."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class TargetReference:
    """``spec.scaleTargetRef``, with the namespace of the resource that says it."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @property
    def key(self) -> TargetKey:
        """Identity, whatever the version."""
        group, _, _ = self.api_version.rpartition("/")
        return TargetKey(group=group, kind=self.kind, namespace=self.namespace, name=self.name)


@dataclass(frozen=True, slots=True)
class ConditionRecord:
    """One entry of ``status.conditions``."""

    type: str
    status: str
    reason: str
    message: str
    last_transition_time: str
    observed_generation: int


@dataclass(frozen=True, slots=True)
class ServingRecord:
    """One ReasoningServing. Exactly one of ``spec`` and ``spec_error`` is set."""

    key: ServiceKey
    uid: str
    generation: int
    created_at: float
    spec: ReasoningServingSpec | None
    spec_error: str | None
    conditions: tuple[ConditionRecord, ...] = ()
    """As first seen: after a restart they say since when a condition has been as it is."""
    last_scale_time: str | None = None
    """As first seen, for the same reason."""

    @property
    def target(self) -> TargetReference | None:
        """What is to be scaled; None when the spec cannot be used."""
        if self.spec is None:
            return None
        reference = self.spec.scale_target_ref
        return TargetReference(
            api_version=reference.api_version,
            kind=reference.kind,
            namespace=self.key.namespace,
            name=reference.name,
        )


@dataclass(frozen=True, slots=True)
class ScaleRecord:
    """A target as its workload object or its ``/scale`` shows it."""

    key: TargetKey
    uid: str
    replicas: int
    """What was asked for (spec.replicas)."""
    selector: Selector | None
    """None when the target does not say which pods are its own."""


@dataclass(frozen=True, slots=True)
class PodRecord:
    """One pod: what matching needs, beside the value that the policy reads."""

    uid: str
    namespace: str
    labels: Mapping[str, str]
    owner: tuple[str, str]
    """Kind and name of the controller that made it; empty strings for a bare pod."""
    finished: bool
    """Succeeded or failed: it will never serve again."""
    pod: Pod


@dataclass(frozen=True, slots=True)
class ScalerRecord:
    """Somebody else's autoscaler: a HorizontalPodAutoscaler or a KEDA ScaledObject."""

    kind: str
    namespace: str
    name: str
    uid: str
    target: TargetKey


def unix_seconds(time: str | None) -> float | None:
    """Read an API server's time.

    >>> unix_seconds("2026-11-24T08:00:00Z")
    1795507200.0
    """
    return None if not time else datetime.fromisoformat(time).timestamp()


def serving_record(body: Mapping[str, Any], *, previous: ServingRecord | None) -> ServingRecord:
    """Read a ReasoningServing; the spec is parsed once per generation."""
    metadata = body["metadata"]
    uid, generation = metadata["uid"], metadata.get("generation", 0)
    if previous is not None and (previous.uid, previous.generation) == (uid, generation):
        return previous
    status = body.get("status") or {}
    spec, error = None, None
    try:
        spec = read_spec(body)
    except SpecError as unusable:
        error = str(unusable)
    return ServingRecord(
        key=ServiceKey(namespace=metadata["namespace"], name=metadata["name"]),
        uid=uid,
        generation=generation,
        created_at=unix_seconds(metadata.get("creationTimestamp")) or 0.0,
        spec=spec,
        spec_error=error,
        conditions=tuple(map(_condition, status.get("conditions") or ())),
        last_scale_time=status.get("lastScaleTime"),
    )


def workload_record(body: Mapping[str, Any], *, group: str, kind: str) -> ScaleRecord:
    """Read a Deployment, StatefulSet or LeaderWorkerSet, which show without ``/scale`` what it would say."""
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    if kind == "LeaderWorkerSet":
        text = status.get("hpaPodSelector")
        selector = _selector_or_none(text) if text else None
    else:
        selector = from_object(spec.get("selector") or {})
    return ScaleRecord(
        key=TargetKey(group=group, kind=kind, namespace=metadata["namespace"], name=metadata["name"]),
        uid=metadata["uid"],
        # Absent means 1 for all three kinds; the API server fills it in, so this is for partial objects.
        replicas=spec.get("replicas", 1),
        selector=selector,
    )


def scale_record(body: Mapping[str, Any], *, key: TargetKey) -> ScaleRecord:
    """Read an ``autoscaling/v1`` Scale. Replicas are absent in it when they are 0."""
    status = body.get("status") or {}
    return ScaleRecord(
        key=key,
        uid=body.get("metadata", {}).get("uid", ""),
        replicas=(body.get("spec") or {}).get("replicas", 0),
        selector=_selector_or_none(status.get("selector") or ""),
    )


def pod_record(body: Mapping[str, Any], *, previous: PodRecord | None) -> PodRecord:
    """Read a pod. Its first time ready is kept from the previous record: the API shows the latest only."""
    metadata, status = body["metadata"], body.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    scheduled, readiness = conditions.get("PodScheduled", {}), conditions.get("Ready", {})
    ready = readiness.get("status") == "True"
    ready_at = previous.pod.ready_at if previous is not None else None
    if ready_at is None and ready:
        ready_at = unix_seconds(readiness.get("lastTransitionTime"))
    is_scheduled = scheduled.get("status") == "True"
    owner: Mapping[str, Any] = next((o for o in metadata.get("ownerReferences") or () if o.get("controller")), {})
    return PodRecord(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        labels=dict(metadata.get("labels") or {}),
        owner=(owner.get("kind", ""), owner.get("name", "")),
        finished=status.get("phase") in {"Succeeded", "Failed"},
        pod=Pod(
            name=metadata["name"],
            created_at=unix_seconds(metadata.get("creationTimestamp")) or 0.0,
            scheduled_at=unix_seconds(scheduled.get("lastTransitionTime")) if is_scheduled else None,
            ready_at=ready_at,
            ready=ready,
            deleting="deletionTimestamp" in metadata,
            restarted=any(c.get("restartCount", 0) > 0 for c in status.get("containerStatuses") or ()),
            unschedulable_message=scheduled.get("message", "") if _unschedulable(scheduled) else "",
        ),
    )


def scaler_record(body: Mapping[str, Any], *, kind: str) -> ScalerRecord:
    """Read an HPA or a ScaledObject."""
    metadata = body["metadata"]
    reference = (body.get("spec") or {}).get("scaleTargetRef") or {}
    target = TargetReference(
        # A ScaledObject may leave both out and means a Deployment; an HPA never does.
        api_version=reference.get("apiVersion") or "apps/v1",
        kind=reference.get("kind") or "Deployment",
        namespace=metadata["namespace"],
        name=reference.get("name", ""),
    )
    return ScalerRecord(
        kind=kind,
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        target=target.key,
    )


def _condition(raw: Mapping[str, Any]) -> ConditionRecord:
    return ConditionRecord(
        type=raw.get("type", ""),
        status=raw.get("status", ""),
        reason=raw.get("reason", ""),
        message=raw.get("message", ""),
        last_transition_time=raw.get("lastTransitionTime", ""),
        observed_generation=raw.get("observedGeneration", 0),
    )


def _selector_or_none(text: str) -> Selector | None:
    try:
        selector = from_string(text)
    except SpecError:
        return None
    return selector if selector.requirements else None


def _unschedulable(scheduled: Mapping[str, Any]) -> bool:
    return scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
