"""Pods are taken out of routing and put back with one patch each, and nobody else's words are lost."""

import pytest

from longtail.cluster.client import KubernetesApi
from longtail.cluster.cordon import Cordons
from longtail.cluster.kinds import PODS
from longtail.cluster.marks import (
    CORDONED_AT,
    CORDONED_THROUGH,
    COST_MARK,
    DELETION_COST,
    DRAINING,
    KEPT,
    READINESS_GATE,
)
from longtail.cluster.records import PodRecord
from longtail.cluster.store import Store
from longtail.errors import ClusterUnavailable, Conflict, NotFound
from longtail_fakes.kubernetes import KubernetesFake
from longtail_fakes.manifests import pod

LABEL = "longtail.dev/route"
IN = {"app": "r1", LABEL: "true"}
TIME = "2026-11-24T09:00:00.000000Z"
DISRUPT, EVICT = "karpenter.sh/do-not-disrupt", "cluster-autoscaler.kubernetes.io/safe-to-evict"


class World:
    """One pod in the API server and in the store."""

    def __init__(self, server: KubernetesFake, api: KubernetesApi) -> None:
        self.server = server
        self.store = Store()
        self.cordons = Cordons(api=api, store=self.store)

    def see(self, **more) -> PodRecord:
        self.store.upsert(PODS, self.server.put(pod("r1-0", **({"labels": IN} | more))))
        return self.record

    @property
    def record(self) -> PodRecord:
        record = self.store.pod(namespace="inference", name="r1-0")
        assert record is not None
        return record

    @property
    def body(self) -> dict:
        return self.server.objects["/api/v1/namespaces/inference/pods/r1-0"]

    @property
    def annotations(self) -> dict[str, str]:
        return self.body["metadata"]["annotations"]

    def change(self, **more) -> None:
        """Somebody else changes the pod, and the watch has not said so yet."""
        metadata = self.body["metadata"]
        changed = pod("r1-0", uid=metadata["uid"], **({"labels": metadata["labels"]} | more))
        self.server.put(changed)


@pytest.fixture
def world(server: KubernetesFake, api: KubernetesApi) -> World:
    return World(server, api)


async def test_a_cordon_is_one_guarded_patch_and_known_at_once(world: World) -> None:
    record = world.see()
    await world.cordons.cordon(record, label=LABEL, time=TIME)
    (patch,) = world.server.sent("PATCH")
    assert patch.body["metadata"]["uid"] == record.uid
    assert patch.body["metadata"]["resourceVersion"] == str(record.version)
    assert world.body["metadata"]["labels"] == {"app": "r1", LABEL: DRAINING}
    assert world.annotations == {CORDONED_AT: TIME, CORDONED_THROUGH: LABEL, DISRUPT: "true", EVICT: "false"}
    assert world.record.labels[LABEL] == DRAINING
    await world.cordons.cordon(record, label=LABEL, time=TIME)
    assert len(world.server.sent("PATCH")) == 1


@pytest.mark.parametrize(
    "users",
    [
        pytest.param({}, id="a-bare-pod"),
        pytest.param({"team": "llm"}, id="annotations-of-others"),
        pytest.param({DISRUPT: "true"}, id="protected-already"),
        pytest.param({DISRUPT: "false", EVICT: "false"}, id="both-set-by-the-user"),
    ],
)
async def test_what_the_user_had_written_is_there_after_a_drain_as_before(world: World, users) -> None:
    world.see(annotations=users)
    await world.cordons.cordon(world.record, label=LABEL, time=TIME)
    assert users.items() <= world.annotations.items()
    await world.cordons.uncordon(world.record, label=LABEL, time=TIME)
    assert world.annotations == users
    assert world.body["metadata"]["labels"] == IN


async def test_a_pod_that_has_changed_is_looked_at_before_it_is_patched_again(world: World) -> None:
    record = world.see()
    world.change(annotations={DISRUPT: "true"})
    await world.cordons.cordon(record, label=LABEL, time=TIME)
    assert world.annotations[KEPT] == DISRUPT
    await world.cordons.uncordon(world.record, label=LABEL, time=TIME)
    assert world.annotations == {DISRUPT: "true"}


