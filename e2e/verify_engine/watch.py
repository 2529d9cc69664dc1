"""Reading a running engine as the operator does, tick by tick, and adding up what it saw."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from longtail.demand.observation import Buckets, Observation
from longtail.policy.fleet import Pod, ServiceKey
from longtail.signals.observe import ServiceSignals
from longtail.signals.reader import Failure, SignalReader
from longtail.signals.sources import MetricsSource
from longtail_e2e.errors import HarnessError

NAMESPACE = "verify"
POD = "vllm-0"
TICK_SECONDS = 1.0


@dataclass
class Sums:
    """Increases of all ticks, added up."""

    first_tokens: float = 0.0
    generated_tokens: float = 0.0
    prompt_tokens: float = 0.0
    preemptions: float = 0.0
    finished: float = 0.0
    finished_by_length: dict[float, float] = field(default_factory=dict)
    queue_waits: float = 0.0
    first_token_waits: float = 0.0

    def add(self, seen: Observation) -> None:
        """Add one tick."""
        for name in ("first_tokens", "generated_tokens", "prompt_tokens", "preemptions"):
            setattr(self, name, getattr(self, name) + (getattr(seen, name).value or 0.0))
        lengths = seen.finished_output_tokens
        self.finished += _total(lengths)
        self.queue_waits += _total(seen.queue_wait_seconds)
        self.first_token_waits += _total(seen.first_token_seconds)
        if lengths is not None:
            for bound, count in zip(lengths.upper_bounds, lengths.counts, strict=True):
                self.finished_by_length[bound] = self.finished_by_length.get(bound, 0.0) + count


@dataclass(frozen=True)
class Tick:
    """One observation, with the sums up to it."""

    seen: Observation
    first_tokens: float
    finished: float
    generated_tokens: float


class Watch:
    """Reads the engine once a second while ``running``."""

    def __init__(self, url: str) -> None:
        # Freshness is not what is verified here, and a busy machine scrapes late.
        source = MetricsSource(name="default", url=url, scrape_interval_seconds=15.0)
        self._reader = SignalReader([source])
        pod = Pod(name=POD, created_at=0.0, ready_at=0.0, ready=True)
        self._service = ServiceSignals(key=ServiceKey(NAMESPACE, "tiny"), pods=(pod,))
        self.ticks: list[Tick] = []
        self.sums = Sums()
        self.failures: list[Failure] = []

    def start_again(self) -> None:
        """Forget what was added up, not what the counters were."""
        self.ticks, self.sums = [], Sums()

    async def look(self) -> Observation:
        """Read once."""
        reading = await self._reader.read([self._service], time.time())
        self.failures += reading.failures
        seen = reading.observations[self._service.key]
        self.sums.add(seen)
        self.ticks.append(Tick(seen, self.sums.first_tokens, self.sums.finished, self.sums.generated_tokens))
        return seen

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read every second until the block ends."""
        task = asyncio.create_task(self._forever())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def until(
        self, reached: Callable[[Observation, Sums], bool], *, what: str, timeout_seconds: float = 120.0
    ) -> Observation:
        """Read every second until it is so.

        Raises:
            HarnessError: it was not so in time; says what was seen last.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            seen = await self.look()
            if reached(seen, self.sums):
                return seen
            if time.monotonic() > deadline:
                raise HarnessError(f"not within {timeout_seconds:.0f} s: {what}; last seen: {seen}, {self.sums}")
            await asyncio.sleep(TICK_SECONDS)

    def close(self) -> None:
        """Drop the connections."""
        self._reader.close()

    async def _forever(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(TICK_SECONDS)


def _total(buckets: Buckets | None) -> float:
    return 0.0 if buckets is None else buckets.total
