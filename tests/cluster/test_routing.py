"""Which pods can be taken out of routing, which are out, and what must be added where none can."""

import pytest

from longtail.cluster.cordon import needs_repair
from longtail.cluster.kinds import INFERENCE_POOLS, PODS, SERVICES
from longtail.cluster.marks import (
    CORDONED_AT,
    CORDONED_THROUGH,
    COST_MARK,
    DELETION_COST,
    DRAINING,
    READINESS_GATE,
)
from longtail.cluster.records import PodRecord, ScaleRecord, pod_record, workload_record
from longtail.cluster.routing import Routing, cost_owners, look
from longtail.cluster.store import Store
from longtail_fakes.manifests import deployment, pod, service

LABEL = "longtail.dev/route"
IN = {"app": "r1", LABEL: "true"}
OUT = {"app": "r1", LABEL: DRAINING}
FRONT = (service(),)
NOTES = {CORDONED_AT: "2026-11-24T09:00:00.500000Z", CORDONED_THROUGH: LABEL}
BY_GATE = {CORDONED_AT: "2026-11-24T09:00:00Z", CORDONED_THROUGH: READINESS_GATE}


def target(*, template: dict[str, str] = IN, labels: dict[str, str] | None = None) -> ScaleRecord:
    return workload_record(deployment(labels=labels, template_labels=template), group="apps", kind="Deployment")


def store(*routers: dict) -> Store:
    made = Store()
    for router in routers:
        made.upsert(INFERENCE_POOLS if router["kind"] == "InferencePool" else SERVICES, router)
    return made


def seen(*bodies: dict, routers=FRONT, of: ScaleRecord | None = None) -> tuple[Routing, tuple[PodRecord, ...]]:
    records = [pod_record(body, previous=None) for body in bodies]
    return look(target=of or target(), pods=records, label=LABEL, store=store(*routers))


def gated(in_service: bool | None, **more) -> dict:
    body = pod("r1-0", labels={"app": "r1"}, gate=True, **more)
    if in_service is not None:
        body["status"]["conditions"].append({"type": READINESS_GATE, "status": str(in_service)})
    return body


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(pod("r1-0", labels=IN), "switch", id="in-routing"),
        pytest.param(pod("r1-0", labels=OUT, annotations=NOTES), "switch cordoned", id="taken-out-by-us"),
        pytest.param(pod("r1-0", labels=OUT), "switch cordoned", id="the-note-was-lost"),
        pytest.param(pod("r1-0", labels=IN, annotations=NOTES), "switch", id="put-back-by-hand"),
        pytest.param(pod("r1-0", labels={"app": "r1", LABEL: "debug"}), "isolated", id="taken-out-by-somebody"),
        pytest.param(pod("r1-0", labels={"app": "r1", LABEL: "debug"}, annotations=NOTES), "isolated", id="taken-over"),
        pytest.param(pod("r1-0", labels={"app": "r1"}), "", id="without-the-label"),
        pytest.param(gated(None), "switch", id="gate-not-set-yet"),
        pytest.param(gated(True), "switch", id="gate-open"),
        pytest.param(gated(False, annotations=BY_GATE), "switch cordoned", id="gate-closed"),
        pytest.param(gated(False), "switch cordoned", id="gate-closed-and-the-note-lost"),
        pytest.param(gated(True, annotations=BY_GATE), "switch", id="died-before-the-gate-closed"),
    ],
)
def test_a_pod_is_what_its_label_or_gate_says(body: dict, expected: str) -> None:
    ((record,), fields) = (seen(body)[1], ("switch", "cordoned", "isolated"))
    assert " ".join(field for field in fields if getattr(record.pod, field)) == expected


def test_a_cordon_has_its_time_to_the_microsecond_and_nonsense_is_no_time() -> None:
    noted, spoilt = seen(
        pod("r1-0", labels=OUT, annotations=NOTES),
        pod("r1-1", labels=OUT, annotations=NOTES | {CORDONED_AT: "yesterday"}),
    )[1]
    assert noted.pod.cordoned_at == 1_795_510_800.5
    assert (spoilt.pod.cordoned, spoilt.pod.cordoned_at) == (True, None)


