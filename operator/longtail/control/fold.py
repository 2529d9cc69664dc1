"""The memory between ticks, and who may change it: the live loop, and once a backfill."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from longtail.demand.observation import Observation
from longtail.policy.decision import Decision
from longtail.policy.fleet import Fleet, ServiceKey
from longtail.policy.memory import Memory
from longtail.policy.step import step


@dataclass(frozen=True, slots=True)
class Tick:
    """What one tick was decided on."""

    fleet: Fleet
    observations: Mapping[ServiceKey, Observation]
    now: float


class Fold:
    """Folds ticks into a memory, and keeps the ticks while somebody prepares an older memory to go on from."""

    def __init__(self) -> None:
        self._memory = Memory.empty()
        self._turn = asyncio.Lock()
        self._kept: deque[Tick] | None = None
        self.began = asyncio.Event()
        """Set by the first tick."""
        self.began_at = 0.0
        """Its time, Unix seconds."""

    async def decide(self, tick: Tick) -> dict[ServiceKey, Decision]:
        """Decide on one tick. In a thread: arithmetic on a large fleet must not keep watches and probes waiting."""
        async with self._turn:
            decisions, self._memory = await asyncio.to_thread(_step, tick, self._memory)
            if self._kept is not None:
                self._kept.append(tick)
        if not self.began.is_set():
            self.began_at = tick.now
            self.began.set()
        return decisions

    def keep_ticks(self) -> None:
        """From now on, until `adopt` or `forget_ticks`."""
        self._kept = deque()

    def forget_ticks(self) -> None:
        """Nobody will go on from an older memory."""
        self._kept = None

    async def adopt(self, memory: Memory) -> None:
        """Go on from another memory, that of an earlier time: the ticks kept since are decided on once more.

        The live loop waits for the last two of them at most. Nothing is written because of a tick that is past.
        """
        assert self._kept is not None, "ticks were not kept"
        while len(self._kept) > 1:
            memory = (await asyncio.to_thread(_step, self._kept.popleft(), memory))[1]
        async with self._turn:
            for tick in self._kept:
                memory = (await asyncio.to_thread(_step, tick, memory))[1]
            self._memory, self._kept = memory, None


def _step(tick: Tick, memory: Memory) -> tuple[dict[ServiceKey, Decision], Memory]:
    return step(fleet=tick.fleet, observations=tick.observations, memory=memory, now=tick.now)
