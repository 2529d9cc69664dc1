"""The pools of one namespace as the API server and the engines show them, looked at all at once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import requests
import yaml

from longtail_e2e.drains import COST, LABEL
from longtail_e2e.processes import wait_until
from longtail_e2e.world import World


class Pools:
    """The pools of one namespace, looked at with one request for all of them."""

    def __init__(self, world: World, names: list[str]) -> None:
        self.world = world
        self.names = names
        user = yaml.safe_load(world.cluster.kubeconfig.read_text())["users"][0]["user"]
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.headers["Authorization"] = f"Bearer {user['token']}"
        self._http.verify = str(world.cluster.control_plane.certificate_authority)
        self._pods: dict[str, list[dict[str, Any]]] = {}
        self._seen_at = -math.inf

    def look(self) -> None:
        """See the pods as they are now, however short a time ago the last look was."""
        self._seen_at = -math.inf

    def pods(self, name: str) -> list[dict[str, Any]]:
        """Living pods of a pool, at most half a second old."""
        if time.monotonic() - self._seen_at > 0.5:
            self._seen_at = time.monotonic()
            url = f"{self.world.cluster.api_url}/api/v1/namespaces/{self.world.namespace}/pods?resourceVersion=0"
            found: dict[str, list[dict[str, Any]]] = {}
            for pod in self._http.get(url, timeout=10.0).json()["items"]:
                if "deletionTimestamp" not in pod["metadata"]:
                    found.setdefault(pod["metadata"]["labels"]["app"], []).append(pod)
            self._pods = found
        return self._pods.get(name, [])

    def cordoned(self, name: str) -> set[str]:
        """Pods of a pool that are out of routing."""
        return {p["metadata"]["name"] for p in self.pods(name) if p["metadata"]["labels"].get(LABEL) == "draining"}

    def condemned(self, name: str) -> set[str]:
        """Pods of a pool that are marked for deletion."""
        return {p["metadata"]["name"] for p in self.pods(name) if COST in p["metadata"].get("annotations", {})}

    def serving(self, name: str) -> int:
        """Ready pods of a pool that get requests."""
        return sum(
            p["metadata"]["labels"].get(LABEL) == "true"
            and any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", []))
            for p in self.pods(name)
        )

    def marks(self) -> list[str]:
        """Everything of ours that is on a pod, and every pod out of routing."""
        return [
            f"{pod['metadata']['name']}: {key}"
            for name in self.names
            for pod in self.pods(name)
            for key in (*pod["metadata"].get("annotations", {}), f"label={pod['metadata']['labels'].get(LABEL)}")
            if key == "label=draining"
            or key.startswith("longtail.dev/")
            or "deletion-cost" in key
            or "disrupt" in key
            or "evict" in key
        ]

    def state(self) -> dict[str, Any]:
        """What each pool has come to: replicas asked for, and routing label and annotations of each pod."""
        self.look()

        def of(pod: dict[str, Any]) -> tuple[str, tuple[tuple[str, str], ...]]:
            metadata = pod["metadata"]
            return metadata["labels"].get(LABEL, ""), tuple(sorted(metadata.get("annotations", {}).items()))

        sizes = self.world.replicas_of(self.names)
        return {name: (replicas, sorted(of(pod) for pod in self.pods(name))) for name, replicas in sizes.items()}

    def lost(self) -> tuple[int, int]:
        """Requests killed and tokens lost, in all pools."""
        truths = [self.world.engines.truth(self.world.service(name)) for name in self.names]
        return sum(t["killed_requests"] for t in truths), sum(t["lost_tokens"] for t in truths)

    def wait(self, condition: Callable[[], bool], what: str, *, seconds: float) -> None:
        """Wait for a state of the pools; see `wait_until`."""
        wait_until(condition, timeout_seconds=seconds, what=what, interval_seconds=0.3)
