"""The watched world: records fed by events, joined into a snapshot once a tick.

Level-based: an upsert replaces, a removal forgets, and neither cares how many events were missed. Touched on
the event loop only, so there are no locks. What events cannot tell is told by ``sweep``: after a broken watch
the list starts anew, but nobody reports what vanished meanwhile.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from longtail.cluster.kinds import PODS, SCALERS, SERVINGS, WATCHED, WORKLOADS, Kind
from longtail.cluster.records import (
    PodRecord,
    ScaleRecord,
    ScalerRecord,
    ServingRecord,
    TargetKey,
    pod_record,
    scaler_record,
    serving_record,
    workload_record,
)
from longtail.cluster.selectors import Selector
from longtail.policy.fleet import ServiceKey

Record: TypeAlias = ServingRecord | ScaleRecord | PodRecord | ScalerRecord
Name: TypeAlias = tuple[str, str]
"""Namespace and name."""


class Store:
    """Records of every watched kind, by namespace and name."""

    def __init__(self) -> None:
        self._records: dict[Kind, dict[Name, Record]] = {kind: {} for kind in WATCHED}
        self._pods_by_label: dict[tuple[str, str, str], dict[Name, PodRecord]] = defaultdict(dict)
        """(namespace, label, value) → pods: 10,000 selectors over 50,000 pods are look-ups, not scans."""

    def upsert(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """Remember an object as an event or a list shows it. The body itself is not kept.

        Raises:
            KeyError, TypeError, ValueError: the body is not an object of this kind.
        """
        name = _name(body)
        previous = self._records[kind].get(name)
        if previous is not None and previous.uid != body["metadata"]["uid"]:
            # Deleted and made again under the same name, and the deletion was not seen.
            self._forget(kind, name)
            previous = None
        record = _read(kind, body, previous)
        self._forget_labels(previous)
        self._records[kind][name] = record
        if isinstance(record, PodRecord):
            for label, value in record.labels.items():
                self._pods_by_label[record.namespace, label, value][name] = record

    def remove(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """Forget a deleted object. An older object of the same name (another uid) is none of its business."""
        name = _name(body)
        record = self._records[kind].get(name)
        if record is not None and record.uid == body["metadata"]["uid"]:
            self._forget(kind, name)

    def keep_only(self, kind: Kind, *, candidates: Iterable[str], living: Iterable[str]) -> int:
        """Forget those of ``candidates`` (uids) that are not among ``living``; return how many."""
        dead = set(candidates) - set(living)
        ghosts = [name for name, record in self._records[kind].items() if record.uid in dead]
        for name in ghosts:
            self._forget(kind, name)
        return len(ghosts)

    def uids(self, kind: Kind) -> set[str]:
        """Identities of all records of a kind."""
        return {record.uid for record in self._records[kind].values()}

    def size(self, kind: Kind) -> int:
        """Number of records of a kind."""
        return len(self._records[kind])

    def servings(self) -> list[ServingRecord]:
        """All ReasoningServings."""
        return [record for record in self._records[SERVINGS].values() if isinstance(record, ServingRecord)]

    def serving(self, key: ServiceKey) -> ServingRecord | None:
        """One ReasoningServing."""
        record = self._records[SERVINGS].get((key.namespace, key.name))
        return record if isinstance(record, ServingRecord) else None

    def workload(self, key: TargetKey) -> ScaleRecord | None:
        """A watched target; None when it is not there, or of a kind that is not watched."""
        for kind in WORKLOADS:
            if (kind.group, kind.kind) == (key.group, key.kind):
                record = self._records[kind].get((key.namespace, key.name))
                return record if isinstance(record, ScaleRecord) else None
        return None

    def scalers(self) -> dict[TargetKey, ScalerRecord]:
        """Other people's autoscalers by target."""
        return {
            record.target: record
            for kind in SCALERS
            for record in self._records[kind].values()
            if isinstance(record, ScalerRecord)
        }

    def pods(self, *, namespace: str, selector: Selector) -> list[PodRecord]:
        """Pods that a selector matches, finished ones left out, in a stable order."""
        pairs = [self._pods_by_label.get((namespace, *pair), {}) for pair in selector.pairs]
        candidates = min(pairs, key=len) if pairs else self._pods_of(namespace)
        matching = [p for p in candidates.values() if not p.finished and selector.matches(p.labels)]
        return sorted(matching, key=lambda record: record.pod.name)

    def _pods_of(self, namespace: str) -> dict[Name, PodRecord]:
        return {
            name: record
            for name, record in self._records[PODS].items()
            if name[0] == namespace and isinstance(record, PodRecord)
        }

    def _forget(self, kind: Kind, name: Name) -> None:
        self._forget_labels(self._records[kind].pop(name, None))

    def _forget_labels(self, record: Record | None) -> None:
        if not isinstance(record, PodRecord):
            return
        for label, value in record.labels.items():
            pair = (record.namespace, label, value)
            pods = self._pods_by_label[pair]
            pods.pop((record.namespace, record.pod.name), None)
            if not pods:
                del self._pods_by_label[pair]


def _read(kind: Kind, body: Mapping[str, Any], previous: Record | None) -> Record:
    if kind is SERVINGS:
        return serving_record(body, previous=previous if isinstance(previous, ServingRecord) else None)
    if kind is PODS:
        return pod_record(body, previous=previous if isinstance(previous, PodRecord) else None)
    if kind in SCALERS:
        return scaler_record(body, kind=kind.kind)
    return workload_record(body, group=kind.group, kind=kind.kind)


def _name(body: Mapping[str, Any]) -> Name:
    return body["metadata"]["namespace"], body["metadata"]["name"]
