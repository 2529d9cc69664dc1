"""The store is level-based: any order of events ends in the same world, and ghosts are found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.cluster.client import KubernetesApi
from longtail.cluster.kinds import DEPLOYMENTS, PODS, SERVINGS
from longtail.cluster.records import TargetKey, pod_record, unix_seconds
from longtail.cluster.selectors import from_string
from longtail.cluster.store import Store
from longtail.cluster.sweep import count_objects, sweep_ghosts
from longtail.errors import ClusterUnavailable
from longtail.policy.fleet import ServiceKey
from longtail_fakes.kubernetes import KubernetesFake
from longtail_fakes.manifests import deployment, pod, serving

KEY = ServiceKey("inference", "r1")


def names(store: Store, selector: str = "app=r1") -> list[str]:
    return [record.pod.name for record in store.pods(namespace="inference", selector=from_string(selector))]


def test_a_spec_is_parsed_once_per_generation() -> None:
    store = Store()
    store.upsert(SERVINGS, serving())
    first = store.serving(KEY)
    store.upsert(SERVINGS, serving() | {"status": {"conditions": []}})
    assert store.serving(KEY).spec is first.spec
    store.upsert(SERVINGS, serving(generation=2, maxReplicas=9))
    assert store.serving(KEY).spec.max_replicas == 9


def test_a_spec_that_cannot_be_read_is_kept_with_its_error() -> None:
    store = Store()
    store.upsert(SERVINGS, serving(maxReplicas="many"))
    record = store.serving(KEY)
    assert record.spec is None
    assert "spec.maxReplicas" in record.spec_error
    assert "'many'" in record.spec_error


def test_a_resource_made_anew_under_its_name_is_another_one() -> None:
    store = Store()
    store.upsert(SERVINGS, serving(uid="old"))
    store.upsert(SERVINGS, serving(uid="new"))
    store.remove(SERVINGS, serving(uid="old"))
    assert store.serving(KEY).uid == "new"


def test_pods_are_found_by_selector_and_namespace_without_finished_ones() -> None:
    store = Store()
    store.upsert(PODS, pod("r1-1"))
    store.upsert(PODS, pod("r1-0"))
    store.upsert(PODS, pod("r1-9", phase="Failed"))
    store.upsert(PODS, pod("r2-0"))
    store.upsert(PODS, pod("r1-0", namespace="elsewhere"))
    assert names(store) == ["r1-0", "r1-1"]
    assert names(store, "app!=r1") == ["r2-0"]


def test_a_pod_whose_labels_change_leaves_its_old_selector() -> None:
    store = Store()
    store.upsert(PODS, pod("r1-0"))
    store.upsert(PODS, pod("r1-0", labels={"app": "debug"}))
    assert names(store) == []
    assert names(store, "app=debug") == ["r1-0"]


def test_the_first_time_a_pod_was_ready_is_remembered() -> None:
    first = pod_record(pod(ready_since="2026-11-24T08:03:00Z"), previous=None)
    unready = pod_record(pod(ready=False, ready_since="2026-11-24T09:00:00Z"), previous=first)
    again = pod_record(pod(ready_since="2026-11-24T09:01:00Z"), previous=unready)
    assert again.pod.ready_at == unix_seconds("2026-11-24T08:03:00Z")
    assert (unready.pod.ready, again.pod.ready) == (False, True)


def test_a_pod_says_what_the_policy_reads() -> None:
    waiting = pod_record(pod(ready=False, unschedulable="0/3 nodes: Insufficient nvidia.com/gpu"), previous=None)
    assert waiting.pod.scheduled_at is None
    assert "nvidia.com/gpu" in waiting.pod.unschedulable_message
    leaving = pod_record(pod(deleting=True, restarts=2), previous=None)
    assert (leaving.pod.deleting, leaving.pod.restarted, leaving.owner) == (
        True,
        True,
        ("ReplicaSet", "r1-abc"),
    )


def test_a_watched_target_is_found_by_its_key() -> None:
    store = Store()
    store.upsert(DEPLOYMENTS, deployment(replicas=3))
    found = store.workload(TargetKey("apps", "Deployment", "inference", "r1"))
    assert (found.replicas, found.selector.pairs) == (3, [("app", "r1")])
    assert store.workload(TargetKey("apps", "Deployment", "inference", "r2")) is None


def test_a_number_that_we_wrote_is_ours_before_its_event_comes() -> None:
    store, theirs = Store(), deployment(replicas=1)
    entry = {"manager": "argocd-controller", "operation": "Apply", "time": "2999-01-01T00:00:00Z"}
    theirs["metadata"]["managedFields"] = [entry | {"fieldsV1": {"f:spec": {"f:replicas": {}}}}]
    store.upsert(DEPLOYMENTS, theirs)
    key = TargetKey("apps", "Deployment", "inference", "r1")
    assert store.workload(key).writer.name == "argocd-controller"
    store.rescale(key, replicas=3, version=2)
    # Else it would count as a second number of theirs, and three make a contest.
    assert (store.workload(key).replicas, store.workload(key).writer.ours) == (3, True)


EVENTS = st.lists(st.tuples(st.sampled_from(["r1-0", "r1-1", "r2-0"]), st.sampled_from(["a", "b"]), st.booleans()))


@given(events=EVENTS)
def test_the_label_index_always_agrees_with_a_full_scan(events) -> None:
    store, alive = Store(), {}
    for name, label, deleted in events:
        body = pod(name, labels={"app": label})
        if deleted:
            store.remove(PODS, body)
            alive.pop(name, None)
        else:
            store.upsert(PODS, body)
            alive[name] = label
    for label in "ab":
        assert names(store, f"app={label}") == sorted(name for name, is_ in alive.items() if is_ == label)


async def test_a_sweep_forgets_what_vanished_while_no_watch_was_looking(
    server: KubernetesFake, api: KubernetesApi
) -> None:
    store = Store()
    for name in ("r1-0", "r1-1"):
        store.upsert(PODS, pod(name))
    server.put(pod("r1-1"))
    assert await sweep_ghosts(api, store, PODS, namespaces=[]) == 1
    assert names(store) == ["r1-1"]


async def test_a_sweep_leaves_alone_what_is_made_while_it_lists(server: KubernetesFake, api: KubernetesApi) -> None:
    store = Store()
    store.upsert(PODS, pod("r1-0"))
    api.on_response = lambda *_: store.upsert(PODS, pod("r1-new"))
    await sweep_ghosts(api, store, PODS, namespaces=[])
    assert names(store) == ["r1-new"]


async def test_a_sweep_that_fails_half_way_forgets_nothing(server: KubernetesFake, api: KubernetesApi) -> None:
    store = Store()
    store.upsert(PODS, pod("r1-0"))
    server.fail("GET", "/pods", status=500)
    with pytest.raises(ClusterUnavailable):
        await sweep_ghosts(api, store, PODS, namespaces=[])
    assert names(store) == ["r1-0"]


@pytest.mark.parametrize(
    ("namespaces", "selector", "expected"),
    [
        pytest.param([], "", 7, id="cluster-wide"),
        pytest.param(["a"], "", 5, id="one-namespace"),
        pytest.param(["a", "b", "none"], "", 7, id="several-namespaces"),
        pytest.param([], "app", 7, id="with-a-selector-the-server-does-not-count"),
    ],
)
async def test_objects_are_counted_without_being_listed(
    server: KubernetesFake, api: KubernetesApi, namespaces, selector, expected
) -> None:
    for number in range(5):
        server.put(pod(f"r1-{number}", namespace="a"))
    for number in range(2):
        server.put(pod(f"r1-{number}", namespace="b"))
    assert await count_objects(api, PODS, namespaces=namespaces, label_selector=selector) == expected


async def test_a_kind_that_the_cluster_does_not_have_counts_as_none(server, api) -> None:
    server.fail("GET", "/reasoningservings", status=404)
    assert await count_objects(api, SERVINGS, namespaces=[]) == 0
