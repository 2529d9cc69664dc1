"""Who else writes the replicas of a target. Two writers of one number fight for ever: all but one must hold.

Only resources in mode Active write. Among those the oldest one wins (the smaller name where two are as old).
An HPA or a ScaledObject always wins: somebody put it there, and it does not know us. A resource that only
advises never conflicts: an HPA that follows its advice is the intended use.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from longtail.cluster.records import ScalerRecord, ServingRecord, TargetKey
from longtail.cluster.targets import Problem
from longtail.policy.fleet import Mode, ServiceKey


def find_conflicts(
    servings: Iterable[ServingRecord], scalers: Mapping[TargetKey, ScalerRecord]
) -> dict[ServiceKey, Problem]:
    """Return the resources that must hold, each with the reason."""
    writers: dict[TargetKey, list[ServingRecord]] = defaultdict(list)
    for serving in servings:
        if serving.spec is not None and serving.spec.mode is Mode.ACTIVE and serving.target is not None:
            writers[serving.target.key].append(serving)
    conflicts: dict[ServiceKey, Problem] = {}
    for target, contenders in writers.items():
        contenders.sort(key=lambda serving: (serving.created_at, serving.key))
        winner, *losers = contenders
        for loser in losers:
            conflicts[loser.key] = Problem(
                "TargetOwnedByAnother",
                f"{target} is scaled by the older ReasoningServing {winner.key.name}; this one holds",
            )
        scaler = scalers.get(target)
        if scaler is not None:
            conflicts[winner.key] = Problem(
                f"{scaler.kind}Present",
                f"{target} is scaled by {scaler.kind} {scaler.name}; delete it, or use mode Advise",
            )
    return conflicts
