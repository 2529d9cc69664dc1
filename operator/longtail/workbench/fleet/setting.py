"""What is given in a simulation: the size of a replica, the cluster around it, and what is seen of it."""

import enum
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from longtail.workbench.traces.trace import Trace

EPOCH_SECONDS = 1_800_000_000.0
"""Unix time of the start of every simulation: policies are given Unix seconds."""
CHUNK_REQUESTS = 65_536


class Routing(enum.StrEnum):
    """Which of several replicas with room gets the next request."""

    LEAST_LOADED = "least-loaded"
    PACK = "pack"
    """The fullest: replicas empty sooner, at the price of larger batches."""


class Drain(enum.StrEnum):
    """What happens to the requests on a pod that a plain lowering of ``replicas`` deletes."""

    PLAIN = "plain"
    """They end with the pod and are sent again: vLLM aborts what it holds on SIGTERM."""
    GRACEFUL = "graceful"
    """They are finished first, as with a terminationGracePeriod of hours. The pod is paid for until then, takes
    nothing new, and cannot come back."""


@dataclass(frozen=True, slots=True)
class ReplicaSize:
    """What one replica can do."""

    slots: int = 24
    """Sequences decoded at once."""
    seconds_per_token: float = 0.05
    """Pace of every sequence, whatever the batch."""
    kv_capacity_tokens: float | None = 400_000.0
    """KV cache; None where the engine does not say, and then its use is not known either."""
    kv_limits: bool = False
    """Whether a full KV cache keeps requests waiting. Nothing is preempted: see `engines_kv`."""
    gpus: int = 1

    def __post_init__(self) -> None:
        for name in ("slots", "seconds_per_token", "gpus"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"ReplicaSize: {name} must be finite and > 0, got {value!r}")
        if self.kv_capacity_tokens is not None and not self.kv_capacity_tokens > 0:
            raise ValueError(f"ReplicaSize: kv_capacity_tokens must be > 0, got {self.kv_capacity_tokens!r}")
        if self.kv_limits and self.kv_capacity_tokens is None:
            raise ValueError("ReplicaSize: kv_limits needs kv_capacity_tokens")


