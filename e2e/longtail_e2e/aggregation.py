"""An API server of our own behind the cluster's: groups that the aggregation layer passes on to this process.

An ``APIService`` must name a Service; an ``ExternalName`` one called ``localhost`` is dialled as it is.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

from longtail_e2e.cluster import Cluster
from longtail_e2e.ports import LOOPBACK
from longtail_e2e.processes import wait_until

Group = tuple[str, str]
"""Name and version."""
Answer = Callable[[str, str, Mapping[str, Any] | None], dict[str, Any] | None]
"""From method, path with query, and body to an object; None: there is no such thing."""

METRICS_GROUP: Final[Group] = ("external.metrics.k8s.io", "v1beta1")
"""Where HPAs look external metrics up, by name: it lists no resources."""
_SERVICE: Final = {"namespace": "default", "name": "longtail-aggregated"}


class AggregatedApi:
    """The server; a context manager that registers it with a cluster and takes it out again. One at a time."""

    def __init__(
        self, cluster: Cluster, *, groups: Mapping[Group, Sequence[Mapping[str, Any]]], answer: Answer
    ) -> None:
        """Make it.

        Args:
            cluster: where.
            groups: each with the resources that discovery shows.
            answer: what it says; called in a thread of each connection.
        """
        self._cluster = cluster
        self._groups = tuple(groups)
        handler = _handler(groups, answer)
        self._server = ThreadingHTTPServer((LOOPBACK, cluster.ports.take()), handler, bind_and_activate=False)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority = cluster.control_plane.certificate_authority
        # The API server made itself a certificate; the caller does not look at the name in it.
        context.load_cert_chain(authority, authority.with_suffix(".key"))
        # Handshakes belong to the connection's thread, not to the one that accepts.
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)

    def __enter__(self) -> Self:
        self._server.server_bind()
        self._server.server_activate()
        threading.Thread(target=self._server.serve_forever, name="aggregated-api", daemon=True).start()
        try:
            self._register()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # An APIService whose server is gone keeps every namespace from ending.
        for group, version in self._groups:
            self._cluster.kubectl("delete", "apiservice", f"{version}.{group}", "--ignore-not-found")
        self._cluster.kubectl("delete", "service", _SERVICE["name"], "-n", _SERVICE["namespace"], "--ignore-not-found")
        self._server.shutdown()
        self._server.server_close()

    def _register(self) -> None:
        kubectl, port = self._cluster.kubectl, self._server.server_address[1]
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": dict(_SERVICE),
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
        }
        registrations = [
            {
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "metadata": {"name": f"{version}.{group}"},
                "spec": {
                    "group": group,
                    "version": version,
                    "service": {**_SERVICE, "port": port},
                    "insecureSkipTLSVerify": True,
                    "groupPriorityMinimum": 100,
                    "versionPriority": 100,
                },
            }
            for group, version in self._groups
        ]
        kubectl.apply(service, *registrations)
        wait_until(
            lambda: all(kubectl.run("get", "--raw", f"/apis/{g}/{v}").returncode == 0 for g, v in self._groups),
            timeout_seconds=30.0,
            what="the API server to find the aggregated groups",
            interval_seconds=0.2,
        )


def _discovery(path: str, groups: Mapping[Group, Sequence[Mapping[str, Any]]]) -> dict[str, Any] | None:
    for (group, version), resources in groups.items():
        if path == f"/apis/{group}/{version}":
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": f"{group}/{version}",
                "resources": list(resources),
            }
    return None


def _handler(groups: Mapping[Group, Sequence[Mapping[str, Any]]], answer: Answer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body leave in one packet; else the second waits for the first one's acknowledgement.
        wbufsize = -1

        def do_GET(self) -> None:
            self._answer(_discovery(self.path.partition("?")[0], groups) or answer("GET", self.path, None))

        def do_PUT(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(answer("PUT", self.path, body))

        def _answer(self, content: dict[str, Any] | None) -> None:
            code = HTTPStatus.OK if content is not None else HTTPStatus.NOT_FOUND
            if content is None:
                content = {
                    "kind": "Status",
                    "apiVersion": "v1",
                    "status": "Failure",
                    "reason": "NotFound",
                    "code": code.value,
                    "message": f"{self.path} is not served here",
                }
            body = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the library's
            """Keep quiet."""

    return Handler


def external_metric(name: str, quantities: Sequence[str], *, time: str) -> dict[str, Any]:
    """An ``ExternalMetricValueList``: one item for each series, which an HPA adds up; none is an empty answer."""
    items = [{"metricName": name, "metricLabels": {}, "timestamp": time, "value": quantity} for quantity in quantities]
    group, version = METRICS_GROUP
    return {"kind": "ExternalMetricValueList", "apiVersion": f"{group}/{version}", "metadata": {}, "items": items}
