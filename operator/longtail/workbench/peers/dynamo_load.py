"""Dynamo's load planner for an aggregated pool: one replica more or less, every few seconds.

Read from ai-dynamo/dynamo 1.6.1 as published on PyPI, ``dynamo/planner/core/load_scaling.py``
(``_agg_easy_decision``, ``_advance_load_agg``, ``_agg_prefill_scaling``, ``_agg_decode_scaling``,
``_scale_decision``).

Quirks kept: the static targets grow when *any* engine is above the threshold and shrink when *all* are
below; the latency targets grow only when *all* engines miss the target; a decrease that is refused because
the survivors could not take the load counts as "no change", while a missing prefill signal lets decode
decide alone; while replicas start, nothing grows, and a decrease cancels starts; an engine that does not
report holds everything.
"""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

from longtail.workbench.peers.iteration_model import IterationModel, Line
from longtail.workbench.peers.view import Iteration


class Target(enum.StrEnum):
    """``optimization_target``."""

    THROUGHPUT = "throughput"
    LATENCY = "latency"
    SLA = "sla"


KV_THRESHOLDS = {Target.THROUGHPUT: (1.0, 0.6), Target.LATENCY: (0.4, 0.1)}
"""Grow above, shrink below: KV use with everything that is queued, over capacity."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine: what it does and what it can hold."""

    iteration: Iteration
    kv_capacity_tokens: float

    @property
    def kv_pressure(self) -> float:
        """KV tokens in use and wanted by the queue, over capacity."""
        return self.kv_tokens / self.kv_capacity_tokens

    @property
    def kv_tokens(self) -> float:
        """KV tokens in use and wanted by the queue."""
        i = self.iteration
        return i.decode_kv_tokens + i.queued_decode_kv_tokens + i.queued_prefill_tokens


def by_thresholds(
    engines: Sequence[Engine], *, up: float, down: float, min_replicas: int, starting: bool = False
) -> int | None:
    """Replicas by the static rule; None is "no change".

    A decrease that would put the survivors above ``up`` is not made: the count stays (which, while others are
    ``starting``, cancels those).

    >>> busy = Engine(Iteration(0.02, decode_kv_tokens=900, queued_prefill_tokens=200), 1000.0)
    >>> idle = Engine(Iteration(0.02, decode_kv_tokens=100), 1000.0)
    >>> by_thresholds([busy, idle], up=1.0, down=0.6, min_replicas=1)
    3
    """
    pressures = [engine.kv_pressure for engine in engines]
    if not pressures:
        return None
    count = len(pressures)
    if any(pressure > up for pressure in pressures):
        return count + 1
    if (count > 1 or starting) and all(pressure < down for pressure in pressures):
        fewer = max(count - 1, min_replicas)
        unsafe = 0 < fewer < count and max(pressures) * count / fewer >= up
        return count if unsafe else fewer
    return None


def while_starting(wish: int | None, *, ready: int, starting: int) -> int | None:
    """What is left of a wish while replicas start: cancelling some of them, or nothing.

    >>> while_starting(5, ready=4, starting=1), while_starting(4, ready=4, starting=1)
    (None, 4)
    """
    if wish is None or not starting:
        return wish
    return None if wish > ready else wish


@dataclass(frozen=True, slots=True)
class LatencyTargets:
    """``ttft_ms`` and ``itl_ms`` in seconds, chunk size, and ``load_scaling_down_sensitivity`` as a share."""

    first_token_seconds: float = 0.5
    token_seconds: float = 0.05
    chunk_tokens: int = 8192
    down_sensitivity: float = 0.8
    min_replicas: int = 1


@dataclass(frozen=True, slots=True)
class LatencyWish:
    """What predicted latency asks for."""

    replicas: int
    cancels_starts: bool
    """Both signals agree that what is ready is enough: replicas that start are not needed."""


