"""What the demand model says about one service at one tick: plain numbers for the policy and the status."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one replica can hold, and which bound is the narrowest."""

    slots_per_replica: float
    """Concurrent requests at the target time per output token. > 0."""
    kv_tokens_per_replica: float | None
    """KV cache of one replica in tokens; None where unknown."""
    bound_by: str
    """One of: TimePerOutputToken, KVCache, MaxConcurrentRequests, Spec, Prior."""


@dataclass(frozen=True, slots=True)
class LengthChange:
    """Answers have become longer or shorter."""

    factor: float
    """Mean length now over the mean length before."""
    since: float
    """Unix seconds."""
    before_tokens: float
    """Mean length before; now it is ``factor`` times that."""
    requests_per_second: float
    replicas: float
    """What it takes more (less, where negative) to serve as many requests as arrive now, without any reserve."""

    @property
    def now_tokens(self) -> float:
        """Mean length now."""
        return self.factor * self.before_tokens


@dataclass(frozen=True, slots=True)
class Lengths:
    """Output lengths in tokens, from the estimated distribution."""

    mean_tokens: float
    p50_tokens: float
    p99_tokens: float
    tail_share: float
    """Share of requests beyond the last finite histogram bucket, 0..1."""
    watched: bool = False
    """Whether enough answers are known to tell a change of lengths."""
    change: LengthChange | None = None
    """The last change of lengths, while it is news."""


@dataclass(frozen=True, slots=True)
class Startup:
    """Cold start in seconds, prior included."""

    p50_seconds: float
    p90_seconds: float


@dataclass(frozen=True, slots=True)
class LevelDemand:
    """What a level of thinking would change, were it in force from now on. In replicas of now, and fractions of them.

    ``short_*`` say how many more than those working or on their way would be needed at the worst moment for all to be
    in time; below 0 there is room.
    """

    short_soon: float
    """Until a replica that is asked for now is there (median cold start)."""
    short_ahead: float
    """Up to the horizon (P90 cold start)."""
    short_then: float
    """At the horizon."""
    steady: float
    """Replicas that are needed in the long run at the present rate of arrivals."""
    mean_tokens: float
    """Mean length of an answer."""
    saved: Mapping[str, float] = field(default_factory=dict)
    """Share of its output that each class of requests would save, 0..1; empty where classes are not told apart."""


@dataclass(frozen=True, slots=True)
class Cascade:
    """Answers time out and are asked for again (see `demand.cascade`). Rates of the last minute."""

    since: float
    """Unix seconds."""
    aborted_per_second: float
    """Requests that were given up."""
    finished_per_second: float
    arrivals_per_second: float
    """All, those that were asked again included."""
    distinct_per_second: float
    """Of these, as many as are not known to be asked again."""
    patience_seconds: float
    """About how long clients wait before they give up."""
    queue_limit: float
    """Waiting requests of the whole pool that can still be answered in time: more need not be let in."""


@dataclass(frozen=True, slots=True)
class ClassDemand:
    """What one class of requests takes, as the gateway counts it."""

    name: str
    """Empty: all that is not told apart."""
    requests_per_second: float
    mean_tokens: float
    """Estimated mean length of its answers. While it is asked to think less, of those cut answers."""
    reasoning_share: float | None
    """Share of its output that is reasoning, 0..1; None where the engine does not tell."""
    work_share: float
    """Share of the slots in use that its requests hold, 0..1: they add up to 1."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Demand of one service. A field is None exactly when it cannot be known from what was seen.

    ``slots_*`` count concurrent requests normalised to the target speed; ``kv_*`` count tokens.
    ``upper`` is the calibrated quantile; ``peak`` is its maximum over now..horizon, which alone may lower a pool.
    """

    capacity: Capacity
    lengths: Lengths
    startup: Startup
    slots_now: float | None
    kv_now_tokens: float | None
    owed_tokens: float | None
    queued_reasoning_tokens: float | None
    slots_forecast: float | None = None
    slots_upper: float | None = None
    slots_peak: float | None = None
    kv_upper_tokens: float | None = None
    kv_peak_tokens: float | None = None
    quantile: float | None = None
    """Level of the upper value in force, 0..1."""
    coverage: float | None = None
    """Share of past upper values that held, 0..1, over the calibration window."""
    known_fraction: float | None = None
    """Share of the demand one cold start ahead that is in flight already, 0..1."""
    attainment: float | None = None
    """Share of requests that waited at most the objective, as the engines report it, 0..1."""
    arrivals_per_second: float | None = None
    age_check: float | None = None
    """Tokens written by the requests in flight, as the engines count them, over what the model infers: 1 where they
    agree. vLLM's count keeps the tokens of aborted requests, so a value that only grows means aborts."""
    in_time_ratio: float = 1.0
    """Requests, running and waiting, per slot up to which nobody waits longer than the objective allows: >= 1.

    A request with Q ahead of it in the queue of a pool of C full slots waits Q x S / C, where S is the mean stay in a
    slot, since C / S are freed in a second. So all are in time while C + Q <= C x (1 + wait / S): 1.13 for a wait of
    10 s and answers of 76 s, 1.95 for answers of 10.5 s."""
    levels: tuple[LevelDemand, ...] = ()
    """Expected demand at each level of thinking that the user allows, the usual one first and alone where it can be
    met. Empty without levels, or where there is no forecast."""
    replicas_coming: float = 0.0
    """Replicas at the horizon: those that work and those on their way. Known with ``levels``."""
    cascade: Cascade | None = None
    """While answers time out and are asked for again: the figures of it."""
    classes: tuple[ClassDemand, ...] = ()
    """The work by class of requests, what is not told apart last. Empty where it is not known."""
