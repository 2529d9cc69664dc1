"""The frozen world of one tick: every resource with its target, its pods and whatever is wrong with it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from longtail.cluster.conflicts import find_conflicts
from longtail.cluster.records import PodRecord, ScaleRecord, ServingRecord, TargetKey
from longtail.cluster.routing import Routing, look
from longtail.cluster.store import Store
from longtail.cluster.targets import Problem, Targets
from longtail.policy.fleet import ServiceKey


@dataclass(frozen=True, slots=True)
class ServingView:
    """One resource at one tick. ``target`` is None exactly when ``problem`` says why."""

    record: ServingRecord
    target: ScaleRecord | None
    problem: Problem | None
    """Why it cannot be decided at all."""
    conflict: Problem | None
    """Why a decision may not be carried out."""
    pods: Sequence[PodRecord] = ()
    routing: Routing | None = None
    """How its pods are taken out of routing; None without a target."""


def freeze(store: Store, targets: Targets) -> Mapping[ServiceKey, ServingView]:
    """Join what is known now. Records are immutable, so nothing that happens later changes the result."""
    servings = store.servings()
    conflicts = find_conflicts(servings, store.scalers())
    views = {serving.key: _view(serving, store, targets, conflicts) for serving in servings}
    ambiguous = _claimed_twice(views.values())
    return {
        key: view if view.target is None or view.target.key not in ambiguous else _ambiguous(view)
        for key, view in views.items()
    }


def _view(
    serving: ServingRecord, store: Store, targets: Targets, conflicts: Mapping[ServiceKey, Problem]
) -> ServingView:
    conflict = conflicts.get(serving.key)
    reference = serving.target
    if reference is None:
        problem = Problem("InvalidSpec", serving.spec_error or "spec: cannot be used")
        return ServingView(record=serving, target=None, problem=problem, conflict=conflict)
    found = targets.look_up(reference)
    if isinstance(found, Problem):
        return ServingView(record=serving, target=None, problem=found, conflict=conflict)
    if found.selector is None:
        problem = Problem("SelectorRequired", f"{found.key} does not say which pods are its own")
        return ServingView(record=serving, target=None, problem=problem, conflict=conflict)
    assert serving.spec is not None
    routing, pods = look(
        target=found,
        pods=store.pods(namespace=serving.key.namespace, selector=found.selector),
        label=serving.spec.drain.routing_label,
        store=store,
    )
    return ServingView(record=serving, target=found, problem=None, conflict=conflict, pods=pods, routing=routing)


def _claimed_twice(views: Iterable[ServingView]) -> set[TargetKey]:
    """Targets whose selectors share a pod: its load would be counted for both."""
    owners: dict[str, TargetKey] = {}
    ambiguous: set[TargetKey] = set()
    for view in views:
        if view.target is None:
            continue
        for pod in view.pods:
            owner = owners.setdefault(pod.uid, view.target.key)
            if owner != view.target.key:
                ambiguous |= {owner, view.target.key}
    return ambiguous


def _ambiguous(view: ServingView) -> ServingView:
    assert view.target is not None
    problem = Problem("AmbiguousSelector", f"the selector of {view.target.key} matches pods of another target")
    return ServingView(record=view.record, target=None, problem=problem, conflict=view.conflict)
