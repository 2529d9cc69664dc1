"""The drift benchmark measures what it says, on a scale that fits a test."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

from longtail.cli import bench as command
from longtail.workbench import bench_drift
from longtail.workbench.bench_drift import alarms_of, changed_once, never_changed
from longtail.workbench.bench_report import END, START
from longtail.workbench.drift_report import render, with_drift_figures
from longtail.workbench.forecasting import Forecasts
from longtail.workbench.traces import catalogue


def quiet(_doing, _share):
    pass


@pytest.fixture
def small(monkeypatch):
    """One rate, two factors, an hour on each side."""
    monkeypatch.setattr(bench_drift, "RATES", (1.0,))
    monkeypatch.setattr(bench_drift, "STEADY_RATES", (1.0,))
    monkeypatch.setattr(bench_drift, "FACTORS", (2.0, 0.5))
    monkeypatch.setattr(bench_drift, "CHANGE_SECONDS", 3600)
    monkeypatch.setattr(bench_drift, "LATER_SECONDS", (1200, 3000))
    monkeypatch.setattr(bench_drift, "DAY_SECONDS", 7200)


def test_one_change_is_found_and_measured(small):
    rows = changed_once(seeds=1, seed=1, progress=quiet)
    assert [row["factor"] for row in rows] == [2.0, 0.5]
    for row in rows:
        assert (row["services"], row["found"], row["before"]) == (1, 1, 0)
        assert 120 <= row["delay_seconds"]["p50"] <= 900
        assert row["onset_error_seconds"]["p50"] <= 180
        assert all(error < 0.25 for error in row["factor_errors"])


def test_where_nothing_changes_every_alarm_counts(small):
    (row,) = never_changed(days=2, seed=1, progress=quiet)
    assert (row["days"], row["alarms"]) == (2, 0)


def test_an_alarm_is_counted_once_while_it_is_the_same_news():
    since = np.array([math.nan, 5.0, 5.0, 7.0, math.nan, 7.0])[:, None]
    factor = np.array([math.nan, 2.0, 2.2, 0.5, math.nan, 0.5])[:, None]
    nothing = np.zeros_like(since)
    said = Forecasts(*(nothing,) * 6, change_factor=factor, change_since_seconds=since)
    assert [(alarm.at_seconds, alarm.longer) for alarm in alarms_of(said, 0)] == [
        (15.0, True),
        (45.0, False),
        (75.0, False),
    ]


FIGURES = {
    "setting": {"machine": "2 cores", "seeds": 1, "seed": 1, "model": "abc"},
    "changes": [
        {
            "per_second": 3.0, "factor": 2.0, "services": 6, "found": 5, "before": 0,
            "delay_seconds": {"p50": 315.0, "p90": 330.0}, "onset_error_seconds": {"p50": 15.0, "p90": 30.0},
            "factor_errors": [0.05, None], "baseline_found": 0, "baseline_delay_seconds": None,
        }
    ],
    "steady": [{"per_second": 3.0, "days": 25, "alarms": 0, "baseline_alarms": 4}],
    "real": [
        {"traces": kind, "detector": "longtail", "days": 2, "alarms": 9, "false": 1, "changes": 4, "found": 3,
         "delay_seconds": {"p50": 600.0, "p90": 900.0}}
        for kind in ("a", "b")
    ],
}  # fmt: skip


def test_the_report_has_every_part_and_a_sum():
    text = with_drift_figures(f"{START}\n{END}\n", FIGURES)
    assert "| 3 | 2 | 5/6 | 0 | 5.2 | 5.5 | 0.2 | 5% | – | 0/6 | – |" in text
    assert "| 3 | 25 | 0 | 4 |" in text
    assert "| **all** | longtail | 4 | 18 | 2 | 0.50 | 8 | 6 | – |" in text
    assert "Real traces" not in render({name: value for name, value in FIGURES.items() if name != "real"})


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_without_traces_the_drawn_parts_are_measured_all_the_same(tmp_path, monkeypatch, as_json):
    monkeypatch.setenv(catalogue.ENVIRONMENT_VARIABLE, str(tmp_path / "gone"))

    def measured(data, **_):
        assert data is None
        return {name: value for name, value in FIGURES.items() if name != "real"}

    monkeypatch.setattr(command, "run_drift_benchmark", measured)
    outcome = CliRunner().invoke(command.bench, ["drift", *(["--json"] if as_json else [])])
    assert outcome.exit_code == 0, outcome.output
    if as_json:
        assert set(json.loads(outcome.stdout)) == {"setting", "changes", "steady"}
    else:
        assert "skipped: no real traces" in outcome.stdout
