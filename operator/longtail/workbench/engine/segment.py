"""A run of steps with a constant batch, in closed form, and the requests inside the engine."""

import math
from dataclasses import dataclass, field

from longtail.workbench.engine.request import Request, StepRun


@dataclass(slots=True)
class Sequence:
    """A request inside the engine."""

    request: Request
    queued_seconds: float
    scheduled_seconds: float = math.nan
    first_token_seconds: float = math.nan
    last_token_seconds: float = math.nan
    base_step: int = 0
    """Virtual step at which it would have had no token: generated = step - base while running."""
    generated: int = 0
    """Exact while waiting."""
    preemptions: int = 0
    admissions: int = 0


@dataclass(slots=True)
class Segment:
    """The run of steps under way."""

    start_seconds: float
    steps: int
    batch: int
    first_seconds: float
    growth_seconds: float
    fresh: list[Sequence] = field(default_factory=list)
    prefill_tokens: int = 0
    end_seconds: float = math.inf

    def seconds(self, steps: int) -> float:
        """Duration of the first ``steps`` steps."""
        return steps * self.first_seconds + self.growth_seconds * (steps * (steps - 1) // 2)

    def done(self, at_seconds: float) -> int:
        """Steps completed at a time: the largest n with ``seconds(n) <= elapsed``."""
        elapsed = at_seconds - self.start_seconds
        if elapsed < self.first_seconds:
            return 0
        if self.growth_seconds == 0.0:
            guess = int(elapsed / self.first_seconds)
        else:
            half = self.growth_seconds / 2
            slope = self.first_seconds - half
            guess = int((math.sqrt(slope * slope + 4 * half * elapsed) - slope) / (2 * half))
        n = min(guess, self.steps)
        while n < self.steps and self.seconds(n + 1) <= elapsed:
            n += 1
        while n > 0 and self.seconds(n) > elapsed:
            n -= 1
        return n

    def cut(self, steps: int) -> None:
        """End the run early."""
        self.steps = steps
        self.end_seconds = self.start_seconds + self.seconds(steps)

    def run(self, steps: int) -> StepRun:
        """The first ``steps`` steps, for the recorders."""
        return StepRun(
            steps=steps,
            batch=self.batch,
            fresh=len(self.fresh),
            prefill_tokens=self.prefill_tokens,
            first_seconds=self.first_seconds,
            growth_seconds=self.growth_seconds,
        )

    def boundary(self, at_seconds: float) -> int:
        """Steps done at the next step boundary, the step under way included."""
        done = self.done(at_seconds)
        on_boundary = done > 0 and self.seconds(done) == at_seconds - self.start_seconds
        return done if on_boundary else done + 1
