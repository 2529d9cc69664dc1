"""One simulated service: definition, pool and workload, the pods it follows, the faults of its metrics.

Definitions (profile, rates, times of a rate profile) are stated at speed 1. ``speed`` makes the GPU and the
clients that many times as fast: steps and prefill take ``1 / speed`` of the time, rates are multiplied, the
times of a rate profile divided. Everything that comes out (metrics, truth) is in seconds of the clock on the
wall, so rates, waits, latencies and counters agree with each other and with the Prometheus that scrapes them.
At speed 10 a thought of 10,000 tokens at 25 ms takes 25 s instead of 250 s, and a pool serves ten times the
requests per second.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from longtail.workbench.engine.exposition_sglang import SglangExposition
from longtail.workbench.engine.exposition_vllm import VllmExposition
from longtail.workbench.engine.pool import Exposition, Pool
from longtail.workbench.engine.profiles import PROFILES, EngineProfile
from longtail.workbench.engine.workload import Arrivals, RateProfile

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
FaultKind = Literal["none", "freeze", "html", "nan", "inf", "negative", "million", "slow", "error", "empty"]
_CONSTANTS: dict[str, str] = {"nan": "NaN", "inf": "+Inf", "negative": "-1.0", "million": "1e+06"}


class _Definition(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RateDefinition(_Definition):
    """Requests per second in time: points of a piecewise linear function, from when it is set."""

    points: tuple[tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0, le=1e4)]], ...] = Field(
        min_length=1, max_length=1000, default=((0.0, 0.0),)
    )
    repeat: bool = False

    def profile(self, speed: float) -> RateProfile:
        """The profile at that speed.

        Raises:
            ValueError: the points are not in order.
        """
        return RateProfile(points=self.points, repeat=self.repeat).faster(speed)


class Fault(_Definition):
    """What is wrong with the metrics of some pods (all, when none are named)."""

    kind: FaultKind
    pods: tuple[Name, ...] | None = None
    delay_seconds: Annotated[float, Field(gt=0, le=120)] = 10.0
    """For ``slow``: how long an answer takes."""


class ServiceDefinition(_Definition):
    """What a service is; see ``PROFILES`` for the profiles."""

    name: Name
    namespace: Name = "default"
    selector: str | None = Field(default=None, max_length=500)
    """Label selector of the pods to follow in the cluster; without it pods are set through the control
    API."""
    route_label: str | None = Field(default=None, pattern=r"^[^=]+=[^=]*$")
    """``key=value``: of the ready pods only those with this label get new requests."""
    service: Name | None = None
    """A Service of the cluster: only the ready endpoints of its EndpointSlices get new requests, as with any
    client or proxy."""
    profile: str = "qwen3-32b-1xh100-fp8"
    slots: Annotated[int, Field(ge=1, le=4096)] | None = None
    kv_capacity_tokens: Annotated[int, Field(ge=2)] | None = None
    max_model_len_tokens: Annotated[int, Field(ge=2)] | None = None
    engine: Literal["vllm", "vllm-previous", "sglang"] = "vllm"
    engines_per_pod: Annotated[int, Field(ge=1, le=16)] = 1
    routing: Literal["least_loaded", "pack"] = "least_loaded"
    gateway: bool = False
    sigterm: Literal["abort", "drain"] = "abort"
    """What a pod does when it is deleted: lose everything at once (vLLM's default) or finish while it
    exists."""
    job: str | None = None
    rate: RateDefinition = RateDefinition()
    gap_cv: Annotated[float, Field(gt=0, le=20)] = 1.0
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _usable(self) -> Self:
        self.engine_profile(1.0)
        self.rate.profile(1.0)
        if self.engine == "sglang" and self.engines_per_pod != 1:
            raise ValueError(f"engines_per_pod must be 1 for sglang, got {self.engines_per_pod}")
        return self

    def engine_profile(self, speed: float) -> EngineProfile:
        """The profile with this service's own sizes, at that speed.

        Raises:
            ValueError: there is no such profile, or the sizes do not go together.
        """
        if self.profile not in PROFILES:
            raise ValueError(f"profile must be one of {', '.join(sorted(PROFILES))}, got {self.profile!r}")
        own: dict[str, Any] = {
            name: value
            for name in ("slots", "kv_capacity_tokens", "max_model_len_tokens")
            if (value := getattr(self, name)) is not None
        }
        return replace_fields(PROFILES[self.profile], **own).faster(speed)

    def exposition(self, profile: EngineProfile) -> Exposition:
        """The metrics page of a new pod."""
        if self.engine == "sglang":
            return SglangExposition(model_name=profile.model)
        return VllmExposition(
            profile=profile,
            model_name=profile.model,
            engines=self.engines_per_pod,
            generation="previous" if self.engine == "vllm-previous" else "current",
        )


@dataclass(frozen=True, slots=True)
class PodState:
    """What the cluster says of a pod."""

    name: str
    incarnation: str = ""
    """Changes when the process behind the name does: uid and restarts of the containers."""
    ready: bool = True
    terminating: bool = False
    routable: bool = True


def endpoints_of_list(body: Mapping[str, Any]) -> frozenset[str]:
    """Names of the pods that an EndpointSliceList (as parsed JSON) says are ready."""
    return frozenset(
        endpoint["targetRef"]["name"]
        for piece in body.get("items") or ()
        for endpoint in piece.get("endpoints") or ()
        # Absent means ready, as the API says.
        if (endpoint.get("conditions") or {}).get("ready", True) and endpoint.get("targetRef")
    )


def pods_of_list(
    body: Mapping[str, Any], *, route_label: str | None = None, endpoints: frozenset[str] | None = None
) -> list[PodState]:
    """The pods of a Kubernetes PodList (as parsed JSON); of them the ``endpoints`` get requests, if given."""
    key, _, wanted = (route_label or "").partition("=")
    pods = []
    for item in body.get("items") or ():
        meta, status = item["metadata"], item.get("status") or {}
        restarts = sum(c.get("restartCount", 0) for c in status.get("containerStatuses") or ())
        conditions = {c["type"]: c["status"] for c in status.get("conditions") or ()}
        pods.append(
            PodState(
                name=meta["name"],
                incarnation=f"{meta.get('uid', '')}/{restarts}",
                ready=conditions.get("Ready") == "True",
                terminating="deletionTimestamp" in meta,
                routable=(not key or (meta.get("labels") or {}).get(key) == wanted)
                and (endpoints is None or meta["name"] in endpoints),
            )
        )
    return pods


class Service:
    """A running service. Times must not go back."""

    def __init__(self, definition: ServiceDefinition, *, speed: float, now_seconds: float) -> None:
        self.definition = definition
        self.speed = speed
        self.fault = Fault(kind="none")
        profile = definition.engine_profile(speed)
        self.arrivals = Arrivals(
            profile=definition.rate.profile(speed),
            seed=definition.seed,
            gap_cv=definition.gap_cv,
            start_seconds=now_seconds,
            max_model_len_tokens=profile.max_model_len_tokens,
        )
        self.pool = Pool(
            profile=profile,
            source=self.arrivals,
            exposition=lambda: definition.exposition(profile),
            engines_per_pod=definition.engines_per_pod,
            routing=definition.routing,
            gateway=definition.gateway,
            start_seconds=now_seconds,
        )
        self._rng = np.random.default_rng(definition.seed + 1)
        self._incarnations: dict[str, str] = {}
        self._frozen: dict[str, str] = {}

    def follow(self, states: Iterable[PodState], *, now_seconds: float) -> None:
        """Make the pool the set of pods of the cluster: ready ones appear, gone ones lose their work."""
        self.pool.advance(now_seconds)
        seen = {state.name: state for state in states}
        pods = self.pool.pods
        for name in [name for name in pods if name not in seen]:
            self._drop(name, now_seconds)
        for name, state in seen.items():
            dying = state.terminating and self.definition.sigterm == "abort"
            if name in pods and (dying or self._incarnations[name] != state.incarnation):
                self._drop(name, now_seconds)
            serving = state.ready and not state.terminating
            if name not in pods and serving:
                self.pool.add(name, at_seconds=now_seconds, routable=state.routable)
                self._incarnations[name] = state.incarnation
            elif name in pods:
                self.pool.route(name, routable=serving and state.routable, at_seconds=now_seconds)

    def restart(self, name: str, *, now_seconds: float) -> int:
        """A container crashes and is back; returns how many requests were lost."""
        return self.pool.restart(name, at_seconds=now_seconds)

    def abort(self, share: float, *, now_seconds: float) -> int:
        """That share of the clients gives up; returns how many."""
        return self.pool.abort_share(share, at_seconds=now_seconds, rng=self._rng)

    def set_rate(self, rate: RateDefinition, *, now_seconds: float) -> None:
        """Another rate profile from now on."""
        self.pool.advance(now_seconds)
        self.arrivals.follow(rate.profile(self.speed), at_seconds=now_seconds)

    def pause(self, *, paused: bool, now_seconds: float) -> None:
        """Stop the clients, or let them go on."""
        self.pool.advance(now_seconds)
        if paused:
            self.arrivals.pause(at_seconds=now_seconds)
        else:
            self.arrivals.resume(at_seconds=now_seconds)

    def set_fault(self, fault: Fault) -> None:
        """From now on; ``freeze`` keeps each page as it is when it is next asked for."""
        self.fault = fault
        self._frozen.clear()

    def fault_of(self, pod: str) -> FaultKind:
        """What is wrong with a pod's metrics."""
        return self.fault.kind if self.fault.pods is None or pod in self.fault.pods else "none"

    def page(self, pod: str) -> str:
        """A pod's metrics page as of the last ``advance``, with the faults that concern its numbers.

        Raises:
            KeyError: there is no such pod.
        """
        kind = self.fault_of(pod)
        if kind == "freeze":
            if pod not in self._frozen:
                self._frozen[pod] = self.pool.metrics(pod)
            return self._frozen[pod]
        exposition = self.pool.pods[pod].exposition
        if kind in _CONSTANTS and exposition is not None:
            return exposition.constant(_CONSTANTS[kind])
        return self.pool.metrics(pod)

    def _drop(self, name: str, now_seconds: float) -> None:
        self.pool.remove(name, at_seconds=now_seconds)
        self._incarnations.pop(name, None)
        self._frozen.pop(name, None)
