"""Manifests that must be taken and manifests that must be refused, one table for both judges.

`test_spec.py` tries them on the models, `e2e/tests/test_crd_e2e.py` on a real API server: a rule that only
one of the two knows is a rule that somebody will run into. ``blames`` must be part of either's message.
"""

from dataclasses import dataclass, field
from typing import Any

Spec = dict[str, Any]


def minimal(**over: Any) -> Spec:
    """The smallest useful spec, with some fields replaced; a value of ... removes the field."""
    spec: Spec = {"scaleTargetRef": {"name": "r1"}, "maxReplicas": 24}
    return {name: value for name, value in (spec | over).items() if value is not ...}


def up(**rules: Any) -> Spec:
    return minimal(behavior={"scaleUp": rules})


def down(**rules: Any) -> Spec:
    return minimal(behavior={"scaleDown": rules})


def custom(**over: Any) -> Spec:
    names = {"runningRequests": "my_running", "waitingRequests": "my:waiting"} | over
    return minimal(engine={"type": "Custom", "custom": {k: v for k, v in names.items() if v is not ...}})


def policy(**over: Any) -> Spec:
    one = {"type": "Pods", "value": 4, "periodSeconds": 60} | over
    return up(policies=[{name: value for name, value in one.items() if value is not ...}])


@dataclass(frozen=True)
class Refused:
    id: str
    spec: Spec = field(repr=False)
    blames: str


