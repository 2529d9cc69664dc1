"""Targets of any kind through /scale, snapshots, conflicts: what is read, what is written, who must hold."""

import pytest

from longtail.cluster.client import KubernetesApi
from longtail.cluster.kinds import DEPLOYMENTS, HPAS, PODS, SCALED_OBJECTS, SERVINGS
from longtail.cluster.records import TargetReference
from longtail.cluster.snapshot import freeze
from longtail.cluster.store import Store
from longtail.cluster.targets import Problem, Targets
from longtail.errors import Conflict, NotFound, Refused
from longtail.policy.fleet import ServiceKey
from longtail_fakes.kubernetes import KubernetesFake
from longtail_fakes.manifests import deployment, pod, scaler, serving

R1 = ServiceKey("inference", "r1")
DEPLOYMENT = TargetReference("apps/v1", "Deployment", "inference", "r1")
ROLLOUT = TargetReference("argoproj.io/v1alpha1", "Rollout", "inference", "r1")
ROLLOUT_TARGET = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "r1"}


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def targets(server: KubernetesFake, api: KubernetesApi, store: Store) -> Targets:
    server.resources["argoproj.io/v1alpha1"] = {
        "rollouts": ("Rollout", True),
        "analyses": ("Analysis", False),
    }
    return Targets(api=api, store=store, refresh_seconds=15, reads_per_tick=2)


def rollout(name: str = "r1", replicas: int = 2):
    return deployment(name, replicas=replicas, kind="Rollout", api_version="argoproj.io/v1alpha1")


async def test_a_watched_kind_is_never_asked_for_its_scale(server, store, targets) -> None:
    store.upsert(DEPLOYMENTS, deployment(replicas=4))
    await targets.refresh([DEPLOYMENT], now=0)
    assert targets.look_up(DEPLOYMENT).replicas == 4
    assert server.requests == []


async def test_any_other_kind_is_read_through_scale_and_discovered_once(server, targets) -> None:
    server.put(rollout(replicas=3))
    for now in (0, 5, 14.9):
        await targets.refresh([ROLLOUT], now=now)
    assert targets.look_up(ROLLOUT).replicas == 3
    assert [request.path for request in server.requests] == [
        "/apis/argoproj.io/v1alpha1",
        "/apis/argoproj.io/v1alpha1/namespaces/inference/rollouts/r1/scale",
    ]
    server.put(rollout(replicas=0))
    await targets.refresh([ROLLOUT], now=15)
    assert targets.look_up(ROLLOUT).replicas == 0


async def test_reads_of_a_tick_are_bounded_and_the_stalest_come_first(server, targets) -> None:
    references = [TargetReference(ROLLOUT.api_version, "Rollout", "inference", f"r{n}") for n in range(5)]
    for n in range(5):
        server.put(rollout(f"r{n}"))
    for now in range(3):
        await targets.refresh(references, now=now)
    read = [request.path.split("/")[-2] for request in server.requests if request.path.endswith("/scale")]
    assert sorted(read) == [f"r{n}" for n in range(5)]


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        pytest.param(DEPLOYMENT, "TargetNotFound", id="watched-and-missing"),
        pytest.param(ROLLOUT, "TargetNotFound", id="other-and-missing"),
        pytest.param(
            TargetReference("argoproj.io/v1alpha1", "Analysis", "inference", "a"),
            "TargetNotScalable",
            id="no-scale",
        ),
        pytest.param(
            TargetReference("argoproj.io/v1alpha1", "Nonsense", "inference", "a"),
            "TargetKindUnknown",
            id="no-kind",
        ),
        pytest.param(TargetReference("nowhere.io/v1", "Rollout", "inference", "a"), "TargetKindUnknown", id="no-group"),
        pytest.param(TargetReference("v1", "Pod", "inference", "a"), "TargetNotScalable", id="core-group"),
    ],
)
async def test_a_target_that_cannot_be_scaled_has_a_stable_reason(targets, reference, reason) -> None:
    await targets.refresh([reference], now=0)
    problem = targets.look_up(reference)
    assert isinstance(problem, Problem)
    assert problem.reason == reason
    assert reference.kind in problem.message


