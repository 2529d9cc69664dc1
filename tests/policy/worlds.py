"""Small worlds for the tests of the policy: one service of 8 slots a replica, and what is seen of it."""

from dataclasses import replace
from typing import Any

from longtail.demand.estimate import Capacity, Demand, Lengths, Startup
from longtail.demand.observation import MISSING, Observation, Quality, Signal
from longtail.demand.parameters import ServiceParameters
from longtail.policy.decision import Decision, LadderStep, Rung
from longtail.policy.fleet import (
    Behavior,
    Limits,
    Mode,
    Pod,
    ScalingRules,
    Service,
    ServiceKey,
    Target,
)
from longtail.policy.ladder import decide
from longtail.policy.memory import ServiceMemory

NOW = 1_800_000_000.0
TICK = 15.0
KEY = ServiceKey(namespace="inference", name="r1")
SLOTS = 8.0
KV_TOKENS = 100_000.0

AT_ONCE = Behavior(
    scale_up=replace(Behavior().scale_up, stabilization_window_seconds=0),
    scale_down=replace(Behavior().scale_down, stabilization_window_seconds=0),
)
"""No windows: what is needed is what happens, within the default rates."""


def stale(value: float, age: float = 120.0) -> Signal:
    return Signal(value=value, age_seconds=age, quality=Quality.STALE)


def partial(value: float) -> Signal:
    return Signal(value=value, quality=Quality.PARTIAL)


def seen(running: float | Signal = 0.0, waiting: float | Signal = 0.0, **over: Any) -> Observation:
    """An observation of four pods that all report."""
    signals = {
        name: value if isinstance(value, Signal) else Signal(value=value)
        for name, value in {"running_requests": running, "waiting_requests": waiting}.items()
    }
    return Observation(**({"at_seconds": NOW, "ready_pods": 4, "reporting_pods": 4} | signals | over))


def unseen(**over: Any) -> Observation:
    return seen(MISSING, MISSING, reporting_pods=0, **over)


def demand(slots: float | None = 0.0, **over: Any) -> Demand:
    fields: dict[str, Any] = {
        "capacity": Capacity(slots_per_replica=SLOTS, kv_tokens_per_replica=KV_TOKENS, bound_by="Spec"),
        "lengths": Lengths(mean_tokens=2000, p50_tokens=1000, p99_tokens=20_000, tail_share=0.0),
        "startup": Startup(p50_seconds=120, p90_seconds=180),
        "slots_now": slots,
        "kv_now_tokens": None,
        "owed_tokens": None,
        "queued_reasoning_tokens": None,
    }
    return Demand(**(fields | over))


def pods(count: int, *, ready: bool = True, age: float = 3600.0, prefix: str = "r1") -> tuple[Pod, ...]:
    return tuple(
        Pod(
            name=f"{prefix}-{n}",
            created_at=NOW - age,
            ready_at=NOW - age + 60 if ready else None,
            ready=ready,
        )
        for n in range(count)
    )


def service(replicas: int | None = 4, *, mode: Mode = Mode.ACTIVE, **limits: Any) -> Service:
    target = None
    if replicas is not None:
        target = Target(replicas=replicas, ready_replicas=replicas, pods=pods(replicas))
    return Service(
        key=KEY,
        mode=mode,
        parameters=ServiceParameters(),
        limits=Limits(**({"min_replicas": 1, "max_replicas": 20} | limits)),
        target=target,
    )


WATCHED = ServiceMemory(watched_since=NOW - 86_400, watched_at=NOW - TICK, met=True)
"""Seen without a gap for a day."""


def decided(
    of: Service,
    observation: Observation,
    need: Demand | None = None,
    *,
    memory: ServiceMemory = WATCHED,
    now: float = NOW,
) -> Decision:
    """The decision alone; without a demand, the one that running + waiting at the target speed make."""
    return decide(service=of, observation=observation, demand=need or plain(observation), memory=memory, now=now)[0]


def plain(observation: Observation) -> Demand:
    """What the reactive part of the demand model says of an observation at the target speed."""
    running, waiting = observation.running_requests.value, observation.waiting_everywhere.value
    return demand(None if running is None or waiting is None else running + waiting)


def rung(decision: Decision, which: Rung) -> LadderStep:
    (step,) = (step for step in decision.ladder if step.rung is which)
    return step


def rules(window: int = 0, **over: Any) -> ScalingRules:
    return replace(Behavior().scale_down, stabilization_window_seconds=window, **over)
