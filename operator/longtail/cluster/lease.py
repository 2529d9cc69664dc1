"""One ``coordination.k8s.io/v1`` Lease: read, create, and change provided that nobody else did.

Changed by merge patches with a resourceVersion, so that labels and annotations of others stay. Never fenced:
renewing is what the fence hangs on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from longtail.cluster.client import KubernetesApi
from longtail.cluster.election import LeaseRecord
from longtail.cluster.kinds import Kind
from longtail.errors import NotFound

LEASES: Final = Kind("coordination.k8s.io", "v1", "Lease", "leases")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLease:
    """The record, and the version that a change of it has to name."""

    record: LeaseRecord
    resource_version: str


class Lease:
    """A Lease by its name; an answer that takes longer than ``timeout_seconds`` is none."""

    def __init__(self, *, api: KubernetesApi, namespace: str, name: str, timeout_seconds: float) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._timeout_seconds = timeout_seconds

    def __str__(self) -> str:
        return f"{self._namespace}/{self._name}"

    async def read(self) -> StoredLease | None:
        """Return it; None when there is none.

        Raises:
            ClusterError: it cannot be read.
        """
        try:
            return _stored(await self._api.get(self._path, timeout_seconds=self._timeout_seconds))
        except NotFound:
            return None

    async def create(self, record: LeaseRecord) -> StoredLease:
        """Create it.

        Raises:
            Conflict: somebody else did.
            NotFound: there is no such namespace.
            ClusterError: it cannot be created, or nobody knows whether it was.
        """
        manifest = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": _spec(record),
        }
        path = LEASES.path(namespace=self._namespace)
        return _stored(await self._api.post(path, body=manifest, fenced=False, timeout_seconds=self._timeout_seconds))

    async def replace(self, record: LeaseRecord, *, resource_version: str) -> StoredLease:
        """Change it.

        Raises:
            Conflict: it is not of this version any more.
            ClusterError: it cannot be changed, or nobody knows whether it was.
        """
        patch = {"metadata": {"resourceVersion": resource_version}, "spec": _spec(record)}
        return _stored(
            await self._api.merge_patch(self._path, body=patch, fenced=False, timeout_seconds=self._timeout_seconds)
        )

    @property
    def _path(self) -> str:
        return LEASES.path(namespace=self._namespace, name=self._name)


def _spec(record: LeaseRecord) -> Mapping[str, Any]:
    return {
        "holderIdentity": record.holder,
        "leaseDurationSeconds": record.duration_seconds,
        "acquireTime": record.acquired or None,
        "renewTime": record.renewed,
        "leaseTransitions": record.transitions,
    }


def _stored(body: Mapping[str, Any]) -> StoredLease:
    # Every field is optional in the API: a Lease made by hand may have no spec at all.
    spec = body.get("spec") or {}
    record = LeaseRecord(
        holder=spec.get("holderIdentity") or "",
        duration_seconds=spec.get("leaseDurationSeconds") or 0,
        acquired=spec.get("acquireTime") or "",
        renewed=spec.get("renewTime") or "",
        transitions=spec.get("leaseTransitions") or 0,
    )
    return StoredLease(record=record, resource_version=body["metadata"]["resourceVersion"])