async def test_a_silent_api_server_changes_nothing_about_a_target(server, targets) -> None:
    server.put(rollout(replicas=3))
    await targets.refresh([ROLLOUT], now=0)
    server.fail("GET", "/scale", status=503)
    await targets.refresh([ROLLOUT], now=100)
    assert targets.look_up(ROLLOUT).replicas == 3


async def test_a_forbidden_target_says_so(server, targets) -> None:
    server.fail("GET", "/scale", status=403, answer={"message": "longtail cannot get rollouts/scale"})
    await targets.refresh([ROLLOUT], now=0)
    assert targets.look_up(ROLLOUT).reason == "TargetForbidden"


@pytest.mark.parametrize("reference", [DEPLOYMENT, ROLLOUT], ids=lambda r: r.kind)
async def test_scaling_writes_the_replicas_guarded_by_the_version_that_was_read(server, targets, reference) -> None:
    stored = server.put(deployment(replicas=2) if reference is DEPLOYMENT else rollout(replicas=2))
    await targets.scale(reference, current=2, desired=5, now=0)
    (patch,) = server.sent("PATCH")
    assert patch.path.endswith("/r1/scale")
    assert patch.headers["Content-Type"] == "application/merge-patch+json"
    assert patch.query["fieldManager"] == "longtail"
    assert patch.body == {
        "metadata": {"resourceVersion": stored["metadata"]["resourceVersion"]},
        "spec": {"replicas": 5},
    }


async def test_a_polled_target_is_known_to_have_been_scaled(server, targets) -> None:
    server.put(rollout(replicas=2))
    await targets.scale(ROLLOUT, current=2, desired=5, now=0)
    assert targets.look_up(ROLLOUT).replicas == 5


async def test_a_target_that_moved_since_the_decision_is_left_alone(server, targets) -> None:
    server.put(deployment(replicas=3))
    with pytest.raises(Conflict, match="3 replicas by now, decided on at 2"):
        await targets.scale(DEPLOYMENT, current=2, desired=5, now=0)
    assert server.sent("PATCH") == []


async def test_somebody_who_writes_between_our_read_and_our_write_wins(server, targets) -> None:
    server.put(deployment(replicas=2))
    server.fail("PATCH", "/scale", status=409)
    with pytest.raises(Conflict):
        await targets.scale(DEPLOYMENT, current=2, desired=5, now=0)
    assert server.objects[server.path_of(deployment())]["spec"]["replicas"] == 2


async def test_scaling_what_is_gone_or_forbidden_is_an_error_of_our_own(server, targets) -> None:
    with pytest.raises(NotFound):
        await targets.scale(DEPLOYMENT, current=2, desired=5, now=0)
    server.put(deployment(replicas=2))
    server.fail("PATCH", "/scale", status=403)
    with pytest.raises(Refused):
        await targets.scale(DEPLOYMENT, current=2, desired=5, now=0)


def test_a_snapshot_joins_target_and_pods(store, targets) -> None:
    store.upsert(SERVINGS, serving())
    store.upsert(DEPLOYMENTS, deployment())
    store.upsert(PODS, pod("r1-0"))
    store.upsert(PODS, pod("other-0"))
    view = freeze(store, targets)[R1]
    assert (view.problem, view.conflict) == (None, None)
    assert [record.pod.name for record in view.pods] == ["r1-0"]


def test_a_snapshot_does_not_change_with_the_store(store, targets) -> None:
    store.upsert(SERVINGS, serving())
    store.upsert(DEPLOYMENTS, deployment(replicas=2))
    before = freeze(store, targets)
    store.upsert(DEPLOYMENTS, deployment(replicas=7))
    store.upsert(PODS, pod("r1-0"))
    assert (before[R1].target.replicas, before[R1].pods) == (2, ())


