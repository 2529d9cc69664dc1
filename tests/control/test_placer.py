"""Placements carried out against an API server over real sockets: in their order, and put right where they were not."""

from dataclasses import dataclass, field

import pytest

from longtail.cluster.client import KubernetesApi
from longtail.cluster.cordon import Cordons
from longtail.cluster.kinds import DEPLOYMENTS, HPAS, PODS, SERVICES, SERVINGS, STATEFUL_SETS
from longtail.cluster.marks import CORDONED_AT, CORDONED_THROUGH, COST_MARK, DELETION_COST, DRAINING, READINESS_GATE
from longtail.cluster.snapshot import freeze
from longtail.cluster.store import Store
from longtail.cluster.targets import Targets
from longtail.control.outcome import Outcome
from longtail.control.placer import Placer
from longtail.policy.decision import Decision, Placement, Reason
from longtail.policy.fleet import ServiceKey
from longtail_fakes.kubernetes import KubernetesFake
from longtail_fakes.manifests import deployment, pod, scaler, service, serving

LABEL = "longtail.dev/route"
IN = {"app": "r1", LABEL: "true"}
OUT = {"app": "r1", LABEL: DRAINING}
NOTES = {CORDONED_AT: "2026-11-24T07:00:00Z", CORDONED_THROUGH: LABEL}
COST = {DELETION_COST: "-1000", COST_MARK: "-1000"}


@dataclass
class World:
    """A pool of one service, and placements that the test makes up."""

    server: KubernetesFake
    api: KubernetesApi
    clock: object
    store: Store = field(default_factory=Store)
    leading: bool = True

    def __post_init__(self) -> None:
        self.targets = Targets(api=self.api, store=self.store)
        self.placer = Placer(
            store=self.store,
            targets=self.targets,
            cordons=Cordons(api=self.api, store=self.store),
            clock=self.clock,
            concurrency=1,
            may_write=lambda: self.leading,
        )

    def pool(self, name: str = "r1", *, replicas: int = 4, **spec) -> None:
        labels = {"app": name}
        self.see(SERVINGS, serving(name, **spec))
        self.see(SERVICES, service(name))
        self.see(DEPLOYMENTS, deployment(name, replicas=replicas, template_labels=labels | {LABEL: "true"}))
        for number in range(replicas):
            self.see(PODS, pod(f"{name}-{number}", labels=labels | {LABEL: "true"}))

    def see(self, kind, body) -> None:
        self.store.upsert(kind, self.server.put(body))

    async def place(self, **placements: Placement | None) -> dict[ServiceKey, Outcome]:
        """One tick's writes: a placement by service name; None is a service about which nothing was decided."""
        return await self.placer.place(self.decided(**placements))

    def decided(self, **placements: Placement | None) -> dict[ServiceKey, Outcome]:
        outcomes = {}
        for key, view in freeze(self.store, self.targets).items():
            placement = placements.get(key.name)
            decision = Decision(
                current=4, desired=4, hold=False, reason=Reason.SCALE_DOWN, message="", placement=placement
            )
            outcomes[key] = Outcome(view=view, decision=decision)
        return outcomes

    def pod(self, name: str) -> dict:
        return self.server.objects[f"/api/v1/namespaces/inference/pods/{name}"]["metadata"]

    def written(self) -> list[str]:
        """What was patched, in order: a pod with its new label or mark, a target with its replicas."""
        words = []
        for request in self.server.sent("PATCH"):
            parts = request.path.split("/")
            if parts[-1] == "scale":
                words.append(f"{parts[-2]}={request.body['spec']['replicas']}")
                continue
            metadata = request.body["metadata"]
            label = metadata.get("labels", {}).get(LABEL)
            cost = metadata.get("annotations", {}).get(DELETION_COST, "")
            words.append(f"{parts[-1]}:{label or ('pardoned' if cost is None else 'marked' if cost else 'cleaned')}")
        return words


@pytest.fixture
def world(server: KubernetesFake, api: KubernetesApi, clock) -> World:
    return World(server=server, api=api, clock=clock)


