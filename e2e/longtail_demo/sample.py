"""One look at the demo: what the user sees with kubectl, what the operator publishes, and the truth."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longtail_demo.manifests import NAME, NAMESPACE
from longtail_demo.place import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A row of timeline.csv."""

    seconds: float
    offered_requests_per_second: float
    running_requests: int
    waiting_requests: int
    owed_tokens_true: int
    owed_tokens: float | None
    """The operator's estimate; None before its first."""
    current: int
    ready: int
    draining: int
    """Out of routing, finishing what they have."""
    desired: float | None
    killed_requests: int
    reason: str
    message: str


def take(place: Place, *, seconds: float, offered_requests_per_second: float) -> Sample:
    """Look once."""
    truth = place.engines.truth(NAME)
    target = place.kubectl.get("deployment", NAME, "-n", NAMESPACE)
    decision = place.kubectl.get("rsv", NAME, "-n", NAMESPACE).get("status", {}).get("decision", {})
    labels = {"namespace": NAMESPACE, "name": NAME}
    return Sample(
        seconds=round(seconds, 1),
        offered_requests_per_second=offered_requests_per_second,
        running_requests=truth["running_requests"],
        waiting_requests=truth["waiting_requests"],
        owed_tokens_true=truth["owed_tokens"],
        owed_tokens=place.operator.value("longtail_owed_tokens", **labels),
        current=target["spec"]["replicas"],
        ready=target["status"].get("readyReplicas", 0),
        draining=round(place.operator.value("longtail_draining_replicas", **labels) or 0),
        desired=place.operator.value("longtail_desired_replicas", **labels),
        killed_requests=truth["killed_requests"],
        reason=decision.get("reason", ""),
        message=decision.get("message", ""),
    )


def write_csv(samples: Sequence[Sample], path: Path) -> None:
    """Write the timeline, one row a sample."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in dataclasses.fields(Sample))
        writer.writerows(dataclasses.astuple(sample) for sample in samples)
