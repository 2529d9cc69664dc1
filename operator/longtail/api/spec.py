"""`spec` of a ReasoningServing: what a user may say. `kubectl explain` shows the docstrings below."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from longtail.api.effort import Effort
from longtail.api.scaling import ScalingBehavior
from longtail.api.schema import Model, Name, Rule
from longtail.policy.fleet import DrainDeadline, DrainPolicy, Mode

MetricName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")]
"""Name of a Prometheus series. The pattern keeps PromQL out of it."""

LabelKey = Annotated[
    str,
    Field(
        min_length=1,
        max_length=317,
        pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*/)?"
        r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
    ),
]
"""Key of a Kubernetes label: an optional DNS prefix, a slash, a name."""

SeriesLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]
"""Name of a label of a Prometheus series. The pattern keeps PromQL out of it."""

Replicas = Annotated[int, Field(ge=1, le=10_000)]
Tokens = Annotated[int, Field(ge=1, le=10_000_000)]


class EngineType(StrEnum):
    """Which vocabulary of series a pool speaks."""

    AUTO = "Auto"
    VLLM = "VLLM"
    SGLANG = "SGLang"
    CUSTOM = "Custom"


class ScaleTargetRef(Model):
    """The object that is scaled, in the namespace of this resource."""

    api_version: Annotated[
        str,
        Field(max_length=253, pattern=r"^([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?v[0-9]+((alpha|beta)[0-9]+)?$"),
    ] = "apps/v1"
    """API group and version of the target, for example apps/v1 or leaderworkerset.x-k8s.io/v1."""
    kind: Annotated[str, Field(max_length=63, pattern=r"^[A-Z][A-Za-z0-9]*$")] = "Deployment"
    """Kind of the target: anything with a scale subresource."""
    name: Name
    """Name of the target."""


class CustomMetrics(Model):
    """Names of the series of an engine that longtail does not know. Their pod labels are the metrics source's."""

    running_requests: MetricName
    """Gauge: requests that hold a slot."""
    waiting_requests: MetricName
    """Gauge: requests that wait for a slot in the engine."""
    kv_cache_usage_ratio: MetricName | None = None
    """Gauge: share of the KV cache in use, 0 to 1."""
    kv_cache_used_tokens: MetricName | None = None
    """Gauge: tokens in the KV cache."""
    kv_cache_capacity_tokens: MetricName | None = None
    """Gauge: tokens that the KV cache can hold."""
    generated_tokens: MetricName | None = None
    """Counter: output tokens, counted while they are written."""
    preemptions: MetricName | None = None
    """Counter: running requests that were sent back to wait."""
    output_tokens: MetricName | None = None
    """Histogram, without its _bucket suffix: output tokens of finished requests."""
    queue_wait_seconds: MetricName | None = None
    """Histogram, without its _bucket suffix: time from arrival to a slot."""
    first_token_seconds: MetricName | None = None
    """Histogram, without its _bucket suffix: time from arrival to the first token."""


class Engine(Model):
    """The inference server in the pods."""

    type: EngineType = EngineType.AUTO
    """Auto recognises vLLM and SGLang by the series they write; Custom takes the names from custom."""
    custom: CustomMetrics | None = None
    """Names of the series of an engine of type Custom."""

    rules = (
        Rule(
            cel="(self.type == 'Custom') == has(self.custom)",
            message="engine.custom names the series of an engine of type Custom: set both or neither",
            holds=lambda engine: (engine.type is EngineType.CUSTOM) == (engine.custom is not None),
        ),
    )


class Gateway(Model):
    """What stands in front of the pool: where requests may wait, and where reasoning is told from answers."""

    inference_pool: Name | None = None
    """Name of the InferencePool whose flow-control queue (llm_d_epp_flow_control_*) holds our requests."""
    model: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """What clients call the model at a LiteLLM proxy: its token counters tell how much of the output is reasoning."""
    class_label: SeriesLabel | None = None
    """Label of these counters whose values are classes of requests, such as team_alias. Choose one with few values."""

    rules = (
        Rule(
            cel="!has(self.classLabel) || has(self.model)",
            message="gateway.classLabel is a label of the counters of gateway.model: set that too",
            holds=lambda gateway: gateway.class_label is None or gateway.model is not None,
            path=".classLabel",
        ),
        Rule(
            cel="has(self.inferencePool) || has(self.model)",
            message="gateway names an inferencePool, a model, or both",
            holds=lambda gateway: gateway.inference_pool is not None or gateway.model is not None,
        ),
    )