async def test_who_comes_back_is_written_first_and_who_goes_last(world: World) -> None:
    world.pool("a-shrinks")
    world.pool("m-leaves")
    world.pool("z-grows")
    world.see(PODS, pod("z-grows-3", labels={"app": "z-grows", LABEL: DRAINING}, annotations=NOTES))
    for number in (0, 1):
        labels = {"app": "a-shrinks", LABEL: DRAINING}
        world.see(PODS, pod(f"a-shrinks-{number}", labels=labels, annotations=NOTES | COST))
    outcomes = await world.place(
        **{
            "a-shrinks": Placement(asked=4, replicas=2, commit=("a-shrinks-0", "a-shrinks-1")),
            "m-leaves": Placement(asked=4, replicas=4, cordon=("m-leaves-2",)),
            "z-grows": Placement(asked=4, replicas=6, uncordon=("z-grows-3",)),
        }
    )
    assert world.written() == ["z-grows-3:true", "z-grows=6", "m-leaves-2:draining", "a-shrinks=2"]
    done = {key.name: outcome for key, outcome in outcomes.items()}
    assert (done["z-grows"].uncordoned, done["z-grows"].asked) == (("z-grows-3",), 6)
    assert done["m-leaves"].cordoned == ("m-leaves-2",)
    assert (done["a-shrinks"].drained, done["a-shrinks"].asked) == (("a-shrinks-0", "a-shrinks-1"), 2)


async def test_replicas_are_lowered_a_tick_after_the_pods_were_marked_and_by_their_number(world: World) -> None:
    world.pool()
    world.see(PODS, pod("r1-0", labels=OUT, annotations=NOTES))
    (first,) = (await world.place(r1=Placement(asked=4, replicas=3, commit=("r1-0",)))).values()
    assert world.written() == ["r1-0:marked"]
    assert (first.asked, first.drained) == (None, ())
    world.see(PODS, pod("r1-1", labels=OUT, annotations=NOTES))
    (second,) = (await world.place(r1=Placement(asked=4, replicas=2, commit=("r1-0", "r1-1")))).values()
    assert world.written() == ["r1-0:marked", "r1-1:marked", "r1=3"]
    assert (second.asked, second.drained) == (3, ("r1-0",))


async def test_what_was_asked_for_is_known_before_the_watch_tells(world: World) -> None:
    world.pool()
    world.see(PODS, pod("r1-0", labels=OUT, annotations=NOTES | COST))
    await world.place(r1=Placement(asked=4, replicas=3, commit=("r1-0",)))
    (view,) = freeze(world.store, world.targets).values()
    assert view.target.replicas == 3


async def test_who_was_marked_and_has_work_again_is_pardoned(world: World) -> None:
    world.pool()
    world.see(PODS, pod("r1-0", labels=IN, annotations=COST))
    await world.place(r1=Placement(asked=4, replicas=4))
    assert world.written() == ["r1-0:pardoned"]
    assert world.pod("r1-0")["annotations"] == {}


async def test_nothing_is_lowered_while_a_replica_set_may_know_another_pod_as_marked(world: World) -> None:
    world.pool()
    world.see(PODS, pod("r1-0", labels=OUT, annotations=NOTES | COST))
    # A start that was to be taken back when the operator died; it has become ready and works.
    world.see(PODS, pod("r1-1", labels=IN, annotations=COST))
    (first,) = (await world.place(r1=Placement(asked=4, replicas=3, commit=("r1-0",)))).values()
    assert world.written() == ["r1-1:pardoned"]
    assert (first.asked, first.drained) == (None, ())
    await world.place(r1=Placement(asked=4, replicas=3, commit=("r1-0",)))
    assert world.written() == ["r1-1:pardoned", "r1=3"]


async def test_who_is_on_the_way_out_is_not_pardoned(world: World) -> None:
    world.pool()
    world.see(PODS, pod("r1-0", labels=OUT, annotations=NOTES | COST))
    world.see(DEPLOYMENTS, deployment(replicas=3))
    await world.place(r1=Placement(asked=3, replicas=3))
    assert world.written() == []


async def test_replicas_without_a_pod_are_taken_back_at_once(world: World) -> None:
    world.pool(replicas=2)
    world.see(DEPLOYMENTS, deployment(replicas=5))
    await world.place(r1=Placement(asked=5, replicas=2))
    assert world.written() == ["r1=2"]


async def test_a_start_that_was_given_up_and_has_come_up_by_now_is_left_for_the_next_plan(world: World) -> None:
    world.pool()
    world.see(PODS, pod("r1-3", labels=IN, annotations=COST, ready=False))
    decided = world.decided(r1=Placement(asked=4, replicas=3, commit=("r1-3",)))
    world.see(PODS, pod("r1-3", labels=IN, annotations=COST))
    await world.placer.place(decided)
    assert world.written() == []
    world.see(PODS, pod("r1-3", labels=IN, annotations=COST, ready=False))
    await world.place(r1=Placement(asked=4, replicas=3, commit=("r1-3",)))
    assert world.written() == ["r1=3"]