def test_one_broken_resource_does_not_touch_the_others(store, targets) -> None:
    store.upsert(SERVINGS, serving("broken", maxReplicas=0))
    store.upsert(SERVINGS, serving("lost"))
    store.upsert(SERVINGS, serving())
    store.upsert(DEPLOYMENTS, deployment())
    views = freeze(store, targets)
    assert {key.name: view.problem and view.problem.reason for key, view in views.items()} == {
        "broken": "InvalidSpec",
        "lost": "TargetNotFound",
        "r1": None,
    }


def test_two_targets_that_select_the_same_pods_are_both_left_alone(store, targets) -> None:
    for name in ("r1", "twin", "apart"):
        store.upsert(SERVINGS, serving(name))
        store.upsert(DEPLOYMENTS, deployment(name, labels={"app": "apart" if name == "apart" else "r1"}))
    store.upsert(PODS, pod("r1-0"))
    reasons = {key.name: view.problem and view.problem.reason for key, view in freeze(store, targets).items()}
    assert reasons == {"r1": "AmbiguousSelector", "twin": "AmbiguousSelector", "apart": None}


OLD, NEW = "2026-11-24T08:00:00Z", "2026-11-24T09:00:00Z"


@pytest.mark.parametrize(
    ("servings", "scalers", "conflicts"),
    [
        pytest.param([serving("a")], [], {}, id="alone"),
        pytest.param(
            [
                serving("a", created=NEW, target={"name": "r1"}),
                serving("b", created=OLD, target={"name": "r1"}),
            ],
            [],
            {"a": "TargetOwnedByAnother"},
            id="the-oldest-wins",
        ),
        pytest.param(
            [serving("b", target={"name": "r1"}), serving("a", target={"name": "r1"})],
            [],
            {"b": "TargetOwnedByAnother"},
            id="as-old-the-smaller-name-wins",
        ),
        pytest.param(
            [
                serving("a", created=OLD, mode="Advise", target={"name": "r1"}),
                serving("b", created=NEW, target={"name": "r1"}),
            ],
            [],
            {},
            id="advice-is-no-writer",
        ),
        pytest.param(
            [
                serving("a", created=OLD, mode="Off", target={"name": "r1"}),
                serving("b", created=NEW, target={"name": "r1"}),
            ],
            [],
            {},
            id="off-is-no-writer",
        ),
        pytest.param([serving("r1")], ["HorizontalPodAutoscaler"], {"r1": "HorizontalPodAutoscalerPresent"}, id="hpa"),
        pytest.param([serving("r1")], ["ScaledObject"], {"r1": "ScaledObjectPresent"}, id="keda"),
        pytest.param([serving("r1", mode="Advise")], ["HorizontalPodAutoscaler"], {}, id="an-hpa-may-follow-advice"),
        pytest.param(
            [serving("r1", target={"name": "r1", "kind": "StatefulSet"})],
            ["HorizontalPodAutoscaler"],
            {},
            id="another-kind-of-the-same-name",
        ),
        pytest.param(
            [serving("r1", maxReplicas=0)], ["HorizontalPodAutoscaler"], {}, id="a-broken-spec-writes-nothing"
        ),
    ],
)
def test_one_writer_per_target(store, targets, servings, scalers, conflicts) -> None:
    for body in servings:
        store.upsert(SERVINGS, body)
    for kind in scalers:
        store.upsert(HPAS if kind == "HorizontalPodAutoscaler" else SCALED_OBJECTS, scaler(kind))
    views = freeze(store, targets)
    assert {key.name: view.conflict.reason for key, view in views.items() if view.conflict} == conflicts


def test_an_hpa_that_is_deleted_frees_its_target(store, targets) -> None:
    store.upsert(SERVINGS, serving())
    store.upsert(HPAS, scaler())
    store.remove(HPAS, scaler())
    assert freeze(store, targets)[R1].conflict is None
