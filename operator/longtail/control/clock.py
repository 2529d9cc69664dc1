"""The only place that reads clocks. Everything else is told the time, so it can be told any time."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one that people and Prometheus share, and one that never jumps."""

    def unix_seconds(self) -> float:
        """Return the time of day: for queries and for status, never for durations."""

    def monotonic_seconds(self) -> float:
        """Return a time that only grows: for durations and deadlines."""


class SystemClock:
    """The machine's clocks."""

    def unix_seconds(self) -> float:
        """Return the time of day."""
        return time.time()

    def monotonic_seconds(self) -> float:
        """Return the time since some start; asyncio's loop counts with the same clock."""
        return time.monotonic()


def rfc3339(unix_seconds: float) -> str:
    """Spell a time as Kubernetes does, to the second.

    >>> rfc3339(1795507200.9)
    '2026-11-24T08:00:00Z'
    """
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(unix_seconds: float) -> str:
    """Spell a time as Kubernetes' MicroTime, which Events want.

    >>> rfc3339_micro(1795507200.25)
    '2026-11-24T08:00:00.250000Z'
    """
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
