"""Each rule of the chart's roles is left out once, for an operator of its own, which fails and says at what.

Every operator has a namespace, a service account and a Lease of its own, and works there alone: else others would do what
it may not. The rules are the cluster-wide ones; `--namespaces` narrows what is looked at, not what is allowed.
"""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from longtail_e2e import Cluster, wait_until
from longtail_e2e.errors import NotYetError
from longtail_e2e.foreign import established, serving_definitions
from longtail_e2e.helm import Helm, Manifest
from longtail_e2e.operator import Operator, apply_definition
from longtail_e2e.rights import Right, asked, operators_own, written

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
LEVELS = [{"name": "high", "thinkingTokens": 16384}, {"name": "low", "thinkingTokens": 2048}]
AT_A_TIME = 4
"""Operators that start together, on two cores."""


@dataclass(frozen=True)
class Failure:
    """What becomes of an operator without a rule."""

    says: str
    """In its log, as a pattern."""
    ready: bool = True
    """It decides all the same, if less well."""
    needs: str = ""
    """What it must have to do, beside a Deployment that is to grow, to need the right at all."""
    everywhere: bool = False
    """It does so only where it is not told its namespaces."""


def unseen(kind: str) -> Failure:
    return Failure(says=f'"not watched", "kind": "{kind}", .*forbidden')


GROWTH = "one replica more, again and again"
NONE = Failure(says='"scaled", ')
NOT_ONE_DECISION = Failure(says="forbidden", ready=False)
FAILURES = {
    "list, watch reasoningservings": NOT_ONE_DECISION,
    "get, list, watch, patch pods": NOT_ONE_DECISION,
    "list, watch deployments, statefulsets": NOT_ONE_DECISION,
    "list, watch services": unseen("Service"),
    "list, watch inferencepools": unseen("InferencePool"),
    "list, watch leaderworkersets": unseen("LeaderWorkerSet"),
    "list, watch horizontalpodautoscalers": unseen("HorizontalPodAutoscaler"),
    "list, watch scaledobjects": unseen("ScaledObject"),
    "list, watch customresourcedefinitions": Failure(says="customresourcedefinitions.* is forbidden", everywhere=True),
    "get, patch deployments/scale, statefulsets/scale": Failure(says='"not scaled", .*forbidden'),
    "get, patch leaderworkersets/scale": Failure(says='"not scaled", .*forbidden', needs="LeaderWorkerSet"),
    "patch reasoningservings/status": Failure(says='"statuses not written", .*forbidden'),
    "patch pods/status": Failure(says='"not put right", .*forbidden', needs="readiness gate"),
    "create, patch configmaps": Failure(says='"levels of thinking not published", .*forbidden'),
    # An Event is posted once; a tick that is cut short on a busy machine has lost it.
    "create events": Failure(says='"an Event could not be posted", .*forbidden', needs=GROWTH),
    "create leases": Failure(says='"no election", .*forbidden'),
    "get, patch leases": Failure(says='"no election", .*forbidden'),
}
UNLOGGED = {"events", "leases"}
"""What the audit log leaves out: there the operator's word has to do."""


def name_of(rule: Manifest) -> str:
    return f"{', '.join(rule['verbs'])} {', '.join(rule['resources'])}"


