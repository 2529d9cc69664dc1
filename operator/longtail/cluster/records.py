"""What we remember of a watched object: frozen records of the few fields that a tick reads.

Kopf hands over whole bodies, managedFields included; keeping those would cost many times the memory. Each
kind has one reader here, from the API's JSON to a record. Nothing in this file knows a clock or a socket.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from longtail.api.resource import read_spec
from longtail.api.spec import ReasoningServingSpec
from longtail.cluster.client import FIELD_MANAGER
from longtail.cluster.evidence import failure_message, is_paused, refused_message, replicas_writer, unplaced_message
from longtail.cluster.gpus import pod_gpus, workload_gpus
from longtail.cluster.marks import COST_MARK, DELETION_COST, OURS, READINESS_GATE
from longtail.cluster.selectors import Selector, from_object, from_string
from longtail.errors import SpecError
from longtail.policy.fleet import GpuShape, Pod, ReplicasWriter, ServiceKey


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
    """As last seen: to whoever begins to write they say since when a condition has been as it is."""
    last_scale_time: str | None = None
    paused: bool = False
    """Its annotation asks to be left alone."""
    startup_p90_seconds: int | None = None
    """Cold start that was measured under this very spec before we first saw it: no other memory of it is kept."""

    def is_same_spec(self, other: "ServingRecord | None") -> bool:
        """Whether the other is the same object with the same spec, whatever its status."""
        return other is not None and (self.uid, self.generation) == (other.uid, other.generation)

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
    version: int = 0
    """resourceVersion: what is older than this has been overtaken."""
    template_labels: Mapping[str, str] | None = None
    """Labels of the pods to come; None where the kind is not watched."""
    template_has_gate: bool = False
    """The pods to come have our readiness gate."""
    rolling: bool = False
    """Its pods are being replaced by others."""
    refused_message: str = ""
    """Why its controller may not create pods; empty when it may."""
    writer: ReplicasWriter | None = None
    """Who set ``replicas``; None where the object does not tell."""
    gpus: GpuShape | None = None
    """Of one replica to come; None where it takes none, or the kind is not watched."""


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
    """Without what only the resource can tell: the switch, cordoned and isolated (see `routing`)."""
    version: int = 0
    """resourceVersion: what is older than this has been overtaken."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Those of `marks.OURS` only."""
    has_gate: bool = False
    """Has our readiness gate."""
    in_service: bool | None = None
    """What our readiness gate says; None where nobody has set it yet."""
    gpus: GpuShape | None = None
    """Of this pod."""

    @property
    def foreign_cost(self) -> int | None:
        """The deletion cost that somebody else has given it, if anybody has."""
        text = self.annotations.get(DELETION_COST)
        if text is None or text == self.annotations.get(COST_MARK):
            return None
        try:
            return int(text)
        except ValueError:
            return 0  # the API server refuses it where it matters, and a ReplicaSet takes it for 0


@dataclass(frozen=True, slots=True)
class RouterRecord:
    """A Service or an InferencePool: what sends requests to pods."""

    kind: str
    namespace: str
    name: str
    uid: str
    selector: Selector

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


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
    status = body.get("status") or {}
    conditions = tuple(map(_condition, status.get("conditions") or ()))
    last_scale_time = status.get("lastScaleTime")
    if previous is not None and (previous.uid, previous.generation) == (uid, generation):
        return replace(previous, conditions=conditions, last_scale_time=last_scale_time, paused=is_paused(metadata))
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
        conditions=conditions,
        last_scale_time=last_scale_time,
        paused=is_paused(metadata),
        startup_p90_seconds=_measured_startup(status, generation),
    )


def workload_record(body: Mapping[str, Any], *, group: str, kind: str) -> ScaleRecord:
    """Read a Deployment, StatefulSet or LeaderWorkerSet, which show without ``/scale`` what it would say."""
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    if kind == "LeaderWorkerSet":
        text = status.get("hpaPodSelector")
        selector = _selector_or_none(text) if text else None
    else:
        selector = from_object(spec.get("selector") or {})
    template = _template(spec, kind=kind)
    return ScaleRecord(
        key=TargetKey(group=group, kind=kind, namespace=metadata["namespace"], name=metadata["name"]),
        uid=metadata["uid"],
        # Absent means 1 for all three kinds; the API server fills it in, so this is for partial objects.
        replicas=spec.get("replicas", 1),
        selector=selector,
        version=_version(metadata),
        template_labels=dict((template.get("metadata") or {}).get("labels") or {}),
        template_has_gate=_has_gate(template.get("spec") or {}),
        rolling=_rolling(metadata, spec, status, kind=kind),
        refused_message=refused_message(status),
        writer=replicas_writer(metadata, ours=FIELD_MANAGER),
        gpus=workload_gpus(spec, kind=kind),
    )


