"""`status` of a ReasoningServing: what was seen, and the number with its reasons. None is "not known", not 0.

Numbers are rounded so that noise does not rewrite the object: whoever fills these models rounds, the models
only refuse what the API cannot hold.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from longtail.api.schema import Count, Model, Percent, Text, Time
from longtail.policy.decision import Rung

ReasonWord = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
"""One CamelCase word that a machine may compare, as in metav1.Condition."""


class ConditionStatus(StrEnum):
    """Truth of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    """One aspect of the state of the resource, shaped as metav1.Condition."""

    type: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Z][A-Za-z0-9]*$")]
    """Which aspect, such as Ready, AbleToScale, ScalingActive, ScalingLimited or MetricsAvailable."""
    status: ConditionStatus
    """True, False or Unknown."""
    observed_generation: Count | None = None
    """Generation of the spec that this condition was computed from."""
    last_transition_time: Time
    """When status last changed."""
    reason: ReasonWord
    """Stable word for the cause."""
    message: Text = ""
    """The cause in a sentence."""


class ReplicasStatus(Model):
    """Replicas of the target."""

    current: Count
    """Replicas that serve or are about to: what the target asks for, less those that are draining."""
    ready: Count
    """Pods that take requests."""
    pending: Count
    """Pods on their way: asked for and not ready yet."""
    draining: Count = 0
    """Pods out of routing that finish what they have. They are the first to come back when load returns."""
    desired: Count
    """Replicas that should serve."""


class DemandStatus(Model):
    """The work at hand. A field is absent when it is not known, which is not zero."""

    running_requests: Count | None = None
    """Requests that hold a slot."""
    waiting_requests: Count | None = None
    """Requests that wait for a slot, in the engines and in the gateway."""
    queued_reasoning_tokens: Count | None = None
    """The part of owedTokens that is reasoning; all of it where no gateway tells reasoning from answers."""
    owed_tokens: Count | None = None
    """Output tokens still to be written for all requests, running and waiting."""
    slots_now: Count | None = None
    """Slots that the requests at hand need to be served at the promised pace."""
    kv_now_tokens: Count | None = None
    """Tokens in the KV caches."""
    slots_forecast: Count | None = None
    """Slots expected to be needed one cold start from now."""
    slots_upper: Count | None = None
    """Slots that will suffice one cold start from now, as often as the objective asks."""
    known_percent: Percent | None = None
    """Share of the ready pods whose numbers these are."""
    coverage_percent: Percent | None = None
    """How often slotsUpper of the past did suffice: near the objective when the forecast is calibrated."""
    attainment_percent: Percent | None = None
    """Share of requests that waited at most objective.queueWaitSeconds, as the engines report it."""


class LengthChangeStatus(Model):
    """The last change of the output lengths, while it is news."""

    since: Time
    """When it began."""
    percent: Count
    """Mean length now in percent of the mean length before."""
    before_tokens: Count
    """Mean length before."""
    replica_hours_per_day: int
    """What the change costs at the present rate of requests; below zero: what it saves."""


class LengthsStatus(Model):
    """Estimated length of an answer in output tokens, reasoning included."""

    mean_tokens: Count
    """Mean."""
    p50_tokens: Count
    """Half of the answers are shorter."""
    p99_tokens: Count
    """99 of 100 answers are shorter."""
    tail_percent: Percent
    """Share of answers beyond the last bucket of the engine's histogram: the part that is only guessed."""
    change: LengthChangeStatus | None = None
    """The last change, while it is news: absent where lengths are steady."""


class StartupStatus(Model):
    """Measured cold start of a replica."""

    p50_seconds: Count
    """Half of the replicas were faster."""
    p90_seconds: Count
    """9 of 10 replicas were faster: how far ahead the pool must look."""


class CapacityStatus(Model):
    """What one replica can hold."""

    slots_per_replica: Count
    """Requests at a time at the promised pace."""
    kv_tokens_per_replica: Count | None = None
    """Tokens in its KV cache."""
    bound_by: ReasonWord
    """The narrowest bound: TimePerOutputToken, KVCache, MaxConcurrentRequests, Spec or Prior."""


Amount = Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?$")]
"""A decimal number, which is a Kubernetes quantity too. The API has no floats."""


class ClassStatus(Model):
    """What one class of requests takes, as the gateway counts it."""

    name: Annotated[str, Field(max_length=63)]
    """Value of the label spec.gateway.classLabel; other is all that is not told apart."""
    requests_per_second: Amount
    """Requests that were answered, over ten minutes."""
    mean_tokens: Count
    """Estimated mean length of an answer, reasoning included, over an hour."""
    reasoning_percent: Percent | None = None
    """Share of its output that is reasoning, where the engine tells."""
    work_percent: Percent
    """Share of the slots in use that its requests hold."""


