"""What the Prometheus operator does with PodMonitors and ServiceMonitors, for the fields that the chart uses.

Monitors are read from the API server, and so are the pods that they select; the targets go to a Prometheus by file.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import requests
import yaml

from longtail_e2e.prometheus import Prometheus, Target

_LOOK_SECONDS: Final = 1.0
_GROUPS: Final = {
    "podmonitors": "apis/monitoring.coreos.com/v1",
    "servicemonitors": "apis/monitoring.coreos.com/v1",
    "endpointslices": "apis/discovery.k8s.io/v1",
    "pods": "api/v1",
    "services": "api/v1",
}


class Monitored:
    """Keeps the targets of a Prometheus those of all monitors, in a thread, while the block lasts."""

    def __init__(self, *, kubeconfig: Path, prometheus: Prometheus) -> None:
        """Read the API server as this kubeconfig says, which has a token: a kubectl a second would need half a core."""
        content = yaml.safe_load(kubeconfig.read_text())
        cluster = content["clusters"][0]["cluster"]
        self._server = cluster["server"]
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.verify = cluster["certificate-authority"]
        self._http.headers["Authorization"] = f"Bearer {content['users'][0]['user']['token']}"
        self._prometheus = prometheus
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._http.close()

    def _follow(self) -> None:
        known: list[Target] | None = None
        while not self._stop.wait(_LOOK_SECONDS):
            try:
                targets = sorted(self._targets(), key=repr)
            except requests.RequestException:
                continue  # the API server is busy, or a definition has just gone: the targets stay as they are
            if targets != known:
                self._prometheus.set_targets(targets)
                known = targets

    def _targets(self) -> Iterator[Target]:
        for monitor in self._list("podmonitors"):
            where = monitor["metadata"]
            for pod in self._selected("pods", monitor):
                for endpoint in monitor["spec"]["podMetricsEndpoints"]:
                    yield from _of_pod(pod, endpoint, job=f"{where['namespace']}/{where['name']}")
        for monitor in self._list("servicemonitors"):
            for service in self._selected("services", monitor):
                name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
                label = f"kubernetes.io/service-name={name}"
                for piece in self._list("endpointslices", namespace=namespace, selector=label):
                    for endpoint in monitor["spec"]["endpoints"]:
                        yield from _of_slice(piece, endpoint, job=name)

    def _selected(self, kind: str, monitor: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        chosen = monitor["spec"]["namespaceSelector"]
        selector = label_selector(monitor["spec"]["selector"])
        for namespace in [None] if chosen.get("any") else chosen["matchNames"]:
            yield from self._list(kind, namespace=namespace, selector=selector)

    def _list(self, kind: str, *, namespace: str | None = None, selector: str = "") -> list[dict[str, Any]]:
        where = f"/namespaces/{namespace}" if namespace else ""
        url = f"{self._server}/{_GROUPS[kind]}{where}/{kind}"
        answer = self._http.get(url, params={"labelSelector": selector}, timeout=10.0)
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()["items"]
        return found


def label_selector(selector: Mapping[str, Any]) -> str:
    """Write a LabelSelector as one string."""
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for each in selector.get("matchExpressions") or ():
        key, operator = each["key"], each["operator"]
        values = f"({','.join(each.get('values') or ())})"
        written = {
            "Exists": key,
            "DoesNotExist": f"!{key}",
            "In": f"{key} in {values}",
            "NotIn": f"{key} notin {values}",
        }
        parts.append(written[operator])
    return ",".join(parts)


def _of_pod(pod: Mapping[str, Any], endpoint: Mapping[str, Any], *, job: str) -> Iterator[Target]:
    address = pod["status"].get("podIP")
    if not address or pod["status"]["phase"] != "Running":
        return
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            if port.get("name") == endpoint["port"]:
                labels = {"namespace": pod["metadata"]["namespace"], "pod": pod["metadata"]["name"], "job": job}
                labels |= {"container": container["name"], "endpoint": endpoint["port"]}
                url = f"http://{address}:{port['containerPort']}{endpoint.get('path', '/metrics')}"
                yield Target(url=url, labels=labels)


def _of_slice(piece: Mapping[str, Any], endpoint: Mapping[str, Any], *, job: str) -> Iterator[Target]:
    for port in piece.get("ports") or ():
        if port.get("name") != endpoint["port"]:
            continue
        for each in piece.get("endpoints") or ():
            pod = (each.get("targetRef") or {}).get("name")
            labels = {"namespace": piece["metadata"]["namespace"], "job": job, "service": job}
            labels |= {"endpoint": endpoint["port"]} | ({"pod": pod} if pod else {})
            url = f"http://{each['addresses'][0]}:{port['port']}{endpoint.get('path', '/metrics')}"
            yield Target(url=url, labels=labels)
