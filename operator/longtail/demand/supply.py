"""What serves the demand: replicas that are there, on their way, or on their way out. Values only."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Supply:
    """Replicas of one service at one tick."""

    ready_replicas: int
    """Replicas that take new requests."""
    pending_ages_seconds: Sequence[float] = ()
    """Age of each replica asked for and not yet ready: expected after the rest of a cold start."""
    draining_replicas: int = 0
    """Replicas that only finish what they have."""
    cold_starts_seconds: Sequence[float] = ()
    """Creation to first ready of replicas that became ready since the last tick: each is learned once."""
