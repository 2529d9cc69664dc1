"""Pools whose replicas have 8 slots and 8 GPUs, and what is decided for a fleet of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from longtail.demand.observation import Observation, Signal
from longtail.demand.parameters import CapacityOverride, ServiceParameters
from longtail.policy.decision import Decision
from longtail.policy.fleet import Fleet, GpuBudget, GpuShape, Limits, Mode, Pod, Service, ServiceKey, Target, Variant
from longtail.policy.memory import Memory
from longtail.policy.step import step

from .worlds import AT_ONCE, NOW, TICK, seen

PARAMETERS = ServiceParameters(capacity=CapacityOverride(max_concurrent_requests=8))
H100 = GpuShape("H100", 8)


def pool(name: str, replicas: int, *, gpus: GpuShape | None = H100, **over: Any) -> Service:
    pods = tuple(
        Pod(f"{name}-{n}", created_at=NOW - 7200, scheduled_at=NOW - 7200, ready_at=NOW - 7100, ready=True, switch=True)
        for n in range(replicas)
    )
    fields: dict[str, Any] = {
        "key": ServiceKey("inference", name),
        "mode": Mode.ACTIVE,
        "parameters": PARAMETERS,
        "limits": Limits(1, 20, AT_ONCE),
        "target": Target(replicas=replicas, ready_replicas=replicas, pods=pods),
        "gpus": gpus,
    }
    return Service(**(fields | over))


def load(of: Service, requests: float, *, tick: int = 0) -> Observation:
    ready = 0 if of.target is None else of.target.ready_replicas
    return replace(
        seen(Signal(min(requests, 8.0 * ready)), Signal(max(requests - 8.0 * ready, 0.0)), ready_pods=ready),
        reporting_pods=ready,
        at_seconds=NOW + TICK * tick,
        interval_seconds=TICK if tick else 0.0,
    )


def ticks(
    services: Sequence[Service], loads: Mapping[str, float], *budgets: GpuBudget, count: int = 25
) -> dict[str, Decision]:
    """What is decided after enough ticks with the same load for pools to be allowed to shrink."""
    memory = Memory.empty()
    for tick in range(count):
        observations = {of.key: load(of, loads[of.key.name], tick=tick) for of in services if of.key.name in loads}
        decisions, memory = step(
            fleet=Fleet(services, budgets), observations=observations, memory=memory, now=NOW + TICK * tick
        )
    return {key.name: decision for key, decision in decisions.items()}


PRICES = {"h100": 3.0, "l40s": 4.0}
"""Of a GPU-hour."""


def variant(name: str, replicas: int, **over: Any) -> Service:
    """A variant of r1 on GPUs of the class of its name; h100 is the cheap one here, whatever the market says."""
    gpus = GpuShape(name.upper(), 8)
    return pool(name, replicas, **({"gpus": gpus, "variant": Variant("r1", PRICES.get(name))} | over))