@dataclass(frozen=True, eq=False)
class Trial:
    """An operator without one rule, or with all of them."""

    rule: Manifest | None
    failure: Failure
    namespace: str

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.namespace}:longtail"

    def manifests(self, rights: Sequence[Manifest]) -> Iterator[Manifest]:
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        for manifest in rights:
            rules = {"rules": [rule for rule in manifest["rules"] if rule != self.rule]} if "rules" in manifest else {}
            yield manifest | rules
        for manifest in self._work():
            manifest["metadata"] |= {"namespace": self.namespace}
            yield manifest

    def _work(self) -> Iterator[Manifest]:
        template: dict[str, Any] = {
            "metadata": {"labels": {"app": "r1"}},
            "spec": {"containers": [{"name": "engine", "image": "none"}], "terminationGracePeriodSeconds": 0},
        }
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "r1"}
        spec: dict[str, Any] = {"selector": {"matchLabels": {"app": "r1"}}, "template": template}
        if self.failure.needs == "readiness gate":
            template["spec"]["readinessGates"] = [{"conditionType": "longtail.dev/in-service"}]
        if self.failure.needs == "LeaderWorkerSet":
            target |= {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet"}
            spec = {"leaderWorkerTemplate": {"workerTemplate": template}}
        yield {
            "apiVersion": target["apiVersion"],
            "kind": target["kind"],
            "metadata": {"name": "r1"},
            "spec": spec,
        }
        yield {
            "apiVersion": "longtail.dev/v1alpha1",
            "kind": "ReasoningServing",
            "metadata": {"name": "r1"},
            "spec": {
                "mode": "Active",
                "scaleTargetRef": target,
                "minReplicas": 2,
                "maxReplicas": 2,
                # Levels that all limit something, so that there is something to publish in calm times.
                "effort": {"policy": "Publish", "levels": LEVELS},
            },
        }


@pytest.fixture
def kinds(cluster: Cluster) -> Iterator[None]:
    apply_definition(cluster, crds=ROOT / "crds")
    with established(cluster.kubectl, serving_definitions()):
        yield


@pytest.fixture
def trials(cluster: Cluster, helm: Helm, kinds: None) -> Iterator[list[Trial]]:
    """One of all rules, and one without each."""
    placeholder, suffix = "namespace-of-a-trial", uuid.uuid4().hex[:6]
    rights = operators_own(helm.template({}, namespace=placeholder))
    rules = [rule for manifest in rights for rule in manifest.get("rules", ())]
    assert sorted(map(name_of, rules)) == sorted(FAILURES), "a rule without its failure, or the other way round"
    made = [
        Trial(rule=rule, failure=FAILURES[name_of(rule)] if rule else NONE, namespace=f"rules-{suffix}-{number}")
        for number, rule in enumerate([None, *rules])
    ]
    manifests = [
        manifest
        for trial in made
        for manifest in trial.manifests(json.loads(json.dumps(rights).replace(placeholder, trial.namespace)))
    ]
    cluster.kubectl.apply(*manifests)
    (groups,) = (trial.namespace for trial in made if trial.failure.needs == "LeaderWorkerSet")
    # Its controller would: without a selector it is no target.
    selector = json.dumps({"status": {"hpaPodSelector": "app=r1"}})
    cluster.kubectl(
        *("patch", "leaderworkerset", "r1", "-n", groups, "--subresource=status", "--type=merge"), "-p", selector
    )
    yield made
    cluster.kubectl("delete", "namespace", "--wait=false", *(trial.namespace for trial in made))
    for kind in ("clusterrole", "clusterrolebinding"):
        cluster.kubectl("delete", kind, *(f"{trial.namespace}-longtail" for trial in made))


def test_in_a_list_of_namespaces_the_rules_are_the_same_but_for_definitions(helm: Helm) -> None:
    """So what is shown of the ones holds of the others."""

    def rules(values: dict[str, Any]) -> list[Manifest]:
        rights = operators_own(helm.template(values, namespace="here"))
        return [rule for manifest in rights for rule in manifest.get("rules", ())]

    everywhere, listed = rules({}), rules({"watchNamespaces": ["there"]})
    assert [name_of(rule) for rule in everywhere if rule not in listed] == ["list, watch customresourcedefinitions"]
    assert [rule for rule in listed if rule not in everywhere] == []


AGGREGATED = {"view": ("get", "list", "watch"), "edit": ("create", "patch", "delete"), "admin": ("create", "delete")}


@pytest.mark.usefixtures("kinds")
def test_people_get_the_resource_with_the_roles_they_have_and_only_by_the_chart(
    cluster: Cluster, helm: Helm, namespace: str
) -> None:
    def can(role: str, verb: str) -> str:
        arguments = ("auth", "can-i", verb, "reasoningservings.longtail.dev", "-n", namespace, f"--as={role}")
        return cluster.kubectl.run(*arguments).stdout.strip()

    def those_who_can() -> set[str]:
        return {role for role, verbs in AGGREGATED.items() if {can(role, verb) for verb in verbs} == {"yes"}}

    for role in AGGREGATED:
        cluster.kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}", "-n", namespace)
    rendered = helm.template({}, namespace=namespace)
    roles = [each for each in rendered if each["metadata"]["name"] in {f"{namespace}-longtail-{r}" for r in AGGREGATED}]
    assert those_who_can() == set()
    cluster.kubectl.apply(*roles)
    try:
        # Gathered by a controller.
        wait_until(lambda: those_who_can() == set(AGGREGATED), timeout_seconds=30, what="roles to be aggregated")
        assert can("view", "create") == "no"
    finally:
        cluster.kubectl("delete", "clusterrole", *(role["metadata"]["name"] for role in roles))


