import pytest

from longtail.workbench.bench_report import END, START, render, with_figures


def row(scenario, **changes):
    good = {
        "family": "reasoning",
        "scenario": scenario,
        "mean_demand": 100.0,
        "known_fraction": 0.5,
        "sqrt_rmse_ratio": 0.9,
        "sqrt_bias": 0.0,
        "coverage": 0.95,
        "worst_4h_coverage": 0.9,
        "pinball_ratio": 1.0,
        "baseline_coverage": 0.94,
    }
    return {**good, **changes}


def figures(*rows, **changes):
    error = {"error": 0.01, "bias": 0.005, "worst": 0.02, "finished_only": -0.3}
    cost = {
        "services": 1000,
        "cold_start_seconds": 180.0,
        "age_bins": None,
        "ticks": 60,
        "tick_ms": 41.0,
        "rss_mb": None,
    }
    good = {
        "mean_length_error": {"steady": error},
        "sqrt_rmse_ratio": {"geometric_mean_reasoning": 0.95},
        "tick_ms_1000": 41.0,
        "tick_ms_10000": 450.0,
        "rss_mb_10000": 160.0,
        "growth": {"services": [cost]},
        "scenarios": rows or [row("r1-day")],
        "setting": {
            "machine": "2 cores", "hours": 24, "warm_up_hours": 6, "cold_start_seconds": 180, "attainment": 0.95,
            "seed": 1, "model": "abc",
        },
    }  # fmt: skip
    return {**good, **changes}


def misses(text):
    return [line.split("|")[1].strip() for line in text.splitlines() if "**no**" in line]


def test_only_what_lies_between_the_marks_is_replaced():
    document = f"before\n{START}\nstale\n{END}\nafter\n"
    once = with_figures(document, figures())
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert "stale" not in once
    assert with_figures(once, figures()) == once


@pytest.mark.parametrize("document", ["no marks", START, END, f"{END} {START}"])
def test_a_document_without_marks_is_refused(document):
    with pytest.raises(ValueError, match="marks"):
        with_figures(document, figures())


def test_figures_within_the_bars_miss_nothing():
    assert misses(render(figures())) == []


@pytest.mark.parametrize(
    ("worse", "missed"),
    [
        pytest.param(figures(row("a", sqrt_rmse_ratio=1.03, known_fraction=0.2)), "worst scenario", id="one ratio"),
        pytest.param(figures(row("a", sqrt_rmse_ratio=1.0)), "where more than .4 is known", id="known but equal"),
        pytest.param(figures(row("a", coverage=0.92), row("b", coverage=0.97)), "coverage, worst", id="one coverage"),
        pytest.param(figures(row("a", coverage=0.97)), "coverage, mean", id="too much coverage is a miss too"),
        pytest.param(figures(row("a", worst_4h_coverage=0.87)), "worst four hours", id="four hours"),
        pytest.param(figures(tick_ms_1000=101.0), "1,000 services", id="time of 1,000"),
        pytest.param(figures(tick_ms_10000=1001.0), "10,000 services", id="time of 10,000"),
        pytest.param(figures(rss_mb_10000=401.0), "memory", id="memory"),
        pytest.param(figures(rss_mb_10000=None), "memory", id="memory not known"),
        pytest.param(
            figures(mean_length_error={"x3": {"error": 0.031, "bias": 0, "worst": 0.1, "finished_only": 0}}),
            "mean length",
            id="mean length",
        ),
    ],
)  # fmt: skip
def test_a_missed_bar_is_said(worse, missed):
    said = misses(render(worse))
    assert len(said) == 1
    assert missed in said[0]


def test_stress_is_shown_and_not_judged():
    text = render(figures(row("r1-day"), row("bursts", family="stress", sqrt_rmse_ratio=2.0, coverage=0.5)))
    assert "bursts" in text
    assert misses(text) == []
