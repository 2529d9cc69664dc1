"""A small Kubernetes API server: what longtail's client asks for, no more.

Objects are JSON under their paths. Supported: GET, chunked lists (metadata only where asked), merge patches
with resourceVersion as precondition, server-side apply on ``/status`` with uid as precondition and of ConfigMaps
(dry runs too), ``/scale`` of kinds registered with it, discovery, POST with generateName, and faults on demand.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body | None


@dataclass
class KubernetesFake:
    """The server. Fill it with `put`, look at `requests`, break it with `fail`."""

    resources: dict[str, dict[str, tuple[str, bool]]] = field(
        default_factory=lambda: {
            "v1": {"pods": ("Pod", False), "services": ("Service", False), "configmaps": ("ConfigMap", False)},
            "coordination.k8s.io/v1": {"leases": ("Lease", False)},
            "apps/v1": {"deployments": ("Deployment", True), "statefulsets": ("StatefulSet", True)},
            "longtail.dev/v1alpha1": {"reasoningservings": ("ReasoningServing", False)},
        }
    )
    """Group and version → plural → (kind, has /scale)."""
    objects: dict[str, Body] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    token: str | None = None
    """When set, requests without it are answered 401."""
    url: str = ""
    _versions: Any = field(default_factory=lambda: itertools.count(1))
    _faults: list[tuple[str, str, int, Any]] = field(default_factory=list)

    def put(self, body: Mapping[str, Any]) -> Body:
        """Create or replace an object; uid and resourceVersion are filled in."""
        stored = copy.deepcopy(dict(body))
        path = self.path_of(stored)
        metadata = stored["metadata"]
        number = next(self._versions)
        metadata.setdefault("uid", f"uid-{number}")
        metadata["resourceVersion"] = str(number)
        self.objects[path] = stored
        return copy.deepcopy(stored)

    def path_of(self, body: Mapping[str, Any]) -> str:
        """Return the path of an object."""
        api_version = body["apiVersion"]
        kinds = self.resources[api_version].items()
        plural = next(plural for plural, (kind, _) in kinds if kind == body["kind"])
        prefix = "/apis/" if "/" in api_version else "/api/"
        metadata = body["metadata"]
        return f"{prefix}{api_version}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"

    def fail(self, method: str, path: str, *, status: int, answer: Body | str = "", times: int = 1) -> None:
        """Answer the next requests whose path ends so with an error."""
        self._faults += [(method, path, status, answer)] * times

    def sent(self, method: str) -> list[Request]:
        """Return the requests with a method, oldest first."""
        return [request for request in self.requests if request.method == method]

    def configuration(self) -> Configuration:
        """Return a client configuration for this server."""
        return Configuration(host=self.url)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[KubernetesFake]:
        """Listen on a free port of loopback."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        server = TestServer(app, host="127.0.0.1")
        await server.start_server()
        self.url = str(server.make_url("")).rstrip("/")
        try:
            yield self
        finally:
            await server.close()

    async def _answer(self, request: web.Request) -> web.Response:
        text = await request.text()
        record = Request(
            method=request.method,
            path=request.path,
            query=dict(request.query),
            headers=dict(request.headers),
            body=json.loads(text) if text else None,
        )
        self.requests.append(record)
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            return _failure(401, "Unauthorized")
        for number, (method, path, status, answer) in enumerate(self._faults):
            if method == record.method and record.path.endswith(path):
                del self._faults[number]
                return (
                    web.Response(status=status, text=answer)
                    if isinstance(answer, str)
                    else web.json_response(answer, status=status)
                )
        handler = {"GET": self._get, "PATCH": self._patch, "POST": self._post}.get(record.method)
        return handler(record) if handler else _failure(405, "not supported here")

    def _get(self, request: Request) -> web.Response:
        path, subresource = self._split(request.path)
        if path in self.objects:
            body = self.objects[path]
            return web.json_response(_scale(body) if subresource == "scale" else body)
        discovered = self._discovery(request.path)
        if discovered is not None:
            return web.json_response(discovered)
        if self._is_collection(request.path):
            return self._list(request)
        return _failure(404, f'"{request.path}" not found')

    def _list(self, request: Request) -> web.Response:
        plural = request.path.rsplit("/", 1)[1]
        prefix = request.path.rsplit("/", 1)[0]
        namespaced = "/namespaces/" in request.path
        found = [
            body
            for path, body in sorted(self.objects.items())
            if (
                path.startswith(f"{request.path}/") if namespaced else path.startswith(prefix) and f"/{plural}/" in path
            )
        ]
        start = int(request.query.get("continue", "0"))
        limit = int(request.query.get("limit", "0")) or len(found)
        page, rest = found[start : start + limit], max(0, len(found) - start - limit)
        metadata: Body = {"resourceVersion": "1"}
        if rest:
            metadata["continue"] = str(start + limit)
            if "labelSelector" not in request.query:
                metadata["remainingItemCount"] = rest
        if "PartialObjectMetadataList" in request.headers["Accept"]:
            page = [{"metadata": body["metadata"]} for body in page]
        # As the real one: an empty list is null.
        return web.json_response({"kind": "List", "metadata": metadata, "items": page or None})

    def _patch(self, request: Request) -> web.Response:
        if request.body and request.body.get("kind") == "ConfigMap":
            merged = _applied(self.objects.get(request.path), request.body)
            return web.json_response(merged if "dryRun" in request.query else self.put(merged))
        return self._patch_known(request)

    def _patch_known(self, request: Request) -> web.Response:
        path, subresource = self._split(request.path)
        body, patch = self.objects.get(path), request.body or {}
        if body is None:
            return _failure(404, f'"{path}" not found')
        metadata = patch.get("metadata", {})
        for key in ("resourceVersion", "uid"):
            if key in metadata and metadata[key] != body["metadata"][key]:
                return _failure(409, f"precondition failed: {key} in precondition: {metadata[key]}")
        if subresource == "scale":
            body["spec"]["replicas"] = patch["spec"]["replicas"]
        elif subresource == "status" and request.headers["Content-Type"] == "application/apply-patch+yaml":
            empty = [name for name, value in patch["status"].items() if value == {}]
            if empty:
                # As the real one, when the part had fields before.
                return _failure(422, f'status.{empty[0]}: Invalid value: "null"')
            body["status"] = patch["status"]
        elif body["kind"] == "Pod" and subresource == "status":
            if request.headers["Content-Type"] != "application/strategic-merge-patch+json":
                return _failure(415, "conditions are merged by strategic patches only")
            _merge_conditions(body, patch["status"]["conditions"])
        elif not subresource and request.headers["Content-Type"] == "application/merge-patch+json":
            marks = {key: metadata[key] for key in ("labels", "annotations") if key in metadata}
            _merge(body, {key: value for key, value in patch.items() if key != "metadata"} | {"metadata": marks})
        else:
            return _failure(415, "only merge patches and applied /status")
        body["metadata"]["resourceVersion"] = str(next(self._versions))
        return web.json_response(_scale(body) if subresource == "scale" else body)

    def _post(self, request: Request) -> web.Response:
        body = dict(request.body or {})
        if "name" in body["metadata"]:
            path = f"{request.path}/{body['metadata']['name']}"
            taken = path in self.objects
            return _failure(409, f'"{path}" exists') if taken else web.json_response(self.put(body), status=201)
        prefix = body["metadata"]["generateName"]
        if re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*-?", prefix) is None:
            return _failure(422, f'metadata.generateName: Invalid value: "{prefix}"')
        name = f"{prefix}{next(self._versions)}"
        self.objects[f"{request.path}/{name}"] = body
        return web.json_response(body, status=201)

    def _split(self, path: str) -> tuple[str, str]:
        head, _, tail = path.rpartition("/")
        if tail == "scale" and not self._has_scale(head):
            return path, ""
        return (head, tail) if tail in {"scale", "status"} else (path, "")

    def _has_scale(self, path: str) -> bool:
        parts = path.split("/")
        group_version = "/".join(parts[2 : parts.index("namespaces")])
        return self.resources.get(group_version, {}).get(parts[-2], ("", False))[1]

    def _discovery(self, path: str) -> Body | None:
        group_version = path.removeprefix("/apis/").removeprefix("/api/")
        if group_version not in self.resources:
            return None
        found = []
        for plural, (kind, has_scale) in self.resources[group_version].items():
            found.append({"name": plural, "kind": kind, "namespaced": True})
            found.append({"name": f"{plural}/status", "kind": kind, "namespaced": True})
            if has_scale:
                found.append({"name": f"{plural}/scale", "kind": "Scale", "namespaced": True})
        return {"kind": "APIResourceList", "groupVersion": group_version, "resources": found}

    def _is_collection(self, path: str) -> bool:
        return any(path.endswith(f"/{plural}") for kinds in self.resources.values() for plural in kinds)


