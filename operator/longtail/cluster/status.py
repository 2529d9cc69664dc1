"""Writes ``status``: only what changed, no more often than people can read, never over another's words.

Server-side apply as our own field manager, so that conditions of other writers survive ours (the list is a
map by type). Three rules keep 10,000 resources quiet:

* nothing is written that is equal to what was written last;
* a change of a condition's status or reason, of the decision's reason, of current or desired replicas is
  written at once; drifting figures alone wait until a minute after the last write;
* figures are rounded to two significant digits before they are compared.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from longtail.api.status import Condition, ConditionStatus, ReasoningServingStatus
from longtail.cluster.client import KubernetesApi
from longtail.cluster.kinds import SERVINGS
from longtail.cluster.records import ConditionRecord, ServingRecord

_QUIET_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class ConditionValue:
    """What a condition says now; since when, is found out by ``stamp``."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""


def quantise(value: float | None) -> int | None:
    """Round to two significant digits, so that noise is not news.

    >>> [quantise(v) for v in (0.4, 7.2, 96.4, 1234.0, None)]
    [0, 7, 96, 1200, None]
    """
    if value is None or not math.isfinite(value):
        return None
    whole = round(value)
    return whole if abs(whole) < 100 else int(float(f"{value:.1e}"))


def stamp(
    values: Iterable[ConditionValue],
    *,
    previous: Iterable[Condition | ConditionRecord],
    generation: int,
    time: str,
) -> tuple[Condition, ...]:
    """Add since when each condition has had its status: kept where it did not change.

    Args:
        values: the conditions now.
        previous: as last written, or as found on the object after a start.
        generation: of the spec that they were computed from.
        time: now, RFC 3339.
    """
    since = {(c.type, str(c.status)): c.last_transition_time for c in previous}
    return tuple(
        Condition(
            type=value.type,
            status=value.status,
            reason=value.reason,
            message=value.message[:1024],
            observed_generation=generation,
            last_transition_time=since.get((value.type, value.status.value)) or time,
        )
        for value in values
    )


@dataclass(frozen=True, slots=True)
class _Written:
    status: ReasoningServingStatus
    at: float


class StatusWriter:
    """Knows what was written last for each resource. Times are monotonic seconds, given by the caller."""

    def __init__(self, *, api: KubernetesApi, quiet_seconds: float = _QUIET_SECONDS) -> None:
        self._api = api
        self._quiet_seconds = quiet_seconds
        self._written: dict[str, _Written] = {}

    def last(self, record: ServingRecord) -> ReasoningServingStatus | None:
        """What was written last, if anything was since the start."""
        written = self._written.get(record.uid)
        return written.status if written else None

    def conditions(self, record: ServingRecord) -> Sequence[Condition | ConditionRecord]:
        """The conditions as last written, or as the object shows them where we wrote none yet."""
        written = self.last(record)
        return record.conditions if written is None else written.conditions

    def due(self, record: ServingRecord, status: ReasoningServingStatus, *, now: float) -> bool:
        """Whether ``status`` is worth a write now."""
        written = self._written.get(record.uid)
        if written is None:
            return True
        if _headline(status) != _headline(written.status):
            return True
        return status != written.status and now - written.at >= self._quiet_seconds

    async def write(self, record: ServingRecord, status: ReasoningServingStatus, *, now: float) -> None:
        """Apply ``status`` to the resource.

        Raises:
            NotFound: the resource is gone.
            Conflict: another resource has its name by now.
            ClusterError: it could not be written.
        """
        path = SERVINGS.path(namespace=record.key.namespace, name=record.key.name, subresource="status")
        await self._api.apply(path, body=_manifest(record, status))
        self._written[record.uid] = _Written(status=status, at=now)

    def forget_all_but(self, uids: Iterable[str]) -> None:
        """Forget resources that are no more."""
        for uid in self._written.keys() - set(uids):
            del self._written[uid]


def _as_applied(status: ReasoningServingStatus) -> Mapping[str, Any]:
    """Spell a status for the API, without parts that say nothing.

    Applying ``demand: {}`` over a demand with fields would leave ``demand: null`` behind, which the API
    server then refuses.
    """
    fields = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {name: value for name, value in fields.items() if value != {}}


def _manifest(record: ServingRecord, status: ReasoningServingStatus) -> Mapping[str, Any]:
    return {
        "apiVersion": SERVINGS.api_version,
        "kind": SERVINGS.kind,
        # With the uid, a resource that was made anew under this name is not given its predecessor's status.
        "metadata": {"namespace": record.key.namespace, "name": record.key.name, "uid": record.uid},
        "status": _as_applied(status),
    }


def _headline(status: ReasoningServingStatus) -> tuple[object, ...]:
    """The part of a status whose changes cannot wait."""
    return (
        status.observed_generation,
        tuple((c.type, c.status, c.reason) for c in status.conditions),
        (status.replicas.current, status.replicas.desired) if status.replicas else None,
        status.decision.reason if status.decision else None,
        (status.effort.level, status.effort.classes) if status.effort else None,
        status.last_scale_time,
    )