def scale_record(body: Mapping[str, Any], *, key: TargetKey) -> ScaleRecord:
    """Read an ``autoscaling/v1`` Scale. Replicas are absent in it when they are 0."""
    status = body.get("status") or {}
    return ScaleRecord(
        key=key,
        uid=body.get("metadata", {}).get("uid", ""),
        replicas=(body.get("spec") or {}).get("replicas", 0),
        selector=_selector_or_none(status.get("selector") or ""),
        version=_version(body.get("metadata", {})),
    )


def router_record(body: Mapping[str, Any], *, kind: str) -> RouterRecord:
    """Read a Service or an InferencePool. A Service without a selector routes to nobody that we know."""
    metadata, selector = body["metadata"], (body.get("spec") or {}).get("selector") or {}
    return RouterRecord(
        kind=kind,
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        selector=from_object({"matchLabels": selector} if kind == "Service" else selector),
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
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key in OURS}
    gate = conditions.get(READINESS_GATE)
    containers = status.get("containerStatuses") or ()
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
            restarted=any(c.get("restartCount", 0) > 0 for c in containers),
            unschedulable_message=unplaced_message(scheduled),
            failure_message=failure_message(status),
            stopped=bool(containers) and not any("running" in (c.get("state") or {}) for c in containers),
            index=_index(metadata, owner_kind=owner.get("kind", "")),
            condemned=COST_MARK in annotations and annotations[COST_MARK] == annotations.get(DELETION_COST),
        ),
        version=_version(metadata),
        annotations=annotations,
        has_gate=_has_gate(body.get("spec") or {}),
        in_service=gate["status"] == "True" if gate else None,
        gpus=pod_gpus(body.get("spec") or {}),
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


def _measured_startup(status: Mapping[str, Any], generation: int) -> int | None:
    """What a former process measured; not under another spec, whose own figure is meant to be tried."""
    seconds = (status.get("startup") or {}).get("p90Seconds")
    return seconds if seconds and status.get("observedGeneration") == generation else None


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


def _version(metadata: Mapping[str, Any]) -> int:
    """The resourceVersion as a number: of one object, the larger one is the later one (KEP-5504)."""
    text = metadata.get("resourceVersion") or "0"
    return int(text) if text.isdecimal() else 0


def _template(spec: Mapping[str, Any], *, kind: str) -> Mapping[str, Any]:
    """The template of the pods that are scaled: of a LeaderWorkerSet the leaders'."""
    if kind != "LeaderWorkerSet":
        return spec.get("template") or {}
    groups = spec.get("leaderWorkerTemplate") or {}
    return groups.get("leaderTemplate") or groups.get("workerTemplate") or {}


def _has_gate(pod_spec: Mapping[str, Any]) -> bool:
    return any(gate.get("conditionType") == READINESS_GATE for gate in pod_spec.get("readinessGates") or ())


def _rolling(metadata: Mapping[str, Any], spec: Mapping[str, Any], status: Mapping[str, Any], *, kind: str) -> bool:
    """Whether pods of an older template are there, or the controller has not looked at the template yet.

    Not ``updatedReplicas < spec.replicas``, kubectl's question: that is also true of a scale-up that waits for GPUs.
    """
    # LeaderWorkerSets did not say in their first versions: they would be rolling for ever.
    says = kind != "LeaderWorkerSet" or "observedGeneration" in status
    if says and status.get("observedGeneration", 0) < metadata.get("generation", 0):
        return True
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete" or (strategy.get("rollingUpdate") or {}).get("partition"):
        return False  # a StatefulSet that keeps two revisions on purpose
    return bool(status.get("updatedReplicas", 0) < status.get("replicas", 0))


def _index(metadata: Mapping[str, Any], *, owner_kind: str) -> int | None:
    """Ordinal of a pod of a LeaderWorkerSet or StatefulSet; the label of the latter is new in Kubernetes 1.28."""
    labels = metadata.get("labels") or {}
    text = labels.get("leaderworkerset.sigs.k8s.io/group-index") or labels.get("apps.kubernetes.io/pod-index")
    if text is None and owner_kind == "StatefulSet":
        text = metadata["name"].rpartition("-")[2]
    return int(text) if text is not None and text.isdecimal() else None
