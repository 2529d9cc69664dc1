"""How close the engine model comes to a recorded vLLM: fit on the first half, predict, compare on the second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from longtail.workbench.engine.pool import Pool
from longtail.workbench.engine.profiles import EngineProfile
from longtail.workbench.engine.request import Outcome, Recorder, Request
from verify_engine.fidelity_run import Recording, Sample

TOLERANCE_PERCENT: Final = 5.0
_WINDOW_SAMPLES: Final = 4
_BUSY_RUNNING: Final = 2
_MAX_MODEL_LEN_TOKENS: Final = 16_384


@dataclass(frozen=True, slots=True)
class Curves:
    """What can be seen of an engine at ``at_seconds``; tokens and seconds since the run began."""

    at_seconds: NDArray[np.float64]
    running_requests: NDArray[np.float64]
    waiting_requests: NDArray[np.float64]
    kv_used_tokens: NDArray[np.float64]
    generated_tokens: NDArray[np.float64]
    finished_tokens: NDArray[np.float64]
    finished_requests: NDArray[np.float64]
    wait_seconds_sum: NDArray[np.float64]
    """Time in the queue of the requests that are finished."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of the second half."""

    what: str
    real: float
    model: float

    @property
    def error_percent(self) -> float:
        """Of the model, relative to the real one."""
        return math.inf if self.real == 0 else 100 * (self.model - self.real) / self.real


def curves_of(recording: Recording) -> Curves:
    """What vLLM said of itself."""

    def column(name: str) -> NDArray[np.float64]:
        return np.array([getattr(sample, name) for sample in recording.samples], dtype=float)

    return Curves(
        at_seconds=column("at_seconds"),
        running_requests=column("running_requests"),
        waiting_requests=column("waiting_requests"),
        kv_used_tokens=column("kv_ratio") * recording.kv_capacity_tokens,
        generated_tokens=column("generated_tokens"),
        finished_tokens=column("finished_tokens"),
        finished_requests=column("finished_requests"),
        wait_seconds_sum=column("wait_seconds_sum"),
    )


def half_seconds(recording: Recording) -> float:
    """Where the first half ends: half way through the timetable."""
    return max(answer.sent_seconds for answer in recording.answered) / 2


def fitted(recording: Recording, *, until_seconds: float) -> EngineProfile:
    """The model's parameters from the samples before a time.

    Over windows of two seconds in which the engine never idled, by least squares on the relative error, with no
    parameter below zero and the right sum of seconds::

        seconds = a * steps + b * generated tokens + c * sum over steps of KV tokens + d * prefill tokens

    ``1 / d`` is the prefill rate. vLLM counts its steps (``vllm:iteration_tokens_total``) and the tokens in them;
    those that were not generated are prefill.

    Raises:
        ValueError: too few busy windows.
    """
    rows, seconds = _windows(recording, until_seconds)
    if len(rows) < 2 * rows.shape[1]:
        raise ValueError(f"fidelity: {len(rows)} busy windows before {until_seconds:.0f} s are too few for a fit")
    weights = _non_negative_least_squares(rows / seconds[:, None], np.ones(len(seconds)))
    # Where other processes hold the engine up now and then, relative errors side with the fast windows.
    weights *= seconds.sum() / (rows @ weights).sum()
    base, per_sequence, per_kv_token, per_prefill_token = map(float, weights)
    return EngineProfile(
        name="fitted",
        model="tiny",
        step_base_seconds=max(base, 1e-9),
        step_seconds_per_sequence=per_sequence,
        step_seconds_per_kv_token=per_kv_token,
        prefill_tokens_per_second=1 / max(per_prefill_token, 1e-9),
        kv_capacity_tokens=recording.kv_capacity_tokens,
        max_model_len_tokens=_MAX_MODEL_LEN_TOKENS,
        slots=recording.slots,
    )