class Objective(Model):
    """What the users of the model are promised."""

    queue_wait_seconds: Annotated[int, Field(ge=1, le=3600)] = 10
    """A request should wait at most this long for a slot, 1 to 3600 seconds."""
    attainment_percent: Annotated[int, Field(ge=50, le=99)] = 99
    """Share of requests for which queueWaitSeconds should hold, 50 to 99 percent."""
    time_per_output_token_milliseconds: Annotated[int, Field(ge=1, le=10_000)] = 50
    """Pace that a running request is promised: a replica is full when one more request would break it."""


class CapacityOverride(Model):
    """What one replica can hold, where that is known. Absent fields are learned."""

    max_concurrent_requests: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Requests that one replica may serve at a time, such as vLLM's --max-num-seqs."""
    kv_cache_tokens: Annotated[int, Field(ge=1, le=10_000_000_000)] | None = None
    """Tokens that the KV cache of one replica can hold."""


class Gpus(Model):
    """The GPUs of one replica, where its pod template does not say. Absent fields are read from the template."""

    gpu_class: Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")] | None = (
        Field(default=None, alias="class")
    )
    """Model, such as H100, as prices and budgets name it; capital and small letters are the same."""
    per_replica: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """GPUs of one replica: of a LeaderWorkerSet those of a whole group."""


class LengthPriors(Model):
    """Length of an answer, reasoning included, until enough answers have been seen."""

    mean_output_tokens: Tokens = 2000
    """Mean output tokens of a request."""
    max_output_tokens: Tokens = 32768
    """Most output tokens of a request: its limit, or the context length of the model."""

    rules = (
        Rule(
            cel="self.meanOutputTokens <= self.maxOutputTokens",
            message="lengths.meanOutputTokens must not exceed lengths.maxOutputTokens",
            holds=lambda lengths: lengths.mean_output_tokens <= lengths.max_output_tokens,
            path=".meanOutputTokens",
        ),
    )


class StartupPrior(Model):
    """Cold start of a replica, until some have been seen."""

    seconds: Annotated[int, Field(ge=1, le=86_400)] = 180
    """From asking for a replica until it serves: node, image, weights, warm-up."""


class Drain(Model):
    """How replicas leave: out of routing first, deleted when empty, back in routing when load returns before."""

    policy: DrainPolicy = DrainPolicy.REVERSIBLE
    """Reversible never cuts a request short. Immediate deletes at once, and what is being worked on is lost."""
    routing_label: LabelKey = "longtail.dev/route"
    """Label in the selector of the Service, not of the workload: "true" serves, "draining" takes a pod out."""
    max_seconds: Annotated[int, Field(ge=1, le=604_800)] = 3600
    """Longest time that a replica may be kept out of routing, 1 second to 7 days. Then onDeadline happens."""
    on_deadline: DrainDeadline = DrainDeadline.UNCORDON
    """Uncordon puts a replica that is not empty in time back to work; Delete deletes it with what it holds."""


class Activation(Model):
    """The signal that wakes a pool up. It must outlive the pods: a counter or queue of the gateway in front."""

    query: Annotated[str, Field(min_length=1, max_length=1024)]
    """PromQL with one number for an answer: above 0 there is work. No answer is not 0: do not add "or vector(0)"."""


class ScaleToZero(Model):
    """When the pool may sleep. Needs activation.query, or gateway.inferencePool, to be woken by."""

    idle_seconds: Annotated[int, Field(ge=10, le=604_800)] = 1800
    """Sleep after at least so long without a request running, waiting or arriving, 10 to 604800 seconds."""
    activation: Activation | None = None
    """The signal that wakes the pool up, beside the queue of gateway.inferencePool."""