async def test_whom_somebody_else_takes_out_meanwhile_stays_out(world: World) -> None:
    await world.cordons.cordon(world.see(), label=LABEL, time=TIME)
    record = world.record
    world.change(labels={"app": "r1", LABEL: "debug"}, annotations=world.annotations)
    await world.cordons.uncordon(record, label=LABEL, time=TIME)
    assert world.body["metadata"]["labels"] == {"app": "r1", LABEL: "debug"}
    assert world.annotations == {}


async def test_a_pod_that_changes_all_the_time_is_left_to_the_next_tick(world: World) -> None:
    record = world.see()
    world.server.fail("PATCH", "/r1-0", status=409, times=2)
    with pytest.raises(Conflict):
        await world.cordons.cordon(record, label=LABEL, time=TIME)


async def test_a_pod_of_the_same_name_made_anew_is_not_touched(world: World) -> None:
    record = world.see()
    world.see(uid="another")
    with pytest.raises(NotFound):
        await world.cordons.cordon(record, label=LABEL, time=TIME)
    assert world.server.sent("PATCH") == []


async def test_a_mark_for_deletion_is_taken_back_with_the_cordon(world: World) -> None:
    await world.cordons.cordon(world.see(), label=LABEL, time=TIME)
    await world.cordons.condemn(world.record)
    assert (world.annotations[DELETION_COST], world.annotations[COST_MARK]) == ("-1000", "-1000")
    assert world.record.pod.condemned
    await world.cordons.condemn(world.record)
    await world.cordons.uncordon(world.record, label=LABEL, time=TIME)
    assert world.annotations == {}


async def test_a_deletion_cost_of_somebody_else_is_neither_overwritten_nor_removed(world: World) -> None:
    record = world.see()
    world.change(annotations={DELETION_COST: "7"})
    with pytest.raises(Conflict, match="somebody else"):
        await world.cordons.condemn(record)
    await world.cordons.pardon(world.record)
    assert world.annotations == {DELETION_COST: "7"}


async def test_a_cost_written_over_ours_stays_and_our_mark_goes(world: World) -> None:
    world.see(annotations={DELETION_COST: "7", COST_MARK: "-1000"})
    await world.cordons.pardon(world.record)
    assert world.annotations == {DELETION_COST: "7"}


async def test_the_gate_is_closed_after_the_note_and_opened_before_it_goes(world: World) -> None:
    world.see(labels={"app": "r1"}, gate=True)
    await world.cordons.admit(world.record, time=TIME)
    assert world.record.in_service is True
    await world.cordons.cordon(world.record, label=LABEL, time=TIME)
    assert world.record.in_service is False
    assert world.annotations[CORDONED_THROUGH] == READINESS_GATE
    await world.cordons.uncordon(world.record, label=LABEL, time=TIME)
    assert (world.record.in_service, world.annotations) == (True, {})
    assert [request.path.rsplit("/", 1)[1] for request in world.server.sent("PATCH")] == [
        "status",
        "r1-0",
        "status",
        "status",
        "r1-0",
    ]
    # The kubelet's conditions are as they were.
    assert {"PodScheduled", "Ready", READINESS_GATE} == {c["type"] for c in world.body["status"]["conditions"]}


async def test_a_cordon_by_gate_that_ends_half_way_leaves_a_pod_at_work(world: World) -> None:
    world.see(labels={"app": "r1"}, gate=True)
    await world.cordons.admit(world.record, time=TIME)
    world.server.fail("PATCH", "/status", status=500)
    with pytest.raises(ClusterUnavailable):
        await world.cordons.cordon(world.record, label=LABEL, time=TIME)
    assert world.record.in_service is True
    await world.cordons.uncordon(world.record, label=LABEL, time=TIME)
    assert world.annotations == {}
