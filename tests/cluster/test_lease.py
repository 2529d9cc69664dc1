"""The Lease as an object: what is sent to the API server, and what every answer becomes."""

import pytest

from longtail.cluster.client import KubernetesApi
from longtail.cluster.election import LeaseRecord, given_back
from longtail.cluster.lease import Lease
from longtail.errors import ClusterUnavailable, Conflict
from longtail_fakes.kubernetes import KubernetesFake

PATH = "/apis/coordination.k8s.io/v1/namespaces/longtail-system/leases/longtail"
RECORD = LeaseRecord(
    holder="longtail-0_a",
    duration_seconds=15,
    acquired="2026-11-24T08:00:00.000000Z",
    renewed="2026-11-24T08:00:02.000000Z",
    transitions=0,
)


@pytest.fixture
def lease(api: KubernetesApi) -> Lease:
    # A standby: nothing else may be written.
    api.write_seconds = lambda: 0.0
    return Lease(api=api, namespace="longtail-system", name="longtail", timeout_seconds=5.0)


async def test_a_lease_is_created_read_and_renewed_even_by_who_may_not_write(server: KubernetesFake, lease) -> None:
    assert await lease.read() is None
    created = await lease.create(RECORD)
    assert await lease.read() == created
    assert created.record == RECORD
    renewed = await lease.replace(given_back(RECORD, time="later"), resource_version=created.resource_version)
    assert (renewed.record.holder, renewed.record.renewed) == ("", "later")
    assert server.objects[PATH]["spec"]["acquireTime"] == RECORD.acquired


async def test_two_who_change_it_at_once_cannot_both_win(lease: Lease) -> None:
    created = await lease.create(RECORD)
    with pytest.raises(Conflict):
        await lease.create(RECORD)
    await lease.replace(RECORD, resource_version=created.resource_version)
    with pytest.raises(Conflict):
        await lease.replace(RECORD, resource_version=created.resource_version)


async def test_labels_of_others_survive_a_renewal(server: KubernetesFake, lease: Lease) -> None:
    created = await lease.create(RECORD)
    server.objects[PATH]["metadata"]["labels"] = {"team": "inference"}
    await lease.replace(RECORD, resource_version=created.resource_version)
    assert server.objects[PATH]["metadata"]["labels"] == {"team": "inference"}


async def test_a_lease_made_by_hand_may_say_nothing(server: KubernetesFake, lease: Lease) -> None:
    metadata = {"namespace": "longtail-system", "name": "longtail"}
    server.put({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata})
    stored = await lease.read()
    assert stored.record == LeaseRecord(holder="", duration_seconds=0, acquired="", renewed="", transitions=0)
    await lease.replace(RECORD, resource_version=stored.resource_version)


async def test_no_answer_is_not_no_lease(server: KubernetesFake, lease: Lease) -> None:
    server.fail("GET", PATH, status=503)
    with pytest.raises(ClusterUnavailable):
        await lease.read()
