"""The kinds of object that are watched, and the paths under which the API server serves them."""

from dataclasses import dataclass
from typing import Final

from longtail.api.resource import GROUP, KIND, PLURAL, VERSION


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind in one version. ``optional``: clusters without it are complete."""

    group: str
    version: str
    kind: str
    plural: str
    optional: bool = False

    def path(self, *, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """URL path of a list, an object or its subresource.

        >>> DEPLOYMENTS.path(namespace="inference", name="r1", subresource="scale")
        '/apis/apps/v1/namespaces/inference/deployments/r1/scale'
        """
        prefix = f"/apis/{self.group}" if self.group else "/api"
        parts = [prefix, self.version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)

    @property
    def api_version(self) -> str:
        """Group and version as manifests write them."""
        return f"{self.group}/{self.version}" if self.group else self.version


SERVINGS: Final = Kind(GROUP, VERSION, KIND, PLURAL)
PODS: Final = Kind("", "v1", "Pod", "pods")
DEPLOYMENTS: Final = Kind("apps", "v1", "Deployment", "deployments")
STATEFUL_SETS: Final = Kind("apps", "v1", "StatefulSet", "statefulsets")
LEADER_WORKER_SETS: Final = Kind("leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet", "leaderworkersets", optional=True)
HPAS: Final = Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
SCALED_OBJECTS: Final = Kind("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects", optional=True)
SERVICES: Final = Kind("", "v1", "Service", "services")
INFERENCE_POOLS: Final = Kind("inference.networking.k8s.io", "v1", "InferencePool", "inferencepools", optional=True)

CONFIG_MAPS: Final = Kind("", "v1", "ConfigMap", "configmaps")
"""Written only, and read by name: never watched."""

WORKLOADS: Final = (DEPLOYMENTS, STATEFUL_SETS, LEADER_WORKER_SETS)
"""Targets that are watched. Any other kind with /scale works too, by asking for its /scale (see targets)."""
SCALERS: Final = (HPAS, SCALED_OBJECTS)
ROUTERS: Final = (SERVICES, INFERENCE_POOLS)
"""What sends requests to the pods that its selector matches."""
WATCHED: Final = (SERVINGS, PODS, *WORKLOADS, *SCALERS, *ROUTERS)
