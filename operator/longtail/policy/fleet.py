"""The world as a tick sees it: services with their limits, their targets and their pods. Values only.

Control builds a ``Fleet`` from the watched objects; workbench builds one from a simulation. ``step`` cannot
tell the difference.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from longtail.demand.parameters import ServiceParameters


class ServiceKey(NamedTuple):
    """Identity of a ReasoningServing in the cluster."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Mode(enum.StrEnum):
    """How far longtail goes with a decision."""

    OFF = "Off"
    ADVISE = "Advise"
    ACTIVE = "Active"


class SelectPolicy(enum.StrEnum):
    """Which of several scaling policies wins, as in HPA v2."""

    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


class PolicyType(enum.StrEnum):
    """Unit of a scaling policy's value, as in HPA v2."""

    PODS = "Pods"
    PERCENT = "Percent"


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """At most ``value`` pods (or percent) within ``period_seconds``."""

    type: PolicyType
    value: int
    period_seconds: int


@dataclass(frozen=True, slots=True)
class ScalingRules:
    """One direction of HPA v2's ``behavior``."""

    stabilization_window_seconds: int
    policies: Sequence[ScalingPolicy]
    select_policy: SelectPolicy = SelectPolicy.MAX
    tolerance: float = 0.0
    """Relative change of the proposal against current that is not worth a move."""
    reversible_window_seconds: int | None = None
    """The window where a shrink can be taken back within seconds; None: the same one."""


