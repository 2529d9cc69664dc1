"""What a user says about a service, as far as the demand model is concerned.

Every field is a prior or an override of something learned, except the objective, which is a promise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Objective:
    """How long a request may wait for a slot, and how often that must hold."""

    queue_wait_seconds: float = 10.0
    attainment: float = 0.99
    """Share of requests, 0..1, that wait at most ``queue_wait_seconds``."""
    time_per_output_token_seconds: float = 0.050


@dataclass(frozen=True, slots=True)
class CapacityOverride:
    """Capacity of one replica where the user knows it; None means learned, or read from the engine."""

    max_concurrent_requests: int | None = None
    kv_cache_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """Levels of thinking that the user allows, and the one there is."""

    budgets_tokens: tuple[float, ...]
    """Most reasoning tokens of a request at each level, descending; inf: no limit."""
    answer_tokens: float
    """Mean tokens after the reasoning, where that is not known from the gateway."""
    level: int = 0
    """Index of the level that was chosen last."""
    in_force: bool = False
    """Requests are limited to it, as far as anybody knows."""
    stretches: Mapping[str, float] = field(default_factory=dict)
    """Usual mean length of each class of requests over the common one, > 0; empty where they are not told apart."""

    @property
    def reduced(self) -> bool:
        """Requests are limited to less than the usual thinking now."""
        return self.in_force and self.level > 0


@dataclass(frozen=True, slots=True)
class ServiceParameters:
    """Demand-side parameters of one service."""

    objective: Objective = field(default_factory=Objective)
    capacity: CapacityOverride = field(default_factory=CapacityOverride)
    mean_output_tokens: float = 2000.0
    """Prior mean length of an answer, reasoning included."""
    max_output_tokens: float = 32768.0
    """Hard cap of an answer: no request is longer."""
    startup_seconds: float = 180.0
    """Prior cold start: from the decision to the first request served."""
    thinking: Thinking | None = None
    """None: nobody is asked to think less."""
