"""What is scaled: anything with ``/scale``, of whatever kind, read cheaply and written carefully.

Reading ``/scale`` of every target on every tick would be 10,000 requests per 15 s. Instead:

* Deployments, StatefulSets and LeaderWorkerSets are watched, and their records say what ``/scale`` would.
* Any other kind is asked for its ``/scale``: at first sight and then every ``refresh_seconds``, the stalest
  first, at most ``reads_per_tick`` a tick, so its changes are seen late but at a bounded price.
* A write always reads ``/scale`` first, whatever the kind: the decision stands only if the target still asks
  for the replicas that were decided on, and the resourceVersion of that read guards the write.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from longtail.cluster.client import KubernetesApi
from longtail.cluster.kinds import WORKLOADS, Kind
from longtail.cluster.records import ScaleRecord, TargetKey, TargetReference, scale_record
from longtail.cluster.store import Store
from longtail.errors import ClusterError, ClusterUnavailable, Conflict, NotFound

_WATCHED: Final = {(kind.group, kind.kind): kind for kind in WORKLOADS}
_CONCURRENT_READS: Final = 10
_DISCOVERY_SECONDS: Final = 300.0
"""How long to believe what kinds there are; a CRD that is installed later is found within this time."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a resource cannot work: a stable word, and a sentence with the names in it."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class _Seen:
    outcome: ScaleRecord | Problem
    at: float


class Targets:
    """Finds, reads and scales targets. Times are monotonic seconds, given by the caller."""

    def __init__(
        self,
        *,
        api: KubernetesApi,
        store: Store,
        refresh_seconds: float = 15.0,
        reads_per_tick: int = 200,
    ) -> None:
        self._api = api
        self._store = store
        self._refresh_seconds = refresh_seconds
        self._reads_per_tick = reads_per_tick
        self._seen: dict[TargetKey, _Seen] = {}
        self._kinds: dict[tuple[str, str], tuple[Kind | Problem, float]] = {}

    def look_up(self, reference: TargetReference) -> ScaleRecord | Problem:
        """Return the target as last seen, or why it cannot be scaled. No I/O."""
        key = reference.key
        watched = _WATCHED.get((key.group, key.kind))
        if watched is None or reference.api_version != watched.api_version:
            seen = self._seen.get(key)
            return seen.outcome if seen else Problem("TargetNotReadYet", f"{key} has not been read yet")
        return self._store.workload(key) or _not_found(key)

    async def refresh(self, references: Iterable[TargetReference], *, now: float) -> None:
        """Read ``/scale`` of the targets that no watch covers, as far as due; forget the others.

        Failures become the outcome of ``look_up`` for that target alone.
        """
        polled = {r.key: r for r in references if _is_polled(r)}
        for key in self._seen.keys() - polled.keys():
            del self._seen[key]
        due = [key for key in polled if now - self._last_read(key) >= self._refresh_seconds]
        due.sort(key=self._last_read)
        limit = asyncio.Semaphore(_CONCURRENT_READS)

        async def read(reference: TargetReference) -> None:
            async with limit:
                outcome = await self._read(reference, now=now)
            self._seen[reference.key] = _Seen(outcome=outcome, at=now)

        async with asyncio.TaskGroup() as group:
            for key in due[: self._reads_per_tick]:
                group.create_task(read(polled[key]))

    async def scale(self, reference: TargetReference, *, current: int, desired: int, now: float) -> None:
        """Ask the target for ``desired`` replicas, provided that it still asks for ``current``.

        Raises:
            Conflict: somebody changed the target since the decision, or at this very moment: decide again.
            ClusterError: the target could not be read or written.
        """
        path = await self._scale_path(reference, now=now)
        body = await self._api.get(path)
        seen = scale_record(body, key=reference.key)
        if seen.replicas != current:
            raise Conflict(f"{reference.key}: asks for {seen.replicas} replicas by now, decided on at {current}")
        guard = {"resourceVersion": body["metadata"]["resourceVersion"]}
        answer = await self._api.merge_patch(path, body={"metadata": guard, "spec": {"replicas": desired}})
        scaled = scale_record(answer, key=reference.key)
        if _is_polled(reference):
            self._seen[reference.key] = _Seen(outcome=scaled, at=now)
        else:
            # Its event is late by as much as the next tick may be early: pods that are gone with this write must
            # not be taken for pods that can be called back.
            self._store.rescale(reference.key, replicas=scaled.replicas, version=scaled.version)

    async def _read(self, reference: TargetReference, *, now: float) -> ScaleRecord | Problem:
        key = reference.key
        try:
            body = await self._api.get(await self._scale_path(reference, now=now))
        except NotFound as missing:
            return missing.problem if isinstance(missing, _Unscalable) else _not_found(key)
        except ClusterUnavailable as silent:
            before = self._seen.get(key)
            # What was last seen stays true until something else is known; a write looks again anyway.
            return before.outcome if before else Problem("TargetNotReadYet", str(silent))
        except ClusterError as refused:
            return Problem("TargetForbidden", str(refused))
        return scale_record(body, key=key)

    async def _scale_path(self, reference: TargetReference, *, now: float) -> str:
        kind = _WATCHED.get((reference.key.group, reference.kind))
        if kind is None or kind.api_version != reference.api_version:
            kind = await self._discover(reference, now=now)
        return kind.path(namespace=reference.namespace, name=reference.name, subresource="scale")

    async def _discover(self, reference: TargetReference, *, now: float) -> Kind:
        """Ask the API server for the plural of a kind, and whether it has ``/scale``."""
        identity = (reference.api_version, reference.kind)
        known = self._kinds.get(identity)
        if known is None or now - known[1] >= _DISCOVERY_SECONDS:
            known = (await self._discovered(reference), now)
            self._kinds[identity] = known
        if isinstance(known[0], Problem):
            raise _Unscalable(known[0])
        return known[0]

    async def _discovered(self, reference: TargetReference) -> Kind | Problem:
        group, _, version = reference.api_version.rpartition("/")
        try:
            found = await self._api.get(f"/apis/{group}/{version}" if group else f"/api/{version}")
        except NotFound:
            found = {}
        resources = {r["name"]: r for r in found.get("resources", ())}
        plural = next((n for n, r in resources.items() if r["kind"] == reference.kind and "/" not in n), None)
        if plural is None:
            return Problem(
                "TargetKindUnknown",
                f"scaleTargetRef: the cluster has no kind {reference.kind} in {reference.api_version}",
            )
        if f"{plural}/scale" not in resources:
            return Problem(
                "TargetNotScalable",
                f"scaleTargetRef: kind {reference.kind} in {reference.api_version} has no scale subresource",
            )
        return Kind(group, version, reference.kind, plural)

    def _last_read(self, key: TargetKey) -> float:
        seen = self._seen.get(key)
        return seen.at if seen else float("-inf")


class _Unscalable(NotFound):
    """The kind itself is the problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def _is_polled(reference: TargetReference) -> bool:
    watched = _WATCHED.get((reference.key.group, reference.kind))
    return watched is None or watched.api_version != reference.api_version


def _not_found(key: TargetKey) -> Problem:
    return Problem("TargetNotFound", f"scaleTargetRef: {key} does not exist")
