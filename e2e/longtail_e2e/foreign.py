"""Definitions of other projects' kinds, as small as tests of ours need them: the fields that we write or read."""

from __future__ import annotations

from typing import Any

_ANY = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_TEXT = {"type": "string"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_MATCH = {
    "type": "object",
    "properties": {
        "matchLabels": _TEXTS,
        "matchExpressions": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "key": _TEXT,
                    "operator": {"type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
                    "values": {"type": "array", "items": _TEXT},
                },
                "required": ["key", "operator"],
            },
        },
    },
}
_NAMESPACES = {
    "type": "object",
    "properties": {"any": {"type": "boolean"}, "matchNames": {"type": "array", "items": _TEXT}},
}
_RELABELINGS = {"type": "array", "items": _ANY}
_DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"}
_ENDPOINT = {
    "type": "object",
    "properties": {
        "port": _TEXT,
        "path": _TEXT,
        "interval": _DURATION,
        "honorLabels": {"type": "boolean"},
        "relabelings": _RELABELINGS,
        "metricRelabelings": _RELABELINGS,
    },
}
_ALERTING_RULE = {
    "type": "object",
    "properties": {
        "alert": _TEXT,
        "record": _TEXT,
        "expr": {"x-kubernetes-int-or-string": True},
        "for": _DURATION,
        "labels": _TEXTS,
        "annotations": _TEXTS,
    },
    "required": ["expr"],
}
_GROUP = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "rules": {"type": "array", "items": _ALERTING_RULE}},
    "required": ["name"],
}


def monitoring_definitions() -> list[dict[str, Any]]:
    """Kinds of the Prometheus operator. Fields that are not spelled out here are refused, as by its own."""
    group = "monitoring.coreos.com"
    specs = {
        "ServiceMonitor": {"selector": _MATCH, "namespaceSelector": _NAMESPACES, "endpoints": _list(_ENDPOINT)},
        "PodMonitor": {"selector": _MATCH, "namespaceSelector": _NAMESPACES, "podMetricsEndpoints": _list(_ENDPOINT)},
        "PrometheusRule": {"groups": _list(_GROUP)},
    }
    return [
        _definition(group, "v1", kind, f"{kind.lower()}s", {"spec": {"type": "object", "properties": properties}})
        for kind, properties in specs.items()
    ]


def serving_definitions() -> list[dict[str, Any]]:
    """Kinds that the operator watches where a cluster has them."""
    scale = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.hpaPodSelector",
    }
    replicas = {"type": "object", "properties": {"replicas": {"type": "integer"}}}
    group = replicas | {"x-kubernetes-preserve-unknown-fields": True}
    return [
        _definition(
            "leaderworkerset.x-k8s.io",
            "v1",
            "LeaderWorkerSet",
            "leaderworkersets",
            {"spec": group, "status": group},
            scale=scale,
        ),
        _definition("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects", {"spec": _ANY}),
        _definition("inference.networking.k8s.io", "v1", "InferencePool", "inferencepools", {"spec": _ANY}),
    ]


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _definition(
    group: str, version: str, kind: str, plural: str, properties: dict[str, Any], *, scale: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # Without it the API server keeps the suffix k8s.io to itself.
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in for tests"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
                    "subresources": {"status": {}} | ({"scale": scale} if scale else {}),
                }
            ],
        },
    }
