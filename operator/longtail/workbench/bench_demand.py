"""The figures that the demand model is held to: ``longtail bench demand``.

The scenarios are the measure. The model never sees their parameters, and they are not chosen by its results.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from longtail.demand.model import DemandMemory, estimate
from longtail.workbench.bench_cost import CostOptions, digest_of_model, machine_in_words, measure_apart
from longtail.workbench.forecasting import Forecasts, Progress, forecast
from longtail.workbench.replay import TICK_SECONDS, Series
from longtail.workbench.scenarios import (
    COLD_START_SECONDS,
    DAY_SECONDS,
    SEED,
    Family,
    Scenario,
    control_scenarios,
    drawn_scenario,
    reasoning_scenarios,
    stress_scenarios,
)
from longtail.workbench.scoring import Score, geometric_mean, score
from longtail.workbench.traces import arrivals
from longtail.workbench.traces.catalogue import r1_lengths
from longtail.workbench.traces.lengths import LengthLaw
from longtail.workbench.traces.trace import Floats

ATTAINMENT = 0.95
HORIZON_TICKS = round(COLD_START_SECONDS / TICK_SECONDS)
WARM_UP_TICKS = round(6 * 3600 / TICK_SECONDS)
QUICK_SECONDS = 10 * 3600
"""Length of a quick run: four scored hours after the six of warm-up."""


def run_demand_benchmark(data: Path, *, quick: bool, progress: Progress, seed: int = SEED) -> dict[str, Any]:
    """All figures as plain values for JSON.

    Args:
        data: directory of the real traces.
        quick: ten hours instead of a day, fewer seeds, no fleet of 10,000 beyond a few ticks.
        progress: is told what is going on.
        seed: of every draw.

    Returns:
        Keys ``mean_length_error``, ``sqrt_rmse_ratio``, ``coverage``, ``worst_4h_coverage``,
        ``tick_ms_1000``, ``tick_ms_10000``, ``rss_mb_10000``, ``growth``, ``scenarios`` and ``setting``.
    """
    seconds = QUICK_SECONDS if quick else DAY_SECONDS
    lengths = mean_length_errors(r1_lengths(data), seeds=4 if quick else 12, seed=seed, progress=progress)
    scenarios = [
        _shortened(scenario, seconds)
        for scenario in (
            *reasoning_scenarios(data, seed=seed),
            *control_scenarios(data, seed=seed),
            *stress_scenarios(seconds=seconds, seed=seed),
        )
    ]
    rows = score_scenarios(scenarios, progress=progress)
    costs = measure_costs(quick=quick, progress=progress)
    judged = [row for row in rows if row["family"] != Family.STRESS]
    ratios = {row["scenario"]: row["sqrt_rmse_ratio"] for row in judged}
    return {
        "mean_length_error": lengths,
        "sqrt_rmse_ratio": {
            **ratios,
            "geometric_mean": geometric_mean(np.array(list(ratios.values()))),
            "geometric_mean_reasoning": geometric_mean(
                np.array([row["sqrt_rmse_ratio"] for row in judged if row["family"] == Family.REASONING])
            ),
        },
        "coverage": _with_mean(judged, "coverage"),
        "worst_4h_coverage": {row["scenario"]: row["worst_4h_coverage"] for row in judged},
        **costs,
        "scenarios": rows,
        "setting": {
            "cold_start_seconds": COLD_START_SECONDS,
            "warm_up_hours": WARM_UP_TICKS * TICK_SECONDS / 3600,
            "attainment": ATTAINMENT,
            "hours": seconds / 3600,
            "seed": seed,
            "machine": machine_in_words(),
            "model": digest_of_model(),
        },
    }


def _with_mean(rows: Sequence[dict[str, Any]], column: str) -> dict[str, float]:
    figures = {row["scenario"]: float(row[column]) for row in rows}
    return {**figures, "mean": float(np.mean(list(figures.values())))}


def _shortened(scenario: Scenario, seconds: int) -> Scenario:
    if seconds >= scenario.duration_seconds:
        return scenario
    return Scenario(
        name=scenario.name,
        family=scenario.family,
        trace=scenario.trace.window(0, seconds),
        max_output_tokens=scenario.max_output_tokens,
        duration_seconds=float(seconds),
        seconds_per_token=scenario.seconds_per_token,
    )


# --- forecasts


def score_scenarios(scenarios: Sequence[Scenario], *, progress: Progress) -> list[dict[str, Any]]:
    """One row a scenario: its score, and what the model itself said of coverage, known fraction and level."""
    series = [scenario.series() for scenario in scenarios]
    said = forecast(
        scenarios,
        series,
        estimator=estimate,
        memory=DemandMemory.empty(),
        attainment=ATTAINMENT,
        progress=progress,
    )
    return [
        {
            "scenario": scenario.name,
            "family": scenario.family.value,
            "known_fraction": _known_share(scenario, one),
            **asdict(_score(one, said, index)),
            **_own_words(said, index),
        }
        for index, (scenario, one) in enumerate(zip(scenarios, series, strict=True))
    ]


def _known_share(scenario: Scenario, series: Series) -> float:
    moments = series.at_seconds[WARM_UP_TICKS : len(series.at_seconds) - HORIZON_TICKS]
    return scenario.schedule().known_share(moments, COLD_START_SECONDS)


def _score(series: Series, said: Forecasts, index: int) -> Score:
    return score(
        series.demand,
        said.point[:, index],
        said.upper[:, index],
        horizon_ticks=HORIZON_TICKS,
        warm_up_ticks=WARM_UP_TICKS,
        level=ATTAINMENT,
    )


def _own_words(said: Forecasts, index: int) -> dict[str, float]:
    after = slice(WARM_UP_TICKS, None)
    return {
        "said_known_fraction": float(np.nanmean(said.known_fraction[after, index])),
        "said_quantile": float(np.nanmean(said.quantile[after, index])),
        "said_horizon_seconds": float(np.nanmean(said.horizon_seconds[after, index])),
        "said_mean_tokens": float(np.nanmean(said.mean_tokens[after, index])),
    }


# --- mean length

LENGTH_WARM_UP_SECONDS = 2 * 3600
LENGTH_WINDOW_SECONDS = 600
LENGTH_CHANGES = {"steady": 1.0, "x3": 3.0, "/3": 1 / 3}


def mean_length_errors(
    law: LengthLaw, *, seeds: int, progress: Progress, seed: int = SEED
) -> dict[str, dict[str, float]]:
    """Error of the estimated mean length in the ten minutes after the arrival rate changes by a factor.

    Two requests a second for two hours, then the change; lengths never change, so any movement is bias. Per
    change: ``error`` is the mean absolute error, ``bias`` the mean signed one, ``finished_only`` the bias of
    the mean of the requests that finished within the last three minutes, all relative, over ticks and seeds.
    """
    duration = LENGTH_WARM_UP_SECONDS + LENGTH_WINDOW_SECONDS
    flat = arrivals.constant(duration, 2.0)
    scenarios = []
    for index, (change, factor) in enumerate(LENGTH_CHANGES.items()):
        for draw in range(seeds):
            rng = np.random.default_rng([seed, index, draw])
            arrived = arrivals.poisson(arrivals.stepped(flat, LENGTH_WARM_UP_SECONDS, factor), rng)
            scenarios.append(drawn_scenario(f"{change}-{draw}", arrived, law, rng, seconds=duration))
    series = [scenario.series() for scenario in scenarios]
    said = forecast(
        scenarios,
        series,
        estimator=estimate,
        memory=DemandMemory.empty(),
        attainment=ATTAINMENT,
        progress=progress,
    )
    after = slice(round(LENGTH_WARM_UP_SECONDS / TICK_SECONDS) + 1, None)
    relative = said.mean_tokens[after] / law.mean_tokens - 1
    figures = {}
    for index, change in enumerate(LENGTH_CHANGES):
        mine = slice(index * seeds, (index + 1) * seeds)
        naive = np.mean([_finished_only(scenario, law) for scenario in scenarios[mine]])
        figures[change] = {
            "error": float(np.abs(relative[:, mine]).mean()),
            "bias": float(relative[:, mine].mean()),
            "worst": float(np.abs(relative[:, mine]).max()),
            "finished_only": float(naive),
        }
    return figures


def _finished_only(scenario: Scenario, law: LengthLaw) -> float:
    """Relative bias of the mean length of what finished within three minutes after the change."""
    trace, finish = scenario.trace, scenario.schedule().finish_seconds
    start, end = LENGTH_WARM_UP_SECONDS, LENGTH_WARM_UP_SECONDS + 180
    lengths: Floats = trace.output_tokens[(finish >= start) & (finish < end)].astype(np.float64)
    return float(lengths.mean() / law.mean_tokens - 1)


# --- cost


def measure_costs(*, quick: bool, progress: Progress) -> dict[str, Any]:
    """Time and memory of a tick, and how they grow with services, horizon, age bins and ticks run."""
    ticks = 30 if quick else 60
    plan = {
        "services": [CostOptions(services=count, ticks=ticks) for count in (500, 1000, 2000, 4000)],
        "horizon": [
            CostOptions(services=2000, ticks=ticks, cold_start_seconds=seconds) for seconds in (90.0, 180.0, 360.0)
        ],
        "age_bins": [CostOptions(services=2000, ticks=ticks, age_bins=count) for count in (16, 32, 64)],
        "ticks_run": [CostOptions(services=100, ticks=count) for count in ((60, 400) if quick else (60, 400, 1600))],
        "large": [CostOptions(services=10_000, ticks=20 if quick else 40, measured=5 if quick else 10)],
    }
    total = sum(len(options) for options in plan.values())
    measured: dict[str, list[dict[str, Any]]] = {}
    done = 0
    for what, options in plan.items():
        measured[what] = []
        for one in options:
            progress(f"timing a tick by {what}", done / total)
            measured[what].append({**asdict(one), **asdict(measure_apart(one))})
            done += 1
    large = measured.pop("large")[0]
    thousand = next(cost for cost in measured["services"] if cost["services"] == 1000)
    return {
        "tick_ms_1000": thousand["tick_ms"],
        "tick_ms_10000": large["tick_ms"],
        "rss_mb_10000": large["rss_mb"],
        "growth": measured,
    }