@dataclass(frozen=True, slots=True)
class Behavior:
    """HPA v2's ``behavior``, with HPA's own defaults, but for a shrink that can be taken back."""

    scale_up: ScalingRules = ScalingRules(
        stabilization_window_seconds=0,
        policies=(
            ScalingPolicy(type=PolicyType.PERCENT, value=100, period_seconds=15),
            ScalingPolicy(type=PolicyType.PODS, value=4, period_seconds=15),
        ),
    )
    scale_down: ScalingRules = ScalingRules(
        stabilization_window_seconds=300,
        policies=(ScalingPolicy(type=PolicyType.PERCENT, value=100, period_seconds=15),),
        # HPA's 300 s are the price of a wrong shrink: minutes of a cold start, and the work that was cut. Out of
        # routing and back costs nothing. Measured on a day of R1 (docs/benchmarks): above a forecast that is a
        # maximum over the cold start already, 300 s hold 13 % more replicas, 60 s hold 4 %.
        reversible_window_seconds=60,
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """What the user allows."""

    min_replicas: int = 1
    max_replicas: int = 10
    behavior: Behavior = field(default_factory=Behavior)


class DrainPolicy(enum.StrEnum):
    """How replicas leave."""

    REVERSIBLE = "Reversible"
    """Out of routing first, deleted when empty, back in routing when load returns before that."""
    IMMEDIATE = "Immediate"
    """Deleted at once, as every autoscaler that writes /scale does: what they are working on is lost."""


class DrainDeadline(enum.StrEnum):
    """What ends a drain that takes too long."""

    UNCORDON = "Uncordon"
    """The replica goes back to work."""
    DELETE = "Delete"
    """The replica goes, and what it is working on is lost."""


@dataclass(frozen=True, slots=True)
class DrainRules:
    """What the user says about shrinking."""

    policy: DrainPolicy = DrainPolicy.REVERSIBLE
    max_seconds: float = 3600.0
    """Longest time a replica may be kept out of routing before ``on_deadline``."""
    on_deadline: DrainDeadline = DrainDeadline.UNCORDON


class VictimOrder(enum.StrEnum):
    """Who goes when a target is asked for fewer replicas."""

    CHOSEN = "Chosen"
    """A ReplicaSet takes pods that are not ready first, then the lowest pod-deletion-cost (KEP-2255)."""
    HIGHEST_INDEX = "HighestIndex"
    """A StatefulSet or LeaderWorkerSet takes the highest index, whatever it is doing."""
    UNKNOWN = "Unknown"
    """Another controller takes whom it likes: only a pool that is idle as a whole can shrink."""


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a target. Times are Unix seconds; None means not yet."""

    name: str
    created_at: float
    scheduled_at: float | None = None
    ready_at: float | None = None
    """First time the pod became ready, as far as it can be known."""
    ready: bool = False
    deleting: bool = False
    restarted: bool = False
    """A container restarted, so ``ready_at`` may not be the first time: nothing is learned from it."""
    unschedulable_message: str = ""
    """Why no node takes it, in the scheduler's words; empty when one did."""
    stopped: bool = False
    """No container of it runs: it crashed, or waits for its image. Whatever it was doing is over."""
    failure_message: str = ""
    """Why its container does not start, in the kubelet's words: no such image, crashed again and again."""
    index: int | None = None
    """Ordinal in a StatefulSet or LeaderWorkerSet."""
    switch: bool = False
    """Can be taken out of routing and put back, by a label that a Service or InferencePool selects by, or by
    a readiness gate."""
    cordoned: bool = False
    """Taken out of routing by longtail: finishes what it has, and gets nothing new."""
    cordoned_at: float | None = None
    """Since when; None where the note of it was lost."""
    isolated: bool = False
    """Taken out of routing by somebody else, to debug it say: neither counted as serving nor touched."""
    condemned: bool = False
    """Carries our deletion cost: the next one to go when replicas are lowered."""


@dataclass(frozen=True, slots=True)
class ReplicasWriter:
    """Who set spec.replicas to what it is, as the API server keeps it in managedFields."""

    name: str
    """Field manager: "kubectl", "argocd-controller", "kube-controller-manager" for an HPA."""
    at: float | None = None
    """When, whole Unix seconds; None for a write through /scale, which keeps no time."""
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """The scaled object as last seen."""

    replicas: int
    """spec.replicas through /scale."""
    ready_replicas: int
    pods: Sequence[Pod] = ()
    victims: VictimOrder = VictimOrder.CHOSEN
    rolling: bool = False
    """A rollout is under way: nobody can say which pod a lowering of replicas would take."""
    refused_message: str = ""
    """Why its controller may not create pods, such as a quota; empty when it may."""
    writer: ReplicasWriter | None = None
    """Who wrote ``replicas`` last; None where the kind does not tell."""


@dataclass(frozen=True, slots=True)
class ZeroRules:
    """When a pool may sleep, and what would wake it. At least one of the two signals outlives the pods."""

    idle_seconds: float
    """Without any work for at least so long."""
    query: bool = True
    """``Observation.activation`` tells of work at the door."""
    gateway: bool = False
    """``Observation.gateway_waiting_requests`` does."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """The least size of a pool that has not been seen for a while."""

    after_seconds: float
    replicas: int


class EffortPolicy(enum.StrEnum):
    """What is done with the level of thinking that a shortage calls for."""

    OFF = "Off"
    RECOMMEND = "Recommend"
    PUBLISH = "Publish"


@dataclass(frozen=True, slots=True)
class EffortLevel:
    """How much a request may think."""

    name: str
    thinking_tokens: int | None = None
    """Most reasoning tokens of a request; None: no limit."""
    reasoning_effort: str | None = None
    """The same for models that take a word."""


@dataclass(frozen=True, slots=True)
class EffortClass:
    """Requests with a floor and a priority of their own."""

    name: str
    lowest: int
    """Index of the lowest level that they may be given."""
    priority: int = 0
    """The higher, the longer they keep their thinking; requests of no class have 0."""


@dataclass(frozen=True, slots=True)
class EffortRules:
    """What the user allows to be thought less."""

    policy: EffortPolicy
    levels: Sequence[EffortLevel]
    """From the usual one to the least thinking; at least two."""
    answer_tokens: float = 500.0
    """Mean tokens after the reasoning, where that is not known from the gateway."""
    dwell_seconds: float = 300.0
    """Time at a level before more thinking is allowed again."""
    valid_seconds: float = 180.0
    """How long a published level lasts without being renewed."""
    classes: Sequence[EffortClass] = ()


UNKNOWN_GPU_CLASS = "UNKNOWN"
"""Class of the GPUs of a replica that does not say which ones it needs."""


@dataclass(frozen=True, slots=True)
class GpuShape:
    """The GPUs of one replica."""

    gpu_class: str
    """Model, in capitals, such as H100; `UNKNOWN_GPU_CLASS` where only the number is known."""
    per_replica: int


@dataclass(frozen=True, slots=True)
class GpuBudget:
    """At most so many GPUs of a class, for all services together or for those of one namespace.

    A service may be subject to both: then both hold.
    """

    gpu_class: str
    """As in `GpuShape`."""
    gpus: int
    namespace: str | None = None
    """None: all of them."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One of several services that serve the same model behind one gateway, on GPUs of different classes say."""

    of: str
    """What the variants of a namespace have in common; the name of the model say."""
    gpu_hour_price: float | None = None
    """Of one of its GPUs; None where nobody says."""
    queue: str | None = None
    """The gateway's queue that it reads: variants with the same one count each waiting request once."""


MANUAL_GRACE_SECONDS = 600.0
"""How long a number that somebody else has set stands, unless the user says otherwise."""


@dataclass(frozen=True, slots=True)
class Service:
    """One ReasoningServing with its target. ``target`` is None when it cannot be scaled now."""

    key: ServiceKey
    mode: Mode
    parameters: ServiceParameters
    limits: Limits
    target: Target | None
    drain: DrainRules = DrainRules()
    zero: ZeroRules | None = None
    """None: the pool never sleeps, and 0 replicas are somebody's pause."""
    fallback: Fallback | None = None
    manual_grace_seconds: float = MANUAL_GRACE_SECONDS
    effort: EffortRules | None = None
    """None: nobody is asked to think less."""
    created_at: float = 0.0
    """Unix seconds. What was written to the target before that is how it was found, not a correction."""
    gpus: GpuShape | None = None
    """GPUs of one replica; None where nobody says how many."""
    priority: int = 0
    """Who comes first where GPUs are short; higher is more important."""
    variant: Variant | None = None
    """None: no other service serves its requests."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """All services of a tick, in any order: the order has no influence on any decision."""

    services: Sequence[Service]
    budgets: Sequence[GpuBudget] = ()
    """What the services may take together; at most one for each class and namespace."""
