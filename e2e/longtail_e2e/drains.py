"""What the audit log proves about drains: every cordon, every return, every replica that went, in their order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LABEL = "longtail.dev/route"
COST = "controller.kubernetes.io/pod-deletion-cost"


@dataclass
class Pool:
    """One Deployment as the operator's writes have left it."""

    asked: int
    cordoned: set[str] = field(default_factory=set)
    condemned: set[str] = field(default_factory=set)
    alive: int = 0
    """Pods made and not deleted yet."""
    leaving: int = 0
    """Of these, so many have been given up by lowering replicas."""


@dataclass
class Account:
    """Counts of what was written, and whatever must never be."""

    cordons: int = 0
    uncordons: int = 0
    raised: int = 0
    lowered: int = 0
    wrong: list[str] = field(default_factory=list)


def account(events: Iterable[Mapping[str, Any]], *, namespace: str, user: str) -> Account:
    """Replay the audit log of one namespace.

    Wrong is a start while a cordoned replica could have come back, and a lowering by more replicas than carry our
    deletion cost. Replicas that were asked for and have no pod yet may be taken back without one.
    """
    pools: dict[str, Pool] = {}
    result = Account()
    for event in events:
        where, request = event.get("objectRef") or {}, event.get("requestObject") or {}
        if where.get("namespace") != namespace or event.get("responseStatus", {}).get("code", 0) >= 300:
            continue
        name, ours = where.get("name", ""), event["user"]["username"] == user
        if where["resource"] == "pods":
            _pod(event, request, pools=pools, ours=ours, result=result)
        elif where["resource"] == "deployments" and "replicas" in (request.get("spec") or {}):
            replicas = request["spec"]["replicas"]
            name = name or request["metadata"]["name"]
            pool = pools.setdefault(name, Pool(asked=replicas))
            if ours:
                _scaled(name, pool, replicas, result=result)
            pool.asked = replicas
    return result


def _pod(
    event: Mapping[str, Any],
    request: Mapping[str, Any],
    *,
    pools: Mapping[str, Pool],
    ours: bool,
    result: Account,
) -> None:
    where, metadata = event["objectRef"], request.get("metadata") or {}
    name = where.get("name") or metadata.get("name") or ""
    if event["verb"] == "create" and not where.get("subresource"):
        app = (metadata.get("labels") or {}).get("app", "")
        if app in pools:
            pools[app].alive += 1
        return
    pool_name = name.rsplit("-", 2)[0]
    pool = pools.get(pool_name)
    if pool is None:
        return
    if event["verb"] == "delete":
        pool.alive -= 1
        pool.leaving = max(pool.leaving - 1, 0)
        pool.cordoned.discard(name)
        pool.condemned.discard(name)
    elif event["verb"] == "patch" and ours:
        label = (metadata.get("labels") or {}).get(LABEL)
        if label == "draining":
            pool.cordoned.add(name)
            result.cordons += 1
        elif label == "true":
            pool.cordoned.discard(name)
            result.uncordons += 1
        marks = metadata.get("annotations") or {}
        if COST in marks:
            (pool.condemned.discard if marks[COST] is None else pool.condemned.add)(name)


def _scaled(name: str, pool: Pool, replicas: int, *, result: Account) -> None:
    change = replicas - pool.asked
    if change > 0:
        result.raised += 1
        back = pool.cordoned - pool.condemned
        if back:
            result.wrong.append(f"{name}: {change} started while {sorted(back)} were cordoned")
    elif change < 0:
        result.lowered += 1
        unborn = max(pool.asked - (pool.alive - pool.leaving), 0)
        if len(pool.condemned) - pool.leaving + unborn < -change:
            result.wrong.append(f"{name}: {pool.asked} → {replicas} with only {sorted(pool.condemned)} marked")
        pool.leaving += -change