def test_without_any_one_rule_the_operator_fails_and_says_at_what(cluster: Cluster, trials: list[Trial]) -> None:
    began = cluster.control_plane.audit_log.stat().st_size
    # Last and alone, because it looks at all namespaces.
    narrow, wide = [t for t in trials if not t.failure.everywhere], [t for t in trials if t.failure.everywhere]
    batches = [narrow[at : at + AT_A_TIME] for at in range(0, len(narrow), AT_A_TIME)]
    for batch in (*batches, wide):
        operators = {trial: start(cluster, trial) for trial in batch}
        try:
            # First those that get ready: the others have had as much time by then.
            for trial in sorted(batch, key=lambda trial: not trial.failure.ready):
                wait_for_failure(cluster, trial, operators[trial], since_bytes=began)
        finally:
            for operator in operators.values():
                # How it ends is of no interest here, and would take five seconds each.
                cluster.processes[operator.name].popen.kill()
                cluster.processes.stop(operator.name)


def start(cluster: Cluster, trial: Trial) -> Operator:
    flags = ["--backfill-seconds=0"]
    if not trial.failure.everywhere:
        flags += [f"--namespaces={trial.namespace}"]
    operator = Operator(
        cluster, interval_seconds=2.0, name=trial.namespace, lease_namespace=trial.namespace, flags=flags
    )
    kubeconfig = cluster.service_account_kubeconfig(trial.namespace, "longtail")
    source = {"url": cluster.prometheus_url, "scrapeIntervalSeconds": 1.0}
    operator.start(kubeconfig=kubeconfig, sources={"default": source}, wait=False)
    return operator


def wait_for_failure(cluster: Cluster, trial: Trial, operator: Operator, *, since_bytes: int) -> None:
    """Until it is refused what it lost, nothing else, and says so."""
    log = cluster.processes[operator.name].log
    lost = set(written([trial.rule] if trial.rule else []))
    audited = any(resource not in UNLOGGED for _, resource, _ in lost)
    refused: set[Right] = set()
    sizes = itertools.count(3)

    def failed() -> bool:
        nonlocal refused
        refused = asked(cluster.control_plane, trial.user, allowed=False, since_bytes=since_bytes)
        says = re.search(trial.failure.says, log.read_text()) is not None
        if not says and trial.failure.needs == GROWTH:
            size = next(sizes)
            patch = json.dumps({"spec": {"minReplicas": size, "maxReplicas": size}})
            cluster.kubectl("patch", "rsv", "r1", "-n", trial.namespace, "--type=merge", "-p", patch)
        return says and bool(refused) == audited and operator.is_ready() == trial.failure.ready

    what = f"an operator without: {name_of(trial.rule) if trial.rule else 'nothing'}"
    try:
        wait_until(failed, timeout_seconds=120.0, what=what, interval_seconds=0.5)
    except NotYetError as late:
        raise NotYetError(f"{late}; refused {refused}\n{log.read_text()}") from late
    assert refused <= lost, what