def test_a_cordon_by_another_label_than_the_resource_names_now_is_still_ours() -> None:
    annotations = NOTES | {CORDONED_THROUGH: "old/route"}
    ((record,), _) = (seen(pod("r1-0", labels=IN | {"old/route": DRAINING}, annotations=annotations))[1], None)
    assert (record.pod.cordoned, record.pod.switch) == (True, True)


@pytest.mark.parametrize(
    ("annotations", "labels", "expected"),
    [
        pytest.param({}, IN, False, id="untouched"),
        pytest.param(NOTES, OUT, False, id="cordoned"),
        pytest.param(NOTES, IN, True, id="put-back-by-hand"),
        pytest.param(NOTES, {LABEL: "debug"}, True, id="taken-over-by-somebody"),
        pytest.param({CORDONED_AT: "2026-11-24T09:00:00Z"}, OUT, True, id="half-a-note"),
    ],
)
def test_notes_of_a_cordon_that_is_not_are_found(annotations, labels, expected: bool) -> None:
    assert needs_repair(pod_record(pod(labels=labels, annotations=annotations), previous=None)) is expected


@pytest.mark.parametrize(
    ("given", "reason", "words"),
    [
        pytest.param(
            {"bodies": [pod("r1-0", labels={"app": "r1"})], "of": target(template={"app": "r1"}), "routers": ()},
            "NoRoutingLabel",
            'label the pod template of Deployment r1 with longtail.dev/route: "true" and add it to the selector of '
            "the Service or InferencePool in front of it",
            id="nothing-is-there",
        ),
        pytest.param(
            {
                "bodies": [pod("r1-0", labels={"app": "r1"})],
                "of": target(template={"app": "r1"}),
                "routers": (service("front", selector={"app": "r1"}),),
            },
            "NoRoutingLabel",
            'label the pod template of Deployment r1 with longtail.dev/route: "true" and add it to the selector of '
            "Service front",
            id="a-service-without-it",
        ),
        pytest.param(
            {"bodies": [pod("r1-0", labels={"app": "r1"})], "of": target(template={"app": "r1"})},
            "NoRoutingLabel",
            'label the pod template of Deployment r1 with longtail.dev/route: "true"',
            id="only-the-service-has-it",
        ),
        pytest.param(
            {"bodies": [pod("r1-0", labels={"app": "r1"})]},
            "NoRoutingLabel",
            'pods of Deployment r1 were made before longtail.dev/route: "true" was in its template',
            id="not-rolled-out-yet",
        ),
        pytest.param(
            {"bodies": [pod("r1-0", labels=IN)], "routers": (service("front", selector={"app": "r1"}),)},
            "LabelNotSelected",
            'add longtail.dev/route: "true" to the selector of Service front',
            id="only-the-pods-have-it",
        ),
        pytest.param(
            {"bodies": [pod("r1-0", labels=IN)], "of": target(labels=IN)},
            "LabelInWorkloadSelector",
            "longtail.dev/route is in the selector of Deployment r1: a pod that changes it would be orphaned and "
            "replaced; name another label in spec.drain.routingLabel",
            id="it-would-make-orphans",
        ),
        pytest.param(
            {"bodies": [], "of": target(template={"app": "r1"})},
            "NoRoutingLabel",
            'label the pod template of Deployment r1 with longtail.dev/route: "true"',
            id="no-pods-yet-and-no-label",
        ),
    ],
)
def test_what_is_missing_is_said_so_that_it_can_be_added(given: dict, reason: str, words: str) -> None:
    routing, records = seen(*given.pop("bodies"), **given)
    assert routing.problem is not None
    assert (routing.problem.reason, routing.problem.message) == (reason, words)
    assert not any(record.pod.switch or record.pod.cordoned or record.pod.isolated for record in records)