@dataclass(frozen=True, slots=True)
class Clients:
    """Clients that give up and ask again."""

    timeout_seconds: float = 120.0
    """From the arrival at the gateway to the last token. The engine then drops what it was writing, as vLLM does when
    a client hangs up, and a request that still waits leaves the queue."""
    retries: int = 2
    """Further attempts of a request that was given up."""
    pause_seconds: float = 0.0
    """Between giving up and asking again."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.timeout_seconds) and self.timeout_seconds > 0):
            raise ValueError(f"Clients: timeout_seconds must be finite and > 0, got {self.timeout_seconds!r}")
        if self.retries < 0:
            raise ValueError(f"Clients: retries must be >= 0, got {self.retries!r}")
        if not (math.isfinite(self.pause_seconds) and self.pause_seconds >= 0):
            raise ValueError(f"Clients: pause_seconds must be finite and >= 0, got {self.pause_seconds!r}")


@dataclass(frozen=True, slots=True)
class Scraping:
    """What a metrics store sees of the pods."""

    interval_seconds: float = 15.0
    lag_seconds: float = 0.0
    """Scrapes happen this long before the ticks of the same interval: samples are as old as this, at least."""
    lost_share: float = 0.0
    """Probability that the scrape of one pod fails; its series are then stale until the next."""
    outages: Sequence[tuple[float, float]] = ()
    """(from, until) in seconds: the store answers nothing."""

    def __post_init__(self) -> None:
        if not self.interval_seconds > 0:
            raise ValueError(f"Scraping: interval_seconds must be > 0, got {self.interval_seconds!r}")
        if not 0 <= self.lag_seconds < self.interval_seconds:
            raise ValueError(f"Scraping: lag_seconds must be within [0, interval_seconds), got {self.lag_seconds!r}")
        if not 0 <= self.lost_share <= 1:
            raise ValueError(f"Scraping: lost_share must be within [0, 1], got {self.lost_share!r}")

    def reachable(self, at_seconds: float) -> bool:
        """Whether the store answers."""
        return not any(start <= at_seconds < end for start, end in self.outages)


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything but the requests and the policy. Times are seconds since the start of the trace."""

    replica: ReplicaSize = field(default_factory=ReplicaSize)
    routing: Routing = Routing.LEAST_LOADED
    drain: Drain = Drain.PLAIN
    gateway: bool = False
    """Whether the queue is held, and counted, at a gateway; else the engines' waiting counters show it."""
    cold_start_seconds: float = 180.0
    """Mean time from a GPU to ready."""
    cold_start_spread: float = 0.2
    """Cold starts are uniform within this share of the mean on both sides."""
    gpu_limit: Sequence[tuple[float, int]] = ()
    """(seconds, replicas that can have GPUs from then on), ascending; a pod beyond them stays Pending. Those that
    have GPUs keep them. Empty is no limit."""
    scraping: Scraping = field(default_factory=Scraping)
    clients: Clients | None = None
    """None: whoever asks waits for as long as it takes."""
    queue_limit: int | None = None
    """Requests that may wait; one more is turned away at once, and asks again like one that was given up. None: all
    may. Only with clients that ask again."""
    counts_aborts: bool = False
    """Whether engines count the requests that were given up. vLLM 0.33 does not, SGLang does."""
    answer_tokens: int = 500
    """What follows the reasoning, in traces that do not tell: a limit of thinking leaves it alone."""
    min_replicas: int = 1
    max_replicas: int = 24
    initial_replicas: int = 1
    """Ready at the start."""
    measured_from_seconds: float = 0.0
    """What happens before is simulated and not counted."""
    objective_seconds: float = 10.0
    """A request should wait at most this long for a slot."""
    max_model_len_tokens: float = 131_072.0
    """Of the engines: sets the buckets of their length histogram."""
    seed: int = 0
    """Of cold starts and lost scrapes."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_replicas <= self.max_replicas:
            bounds = f"{self.min_replicas!r} and {self.max_replicas!r}"
            raise ValueError(f"Setting: need 0 <= min_replicas <= max_replicas, got {bounds}")
        if self.initial_replicas < 0:
            raise ValueError(f"Setting: initial_replicas must be >= 0, got {self.initial_replicas!r}")
        if not (math.isfinite(self.cold_start_seconds) and self.cold_start_seconds >= 0):
            raise ValueError(f"Setting: cold_start_seconds must be finite and >= 0, got {self.cold_start_seconds!r}")
        if not 0 <= self.cold_start_spread <= 1:
            raise ValueError(f"Setting: cold_start_spread must be within [0, 1], got {self.cold_start_spread!r}")
        if self.clients is not None and self.replica.kv_limits:
            raise ValueError("Setting: clients that give up are not modelled together with kv_limits")
        if self.queue_limit is not None and (self.clients is None or self.queue_limit < 0):
            raise ValueError(f"Setting: queue_limit must be >= 0 and needs clients, got {self.queue_limit!r}")
        moments = [at for at, _ in self.gpu_limit]
        if moments != sorted(moments):
            raise ValueError(f"Setting: gpu_limit must ascend in time, got {moments}")


@dataclass(frozen=True, slots=True)
class Requests:
    """The work: a trace in pieces, so that no more than a piece has to be held."""

    name: str
    duration_seconds: float
    """The simulation ends here; requests that arrive later are not looked at."""
    chunks: Callable[[], Iterator[Trace]]
    """The pieces, each with arrivals since the start of the whole, in order. Can be called again."""
    window_seconds: float = 0.0
    """Each piece is of so long, and does not exist before it begins; 0: pieces are of any length, and all exist."""

    @classmethod
    def of(cls, trace: Trace, *, duration_seconds: float | None = None) -> Self:
        """A trace that is in memory already; ends with its last arrival unless told otherwise."""

        def chunks() -> Iterator[Trace]:
            for first in range(0, len(trace), CHUNK_REQUESTS):
                piece = slice(first, first + CHUNK_REQUESTS)
                reasoning = None if trace.reasoning_tokens is None else trace.reasoning_tokens[piece]
                yield Trace(
                    trace.name,
                    trace.arrival_seconds[piece],
                    trace.input_tokens[piece],
                    trace.output_tokens[piece],
                    reasoning,
                )

        return cls(trace.name, trace.span_seconds if duration_seconds is None else duration_seconds, chunks)

    @classmethod
    def repeated(cls, trace: Trace, *, times: int, period_seconds: float) -> Self:
        """The trace played ``times`` times in a row, without holding more than one of them.

        Raises:
            ValueError: the period is shorter than the trace.
        """
        if period_seconds < trace.span_seconds:
            raise ValueError(f"period_seconds: {period_seconds} is shorter than the trace ({trace.span_seconds})")
        once = cls.of(trace)

        def chunks() -> Iterator[Trace]:
            for start in range(times):
                for piece in once.chunks():
                    arrivals = piece.arrival_seconds + start * period_seconds
                    yield Trace(trace.name, arrivals, piece.input_tokens, piece.output_tokens, piece.reasoning_tokens)

        return cls(trace.name, times * period_seconds, chunks)
