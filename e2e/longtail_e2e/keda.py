"""What KEDA does with a ScaledObject of one Prometheus trigger: an HPA, and the metrics API that the HPA asks.

KEDA itself is no part of the test cluster, but what acts is real: the HPA controller, and the Prometheus that answers
the trigger's query. Left out is what only KEDA does: activation (0 to 1 and back) and fallback.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Self

from longtail_e2e.aggregation import METRICS_GROUP, AggregatedApi, external_metric
from longtail_e2e.cluster import Cluster

_METRIC: Final = re.compile(rf"/apis/{'/'.join(METRICS_GROUP)}/namespaces/[^/]+/s0-prometheus(\?.*)?")


class KedaStandIn:
    """Acts on one ScaledObject until the block ends."""

    def __init__(self, cluster: Cluster, scaled_object: Mapping[str, Any], *, namespace: str) -> None:
        self._cluster = cluster
        self._scaled_object = scaled_object
        self._namespace = namespace
        (self._trigger,) = scaled_object["spec"]["triggers"]
        self._api = AggregatedApi(cluster, groups={METRICS_GROUP: []}, answer=self._answer)

    def __enter__(self) -> Self:
        self._api.__enter__()
        try:
            self._cluster.kubectl("apply", "-n", self._namespace, "-f", "-", manifests=self.hpa())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        name = f"hpa/{self.hpa()['metadata']['name']}"
        self._cluster.kubectl("delete", name, "-n", self._namespace, "--ignore-not-found")
        self._api.__exit__()

    def hpa(self) -> dict[str, Any]:
        """The HPA that KEDA makes of it."""
        name, spec = self._scaled_object["metadata"]["name"], self._scaled_object["spec"]
        target = {"apiVersion": "apps/v1", "kind": "Deployment"} | spec["scaleTargetRef"]
        metric = {"name": "s0-prometheus", "selector": {"matchLabels": {"scaledobject.keda.sh/name": name}}}
        threshold = {"type": self._trigger["metricType"], "averageValue": self._trigger["metadata"]["threshold"]}
        return {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": f"keda-hpa-{name}"},
            "spec": {
                "scaleTargetRef": target,
                "minReplicas": spec["minReplicaCount"],
                "maxReplicas": spec["maxReplicaCount"],
                "metrics": [{"type": "External", "external": {"metric": metric, "target": threshold}}],
                "behavior": spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
            },
        }

    def _answer(self, method: str, path: str, _: Mapping[str, Any] | None) -> dict[str, Any] | None:
        if method != "GET" or not _METRIC.fullmatch(path):
            return None
        value = self._cluster.prometheus.value(self._trigger["metadata"]["query"])
        if value is None:
            return None  # ignoreNullValues: "false"
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return external_metric("s0-prometheus", [f"{value * 1000:.0f}m"], time=now)
