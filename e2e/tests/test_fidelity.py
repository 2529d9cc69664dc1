"""The comparison with a real engine, on recordings of an engine that is known: the model itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from longtail.workbench.engine.model import Replica
from longtail.workbench.engine.profiles import EngineProfile
from longtail.workbench.engine.request import Outcome, Recorder, Request, StepRun
from verify_engine.fidelity import (
    Comparison,
    compare,
    fitted,
    half_seconds,
    pace_of,
    paced_clock,
    simulated,
    steady_clock,
)
from verify_engine.fidelity_check import judge
from verify_engine.fidelity_run import Answered, Planned, Recording, Sample, timetable
from verify_engine.report import Report

KNOWN = EngineProfile(
    name="known",
    model="tiny",
    step_base_seconds=0.004,
    step_seconds_per_sequence=0.0002,
    step_seconds_per_kv_token=2e-7,
    prefill_tokens_per_second=5000.0,
    kv_capacity_tokens=1_000_000,
    max_model_len_tokens=16_384,
    slots=8,
)
PLANNED = timetable(seconds=120.0, tokens_per_second=1200.0, load=0.7, burst_seconds=20.0, seed=5)


class Counters(Recorder):
    """What vLLM's page adds to what a replica tells of itself."""

    def __init__(self) -> None:
        self.steps = self.prefill_tokens = 0
        self.outcomes: list[Outcome] = []

    def stepped(self, run: StepRun) -> None:
        self.steps += run.steps
        self.prefill_tokens += run.prefill_tokens

    def finished(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def recorded(profile: EngineProfile, *, stated_slots: int = KNOWN.slots) -> Recording:
    """What a vLLM that works as the model with this profile would have shown."""
    counters = Counters()
    engine, planned, samples = Replica(profile=profile, recorders=(counters,)), list(enumerate(PLANNED)), []
    for at in np.arange(0.0, 200.0, 0.5):
        while planned and planned[0][1].at_seconds <= at:
            number, one = planned.pop(0)
            engine.submit(request(number, one), at_seconds=one.at_seconds)
        engine.advance(at)
        samples.append(sample(float(at), engine, counters))
    answered = tuple(
        Answered(o.request.arrived_seconds, o.finished_seconds, o.request.prompt_tokens, o.request.output_tokens)
        for o in counters.outcomes
    )
    assert len(answered) == len(PLANNED)
    return Recording(
        slots=stated_slots,
        block_tokens=32,
        kv_capacity_tokens=profile.kv_capacity_tokens,
        answered=answered,
        samples=tuple(samples),
    )


def request(number: int, one: Planned) -> Request:
    return Request(
        id=number,
        arrived_seconds=one.at_seconds,
        prompt_tokens=one.prompt_tokens,
        output_tokens=one.output_tokens,
        max_tokens=one.output_tokens,
    )


def sample(at: float, engine: Replica, counters: Counters) -> Sample:
    seen, run = engine.reading(), engine.open_run()
    prefill_tokens = counters.prefill_tokens + (run.prefill_tokens if run else 0)
    return Sample(
        at_seconds=at,
        running_requests=seen.running_requests,
        waiting_requests=seen.waiting_requests,
        kv_ratio=engine.kv_used_blocks(32) * 32 / engine.profile.kv_capacity_tokens,
        generated_tokens=seen.generated_tokens,
        finished_tokens=seen.finished_tokens,
        finished_requests=seen.finished_requests,
        wait_seconds_sum=sum(o.scheduled_seconds - o.queued_seconds for o in counters.outcomes),
        steps=counters.steps + (run.steps if run else 0),
        step_tokens=seen.generated_tokens + prefill_tokens,
    )


def slower(recording: Recording, *, since: float, factor: float) -> Recording:
    """The same run on a machine of which everything takes longer from a time on, the clients included."""

    def late(seconds: float) -> float:
        return seconds + max(0.0, seconds - since) * (factor - 1)

    waited = max(s.wait_seconds_sum for s in recording.samples if s.at_seconds <= since)
    return replace(
        recording,
        answered=tuple(
            replace(a, sent_seconds=late(a.sent_seconds), answered_seconds=late(a.answered_seconds))
            for a in recording.answered
        ),
        samples=tuple(
            replace(
                s,
                at_seconds=late(s.at_seconds),
                wait_seconds_sum=s.wait_seconds_sum + max(0.0, s.wait_seconds_sum - waited) * (factor - 1),
            )
            for s in recording.samples
        ),
    )


def worst(comparisons: list[Comparison]) -> float:
    return max(abs(one.error_percent) for one in comparisons)


@pytest.fixture(scope="module")
def recording() -> Recording:
    return recorded(KNOWN)


def test_lengths_differ_by_more_than_twenty() -> None:
    p5, p95 = np.percentile([one.output_tokens for one in PLANNED], (5, 95))
    assert p95 / p5 > 20


def test_the_fit_finds_the_speed_of_a_known_engine(recording: Recording) -> None:
    found = fitted(recording, until_seconds=half_seconds(recording))
    for kv_tokens in (0, 4000):
        assert found.step_seconds(batch=8, kv_tokens=kv_tokens) == pytest.approx(
            KNOWN.step_seconds(batch=8, kv_tokens=kv_tokens), rel=0.02
        )
    assert found.prefill_tokens_per_second == pytest.approx(KNOWN.prefill_tokens_per_second, rel=0.1)


def test_a_prediction_of_a_known_engine_holds(recording: Recording) -> None:
    half = half_seconds(recording)
    found = fitted(recording, until_seconds=half)
    assert worst(compare(recording, simulated(recording, found, steady_clock(recording)), since=half)) < 5.0


def test_a_known_engine_agrees_with_itself_exactly(recording: Recording) -> None:
    assert worst(compare(recording, simulated(recording, KNOWN, steady_clock(recording)), since=0.0)) < 1e-6


def test_a_machine_that_slows_down_breaks_the_prediction_and_not_the_comparison_at_its_pace(
    recording: Recording,
) -> None:
    half = half_seconds(recording)
    slow = slower(recording, since=half, factor=1.5)
    found = fitted(slow, until_seconds=half)
    assert pace_of(slow, found, since=half) == pytest.approx(1.5, rel=0.03)
    assert worst(compare(slow, simulated(slow, found, steady_clock(slow)), since=half)) > 20.0
    assert worst(compare(slow, simulated(slow, found, paced_clock(slow, found)), since=half)) < 5.0


def test_another_engine_is_found_out_even_at_its_pace() -> None:
    """It has seven slots and says eight."""
    other = recorded(replace(KNOWN, slots=7), stated_slots=8)
    report = Report("fidelity", "0")
    judge(other, report)
    assert not report.passed
    failed = {check.what.partition(",")[0] for check in report.checks if not check.holds}
    assert "waiting requests" in failed


def test_too_little_load_is_no_fit(recording: Recording) -> None:
    with pytest.raises(ValueError, match="busy windows before 5 s are too few"):
        fitted(recording, until_seconds=5.0)


def test_a_recording_survives_the_disk(recording: Recording, tmp_path: Path) -> None:
    recording.write(tmp_path / "recording.json")
    assert Recording.read(tmp_path / "recording.json") == recording
