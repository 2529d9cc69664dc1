"""Rights as single triples: what roles write down, and what the API server has allowed or refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from longtail_e2e.controlplane import ControlPlane

Manifest = dict[str, Any]
Right = tuple[str, str, str]
"""API group, resource with its subresource, verb."""

KINDS = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


def operators_own(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Account, roles and bindings of the operator in a rendered chart, without the roles that are for people."""
    labels = [(manifest, manifest["metadata"].get("labels", {})) for manifest in manifests if manifest["kind"] in KINDS]
    return [manifest for manifest, of in labels if not any("aggregate-to-" in label for label in of)]


def written(rules: Iterable[Manifest]) -> list[Right]:
    """Every single right of some rules."""
    return [
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


def asked(control_plane: ControlPlane, user: str, *, allowed: bool, since_bytes: int = 0) -> set[Right]:
    """What a user asked of the API server, and was allowed or refused; Leases and Events are not logged.

    Args:
        control_plane: whose audit log to read.
        user: its full name.
        allowed: or refused.
        since_bytes: how long the log was when it began to matter.
    """
    verdict = "allow" if allowed else "forbid"
    rights = set()
    for event in control_plane.audit_events(since_bytes=since_bytes):
        what = event.get("objectRef")
        decided = event.get("annotations", {}).get("authorization.k8s.io/decision")
        if event["user"]["username"] == user and what and decided == verdict:
            resource = "/".join(filter(None, (what.get("resource"), what.get("subresource"))))
            rights.add((what.get("apiGroup", ""), resource, event["verb"]))
    return rights