def by_latency(
    engines: Sequence[Engine],
    *,
    model: IterationModel,
    line: Line | None,
    targets: LatencyTargets,
    starting: bool = False,
) -> LatencyWish | None:
    """Replicas by predicted latency; None while the model has too few samples.

    ``line`` is None when the fit was refused: nothing can be estimated, and nothing moves.
    """
    count = len(engines)
    if not count or not model.ready:
        return None
    if line is None:
        return LatencyWish(count, cancels_starts=False)
    may_shrink = count > 1 or starting
    prefill, no_prefill = _by_prefill(engines, model=model, line=line, targets=targets, may_shrink=may_shrink)
    decode, no_decode = _by_decode(engines, model=model, line=line, targets=targets, may_shrink=may_shrink)
    enough = prefill is not None and decode is not None and max(prefill, decode) <= count
    return LatencyWish(
        _together(prefill, decode, count=count),
        cancels_starts=starting and enough and not (no_prefill or no_decode),
    )


def _together(prefill: int | None, decode: int | None, *, count: int) -> int:
    """Either signal grows; both shrink, or decode alone where prefill has no opinion."""
    if prefill is not None and prefill > count:
        return prefill
    if decode is None:
        return count
    if decode > count or prefill is None:
        return decode
    return max(prefill, decode) if prefill < count and decode < count else count


def _decided(
    estimates: Sequence[float], *, target: float, may_shrink: bool, refused: bool, min_replicas: int
) -> tuple[int | None, bool]:
    count = len(estimates)
    if all(estimate > target for estimate in estimates):
        return count + 1, False
    if may_shrink and not refused:
        return max(count - 1, min_replicas), False
    return (count, True) if refused else (None, False)


def _by_prefill(
    engines: Sequence[Engine], *, model: IterationModel, line: Line, targets: LatencyTargets, may_shrink: bool
) -> tuple[int | None, bool]:
    """Only what the queue adds to TTFT must fit: a request's own prefill takes as long whatever the count."""
    count = len(engines)
    factor = count / (count - 1) if count > 1 else 1.0

    def first_token(*, queued: float, kv: float) -> float:
        return model.next_first_token_seconds(
            line, queued_prefill_tokens=queued, kv_tokens=kv, chunk_tokens=targets.chunk_tokens
        )

    refused = False
    for iteration in (engine.iteration for engine in engines) if may_shrink else ():
        kv = math.floor((iteration.decode_kv_tokens + iteration.queued_decode_kv_tokens) * factor)
        own = first_token(queued=0, kv=kv)
        by_queue = first_token(queued=math.floor(iteration.queued_prefill_tokens * factor), kv=kv) - own
        budget = (targets.first_token_seconds - own) * targets.down_sensitivity
        refused = refused or budget <= 0 or by_queue >= budget
    estimates = [
        first_token(queued=e.iteration.queued_prefill_tokens, kv=e.iteration.decode_kv_tokens) for e in engines
    ]
    return _decided(
        estimates,
        target=targets.first_token_seconds,
        may_shrink=may_shrink,
        refused=refused,
        min_replicas=targets.min_replicas,
    )


def _by_decode(
    engines: Sequence[Engine], *, model: IterationModel, line: Line, targets: LatencyTargets, may_shrink: bool
) -> tuple[int | None, bool]:
    count = len(engines)
    factor = count / (count - 1) if count > 1 else 1.0
    refused = False
    for engine in engines if may_shrink else ():
        after = math.floor(engine.kv_tokens * factor)
        too_full = after >= engine.kv_capacity_tokens
        token_seconds = model.next_token_seconds(line, kv_tokens=after)
        refused = refused or too_full or token_seconds >= targets.token_seconds * targets.down_sensitivity
    estimates = [
        model.next_token_seconds(line, kv_tokens=e.iteration.decode_kv_tokens + e.iteration.queued_decode_kv_tokens)
        for e in engines
    ]
    return _decided(
        estimates,
        target=targets.token_seconds,
        may_shrink=may_shrink,
        refused=refused,
        min_replicas=targets.min_replicas,
    )