def _applied(body: Body | None, patch: Body) -> Body:
    """As a server-side apply of one manager merges, owners by uid."""
    merged = copy.deepcopy(body or {"metadata": {}})
    owners = merged["metadata"].get("ownerReferences", [])
    known = {owner["uid"] for owner in owners}
    _merge(merged, patch)
    added = [owner for owner in patch["metadata"].get("ownerReferences", []) if owner["uid"] not in known]
    merged["metadata"]["ownerReferences"] = owners + added
    return merged


def _merge_conditions(body: Body, conditions: list[Body]) -> None:
    """As a strategic merge patch does: by type."""
    merged = {c["type"]: c for c in body["status"].get("conditions", [])}
    merged |= {c["type"]: c for c in conditions}
    body["status"]["conditions"] = list(merged.values())


def _scale(body: Body) -> Body:
    labels = body["spec"].get("selector", {}).get("matchLabels", {})
    return {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {key: body["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")},
        # As the real one: zero is left out.
        "spec": {"replicas": body["spec"]["replicas"]} if body["spec"].get("replicas") else {},
        "status": {"replicas": 0, "selector": ",".join(f"{k}={v}" for k, v in labels.items())},
    }


def _merge(target: Body, patch: Mapping[str, Any]) -> None:
    """Apply a JSON merge patch (RFC 7386)."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = copy.deepcopy(value)


def _failure(status: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "status": "Failure", "message": message, "code": status}, status=status)