class ClassEffortStatus(Model):
    """How much the requests of one class may think."""

    name: Annotated[str, Field(max_length=63)]
    """Name of the class, one of spec.effort.classes."""
    level: Annotated[str, Field(max_length=63)]
    """Name of its level."""


class EffortStatus(Model):
    """How much requests may think."""

    level: Annotated[str, Field(max_length=63)]
    """Name of the level, one of spec.effort.levels, for requests of no class."""
    thinking_tokens: Count | None = None
    """Most reasoning tokens of a request. Absent: no limit."""
    published: bool
    """Whether the gateway is told."""
    since: Time
    """When the level was entered."""
    because: Text
    """Why this level, with its figures."""
    classes: (
        Annotated[
            tuple[ClassEffortStatus, ...],
            Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
        ]
        | None
    ) = None
    """The level of each class of requests."""


class DayCostStatus(Model):
    """The last 24 hours, as far as this operator has seen them: it starts anew when the operator does."""

    known_hours: Count
    """How many of the 24 hours these figures are of."""
    gpu_hours: Amount
    """GPU-hours held, starts, drains and headroom included."""
    amount: Amount | None = None
    """What they cost, at the present price."""
    amount_per_thousand_answers: Amount | None = None
    """All of it, over the answered requests."""
    amount_per_million_output_tokens: Amount | None = None
    """All of it, over the output tokens, reasoning included."""
    amount_per_million_reasoning_tokens: Amount | None = None
    """All of it, over the reasoning tokens alone, where a gateway tells them (gateway.model)."""
    headroom_percent: Percent
    """Share of the GPU-hours that ready replicas had free slots for."""
    starting_percent: Percent
    """Share of the GPU-hours that cold starts took."""
    draining_percent: Percent
    """Share of the GPU-hours that draining replicas took."""
    idle_percent: Percent | None = None
    """Share of the GPU-hours of ready replicas in which the GPUs did nothing, where DCGM is read."""


class CostStatus(Model):
    """What the pool costs. Amounts are decimal strings in the currency; without prices there are none."""

    gpu_class: Annotated[str, Field(max_length=128)] | None = None
    """Model of its GPUs."""
    gpus: Count
    """GPUs that its pods hold now: those that start or drain too, those that wait for a node not."""
    currency: Annotated[str, Field(max_length=3)] | None = None
    """ISO 4217 code."""
    hourly_amount: Amount | None = None
    """What these GPUs cost in an hour."""
    last_day: DayCostStatus | None = None
    """The last 24 hours."""


class LadderStepStatus(Model):
    """The number after one step, and why."""

    rung: Rung
    """Which step."""
    replicas: Count
    """The number after it."""
    because: Text
    """Why, with its figures."""


class DecisionStatus(Model):
    """The last decision, and how its number came about."""

    reason: ReasonWord
    """Stable word for the outcome."""
    message: Text
    """The outcome in a sentence."""
    ladder: Annotated[
        tuple[LadderStepStatus, ...],
        Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """The steps, in order."""
    time: Time
    """When it was made."""


class ReasoningServingStatus(Model):
    """What was last seen and decided."""

    observed_generation: Count | None = None
    """Generation of the spec that this status was computed from."""
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = ()
    """The state of the resource, aspect by aspect."""
    summary: Annotated[str, Field(max_length=128)] | None = None
    """The load in a few words, for people."""
    replicas: ReplicasStatus | None = None
    """Replicas of the target."""
    demand: DemandStatus | None = None
    """The work at hand."""
    lengths: LengthsStatus | None = None
    """Estimated length of an answer."""
    startup: StartupStatus | None = None
    """Measured cold start of a replica."""
    capacity: CapacityStatus | None = None
    """What one replica can hold."""
    classes: (
        Annotated[
            tuple[ClassStatus, ...],
            Field(max_length=17, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
        ]
        | None
    ) = None
    """Where spec.gateway.classLabel tells requests apart: the classes with most output, and all others in one."""
    effort: EffortStatus | None = None
    """How much requests may think."""
    cost: CostStatus | None = None
    """What the pool costs."""
    decision: DecisionStatus | None = None
    """The last decision, and how its number came about."""
    last_scale_time: Time | None = None
    """When the target was last scaled from here."""