def _windows(recording: Recording, until_seconds: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    samples = [sample for sample in recording.samples if sample.at_seconds <= until_seconds]
    rows, seconds = [], []
    for start in range(0, len(samples) - _WINDOW_SAMPLES, _WINDOW_SAMPLES):
        window = samples[start : start + _WINDOW_SAMPLES + 1]
        if min(sample.running_requests for sample in window) >= _BUSY_RUNNING:
            rows.append(_row(window, recording))
            seconds.append(window[-1].at_seconds - window[0].at_seconds)
    return np.array(rows).reshape(-1, 4), np.array(seconds)


def _row(window: Sequence[Sample], recording: Recording) -> tuple[float, float, float, float]:
    first, last = window[0], window[-1]
    steps = last.steps - first.steps
    generated = last.generated_tokens - first.generated_tokens
    # vLLM tells of blocks, of which the last of each request is half empty on average; the model's c is per token.
    unused = (recording.block_tokens - 1) / 2
    used = [sample.kv_ratio * recording.kv_capacity_tokens - unused * sample.running_requests for sample in window]
    kv_tokens = float(np.mean(used))
    return steps, generated, steps * kv_tokens, last.step_tokens - first.step_tokens - generated


def _non_negative_least_squares(matrix: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """The best of all subsets of columns whose least squares have no negative weight: exact for four columns."""
    columns = range(matrix.shape[1])
    best, best_error = np.zeros(matrix.shape[1]), math.inf
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0] = 1.0
    for size in range(1, len(columns) + 1):
        for chosen in map(list, combinations(columns, size)):
            weights = np.linalg.lstsq(matrix[:, chosen] / scale[chosen], wanted, rcond=None)[0] / scale[chosen]
            error = float(np.sum((matrix[:, chosen] @ weights - wanted) ** 2))
            if (weights >= 0).all() and error < best_error:
                best, best_error = np.zeros(matrix.shape[1]), error
                best[chosen] = weights
    return best


@dataclass(frozen=True, slots=True)
class Clock:
    """The model's time as a piecewise linear function of the wall's, both ascending, in seconds."""

    wall: NDArray[np.float64]
    model: NDArray[np.float64]

    def to_model(self, seconds: float) -> float:
        """When it is in the model."""
        return float(np.interp(seconds, self.wall, self.model))

    def to_wall(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """When it is on the wall."""
        return np.interp(seconds, self.model, self.wall)


def steady_clock(recording: Recording) -> Clock:
    """A machine that keeps its pace: the two times are one."""
    wall = np.array([0.0, *(sample.at_seconds for sample in recording.samples)])
    return Clock(wall, wall)


def paced_clock(recording: Recording, profile: EngineProfile) -> Clock:
    """A machine whose pace is known for every sample: the model's time passes by the steps that vLLM really made.

    Between two samples with requests running at both, the model's time advances by what the profile says of the steps
    and tokens between them; otherwise as the wall's. This takes out what other processes did to the engine's pace, and
    leaves who runs, who waits, and what is in the cache.
    """
    model = [0.0]
    for first, last in zip((None, *recording.samples), recording.samples, strict=False):
        elapsed = last.at_seconds - (first.at_seconds if first else 0.0)
        if first and min(first.running_requests, last.running_requests) > 0:
            # No steps, no time: a server that is held up reports them with the next sample.
            elapsed = _step_seconds(profile, _row((first, last), recording))
        model.append(model[-1] + elapsed)
    return Clock(steady_clock(recording).wall, np.array(model))


def pace_of(recording: Recording, profile: EngineProfile, *, since: float, until: float = math.inf) -> float:
    """How long vLLM's steps took in that time, over what the profile says of them: 1.1 is ten percent slower."""
    samples = tuple(sample for sample in recording.samples if since <= sample.at_seconds <= until)
    spans = [
        (last.at_seconds - first.at_seconds, _step_seconds(profile, _row((first, last), recording)))
        for first, last in pairwise(samples)
        if min(first.running_requests, last.running_requests) >= _BUSY_RUNNING
    ]
    return sum(real for real, _ in spans) / sum(model for _, model in spans)


def _step_seconds(profile: EngineProfile, row: tuple[float, float, float, float]) -> float:
    steps, generated, kv_steps, prefill = row
    return (
        profile.step_base_seconds * steps
        + profile.step_seconds_per_sequence * generated
        + profile.step_seconds_per_kv_token * kv_steps
        + prefill / profile.prefill_tokens_per_second
    )


class _Sent:
    """The recorded requests as a source of the pool."""

    def __init__(self, recording: Recording, clock: Clock) -> None:
        in_order = sorted(recording.answered, key=lambda answer: answer.sent_seconds)
        self._requests = [
            Request(
                id=number,
                arrived_seconds=clock.to_model(answer.sent_seconds),
                prompt_tokens=answer.prompt_tokens,
                output_tokens=answer.output_tokens,
                max_tokens=answer.output_tokens,
            )
            for number, answer in enumerate(in_order)
        ]
        self._next = 0

    @property
    def next_seconds(self) -> float:
        return self._requests[self._next].arrived_seconds if self._next < len(self._requests) else math.inf

    def take(self) -> Request:
        self._next += 1
        return self._requests[self._next - 1]


class _Outcomes(Recorder):
    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def finished(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


@dataclass(frozen=True, slots=True)
class Modelled:
    """What the engine model made of a recording; all times on the wall's clock."""

    curves: Curves
    queued_seconds: NDArray[np.float64]
    """Per finished request, as are the next two."""
    scheduled_seconds: NDArray[np.float64]
    finished_seconds: NDArray[np.float64]


def simulated(recording: Recording, profile: EngineProfile, clock: Clock) -> Modelled:
    """The same requests at the same times in the engine model, seen at the same moments."""
    recorder = _Outcomes()
    pool = Pool(profile=profile, source=_Sent(recording, clock), recorders=(recorder,))
    pool.add("vllm-0", at_seconds=0.0)
    (engine,) = pool.pods["vllm-0"].engines
    readings, kv_used_blocks = [], []
    for sample in recording.samples:
        pool.advance(clock.to_model(sample.at_seconds))
        readings.append(engine.reading())
        kv_used_blocks.append(engine.kv_used_blocks(recording.block_tokens))
    moments = np.array([(o.queued_seconds, o.scheduled_seconds, o.finished_seconds) for o in recorder.outcomes])
    queued, scheduled, finished = (clock.to_wall(column) for column in moments.T)
    finished_requests = np.array([seen.finished_requests for seen in readings])
    curves = Curves(
        at_seconds=np.array([sample.at_seconds for sample in recording.samples]),
        running_requests=np.array([float(seen.running_requests) for seen in readings]),
        waiting_requests=np.array([float(seen.waiting_requests) for seen in readings]),
        kv_used_tokens=np.array(kv_used_blocks, dtype=float) * recording.block_tokens,
        generated_tokens=np.array([float(seen.generated_tokens) for seen in readings]),
        finished_tokens=np.array([float(seen.finished_tokens) for seen in readings]),
        finished_requests=finished_requests.astype(float),
        wait_seconds_sum=np.concatenate(([0.0], np.cumsum(scheduled - queued)))[finished_requests],
    )
    return Modelled(curves, queued, scheduled, finished)


def compare(recording: Recording, modelled: Modelled, *, since: float) -> list[Comparison]:
    """Every figure of the time after ``since`` seconds, up to the end of the timetable."""
    real, model = curves_of(recording), modelled.curves
    until = max(answer.sent_seconds for answer in recording.answered)
    inside = (real.at_seconds >= since) & (real.at_seconds <= until)

    def level(what: str, name: str) -> Comparison:
        return Comparison(what, *(float(getattr(c, name)[inside].mean()) for c in (real, model)))

    def increase(name: str) -> tuple[float, float]:
        seen = [getattr(curves, name)[inside] for curves in (real, model)]
        return float(seen[0][-1] - seen[0][0]), float(seen[1][-1] - seen[1][0])

    waits, finished = increase("wait_seconds_sum"), increase("finished_requests")
    answered = np.array([a.answered_seconds - a.sent_seconds for a in recording.answered if a.sent_seconds >= since])
    late = modelled.queued_seconds >= since
    predicted = modelled.finished_seconds[late] - modelled.queued_seconds[late]
    return [
        level("running requests, mean", "running_requests"),
        level("waiting requests, mean", "waiting_requests"),
        level("KV tokens used, mean", "kv_used_tokens"),
        Comparison("generated tokens", *increase("generated_tokens")),
        Comparison("finished tokens", *increase("finished_tokens")),
        Comparison("wait in the queue, mean seconds", waits[0] / finished[0], waits[1] / finished[1]),
        Comparison("time to the answer, mean seconds", float(answered.mean()), float(predicted.mean())),
        *(
            Comparison(
                f"time to the answer, p{q} seconds", *(float(np.percentile(x, q)) for x in (answered, predicted))
            )
            for q in (50, 95)
        ),
    ]
