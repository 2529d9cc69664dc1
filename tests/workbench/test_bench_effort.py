"""The effort benchmark on a small pool and drawn lengths: what it measures, and how it is told."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from longtail.cli.bench import bench as cli
from longtail.policy.fleet import EffortLevel, EffortPolicy, EffortRules
from longtail.workbench import bench_effort as bench
from longtail.workbench.bench_effort import Effects, fly, overload, recovery_minutes, ways
from longtail.workbench.bench_effort_report import draw, render, table
from longtail.workbench.fleet.run import Timeline
from longtail.workbench.traces import catalogue
from longtail.workbench.traces.lengths import PARAMETRIC_R1
from longtail.workbench.traces.trace import Trace

DEFAULTS = EffortRules(
    EffortPolicy.RECOMMEND,
    (EffortLevel("high"), EffortLevel("medium", 2048), EffortLevel("low", 256)),
    answer_tokens=300.0,
)


@pytest.fixture(scope="module")
def day() -> Trace:
    """Two thousand requests; a fifth of each is the answer."""
    rng = np.random.default_rng(0)
    output = PARAMETRIC_R1.sample(2000, rng)
    return Trace("day", np.arange(2000.0), np.full(2000, 50), output, output - output // 5)


@pytest.fixture(scope="module")
def small():
    """Three GPUs for three quarters of an hour."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "GPUS": 3,
            "SLOTS": 8,
            "STEP_SECONDS": 1800,
            "BACK_SECONDS": 2400,
            "MEASURED_FROM_SECONDS": 1200,
            "END_SECONDS": 4800,
        }.items():
            patch.setattr(bench, name, value)
        yield


@pytest.fixture(scope="module")
def flown(small, day):
    trace = overload(day, seed=0)
    return {way.name: (way, *fly(trace, way, seed=0)) for way in ways(DEFAULTS)[:3]}


def test_whole_requests_are_drawn_and_demand_steps_to_twice_the_gpus(small, day):
    trace = overload(day, seed=3)
    original = {*zip(day.output_tokens.tolist(), day.reasoning_tokens.tolist(), strict=True)}
    assert {*zip(trace.output_tokens.tolist(), trace.reasoning_tokens.tolist(), strict=True)} <= original
    busy = trace.output_tokens * bench.SECONDS_PER_TOKEN
    during = (trace.arrival_seconds >= 1800) & (trace.arrival_seconds < 2400)
    assert busy[during].sum() / 600 == pytest.approx(2.0 * 24, rel=0.15)
    assert busy[~during].sum() / 4200 == pytest.approx(0.6 * 24, rel=0.15)


def test_a_published_level_answers_more_and_says_what_it_took(flown):
    plain, published = (
        bench._outcome(way, 0, run, pilot)
        for way, run, pilot in (flown["no effort policy"], flown["effort, default levels"])
    )
    assert (plain.level_changes, plain.capped, plain.cut_tokens) == (0, 0.0, 0.0)
    assert published.level_changes >= 2
    assert published.capped > 0.05
    assert published.answered > plain.answered
    assert published.goodput > plain.goodput
    assert plain.answered_first <= plain.answered


def test_levels_that_are_only_recommended_are_published_in_the_benchmark():
    assert [way.effort.policy for way in ways(DEFAULTS) if way.effort is not None] == [EffortPolicy.PUBLISH] * 3
    assert [way.limited for way in ways(DEFAULTS)] == [False, False, False, True, True]


def timeline_of(answered_first) -> Timeline:
    """A hundred are asked in every minute."""
    minutes = len(answered_first)
    flat = np.full(minutes, 100.0)
    columns = dict.fromkeys(Timeline.__slots__, flat) | {
        "at_seconds": bench.MEASURED_FROM_SECONDS + 60.0 * np.arange(minutes),
        "answered_first": np.array(answered_first, np.float64),
    }
    return Timeline(**columns)


@pytest.mark.parametrize(
    ("after", "minutes"),
    [
        pytest.param([99.0] * 40, 0.0, id="never gone"),
        pytest.param([20.0] * 12 + [99.0] * 28, 12.0, id="back after twelve minutes"),
        pytest.param([20.0] * 5 + [99.0, 20.0] * 5 + [99.0] * 25, 15.0, id="up and down is not back"),
        pytest.param([20.0] * 40, math.inf, id="not back"),
    ],
)
@pytest.mark.usefixtures("small")
def test_attainment_is_back_when_it_stays(after, minutes):
    assert recovery_minutes(timeline_of([99.0] * 10 + [10.0] * 10 + after)) == minutes


def test_the_report_has_a_column_a_way_and_the_picture_is_drawn(flown):
    outcomes = [bench._outcome(way, seed, run, pilot) for way, run, pilot in flown.values() for seed in (0, 1)]
    outcomes[0] = replace(outcomes[0], recovery_minutes=math.inf)
    setting = {
        "machine": "2 cores",
        "model": "abc",
        "seeds": 2,
        "seconds_per_token": 0.01,
        "gpus": 3,
        "slots": 24,
        "levels": [None, 2048, 256],
        "in_time_unloaded": 0.989,
    }
    effects = Effects(setting, outcomes, {name: run.timeline for name, (_, run, _) in flown.items()})
    titles, rows = table(effects)
    assert list(titles[1:]) == list(flown)
    assert {len(row) for row in rows} == {4}
    text = render(effects)
    assert "default levels: none, 2,048, 256" in text
    assert "not back" in text
    assert draw(effects, list(flown)[:2]).startswith(b"\x89PNG")
    assert effects.as_dict()["outcomes"][0]["recovery_minutes"] is None


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_without_traces_the_benchmark_says_that_it_was_skipped(tmp_path, monkeypatch, as_json):
    monkeypatch.setenv(catalogue.ENVIRONMENT_VARIABLE, str(tmp_path / "gone"))
    outcome = CliRunner().invoke(cli, ["effort", *(["--json"] if as_json else [])])
    assert outcome.exit_code == 0
    said = json.loads(outcome.stdout)["skipped"] if as_json else outcome.stdout
    assert "skipped: no real traces" in said
