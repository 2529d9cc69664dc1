"""Which pods of a target can be taken out of routing, which are out, and by whose hand. Seen only; done in `cordon`.

A pod gets requests because a Service or an InferencePool selects it. Two switches take it out while it finishes
what it has:

* the *routing label*: part of that selector, but not of the workload's own. Changing a label that the ReplicaSet
  selects by would make an orphan of the pod and start a replacement;
* the *readiness gate* ``longtail.dev/in-service`` of the pod template: our condition makes the pod unready.

"true" is in routing, "draining" was taken out by us, any other value was somebody else (to debug a pod, say):
such a pod is neither counted as serving nor touched.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from longtail.cluster.marks import (
    CONDEMNED_COST,
    CORDONED_AT,
    CORDONED_THROUGH,
    DRAINING,
    IN_ROUTING,
    READINESS_GATE,
)
from longtail.cluster.records import PodRecord, RouterRecord, ScaleRecord, unix_seconds
from longtail.cluster.store import Store
from longtail.cluster.targets import Problem


@dataclass(frozen=True, slots=True)
class Routing:
    """How the pods of a target are switched. Without a switch ``problem`` says what to add."""

    problem: Problem | None
    by_gate: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True)
class _Routers:
    """Who sends requests to a pod that is in routing."""

    by_label: tuple[RouterRecord, ...]
    """Those that stop when the label says draining."""
    regardless: tuple[RouterRecord, ...]


class _Scene:
    """The routers of one target's namespace, and the routing label of its resource."""

    def __init__(self, *, target: ScaleRecord, label: str, store: Store) -> None:
        self.target = target
        self.label = label
        self.owned = target.selector is not None and any(r.key == label for r in target.selector.requirements)
        self._store = store
        self._known: dict[frozenset[tuple[str, str]], _Routers] = {}

    def routers(self, labels: Mapping[str, str]) -> _Routers:
        """Who would send requests to a pod with these labels, were its routing label "true"."""
        inside = {**labels, self.label: IN_ROUTING}
        key = frozenset(inside.items())
        if key not in self._known:
            found = self._store.routers(namespace=self.target.key.namespace, labels=inside)
            outside = {**labels, self.label: DRAINING}
            self._known[key] = _Routers(
                by_label=tuple(router for router in found if not router.selector.matches(outside)),
                regardless=tuple(router for router in found if router.selector.matches(outside)),
            )
        return self._known[key]

    def has_label_switch(self, labels: Mapping[str, str]) -> bool:
        """Whether the routing label of a pod with these labels takes it out of routing."""
        return not self.owned and bool(self.routers(labels).by_label)


def look(
    *, target: ScaleRecord, pods: Sequence[PodRecord], label: str, store: Store
) -> tuple[Routing, tuple[PodRecord, ...]]:
    """Return how the pods are switched, and the pods with what the routing label says of each."""
    scene = _Scene(target=target, label=label, store=store)
    seen = tuple(_seen(record, scene) for record in pods)
    return _routing(scene, [record for record in seen if not record.pod.deleting and not record.pod.isolated]), seen


def switched_by(record: PodRecord, *, label: str) -> str:
    """The routing label, or the gate, that this pod is switched by; once cordoned, the one that it was cordoned by."""
    through = record.annotations.get(CORDONED_THROUGH)
    if through is not None:
        return through
    if record.in_service is False:
        return READINESS_GATE
    if record.labels.get(label) in {IN_ROUTING, DRAINING} or not record.has_gate:
        return label
    return READINESS_GATE


def is_out(record: PodRecord, *, by: str) -> bool:
    """Whether that switch of a pod is off by our hand."""
    return record.in_service is False if by == READINESS_GATE else record.labels.get(by) == DRAINING


def cost_owners(pods: Iterable[PodRecord], *, commit: Collection[str]) -> list[str]:
    """Pods whose deletion cost somebody else has set, so that another pod than we mean might be deleted.

    Those that are to be deleted, and those that would go before any that we mark.
    """
    return sorted(
        record.pod.name
        for record in pods
        if record.foreign_cost is not None
        and not record.pod.deleting
        and (record.pod.name in commit or record.foreign_cost <= CONDEMNED_COST)
    )


def _seen(record: PodRecord, scene: _Scene) -> PodRecord:
    value, switch = record.labels.get(scene.label), scene.has_label_switch(record.labels)
    noted = CORDONED_AT in record.annotations
    through = switched_by(record, label=scene.label)
    out = is_out(record, by=through) and (noted or switch or through == READINESS_GATE)
    pod = replace(
        record.pod,
        switch=out or (switch and value == IN_ROUTING) or record.has_gate,
        cordoned=out,
        cordoned_at=_time(record.annotations.get(CORDONED_AT)) if out else None,
        isolated=switch and not out and value not in {None, IN_ROUTING, DRAINING},
    )
    return record if pod == record.pod else replace(record, pod=pod)


def _time(text: str | None) -> float | None:
    try:
        return unix_seconds(text)
    except ValueError:
        return None  # somebody wrote nonsense over our note: as if it were lost


def _routing(scene: _Scene, pods: Sequence[PodRecord]) -> Routing:
    target, label = scene.target, scene.label
    if not pods and target.template_labels is None:
        return Routing(problem=Problem("NoPods", f"{target.key} has no pods to look at"))
    template = target.template_labels or {}
    without = next((record for record in pods if not record.pod.switch), None)
    if without is None:
        gated = any(switched_by(record, label=label) == READINESS_GATE for record in pods)
        if gated or (not pods and target.template_has_gate):
            return Routing(problem=None, by_gate=True, message=f"pods are switched by the gate {READINESS_GATE}")
    labels = pods[0].labels if without is None and pods else template if without is None else without.labels
    routers = scene.routers(labels)
    if without is None and (pods or (scene.has_label_switch(labels) and labels.get(label) == IN_ROUTING)):
        also = f"; {_names(routers.regardless)} selects them regardless" if routers.regardless else ""
        by = f"{label}, by which {_names(routers.by_label)} selects" if routers.by_label else label
        return Routing(problem=None, message=f"pods are switched by {by}{also}")
    return Routing(problem=_missing(scene, labels=labels, template=template, routers=routers))


def _missing(scene: _Scene, *, labels: Mapping[str, str], template: Mapping[str, str], routers: _Routers) -> Problem:
    """What to add, in an order in which it can be done."""
    label, target = scene.label, scene.target
    workload = f"{target.key.kind} {target.key.name}"
    where = _names(routers.regardless) or "the Service or InferencePool in front of it"
    if scene.owned:
        return Problem(
            "LabelInWorkloadSelector",
            f"{label} is in the selector of {workload}: a pod that changes it would be orphaned and replaced; "
            "name another label in spec.drain.routingLabel",
        )
    if labels.get(label) not in {IN_ROUTING, DRAINING}:
        if template.get(label) == IN_ROUTING:
            return Problem("NoRoutingLabel", f'pods of {workload} were made before {label}: "true" was in its template')
        selected = "" if routers.by_label else f" and add it to the selector of {where}"
        return Problem("NoRoutingLabel", f'label the pod template of {workload} with {label}: "true"{selected}')
    return Problem("LabelNotSelected", f'add {label}: "true" to the selector of {where}')


def _names(routers: Sequence[RouterRecord]) -> str:
    return ", ".join(map(str, routers[:3]))
