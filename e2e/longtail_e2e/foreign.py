"""Definitions of other projects' kinds, as small as tests of ours need them: the fields that we write or read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from longtail_e2e.kubectl import Kubectl

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

_COUNT = {"type": "integer", "minimum": 0}
_COUNT_OR_PERCENT = {"x-kubernetes-int-or-string": True}
_POD_TEMPLATE = {
    "type": "object",
    "properties": {
        "metadata": {"type": "object", "properties": {"labels": _TEXTS, "annotations": _TEXTS}},
        # As large as the rest of Kubernetes: try it as a Pod.
        "spec": _ANY,
    },
}
_GROUPS = {
    "type": "object",
    "properties": {
        "replicas": _COUNT | {"default": 1},
        "startupPolicy": {"type": "string", "enum": ["LeaderCreated", "LeaderReady"]},
        "rolloutStrategy": {
            "type": "object",
            "properties": {
                "type": {"type": "string", "enum": ["RollingUpdate"]},
                "rollingUpdateConfiguration": {
                    "type": "object",
                    "properties": {
                        "partition": _COUNT,
                        "maxUnavailable": _COUNT_OR_PERCENT,
                        "maxSurge": _COUNT_OR_PERCENT,
                    },
                },
            },
        },
        "leaderWorkerTemplate": {
            "type": "object",
            "properties": {
                "size": {"type": "integer", "minimum": 1},
                "restartPolicy": {
                    "type": "string",
                    "enum": ["Default", "None", "RecreateGroupOnPodRestart", "RecreateGroupAfterStart"],
                },
                "leaderTemplate": _POD_TEMPLATE,
                "workerTemplate": _POD_TEMPLATE,
            },
            "required": ["workerTemplate"],
        },
    },
    "required": ["leaderWorkerTemplate"],
}
_GROUPS_STATUS = {
    "type": "object",
    "properties": {
        "replicas": _COUNT,
        "readyReplicas": _COUNT,
        "updatedReplicas": _COUNT,
        "observedGeneration": _COUNT,
        "hpaPodSelector": _TEXT,
    },
}
_PORT = {
    "type": "object",
    "properties": {"number": {"type": "integer", "minimum": 1, "maximum": 65535}},
    "required": ["number"],
}
_POOL = {
    "type": "object",
    "properties": {
        "selector": {"type": "object", "properties": {"matchLabels": _TEXTS}, "required": ["matchLabels"]},
        "targetPorts": {"type": "array", "minItems": 1, "maxItems": 8, "items": _PORT},
        "endpointPickerRef": {
            "type": "object",
            "properties": {
                "group": _TEXT | {"default": ""},
                "kind": _TEXT | {"default": "Service"},
                "name": _TEXT | {"minLength": 1},
                "port": _PORT,
                "failureMode": {"type": "string", "enum": ["FailOpen", "FailClose"], "default": "FailClose"},
            },
            "required": ["name"],
            "x-kubernetes-validations": [
                {"rule": "self.kind != 'Service' || has(self.port)", "message": "a Service needs its port"}
            ],
        },
    },
    "required": ["selector", "targetPorts", "endpointPickerRef"],
}
_SCALING_RULES = {
    "type": "object",
    "properties": {
        "stabilizationWindowSeconds": _COUNT | {"maximum": 3600},
        "selectPolicy": {"type": "string", "enum": ["Max", "Min", "Disabled"]},
        "tolerance": {"x-kubernetes-int-or-string": True},
        "policies": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "type": {"type": "string", "enum": ["Pods", "Percent"]},
                    "value": _COUNT,
                    "periodSeconds": _COUNT | {"maximum": 1800},
                },
                "required": ["type", "value", "periodSeconds"],
            },
        },
    },
}
_HPA = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        "behavior": {"type": "object", "properties": {"scaleUp": _SCALING_RULES, "scaleDown": _SCALING_RULES}},
    },
}
_SCALED_OBJECT = {
    "type": "object",
    "properties": {
        "scaleTargetRef": {
            "type": "object",
            "properties": {"apiVersion": _TEXT, "kind": _TEXT, "name": _TEXT, "envSourceContainerName": _TEXT},
            "required": ["name"],
        },
        "pollingInterval": _COUNT,
        "cooldownPeriod": _COUNT,
        "initialCooldownPeriod": _COUNT,
        "idleReplicaCount": _COUNT,
        "minReplicaCount": _COUNT,
        "maxReplicaCount": _COUNT,
        "fallback": {
            "type": "object",
            "properties": {
                "failureThreshold": _COUNT,
                "replicas": _COUNT,
                "behavior": {
                    "type": "string",
                    "enum": ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"],
                },
            },
            "required": ["failureThreshold", "replicas"],
        },
        "advanced": {
            "type": "object",
            "properties": {
                "restoreToOriginalReplicaCount": {"type": "boolean"},
                "horizontalPodAutoscalerConfig": _HPA,
            },
        },
        "triggers": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "type": _TEXT,
                    "name": _TEXT,
                    "metricType": {"type": "string", "enum": ["AverageValue", "Value", "Utilization"]},
                    "useCachedMetrics": {"type": "boolean"},
                    # Numbers are text here, as in KEDA's own.
                    "metadata": _TEXTS,
                    "authenticationRef": {
                        "type": "object",
                        "properties": {"name": _TEXT, "kind": _TEXT},
                        "required": ["name"],
                    },
                },
                "required": ["type", "metadata"],
            },
        },
    },
    "required": ["scaleTargetRef", "triggers"],
}


@contextmanager
def established(kubectl: Kubectl, definitions: Sequence[dict[str, Any]]) -> Iterator[None]:
    """Have the kinds in the cluster until the block ends."""
    names = [f"crd/{definition['metadata']['name']}" for definition in definitions]
    kubectl.apply(*definitions)
    kubectl.wait_until_served(*names)
    yield
    kubectl("delete", *names)


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
    """Kinds that the operator watches where a cluster has them. Here too a field that is not spelled out is refused."""
    return [
        _definition(
            "leaderworkerset.x-k8s.io",
            "v1",
            "LeaderWorkerSet",
            "leaderworkersets",
            {"spec": _GROUPS, "status": _GROUPS_STATUS},
            scale={
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.hpaPodSelector",
            },
        ),
        _definition("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects", {"spec": _SCALED_OBJECT}),
        _definition("inference.networking.k8s.io", "v1", "InferencePool", "inferencepools", {"spec": _POOL}),
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
