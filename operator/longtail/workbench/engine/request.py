"""The values that go into and come out of the engine model, and what it tells its metrics."""

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Request:
    """One question. ``output_tokens`` is what it will take, known to the simulator alone."""

    id: int
    arrived_seconds: float
    """When the client sent it (this attempt)."""
    prompt_tokens: int
    output_tokens: int
    max_tokens: int
    """The client's cap; an output that reaches it finishes with reason ``length``."""
    attempt: int = 1

    def __post_init__(self) -> None:
        if self.prompt_tokens < 1 or not 1 <= self.output_tokens <= self.max_tokens:
            raise ValueError(
                f"Request {self.id}: need prompt_tokens >= 1 and 1 <= output_tokens <= max_tokens, got "
                f"{self.prompt_tokens}, {self.output_tokens}, {self.max_tokens}"
            )


@dataclass(frozen=True, slots=True)
class Outcome:
    """One finished request and its moments, in seconds."""

    request: Request
    queued_seconds: float
    scheduled_seconds: float
    first_token_seconds: float
    finished_seconds: float
    preemptions: int

    @property
    def reason(self) -> FinishReason:
        """``length`` when the client's cap cut it, else ``stop``."""
        return "length" if self.request.output_tokens == self.request.max_tokens else "stop"


@dataclass(frozen=True, slots=True)
class StepRun:
    """Consecutive steps of one batch: step k lasts ``first_seconds + k * growth_seconds``."""

    steps: int
    batch: int
    fresh: int
    """Requests of the batch that were admitted in this (then single) step; they had no token before it."""
    prefill_tokens: int
    first_seconds: float
    growth_seconds: float


class Recorder:
    """What an engine tells its metrics, at events, in order of time. Override what is of interest."""

    def arrived(self, request: Request) -> None:
        """A request entered the queue."""

    def started(self, request: Request, *, at_seconds: float, waited_seconds: float) -> None:
        """A request got a slot for the first time."""

    def first_token(self, request: Request, *, after_seconds: float) -> None:
        """A request wrote its first token, so long after it entered the queue."""

    def stepped(self, run: StepRun) -> None:
        """Steps were completed."""

    def resumed(self, *, gap_seconds: float) -> None:
        """A preempted request wrote its next token after a gap."""

    def finished(self, outcome: Outcome) -> None:
        """A request wrote its last token."""

    def aborted(self, request: Request, *, generated_tokens: int) -> None:
        """A client gave up."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The replica at one moment."""

    at_seconds: float
    running_requests: int
    waiting_requests: int
    kv_used_tokens: int
    """Prompt and output so far, over the running requests."""
    generated_tokens: int
    """Output tokens written since the start, those of requests aborted later included."""
    finished_tokens: int
    """Output tokens of finished requests."""
    aborted_tokens: int
    """Output tokens written by requests that were aborted."""
    owed_tokens: int
    """Output tokens that running and waiting requests still have to write."""
    prompt_tokens: int
    """Prompt tokens computed, counted once per request, at its first token."""
    prefill_tokens: int
    """Tokens computed in prefill, those computed again after a preemption included."""
    preemptions: int
    preempted_tokens: int
    """Output tokens that preempted requests held when they lost their place."""
    arrived_requests: int
    first_tokens: int
    finished_requests: int
    aborted_requests: int

    @property
    def in_flight_tokens(self) -> int:
        """Output tokens written by requests that are not finished."""
        return self.generated_tokens - self.finished_tokens - self.aborted_tokens
