"""Who may write: one holder of a Lease, by client-go's rules, as a pure state machine.

All times are seconds on this process's own monotonic clock. Nobody compares clocks: the times in the Lease are
for people, and a holder's silence is measured from when *we* saw its record change.

Why two never write at once, with the defaults of 15 s (lease), 10 s (deadline) and 2 s (retry):

* The holder renews with a request that begins at s. Having been answered, it may write until s + 10; without a
  further answer this ends by itself, however the process is stopped, frozen or cut off. No write begins later,
  and none is waited for longer (`longtail.cluster.client` cuts its timeout to what remains).
* Anybody else can see the record of that renewal no earlier than s, and takes over 15 s after having seen it:
  not before s + 15. The 5 s between are for requests that the API server still has in hand when their sender
  gives up on them.
* Two who take over at once both name the resourceVersion that they read: the server lets one win.

How long nobody writes: a holder dies at t, at worst just after a renewal. The others look every 2 s, so they saw
it by t + 2, and take over at t + 17. A holder that stops in an orderly way gives the Lease back: at most 2 s.

What remains: a virtual machine that its hypervisor pauses stops this clock too, and a packet may be on its way
for any time. Against those stands only that a write of /scale names the resourceVersion that was decided on.
"""

from dataclasses import dataclass, replace
from typing import Final

_NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a Lease lasts, how long its holder trusts in it, and how often everybody tries.

    Raises:
        ValueError: the three do not fit together.
    """

    lease_duration_seconds: int = 15
    renew_deadline_seconds: float = 10.0
    retry_period_seconds: float = 2.0

    def __post_init__(self) -> None:
        if self.lease_duration_seconds < self.renew_deadline_seconds + self.retry_period_seconds:
            raise ValueError(
                f"lease_duration_seconds ({self.lease_duration_seconds}) must be at least renew_deadline_seconds + "
                f"retry_period_seconds ({self.renew_deadline_seconds:g} + {self.retry_period_seconds:g}): "
                "else the next leader might begin while a write of the last one is still being served"
            )
        if self.renew_deadline_seconds < 2 * self.retry_period_seconds:
            raise ValueError(
                f"renew_deadline_seconds ({self.renew_deadline_seconds:g}) must be at least twice retry_period_seconds "
                f"({self.retry_period_seconds:g}): else one failed renewal ends a leadership"
            )

    @property
    def request_seconds(self) -> float:
        """How long to wait for an answer about the Lease: one that hangs must leave time for another."""
        return self.renew_deadline_seconds / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """What a Lease says. ``acquired`` and ``renewed`` are for people: nothing is computed from them."""

    holder: str
    """Identity of the holder; empty when it was given back."""
    duration_seconds: int
    """For how long after a renewal its holder is to be left alone; 0 when it does not say."""
    acquired: str
    renewed: str
    transitions: int
    """How often it has changed hands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidacy:
    """One process in the election: who it is, what it last saw, and until when it may write."""

    identity: str
    timing: Timing
    seen: LeaseRecord | None = None
    """The Lease as last seen or written; None: there was none."""
    seen_at: float = _NEVER
    """When it was first seen like that."""
    writes_end_at: float = _NEVER
    """No write may begin, nor be waited for, from then on."""

    def may_write(self, *, now: float) -> bool:
        """Whether a write may begin."""
        return now < self.writes_end_at

    def observed(self, record: LeaseRecord | None, *, now: float) -> "Candidacy":
        """Take note of the Lease as the API server shows it. ``now`` must be read *after* the answer came."""
        seen_at = now if record != self.seen else self.seen_at
        ours = record is not None and record.holder == self.identity
        return replace(self, seen=record, seen_at=seen_at, writes_end_at=self.writes_end_at if ours else _NEVER)

    def claim(self, *, now: float, time: str) -> LeaseRecord | None:
        """The record to write in order to get or to keep the Lease; None while it is somebody else's.

        ``time`` is the time of day, as it will stand in the Lease.
        """
        seen, duration = self.seen, self.timing.lease_duration_seconds
        if seen is not None and seen.holder == self.identity:
            return replace(seen, duration_seconds=duration, renewed=time)
        if now < self.expires_at:
            return None
        return LeaseRecord(
            holder=self.identity,
            duration_seconds=duration,
            acquired=time,
            renewed=time,
            transitions=0 if seen is None else seen.transitions + 1,
        )

    @property
    def expires_at(self) -> float:
        """When somebody else's Lease may be taken; long ago if it is nobody's."""
        if self.seen is None or self.seen.holder in {"", self.identity}:
            return _NEVER
        return self.seen_at + (self.seen.duration_seconds or self.timing.lease_duration_seconds)

    def won(self, record: LeaseRecord, *, began: float, now: float) -> "Candidacy":
        """Take note that ``record`` was written by a request that ``began`` then."""
        return replace(self, seen=record, seen_at=now, writes_end_at=began + self.timing.renew_deadline_seconds)

    def resigned(self) -> "Candidacy":
        """Write no more, whatever the Lease says."""
        return replace(self, writes_end_at=_NEVER)

    def next_attempt_at(self, *, began: float) -> float:
        """When to try again after an attempt that ``began`` then: every retry period, or when the Lease expires."""
        regular = began + self.timing.retry_period_seconds
        return min(regular, self.expires_at) if self.expires_at > began else regular


def given_back(record: LeaseRecord, *, time: str) -> LeaseRecord:
    """The record of a Lease that its holder gives back: the next one need not wait."""
    return replace(record, holder="", duration_seconds=1, renewed=time)
