"""kopf as watch and life-cycle engine: adapters of three lines, registered by a function.

Only handlers that write nothing to the objects: no finalizer, no annotation. A registry of our own instead of
kopf's global one, so that two applications in one process (tests) do not share handlers.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import kopf

from longtail.cluster.kinds import WATCHED, Kind


class Reactor(Protocol):
    """What the handlers call."""

    def object_listed(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """Take note of an object that a list holds: at the start, and when a watch had to begin anew."""

    def object_seen(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """Take note of an object that is there."""

    def object_gone(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """Take note of an object that was deleted."""

    async def connection(self) -> kopf.ConnectionInfo:
        """Return server and credentials."""

    async def stop(self) -> None:
        """End what runs beside kopf."""


def register(registry: kopf.OperatorRegistry, reactor: Reactor) -> None:
    """Register everything that longtail wants of kopf."""
    for kind in WATCHED:
        kopf.on.event(group=kind.group, version=kind.version, plural=kind.plural, registry=registry, id=kind.plural)(
            _feed(kind, reactor)
        )

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await reactor.connection()

    @kopf.on.cleanup(registry=registry)
    async def cleanup(**_: Any) -> None:
        await reactor.stop()


def _feed(kind: Kind, reactor: Reactor) -> Callable[..., Awaitable[None]]:
    async def handle(event: Mapping[str, Any], **_: Any) -> None:
        take_note = {None: reactor.object_listed, "DELETED": reactor.object_gone}.get(
            event["type"], reactor.object_seen
        )
        take_note(kind, event["object"])

    return handle


def operator_settings(*, namespaced: bool, pod_label_selector: str) -> kopf.OperatorSettings:
    """Return kopf's settings: bounded, quiet, and without anything that writes."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.watching.chunk_size = 500
    settings.watching.connect_timeout = 10.0
    # A stream ends regularly and starts anew before anything between us and the server silently drops it.
    # An int: kopf writes it as it is, and the API server refuses "300.0".
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330.0
    # With the default of 5 s, 10,000 objects mean 10,000 idle workers: 299 instead of 122 MB at the start.
    settings.queueing.idle_timeout = 0.1
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = 10.0
    # Kopf sleeps up to 21 s between attempts and gives up, process and all, after eight of them. A watch that is
    # back within a tick's time, and ten minutes of patience, cost an API server that is ill 5 requests a second.
    settings.networking.error_backoffs = (1, 1, *(2,) * 300)
    # Without a cluster-wide role neither namespaces nor CRDs may be listed.
    settings.scanning.disabled = namespaced
    # Kopf kills its process when an exit hangs; below a pod's default grace of 30 s.
    settings.process.ultimate_exiting_timeout = 20.0
    if pod_label_selector:
        settings.watching.label_selectors["v1", "pods"] = pod_label_selector
    return settings