ACCEPTED: dict[str, Spec] = {
    "the-smallest": minimal(),
    "every-field": minimal(
        mode="Active",
        scaleTargetRef={"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "name": "r1"},
        minReplicas=2,
        engine={"type": "VLLM"},
        gateway={"inferencePool": "r1-pool"},
        metricsSource="thanos-eu",
        objective={
            "queueWaitSeconds": 5,
            "attainmentPercent": 95,
            "timePerOutputTokenMilliseconds": 30,
        },
        capacity={"maxConcurrentRequests": 64, "kvCacheTokens": 400_000},
        lengths={"meanOutputTokens": 9000, "maxOutputTokens": 65_536},
        startup={"seconds": 240},
        behavior={
            "scaleUp": {
                "stabilizationWindowSeconds": 30,
                "selectPolicy": "Min",
                "policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}],
                "tolerance": "0.05",
            },
            "scaleDown": {
                "stabilizationWindowSeconds": 600,
                "selectPolicy": "Disabled",
                "policies": [{"type": "Percent", "value": 10, "periodSeconds": 1800}],
                "tolerance": "100m",
            },
        },
    ),
    "min-equals-max": minimal(minReplicas=24),
    "min-by-default-equals-max": minimal(maxReplicas=1),
    "off": minimal(mode="Off"),
    "sglang": minimal(engine={"type": "SGLang"}),
    "custom-engine": custom(),
    "custom-engine-with-every-name": custom(
        kvCacheUsageRatio="my_kv_ratio",
        kvCacheUsedTokens="my_kv_used",
        kvCacheCapacityTokens="my_kv_size",
        generatedTokens="my_tokens_total",
        preemptions="my_preemptions_total",
        outputTokens="my_output_tokens",
        queueWaitSeconds="my_wait_seconds",
        firstTokenSeconds="my_first_token_seconds",
        namespaceLabel="k8s_namespace_name",
        podLabel="k8s_pod_name",
    ),
    "a-target-of-any-kind": minimal(
        scaleTargetRef={"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "r1.eu"}
    ),
    "the-core-group-has-no-name": minimal(
        scaleTargetRef={"apiVersion": "v1", "kind": "ReplicationController", "name": "r1"}
    ),
    "window-at-its-bounds": minimal(
        behavior={
            "scaleUp": {"stabilizationWindowSeconds": 3600},
            "scaleDown": {"stabilizationWindowSeconds": 0},
        }
    ),
    "period-at-its-bounds": up(
        policies=[
            {"type": "Pods", "value": 1, "periodSeconds": 1},
            {"type": "Percent", "value": 900, "periodSeconds": 1800},
        ]
    ),
    "tolerance-as-an-integer": up(tolerance=0),
    "mean-length-equals-the-longest": minimal(lengths={"meanOutputTokens": 100, "maxOutputTokens": 100}),
    "empty-blocks-mean-defaults": minimal(
        engine={},
        objective={},
        capacity={},
        lengths={},
        startup={},
        behavior={"scaleUp": {}, "scaleDown": {}},
    ),
}

REFUSED: tuple[Refused, ...] = (
    Refused("no-target", minimal(scaleTargetRef=...), "spec.scaleTargetRef"),
    Refused("no-max", minimal(maxReplicas=...), "spec.maxReplicas"),
    Refused(
        "target-without-a-name", minimal(scaleTargetRef={"kind": "Deployment"}), "spec.scaleTargetRef.name"
    ),
    Refused("target-name-no-dns-name", minimal(scaleTargetRef={"name": "R1_x"}), "spec.scaleTargetRef.name"),
    Refused(
        "target-kind-in-lower-case",
        minimal(scaleTargetRef={"name": "r1", "kind": "deployment"}),
        "spec.scaleTargetRef.kind",
    ),
    Refused(
        "target-api-version-without-version",
        minimal(scaleTargetRef={"name": "r1", "apiVersion": "apps"}),
        "spec.scaleTargetRef.apiVersion",
    ),
    Refused("min-zero", minimal(minReplicas=0), "spec.minReplicas"),
    Refused("max-zero", minimal(maxReplicas=0), "spec.maxReplicas"),
    Refused("min-above-max", minimal(minReplicas=25), "minReplicas must not exceed maxReplicas"),
    Refused("max-is-a-word", minimal(maxReplicas="many"), "spec.maxReplicas"),
    Refused("max-is-a-fraction", minimal(maxReplicas=2.5), "spec.maxReplicas"),
    Refused("max-beyond-reason", minimal(maxReplicas=10_001), "spec.maxReplicas"),
    Refused("unknown-mode", minimal(mode="Auto"), "spec.mode"),
    Refused("unknown-engine", minimal(engine={"type": "TGI"}), "spec.engine.type"),
    Refused("custom-without-names", minimal(engine={"type": "Custom"}), "engine.custom names the series"),
    Refused(
        "names-without-custom",
        minimal(engine={"type": "VLLM", "custom": {"runningRequests": "a", "waitingRequests": "b"}}),
        "engine.custom names the series",
    ),
    Refused("custom-without-running", custom(runningRequests=...), "spec.engine.custom.runningRequests"),
    Refused("custom-without-waiting", custom(waitingRequests=...), "spec.engine.custom.waitingRequests"),
    Refused(
        "a-query-where-a-name-belongs",
        custom(runningRequests='x{a="b"}'),
        "spec.engine.custom.runningRequests",
    ),
    Refused("a-label-with-a-dash", custom(podLabel="pod-name"), "spec.engine.custom.podLabel"),
    Refused("gateway-without-a-pool", minimal(gateway={}), "spec.gateway.inferencePool"),
    Refused("metrics-source-as-a-url", minimal(metricsSource="http://prometheus:9090"), "spec.metricsSource"),
    Refused("no-wait-at-all", minimal(objective={"queueWaitSeconds": 0}), "spec.objective.queueWaitSeconds"),
    Refused(
        "wait-of-hours", minimal(objective={"queueWaitSeconds": 3601}), "spec.objective.queueWaitSeconds"
    ),
    Refused(
        "attainment-of-always",
        minimal(objective={"attainmentPercent": 100}),
        "spec.objective.attainmentPercent",
    ),
    Refused(
        "attainment-below-half",
        minimal(objective={"attainmentPercent": 49}),
        "spec.objective.attainmentPercent",
    ),
    Refused(
        "pace-of-zero",
        minimal(objective={"timePerOutputTokenMilliseconds": 0}),
        "spec.objective.timePerOutputTokenMilliseconds",
    ),
    Refused(
        "no-slots", minimal(capacity={"maxConcurrentRequests": 0}), "spec.capacity.maxConcurrentRequests"
    ),
    Refused("no-cache", minimal(capacity={"kvCacheTokens": 0}), "spec.capacity.kvCacheTokens"),
    Refused("mean-length-of-zero", minimal(lengths={"meanOutputTokens": 0}), "spec.lengths.meanOutputTokens"),
    Refused(
        "mean-length-above-the-longest",
        minimal(lengths={"meanOutputTokens": 200, "maxOutputTokens": 100}),
        "lengths.meanOutputTokens must not exceed lengths.maxOutputTokens",
    ),
    Refused(
        "mean-length-by-default-above-the-longest",
        minimal(lengths={"maxOutputTokens": 100}),
        "lengths.meanOutputTokens must not exceed lengths.maxOutputTokens",
    ),
    Refused("startup-of-zero", minimal(startup={"seconds": 0}), "spec.startup.seconds"),
    Refused("startup-of-days", minimal(startup={"seconds": 86_401}), "spec.startup.seconds"),
    Refused(
        "window-too-long",
        down(stabilizationWindowSeconds=3601),
        "spec.behavior.scaleDown.stabilizationWindowSeconds",
    ),
    Refused(
        "window-negative",
        up(stabilizationWindowSeconds=-1),
        "spec.behavior.scaleUp.stabilizationWindowSeconds",
    ),
    Refused("unknown-select-policy", down(selectPolicy="Median"), "spec.behavior.scaleDown.selectPolicy"),
    Refused("no-policies", up(policies=[]), "spec.behavior.scaleUp.policies"),
    Refused("period-too-long", policy(periodSeconds=1801), "periodSeconds"),
    Refused("period-of-zero", policy(periodSeconds=0), "periodSeconds"),
    Refused("policy-of-nothing", policy(value=0), "value"),
    Refused("policy-without-a-type", policy(type=...), "type"),
    Refused("policy-of-an-unknown-type", policy(type="GPUs"), "type"),
    Refused(
        "too-many-policies",
        up(policies=[{"type": "Pods", "value": n, "periodSeconds": 60} for n in range(1, 18)]),
        "spec.behavior.scaleUp.policies",
    ),
    Refused("tolerance-negative", up(tolerance=-1), "spec.behavior.scaleUp.tolerance"),
    Refused("tolerance-as-text", down(tolerance="ten percent"), "spec.behavior.scaleDown.tolerance"),
    Refused("tolerance-as-a-float", down(tolerance=0.05), "spec.behavior.scaleDown.tolerance"),
)