POOL = {
    "kind": "InferencePool",
    "metadata": {"name": "pool", "namespace": "inference", "uid": "pool"},
    "spec": {"selector": {"matchLabels": {"app": "r1", LABEL: "true"}}},
}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param(
            {"bodies": [pod("r1-0", labels=IN)]},
            "pods are switched by longtail.dev/route, by which Service r1 selects",
            id="a-service",
        ),
        pytest.param(
            {"bodies": [pod("r1-0", labels=IN)], "routers": (POOL,)},
            "pods are switched by longtail.dev/route, by which InferencePool pool selects",
            id="an-inference-pool",
        ),
        pytest.param(
            {"bodies": [pod("r1-0", labels=IN)], "routers": (service(), service("metrics", selector={"app": "r1"}))},
            "pods are switched by longtail.dev/route, by which Service r1 selects; "
            "Service metrics selects them regardless",
            id="and-one-that-does-not-care",
        ),
        pytest.param({"bodies": []}, "pods are switched by longtail.dev/route, by which Service r1 selects", id="soon"),
        pytest.param({"bodies": [gated(True)]}, "pods are switched by the gate longtail.dev/in-service", id="gate"),
    ],
)
def test_what_is_there_is_named(given: dict, words: str) -> None:
    routing, _ = seen(*given.pop("bodies"), **given)
    assert (routing.problem, routing.message) == (None, words)


def test_a_service_of_another_namespace_or_none_at_all_is_not_asked() -> None:
    routing, _ = seen(pod("r1-0", labels=IN), routers=(service(namespace="elsewhere"), service("any", selector={})))
    assert routing.problem is not None
    assert routing.problem.reason == "LabelNotSelected"


def test_a_service_that_is_changed_or_gone_is_known_as_it_is() -> None:
    known = store(service())
    assert len(known.routers(namespace="inference", labels=IN)) == 1
    known.upsert(SERVICES, service(selector={"app": "other"}))
    assert known.routers(namespace="inference", labels=IN) == []
    known.upsert(SERVICES, service())
    known.remove(SERVICES, service())
    assert known.routers(namespace="inference", labels=IN) == []


@pytest.mark.parametrize(
    ("annotations", "commit", "expected"),
    [
        pytest.param({}, ["r1-0"], [], id="nobody's"),
        pytest.param({DELETION_COST: "-1000", COST_MARK: "-1000"}, ["r1-0"], [], id="ours"),
        pytest.param({DELETION_COST: "7"}, ["r1-0"], ["r1-0"], id="theirs-on-one-that-should-go"),
        pytest.param({DELETION_COST: "7", COST_MARK: "-1000"}, ["r1-0"], ["r1-0"], id="theirs-over-ours"),
        pytest.param({DELETION_COST: "7"}, [], [], id="theirs-on-one-that-stays"),
        pytest.param({DELETION_COST: "-2000"}, [], ["r1-0"], id="theirs-would-go-before-ours"),
        pytest.param({DELETION_COST: "many"}, ["r1-0"], ["r1-0"], id="not-even-a-number"),
    ],
)
def test_a_deletion_cost_is_ours_only_with_our_mark(annotations, commit, expected) -> None:
    record = pod_record(pod("r1-0", annotations=annotations), previous=None)
    assert cost_owners([record], commit=commit) == expected


def versioned(version: int, **more) -> dict:
    body = pod("r1-0", **more)
    body["metadata"]["resourceVersion"] = str(version)
    return body


def test_an_event_that_was_overtaken_by_the_answer_to_a_write_changes_nothing() -> None:
    known = Store()
    known.upsert(PODS, versioned(5, labels=IN))
    known.upsert(PODS, versioned(9, labels=OUT, annotations=NOTES))
    known.upsert(PODS, versioned(7, labels=IN, ready=False))
    record = known.pod(namespace="inference", name="r1-0")
    assert record is not None
    assert record.labels == OUT
    known.upsert(PODS, versioned(3, labels=IN, uid="made-anew"))
    assert known.pod(namespace="inference", name="r1-0").labels == IN


def test_pods_with_marks_are_found_until_the_marks_are_gone() -> None:
    known = Store()
    known.upsert(PODS, versioned(1, labels=OUT, annotations=NOTES))
    assert [record.pod.name for record in known.marked_pods()] == ["r1-0"]
    known.upsert(PODS, versioned(2, labels=IN))
    assert known.marked_pods() == []
