"""Every peer by name, with its published defaults and a grid for its knob.

The grids hold each default and reach far enough on both sides that the best value lies inside on the
published traces; a sweep that finds its best value at the end of a grid should widen it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from longtail.policy.fleet import Behavior
from longtail.workbench.peers import llm_d
from longtail.workbench.peers.aibrix import Aibrix, Strategy
from longtail.workbench.peers.conformal import Sizing
from longtail.workbench.peers.dynamo import DynamoLoad, DynamoSla, PredictorKind
from longtail.workbench.peers.dynamo_load import LatencyTargets, Target
from longtail.workbench.peers.hpa import External, Hpa, HpaSpec
from longtail.workbench.peers.keda import Keda, ScaledObject, Trigger
from longtail.workbench.peers.kpa import Kpa
from longtail.workbench.peers.kubeai import KubeAI
from longtail.workbench.peers.oracle import ArrivalsOracle, RateOracle, Truth
from longtail.workbench.peers.persistence import Persistence
from longtail.workbench.peers.queries import kv_used_ratio, running_requests, waiting_requests
from longtail.workbench.peers.ray_serve import RayServe
from longtail.workbench.peers.view import Policy
from longtail.workbench.peers.wva import WvaV1, WvaV2
from longtail.workbench.peers.wva_v2 import V2Settings

FACTORS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
QUANTILES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)


@dataclass(frozen=True, slots=True)
class Service:
    """What a user who sets these systems up knows about the service."""

    slots_per_replica: float
    min_replicas: int = 1
    max_replicas: int = 24
    startup_seconds: float = 180.0
    time_per_output_token_seconds: float = 0.05
    max_batched_tokens: int = 8192
    peak_prefill_tokens_per_second: float = 15_928.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A policy at its defaults, and the values that hindsight may choose from."""

    policy: Policy[Any]
    grid: tuple[float, ...]


def catalogue(service: Service, *, truth: Truth | None = None) -> Mapping[str, Peer]:
    """All peers by name; the oracles only where the truth is given.

    Dynamo with ARIMA is not among them, because it needs an extra package: add
    ``DynamoSla(predictor=PredictorKind.ARIMA, ...)`` where statsmodels is installed.
    """
    sizing = Sizing(
        slots_per_replica=service.slots_per_replica,
        horizon_seconds=service.startup_seconds,
        min_replicas=service.min_replicas,
        max_replicas=service.max_replicas,
    )
    peers = [
        *_kubernetes(service),
        *_llm_d(service),
        *_request_counters(service),
        *_dynamo(service),
        Peer(Persistence(sizing), QUANTILES),
    ]
    if truth is not None:
        peers += [Peer(RateOracle(truth, sizing), QUANTILES), Peer(ArrivalsOracle(truth, sizing), SHARES)]
    return {peer.policy.name: peer for peer in peers}


def _kubernetes(service: Service) -> list[Peer]:
    low, high, slots = service.min_replicas, service.max_replicas, service.slots_per_replica
    legacy, modern = HpaSpec(low, high), HpaSpec(low, high, Behavior())
    scaled = ScaledObject(min_replicas=low, max_replicas=high)
    both = (External(waiting_requests, 2.0), External(kv_used_ratio, 0.7))
    occupancy = (External(running_requests, 0.7 * slots), External(waiting_requests, 2.0))
    return [
        Peer(Hpa((External(waiting_requests, 5.0),), modern, name="hpa-waiting"), FACTORS),
        Peer(Hpa((External(kv_used_ratio, 0.7),), modern, name="hpa-kv"), FACTORS),
        Peer(Hpa((External(running_requests, 0.7 * slots),), modern, name="hpa-running"), FACTORS),
        Peer(Hpa(both, modern, name="hpa-waiting-kv"), FACTORS),
        Peer(Hpa(occupancy, legacy, name="hpa-running-waiting-legacy"), FACTORS),
        Peer(Keda((Trigger(waiting_requests, 5.0),), scaled, name="keda-waiting"), FACTORS),
        Peer(Keda((Trigger(running_requests, 0.7 * slots),), scaled, name="keda-running"), FACTORS),
    ]


def _llm_d(service: Service) -> list[Peer]:
    low, high = service.min_replicas, service.max_replicas
    token_aware = llm_d.token_aware(
        peak_prefill_tokens_per_second=service.peak_prefill_tokens_per_second,
        min_replicas=low,
        max_replicas=high,
    )
    settings = V2Settings(max_batched_tokens=service.max_batched_tokens)
    return [
        Peer(llm_d.queue(min_replicas=low, max_replicas=high), FACTORS),
        Peer(llm_d.QueueGuard(min_replicas=low, max_replicas=high), FACTORS),
        Peer(token_aware, FACTORS),
        Peer(llm_d.SloAware(min_replicas=low, max_replicas=high), (0.35, 0.45, 0.55, 0.65, 0.8, 0.95)),
        Peer(WvaV1(min_replicas=low, max_replicas=high), (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)),
        Peer(WvaV2(settings, min_replicas=low, max_replicas=high), (0.4, 0.5, 0.6, 0.7, 0.85, 0.95, 1.0)),
    ]


def _request_counters(service: Service) -> list[Peer]:
    low, high = service.min_replicas, service.max_replicas
    slots = tuple(round(share * service.slots_per_replica, 3) for share in SHARES)
    return [
        Peer(Kpa(min_replicas=low, max_replicas=high), (*slots, 70.0)),
        Peer(Aibrix(Strategy.KPA, min_replicas=low, max_replicas=high), SHARES),
        Peer(Aibrix(Strategy.APA, min_replicas=low, max_replicas=high), SHARES),
        Peer(RayServe(min_replicas=low, max_replicas=high), (2.0, *slots)),
        Peer(KubeAI(min_replicas=low, max_replicas=high), (*slots, 100.0)),
    ]


def _dynamo(service: Service) -> list[Peer]:
    low, high, target = service.min_replicas, service.max_replicas, service.time_per_output_token_seconds
    token_seconds = tuple(round(target * factor, 6) for factor in (0.5, 0.7, 0.85, 1.0, 1.2, 1.5))
    peers = [
        Peer(DynamoLoad(Target.THROUGHPUT, min_replicas=low, max_replicas=high), SHARES),
        Peer(DynamoLoad(Target.LATENCY, min_replicas=low, max_replicas=high), SHARES),
    ]
    targets = LatencyTargets(
        token_seconds=target, chunk_tokens=service.max_batched_tokens, min_replicas=service.min_replicas
    )
    for kind in (PredictorKind.CONSTANT, PredictorKind.KALMAN):
        for load in (False, True):
            policy = DynamoSla(kind, targets, load_scaling=load, max_replicas=high)
            peers.append(Peer(policy, token_seconds))
    by_load = DynamoSla(targets=targets, throughput_scaling=False, load_scaling=True, max_replicas=high)
    return [*peers, Peer(by_load, token_seconds)]
