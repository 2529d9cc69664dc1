"""Kubernetes Events: for real scale changes and for conditions that flip, never for a steady state.

HPA's words ("SuccessfulRescale", "New size: N; reason: ..."), because that is what people grep for. An Event
is news, not state: the caller drops one that cannot be posted.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from longtail.cluster.client import KubernetesApi

_CONTROLLER: Final = "longtail.dev/operator"
_NOTE_LENGTH: Final = 1024


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """The object that an Event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str

    def as_manifest(self) -> dict[str, str]:
        """Spell it as the API does."""
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
        }


class EventRecorder:
    """Posts ``events.k8s.io/v1`` Events."""

    def __init__(self, *, api: KubernetesApi, instance: str, quiet_seconds: float = 300.0) -> None:
        """Post as ``instance`` (the pod's name), repeating ``flip`` no faster than ``quiet_seconds``."""
        self._api = api
        self._instance = instance
        self._quiet_seconds = quiet_seconds
        self._last_flip: dict[tuple[str, str], float] = {}

    async def rescaled(
        self, *, serving: ObjectReference, target: ObjectReference, desired: int, reason: str, time: str
    ) -> None:
        """Report a scale change on the resource and on its target: people look at either.

        Raises:
            ClusterError: it could not be posted.
        """
        note = f"New size: {desired}; reason: {reason}"
        for regarding, related in ((serving, target), (target, serving)):
            await self._post(
                regarding=regarding,
                related=related,
                reason="SuccessfulRescale",
                action="Rescale",
                note=note,
                time=time,
            )

    async def switched(
        self, *, serving: ObjectReference, target: ObjectReference, reason: str, note: str, time: str, now: float
    ) -> None:
        """Report pods that left routing or came back; the same reason again within a minute is dropped.

        Raises:
            ClusterError: it could not be posted.
        """
        if self._is_news(serving.uid, reason, now=now, quiet_seconds=min(self._quiet_seconds, 60.0)):
            await self._post(regarding=serving, related=target, reason=reason, action="Place", note=note, time=time)

    async def rescale_failed(
        self, *, serving: ObjectReference, target: ObjectReference, note: str, time: str, now: float
    ) -> None:
        """Report that a scale change was refused; a repetition within the quiet time is dropped.

        Raises:
            ClusterError: it could not be posted.
        """
        if self._is_news(serving.uid, "FailedRescale", now=now):
            await self._post(
                regarding=serving,
                related=target,
                reason="FailedRescale",
                action="Rescale",
                note=note,
                time=time,
                warning=True,
            )

    async def flipped(
        self, *, serving: ObjectReference, reason: str, note: str, warning: bool, time: str, now: float
    ) -> None:
        """Report a condition that changed its status; a flapping one is reported once per quiet time.

        Raises:
            ClusterError: it could not be posted.
        """
        if self._is_news(serving.uid, reason, now=now):
            await self._post(
                regarding=serving,
                related=None,
                reason=reason,
                action="Observe",
                note=note,
                time=time,
                warning=warning,
            )

    def _is_news(self, uid: str, reason: str, *, now: float, quiet_seconds: float | None = None) -> bool:
        last = self._last_flip.get((uid, reason))
        if last is not None and now - last < (self._quiet_seconds if quiet_seconds is None else quiet_seconds):
            return False
        self._last_flip[uid, reason] = now
        return True

    def forget_all_but(self, uids: Collection[str]) -> None:
        """Forget resources that are no more."""
        self._last_flip = {key: at for key, at in self._last_flip.items() if key[0] in uids}

    async def _post(
        self,
        *,
        regarding: ObjectReference,
        related: ObjectReference | None,
        reason: str,
        action: str,
        note: str,
        time: str,
        warning: bool = False,
    ) -> None:
        body: dict[str, Any] = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{regarding.name[:200]}-", "namespace": regarding.namespace},
            "eventTime": time,
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "action": action,
            "note": note[:_NOTE_LENGTH],
            "regarding": regarding.as_manifest(),
            "reportingController": _CONTROLLER,
            "reportingInstance": self._instance,
        }
        if related is not None:
            body["related"] = related.as_manifest()
        await self._api.post(f"/apis/events.k8s.io/v1/namespaces/{regarding.namespace}/events", body=body)
