"""The watched world: records fed by events, joined into a snapshot once a tick.

Level-based: an upsert replaces, a removal forgets, and neither cares how many events were missed. Touched on
the event loop only, so there are no locks. What events cannot tell is told by ``sweep``: after a broken watch
the list starts anew, but nobody reports what vanished meanwhile.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

from longtail.cluster.client import FIELD_MANAGER
from longtail.cluster.kinds import PODS, ROUTERS, SCALERS, SERVINGS, WATCHED, WORKLOADS, Kind
from longtail.cluster.records import (
    PodRecord,
    RouterRecord,
    ScaleRecord,
    ScalerRecord,
    ServingRecord,
    TargetKey,
    pod_record,
    router_record,
    scaler_record,
    serving_record,
    workload_record,
)
from longtail.cluster.selectors import Selector
from longtail.policy.fleet import ReplicasWriter, ServiceKey

Record: TypeAlias = ServingRecord | ScaleRecord | PodRecord | ScalerRecord | RouterRecord
Name: TypeAlias = tuple[str, str]
"""Namespace and name."""

_Place = TypeVar("_Place")
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Store:
    """Records of every watched kind, by namespace and name."""

    def __init__(self) -> None:
        self._records: dict[Kind, dict[Name, Record]] = {kind: {} for kind in WATCHED}
        self._pods_by_label: dict[tuple[str, str, str], dict[Name, PodRecord]] = defaultdict(dict)
        """(namespace, label, value) → pods: 10,000 selectors over 50,000 pods are look-ups, not scans."""
        self._marked: dict[Name, PodRecord] = {}
        """Pods that carry a mark of ours, or our readiness gate."""
        self._routers_by_label: dict[tuple[str, str, str], dict[str, RouterRecord]] = defaultdict(dict)
        """(namespace, label, value) → routers by uid, each under one pair of its selector: the rarest."""

    def upsert(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """Remember an object as an event, a list or the answer to a write of ours shows it, unless it is known newer.

        The answer to a write is here before its event, and events of earlier writes may arrive between the two.
        The body itself is not kept.

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
        if _is_overtaken(record, by=previous):
            return
        self._forget_indices(previous)
        self._records[kind][name] = record
        self._index(name, record)

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

    def knows(self, kind: Kind, body: Mapping[str, Any]) -> bool:
        """Whether this very object is in the store."""
        record = self._records[kind].get(_name(body))
        return record is not None and record.uid == body["metadata"]["uid"]

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

    def rescale(self, key: TargetKey, *, replicas: int, version: int) -> None:
        """Note what a watched target was asked for; its event will follow."""
        record = self.workload(key)
        if record is not None and version > record.version:
            kind = next(kind for kind in WORKLOADS if (kind.group, kind.kind) == (key.group, key.kind))
            # Until the controller has looked, nobody knows better than that it will do as asked. Nor is the number any
            # longer that of whoever set the one before.
            ours = ReplicasWriter(name=FIELD_MANAGER, ours=True)
            self._records[kind][key.namespace, key.name] = replace(
                record, replicas=replicas, version=version, writer=ours
            )

    def pod(self, *, namespace: str, name: str) -> PodRecord | None:
        """One pod as it is known now."""
        record = self._records[PODS].get((namespace, name))
        return record if isinstance(record, PodRecord) else None

    def marked_pods(self) -> list[PodRecord]:
        """Pods that carry a mark of ours, or our readiness gate."""
        return list(self._marked.values())

    def routers(self, *, namespace: str, labels: Mapping[str, str]) -> list[RouterRecord]:
        """Services and InferencePools that send requests to a pod with these labels, in a stable order."""
        found = [
            router
            for pair in labels.items()
            for router in self._routers_by_label.get((namespace, *pair), {}).values()
            if router.selector.matches(labels)
        ]
        return sorted(found, key=lambda router: (router.kind, router.name))

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

    def _index(self, name: Name, record: Record) -> None:
        if isinstance(record, PodRecord):
            for label, value in record.labels.items():
                self._pods_by_label[record.namespace, label, value][name] = record
            if record.annotations or record.has_gate:
                self._marked[name] = record
        elif isinstance(record, RouterRecord) and record.selector.pairs:
            places = [(record.namespace, *pair) for pair in record.selector.pairs]
            rarest = min(places, key=lambda place: len(self._routers_by_label.get(place, ())))
            self._routers_by_label[rarest][record.uid] = record

    def _forget(self, kind: Kind, name: Name) -> None:
        self._forget_indices(self._records[kind].pop(name, None))

    def _forget_indices(self, record: Record | None) -> None:
        if isinstance(record, PodRecord):
            name = (record.namespace, record.pod.name)
            self._marked.pop(name, None)
            for pair in record.labels.items():
                _drop(self._pods_by_label, (record.namespace, *pair), name)
        elif isinstance(record, RouterRecord):
            for pair in record.selector.pairs:
                _drop(self._routers_by_label, (record.namespace, *pair), record.uid)


def _drop(index: dict[_Place, dict[_Key, _Value]], place: _Place, key: _Key) -> None:
    entries = index.get(place)
    if entries is not None:
        entries.pop(key, None)
        if not entries:
            del index[place]


def _is_overtaken(record: Record, *, by: Record | None) -> bool:
    if isinstance(record, PodRecord) and isinstance(by, PodRecord):
        return record.version < by.version
    return isinstance(record, ScaleRecord) and isinstance(by, ScaleRecord) and record.version < by.version


def _read(kind: Kind, body: Mapping[str, Any], previous: Record | None) -> Record:
    if kind is SERVINGS:
        return serving_record(body, previous=previous if isinstance(previous, ServingRecord) else None)
    if kind is PODS:
        return pod_record(body, previous=previous if isinstance(previous, PodRecord) else None)
    if kind in ROUTERS:
        return router_record(body, kind=kind.kind)
    if kind in SCALERS:
        return scaler_record(body, kind=kind.kind)
    return workload_record(body, group=kind.group, kind=kind.kind)


def _name(body: Mapping[str, Any]) -> Name:
    return body["metadata"]["namespace"], body["metadata"]["name"]
