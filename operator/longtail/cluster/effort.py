"""Publishes how much may be thought: one ConfigMap a service, which gateways mount or read.

It holds one JSON document, because a reader of several keys may see half of a change. The document says until when it
is valid: nobody's death, of the operator or of the network, makes anybody think less for longer than that. At a level
that limits nothing it is written once and not renewed, since it says the same when it has expired.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from longtail.cluster.client import KubernetesApi
from longtail.cluster.kinds import CONFIG_MAPS, SERVINGS
from longtail.cluster.records import ServingRecord
from longtail.errors import Conflict
from longtail.policy.decision import Effort
from longtail.policy.fleet import EffortLevel, EffortRules

EFFORT_LABEL: Final = "longtail.dev/effort"
"""Label of the ConfigMaps: the name of the ReasoningServing."""
DOCUMENT: Final = "effort.json"
"""The one key in them."""
_RENEWALS: Final = 3
"""Within the validity: a kubelet may take 90 s to show a mounted ConfigMap's change."""


def config_map_name(record: ServingRecord) -> str:
    """Name of the ConfigMap of a service."""
    return f"{record.key.name}-effort"


def document(
    record: ServingRecord, effort: Effort, *, rules: EffortRules, model: str | None, valid_until: str
) -> dict[str, Any]:
    """What gateways read.

    ``generation`` grows with each change of the level, over restarts too: it is the Unix time of the change.
    ``valid_until`` is RFC 3339.
    """
    chosen = {each.name: effort.classes.get(each.name, effort.index) for each in rules.classes}
    classes = {each.name: rules.levels[min(each.lowest, chosen[each.name])] for each in rules.classes}
    return {
        "service": str(record.key),
        "model": model,
        **_spelled(effort.level),
        "validUntil": valid_until,
        "generation": int(effort.since),
        "classes": {name: _spelled(level) for name, level in classes.items()},
    }


def _spelled(level: EffortLevel) -> dict[str, Any]:
    return {
        "level": level.name,
        "thinkingTokens": level.thinking_tokens,
        "reasoningEffort": level.reasoning_effort,
    }


@dataclass(frozen=True, slots=True)
class _Written:
    said: tuple[EffortLevel, Mapping[str, int]]
    at: float


def _said(effort: Effort) -> tuple[EffortLevel, Mapping[str, int]]:
    return effort.level, effort.classes


class EffortWriter:
    """Knows what was published last for each resource. Times are monotonic seconds, given by the caller."""

    def __init__(self, *, api: KubernetesApi) -> None:
        self._api = api
        self._written: dict[str, _Written] = {}

    def due(self, record: ServingRecord, effort: Effort, *, valid_seconds: float, now: float) -> bool:
        """Whether the level is worth a write now."""
        written = self._written.get(record.uid)
        limited = effort.level.thinking_tokens is not None or effort.level.reasoning_effort is not None
        says_something = limited or effort.lowest > 0
        if written is None:
            return says_something
        return written.said != _said(effort) or (says_something and now - written.at >= valid_seconds / _RENEWALS)

    async def write(self, record: ServingRecord, effort: Effort, body: Mapping[str, Any], *, now: float) -> None:
        """Apply the document to the ConfigMap of the resource.

        Raises:
            Conflict: there is a ConfigMap of this name that is not ours.
            ClusterError: it could not be written.
        """
        path = CONFIG_MAPS.path(namespace=record.key.namespace, name=config_map_name(record))
        manifest = _manifest(record, body)
        if record.uid not in self._written:
            # Asked of the API server in a rehearsal, so that no right to read everybody's ConfigMaps is needed.
            _require_ours(await self._api.apply(path, body=manifest, dry_run=True), record)
        await self._api.apply(path, body=manifest)
        self._written[record.uid] = _Written(said=_said(effort), at=now)

    def forget_all_but(self, uids: Iterable[str]) -> None:
        """Forget resources that are no more."""
        for uid in self._written.keys() - set(uids):
            del self._written[uid]


def _manifest(record: ServingRecord, body: Mapping[str, Any]) -> dict[str, Any]:
    owner = {
        "apiVersion": SERVINGS.api_version,
        "kind": SERVINGS.kind,
        "name": record.key.name,
        "uid": record.uid,
    }
    return {
        "apiVersion": CONFIG_MAPS.api_version,
        "kind": CONFIG_MAPS.kind,
        "metadata": {
            "namespace": record.key.namespace,
            "name": config_map_name(record),
            "labels": {EFFORT_LABEL: record.key.name[:63].rstrip("-.")},
            "ownerReferences": [owner],
        },
        "data": {DOCUMENT: json.dumps(body, indent=2)},
    }


def _require_ours(merged: Mapping[str, Any], record: ServingRecord) -> None:
    """Whoever owns a ConfigMap goes on owning it: with our owner reference it would be deleted one day."""
    owners = {owner["uid"] for owner in merged["metadata"].get("ownerReferences") or ()}
    if set(merged.get("data") or ()) != {DOCUMENT} or owners != {record.uid}:
        raise Conflict(f"ConfigMap {record.key.namespace}/{config_map_name(record)} is in use by somebody else")