async def test_a_stateful_set_is_lowered_without_marks(world: World) -> None:
    target = {"kind": "StatefulSet", "name": "r1"}
    world.see(SERVINGS, serving(target=target))
    world.see(STATEFUL_SETS, deployment(kind="StatefulSet", replicas=2))
    for number in range(2):
        world.see(PODS, pod(f"r1-{number}", owner=("StatefulSet", "r1")))
    await world.place(r1=Placement(asked=2, replicas=1, commit=("r1-1",)))
    assert world.written() == ["r1=1"]


async def test_where_somebody_else_sets_the_deletion_cost_nothing_is_lowered(world: World) -> None:
    world.pool()
    world.see(PODS, pod("r1-1", labels=IN, annotations={DELETION_COST: "-5000"}))
    world.see(PODS, pod("r1-0", labels=OUT, annotations=NOTES | COST))
    await world.place(r1=Placement(asked=4, replicas=3, commit=("r1-0",)))
    assert world.written() == []


@pytest.mark.parametrize(
    "gone",
    [
        pytest.param({"mode": "Advise"}, id="advise"),
        pytest.param({"mode": "Off"}, id="off"),
        pytest.param({"maxReplicas": "many"}, id="a-spec-that-cannot-be-read"),
        pytest.param(None, id="deleted"),
        pytest.param("hpa", id="somebody-else-scales"),
    ],
)
async def test_who_may_not_decide_any_more_gives_back_what_it_took(world: World, gone) -> None:
    world.pool(**(gone if isinstance(gone, dict) else {}))
    world.see(PODS, pod("r1-0", labels=OUT, annotations=NOTES | COST))
    if gone is None:
        world.store.remove(SERVINGS, serving())
    if gone == "hpa":
        world.store.upsert(HPAS, scaler())
    await world.place(r1=Placement(asked=4, replicas=2, cordon=("r1-1",)))
    assert world.written() == ["r1-0:true"]
    assert world.pod("r1-0")["annotations"] == {}


async def test_a_pod_that_somebody_else_took_out_is_never_touched(world: World) -> None:
    world.pool(mode="Off")
    world.see(PODS, pod("r1-0", labels=OUT))
    world.see(PODS, pod("r1-1", labels={"app": "r1", LABEL: "debug"}))
    await world.place(r1=None)
    assert world.written() == []


async def test_half_a_cordon_is_taken_back(world: World) -> None:
    world.pool()
    world.see(PODS, pod("r1-0", labels=IN, annotations=NOTES))
    await world.place(r1=Placement(asked=4, replicas=4))
    assert world.written() == ["r1-0:cleaned"]
    assert world.pod("r1-0")["annotations"] == {}


async def test_a_pod_with_our_gate_is_let_in_whatever_the_mode(world: World) -> None:
    world.pool(mode="Off")
    world.see(PODS, pod("r1-0", labels={"app": "r1"}, gate=True))
    await world.place(r1=None)
    record = world.store.pod(namespace="inference", name="r1-0")
    assert record.in_service is True
    (patch,) = world.server.sent("PATCH")
    (condition,) = patch.body["status"]["conditions"]
    assert (condition["type"], condition["status"]) == (READINESS_GATE, "True")


async def test_a_standby_touches_nothing(world: World) -> None:
    world.pool()
    world.see(PODS, pod("r1-0", labels=IN, annotations=NOTES))
    world.leading = False
    await world.place(r1=Placement(asked=4, replicas=6, cordon=("r1-1",)))
    assert world.written() == []


async def test_a_refused_pod_is_told_as_the_reason_and_hurts_nobody_else(world: World) -> None:
    world.pool("a")
    world.pool("b")
    world.server.fail("PATCH", "/a-0", status=403, answer={"message": "pods is forbidden"})
    outcomes = await world.place(
        a=Placement(asked=4, replicas=4, cordon=("a-0",)), b=Placement(asked=4, replicas=4, cordon=("b-0",))
    )
    done = {key.name: outcome for key, outcome in outcomes.items()}
    assert "pods is forbidden" in str(done["a"].scale_error)
    assert (done["a"].cordoned, done["b"].cordoned) == ((), ("b-0",))


async def test_a_resource_edited_since_the_decision_is_left_as_it_is(world: World) -> None:
    world.pool()
    view = dict(freeze(world.store, world.targets))
    world.see(SERVINGS, serving(generation=2))
    placement = Placement(asked=4, replicas=6, cordon=("r1-0",))
    decision = Decision(current=4, desired=6, hold=False, reason=Reason.SCALE_UP, message="", placement=placement)
    await world.placer.place({key: Outcome(view=each, decision=decision) for key, each in view.items()})
    assert world.written() == []