class Fallback(Model):
    """The least size of the pool while it cannot be seen. It never makes a pool smaller."""

    after_seconds: Annotated[int, Field(ge=1, le=86_400)] = 180
    """How long the metrics must have been missing or stale, 1 to 86400 seconds."""
    replicas: Replicas
    """At least so many replicas, within maxReplicas."""


class ReasoningServingSpec(Model):
    """What the pool should be."""

    mode: Mode = Mode.ADVISE
    """Advise publishes the number and writes nothing, Active scales the target, "Off" (quoted) rests."""
    scale_target_ref: ScaleTargetRef
    """The object that is scaled."""
    min_replicas: Annotated[int, Field(ge=0, le=10_000)] = 1
    """Never fewer replicas than this, except for a pool that sleeps (scaleToZero). 0 needs scaleToZero."""
    max_replicas: Replicas
    """Never more replicas than this."""
    engine: Engine = Engine()
    """The inference server in the pods."""
    gateway: Gateway | None = None
    """The gateway in front of the pool, if there is one that longtail can read."""
    metrics_source: Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = "default"
    """Where the series are: a name that the administrator configured in the operator."""
    objective: Objective = Objective()
    """What the users of the model are promised."""
    capacity: CapacityOverride = CapacityOverride()
    """What one replica can hold, where it should not be learned."""
    gpus: Gpus = Gpus()
    """The GPUs of one replica, where its pod template does not say."""
    priority: Annotated[int, Field(ge=0, le=1000)] = 0
    """Who comes first where GPUs of a budget are short: higher is more important, 0 to 1000."""
    variant_of: Name | None = None
    """A name that pools of one model behind one gateway share, in one namespace: the cheapest tokens come first."""
    lengths: LengthPriors = LengthPriors()
    """First guess of the length of an answer. Learned afterwards."""
    startup: StartupPrior = StartupPrior()
    """First guess of the cold start of a replica. Learned afterwards."""
    drain: Drain = Drain()
    """How replicas leave."""
    behavior: ScalingBehavior = ScalingBehavior()
    """Limits on the speed of change, as in HorizontalPodAutoscaler autoscaling/v2."""
    scale_to_zero: ScaleToZero | None = None
    """Let the pool sleep while there is no work. Without it, 0 replicas are somebody's pause and stay."""
    effort: Effort | None = None
    """Think less while replicas cannot come in time. Without it, requests wait."""
    fallback: Fallback | None = None
    """What to do when the metrics have been gone for long. Without it the pool holds what it has."""
    manual_scaling_grace_seconds: Annotated[int, Field(ge=0, le=604_800)] = 600
    """How long replicas that others set stand, 0 to 604800 seconds, unless requests wait or minReplicas is above."""

    rules = (
        Rule(
            cel="self.minReplicas >= 1 || has(self.scaleToZero)",
            message="minReplicas may be 0 only with scaleToZero, which says when the pool sleeps and what wakes it",
            holds=lambda spec: spec.min_replicas >= 1 or spec.scale_to_zero is not None,
            path=".minReplicas",
        ),
        Rule(
            cel=(
                "!has(self.scaleToZero) || has(self.scaleToZero.activation) || "
                "(has(self.gateway) && has(self.gateway.inferencePool))"
            ),
            message="scaleToZero needs something to wake the pool: scaleToZero.activation or gateway.inferencePool",
            holds=lambda spec: spec.can_be_woken,
            path=".scaleToZero",
        ),
        Rule(
            cel="self.minReplicas <= self.maxReplicas",
            message="minReplicas must not exceed maxReplicas",
            holds=lambda spec: spec.min_replicas <= spec.max_replicas,
            path=".minReplicas",
        ),
    )

    @property
    def can_be_woken(self) -> bool:
        """Whether a pool that sleeps has a signal that outlives its pods; True for one that never sleeps."""
        if self.scale_to_zero is None:
            return True
        pool = self.gateway.inference_pool if self.gateway is not None else None
        return self.scale_to_zero.activation is not None or pool is not None
