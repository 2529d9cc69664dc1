"""Takes pods out of routing and puts them back; marks those that may be deleted. One PATCH each, or two by gate.

Every patch carries the uid and the resourceVersion of the pod it was made for: what somebody else has written since
is looked at before it is written over. The answer goes straight into the store, so that the next plan starts from
what was done and not from what the watch has brought so far.

With the readiness gate a cordon is two writes, since a condition lives in ``/status``. They are in an order in
which a crash between the two leaves a pod in routing with a note that the next tick removes.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from longtail.cluster.client import KubernetesApi
from longtail.cluster.kinds import PODS
from longtail.cluster.marks import (
    CONDEMNED_COST,
    CORDONED_AT,
    CORDONED_THROUGH,
    COST_MARK,
    DELETION_COST,
    DRAINING,
    IN_ROUTING,
    KEPT,
    PROTECTION,
    READINESS_GATE,
)
from longtail.cluster.records import PodRecord
from longtail.cluster.routing import is_out, switched_by
from longtail.cluster.store import Store
from longtail.errors import Conflict, NotFound

Metadata = dict[str, Any]
_Patch = Callable[[PodRecord], Metadata | None]
_REASON: Final = {True: "InService", False: "Draining"}


class Cordons:
    """Writes pods. Every method raises ``ClusterError`` when the API server does not do as asked."""

    def __init__(self, *, api: KubernetesApi, store: Store) -> None:
        self._api = api
        self._store = store

    async def cordon(self, record: PodRecord, *, label: str, time: str) -> None:
        """Take a pod out of routing and protect it from node autoscalers while it finishes what it has.

        Args:
            record: the pod.
            label: routing label of its resource.
            time: now, RFC 3339.
        """

        def patch(pod: PodRecord) -> Metadata | None:
            by = switched_by(pod, label=label)
            if is_out(pod, by=by):
                return None
            kept = [key for key in PROTECTION if key in pod.annotations]
            annotations: Metadata = {CORDONED_AT: time, CORDONED_THROUGH: by, KEPT: ",".join(kept) or None}
            annotations |= {key: value for key, value in PROTECTION.items() if key not in kept}
            return {"annotations": annotations} | ({} if by == READINESS_GATE else {"labels": {by: DRAINING}})

        seen = await self._patch(record, patch)
        if switched_by(seen, label=label) == READINESS_GATE:
            await self._set_gate(seen, in_service=False, time=time)

    async def uncordon(self, record: PodRecord, *, label: str, time: str) -> None:
        """Put a pod back into routing and take away all that we wrote on it, and nothing else.

        A pod that somebody else has taken out meanwhile stays out.
        """
        if switched_by(record, label=label) == READINESS_GATE:
            await self._set_gate(record, in_service=True, time=time)

        def patch(pod: PodRecord) -> Metadata | None:
            by = switched_by(pod, label=label)
            annotations: Metadata = dict.fromkeys((key for key in _notes(pod) if key in pod.annotations), None)
            labels = {by: IN_ROUTING} if by != READINESS_GATE and is_out(pod, by=by) else {}
            return {"annotations": annotations, "labels": labels} if annotations or labels else None

        await self._patch(record, patch)

    async def condemn(self, record: PodRecord) -> None:
        """Make a pod the next one that its ReplicaSet deletes."""

        def patch(pod: PodRecord) -> Metadata | None:
            if pod.pod.condemned:
                return None
            if pod.foreign_cost is not None:
                raise Conflict(f"pod {pod.pod.name}: somebody else has set its {DELETION_COST}")
            return {"annotations": {DELETION_COST: str(CONDEMNED_COST), COST_MARK: str(CONDEMNED_COST)}}

        await self._patch(record, patch)

    async def pardon(self, record: PodRecord) -> None:
        """Take our deletion cost away."""

        def patch(pod: PodRecord) -> Metadata | None:
            marks = _cost_marks(pod)
            return {"annotations": dict.fromkeys(marks, None)} if marks else None

        await self._patch(record, patch)

    async def admit(self, record: PodRecord, *, time: str) -> None:
        """Let a new pod with our readiness gate become ready."""
        await self._set_gate(record, in_service=True, time=time)

    async def _patch(self, record: PodRecord, make: _Patch) -> PodRecord:
        """Patch a pod as it is known now; if it has changed since, look at it and try once more."""
        current = self._current(record)
        for last in (False, True):
            body = make(current)
            if body is None:
                return current
            guard = {"uid": current.uid, "resourceVersion": str(current.version)}
            try:
                answer = await self._api.merge_patch(_path(current), body={"metadata": guard | body})
            except Conflict:
                if last:
                    raise
                current = self._noted(await self._api.get(_path(current)), of=record)
            else:
                return self._noted(answer, of=record)
        raise AssertionError("the second attempt returns or raises")

    async def _set_gate(self, record: PodRecord, *, in_service: bool, time: str) -> None:
        current = self._current(record)
        if current.in_service is in_service:
            return
        condition = {
            "type": READINESS_GATE,
            "status": str(in_service),
            "reason": _REASON[in_service],
            "lastTransitionTime": time,
        }
        # Strategic: conditions are merged by type there, where a merge patch would replace all of them.
        answer = await self._api.strategic_patch(
            f"{_path(current)}/status",
            body={"metadata": {"uid": current.uid}, "status": {"conditions": [condition]}},
        )
        self._noted(answer, of=record)

    def _current(self, record: PodRecord) -> PodRecord:
        known = self._store.pod(namespace=record.namespace, name=record.pod.name)
        if known is None or known.uid != record.uid:
            raise NotFound(f"pod {record.namespace}/{record.pod.name} is gone")
        return known

    def _noted(self, body: Mapping[str, Any], *, of: PodRecord) -> PodRecord:
        self._store.upsert(PODS, body)
        return self._current(of)


def needs_repair(record: PodRecord) -> bool:
    """Whether a pod carries notes of a cordon that is not, or no more: half done, or undone by somebody."""
    by = record.annotations.get(CORDONED_THROUGH)
    return (CORDONED_AT in record.annotations or by is not None) and not (by is not None and is_out(record, by=by))


def is_ours(record: PodRecord) -> bool:
    """Whether a pod carries anything that we wrote on it."""
    return any(key in record.annotations for key in (CORDONED_AT, CORDONED_THROUGH, COST_MARK))


def _notes(pod: PodRecord) -> list[str]:
    kept = (pod.annotations.get(KEPT) or "").split(",")
    noted = CORDONED_AT in pod.annotations or CORDONED_THROUGH in pod.annotations
    protection = [key for key, value in PROTECTION.items() if key not in kept and pod.annotations.get(key) == value]
    return [CORDONED_AT, CORDONED_THROUGH, KEPT, *(protection if noted else ()), *_cost_marks(pod)]


def _cost_marks(pod: PodRecord) -> list[str]:
    """Our deletion cost; only the mark where somebody has written another cost over ours."""
    if COST_MARK not in pod.annotations:
        return []
    return [DELETION_COST, COST_MARK] if pod.pod.condemned else [COST_MARK]


def _path(record: PodRecord) -> str:
    return PODS.path(namespace=record.namespace, name=record.pod.name)
