"""How soon a change of output lengths is found, how well it is measured, and how often there was none.

``longtail bench drift``. Three parts: lengths that change once by a known factor, lengths that never change, and real
traces, judged with hindsight (`drift_truth`). The product is asked through `estimate`, as the operator asks it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from longtail.demand.model import DemandMemory, estimate
from longtail.workbench.bench_cost import digest_of_model, machine_in_words
from longtail.workbench.drift_baseline import ratio_alarms
from longtail.workbench.drift_truth import Alarm, Worth, worth
from longtail.workbench.forecasting import Forecasts, Progress, forecast
from longtail.workbench.replay import TICK_SECONDS, Exposure
from longtail.workbench.scenarios import (
    DAY_SECONDS,
    SEED,
    Family,
    Scenario,
    control_scenarios,
    drawn_scenario,
    reasoning_scenarios,
)
from longtail.workbench.traces import arrivals, catalogue
from longtail.workbench.traces.lengths import PARAMETRIC_R1, scale_tokens
from longtail.workbench.traces.trace import Floats, Trace

ATTAINMENT = 0.95
FACTORS = (1.3, 1.5, 2.0, 3.0, 0.5, 0.33)
RATES = (0.3, 3.0)
"""Requests a second of the services whose lengths change."""
STEADY_RATES = (0.1, 0.3, 1.0, 3.0)
CHANGE_SECONDS = 4 * 3600
LATER_SECONDS = (1800, 2 * 3600)
"""After the change: when its factor is read again."""
FOUND_FACTOR = 1.5
"""Changes of a real trace that ought to be found."""
LARGEST_CLIENTS = 16
_EPOCH_SECONDS = Exposure(pods=1).epoch_seconds

Detector = Callable[[Scenario, int], Sequence[Alarm]]


def run_drift_benchmark(data: Path | None, *, quick: bool, progress: Progress, seed: int = SEED) -> dict[str, Any]:
    """All figures as plain values for JSON; without ``data`` those of real traces are left out.

    Returns:
        Keys ``changes`` (one row for each rate and factor), ``steady``, ``real`` (one row a detector and kind of
        trace) and ``setting``.
    """
    seeds, days = (3, 2) if quick else (6, 10)
    figures: dict[str, Any] = {
        "changes": changed_once(seeds=seeds, seed=seed, progress=progress),
        "steady": never_changed(days=days, seed=seed, progress=progress),
        "setting": {
            "seeds": seeds,
            "seed": seed,
            "hours_before": CHANGE_SECONDS / 3600,
            "machine": machine_in_words(),
            "model": digest_of_model(),
        },
    }
    if data is not None:
        figures["real"] = on_real_traces(data, mixes=4 if quick else 10, seed=seed, progress=progress)
    return figures


# --- one change


def changed_once(*, seeds: int, seed: int, progress: Progress) -> list[dict[str, Any]]:
    """Delay and error of the factor where lengths change by a factor at a known time."""
    cases = [(rate, factor, draw) for rate in RATES for factor in FACTORS for draw in range(seeds)]
    scenarios = [_step(rate, factor, [seed, draw]) for rate, factor, draw in cases]
    said = _say(scenarios, progress)
    rows = []
    for rate in RATES:
        for factor in FACTORS:
            mine = [index for index, case in enumerate(cases) if case[:2] == (rate, factor)]
            rows.append({"per_second": rate, "factor": factor, **_one_change(scenarios, said, mine, factor)})
    return rows


def _one_change(scenarios: Sequence[Scenario], said: Forecasts, mine: Sequence[int], factor: float) -> dict[str, Any]:
    ticks = np.array([round((CHANGE_SECONDS + later) / TICK_SECONDS) for later in LATER_SECONDS])
    delays, baseline, onsets, early = [], [], [], 0
    for index in mine:
        alarms = alarms_of(said, index)
        early += sum(alarm.at_seconds < CHANGE_SECONDS for alarm in alarms)
        hits = [alarm for alarm in alarms if alarm.at_seconds >= CHANGE_SECONDS and alarm.longer is (factor > 1)]
        if hits:
            delays.append(hits[0].at_seconds - CHANGE_SECONDS)
            since = said.change_since_seconds[round(hits[0].at_seconds / TICK_SECONDS), index]
            onsets.append(since - _EPOCH_SECONDS - CHANGE_SECONDS)
        times = _times(said)
        theirs = [
            alarm.at_seconds - CHANGE_SECONDS
            for alarm in ratio_alarms(scenarios[index].schedule(), times)
            if alarm.at_seconds >= CHANGE_SECONDS and alarm.longer is (factor > 1)
        ]
        baseline += theirs[:1]
    errors = np.abs(said.change_factor[ticks][:, mine] / factor - 1)
    return {
        "services": len(mine),
        "found": len(delays),
        "before": early,
        "delay_seconds": _quantiles(delays),
        "onset_error_seconds": _quantiles([abs(onset) for onset in onsets]),
        "factor_errors": [_mean(row) for row in errors],
        "baseline_found": len(baseline),
        "baseline_delay_seconds": _quantiles(baseline),
    }


def _step(per_second: float, factor: float, seed: Sequence[int]) -> Scenario:
    """R1 lengths that change once; the limit is so far away that it cuts none of the longer ones."""
    seconds = 2 * CHANGE_SECONDS
    rng = np.random.default_rng([*seed, round(1000 * per_second), round(100 * factor)])
    arrived = arrivals.poisson(arrivals.constant(seconds, per_second), rng)
    steady = drawn_scenario(f"{per_second:g}/{factor:g}/{seed[-1]}", arrived, PARAMETRIC_R1, rng, seconds=seconds)
    limit = PARAMETRIC_R1.max_tokens * max(FACTORS)
    tokens = steady.trace.output_tokens
    changed = np.where(arrived >= CHANGE_SECONDS, scale_tokens(tokens, factor, limit), tokens)
    return replace(steady, trace=steady.trace.with_output_tokens(changed), max_output_tokens=limit)


# --- no change


def never_changed(*, days: int, seed: int, progress: Progress) -> list[dict[str, Any]]:
    """Alarms where lengths are drawn from one law all day: every one is false."""
    cases = [(rate, day) for rate in STEADY_RATES for day in range(days)]
    scenarios = []
    for rate, day in cases:
        rng = np.random.default_rng([seed, 1, round(1000 * rate), day])
        arrived = arrivals.poisson(arrivals.constant(DAY_SECONDS, rate), rng)
        scenarios.append(drawn_scenario(f"steady/{rate:g}/{day}", arrived, PARAMETRIC_R1, rng))
    said = _say(scenarios, progress)
    times = _times(said)
    rows = []
    for rate in STEADY_RATES:
        mine = [index for index, case in enumerate(cases) if case[0] == rate]
        rows.append(
            {
                "per_second": rate,
                "days": len(mine),
                "alarms": sum(len(alarms_of(said, index)) for index in mine),
                "baseline_alarms": sum(len(ratio_alarms(scenarios[index].schedule(), times)) for index in mine),
            }
        )
    return rows


# --- real traces


def on_real_traces(data: Path, *, mixes: int, seed: int, progress: Progress) -> list[dict[str, Any]]:
    """Alarms on real days, judged with hindsight, and the changes with hindsight that they find."""
    kinds = list(_real_scenarios(data, mixes=mixes, seed=seed))
    scenarios = [scenario for _, scenario in kinds]
    said = _say(scenarios, progress)
    times = _times(said)
    detectors: dict[str, Detector] = {
        "longtail": lambda _, index: alarms_of(said, index),
        "ratio of means": lambda scenario, _: ratio_alarms(scenario.schedule(), times),
    }
    rows = []
    for kind in dict.fromkeys(kind for kind, _ in kinds):
        mine = [index for index, (other, _) in enumerate(kinds) if other == kind]
        for name, detector in detectors.items():
            judged = [judge(detector(scenarios[index], index), scenarios[index]) for index in mine]
            rows.append({"traces": kind, "detector": name, "days": len(mine), **_summed(judged)})
    return rows


def judge(alarms: Sequence[Alarm], scenario: Scenario) -> Worth:
    """What alarms on one scenario are worth with hindsight."""
    duration = scenario.duration_seconds
    return worth(alarms, scenario.trace, duration_seconds=duration, least_factor=FOUND_FACTOR)


def _summed(judged: Sequence[Worth]) -> dict[str, Any]:
    return {
        "alarms": sum(one.alarms for one in judged),
        "false": sum(one.false for one in judged),
        "changes": sum(one.changes for one in judged),
        "found": sum(one.found for one in judged),
        "delay_seconds": _quantiles([delay for one in judged for delay in one.delays_seconds]),
    }


def _real_scenarios(data: Path, *, mixes: int, seed: int) -> Iterator[tuple[str, Scenario]]:
    """Days by kind: whole pools, single clients of the R1 day, mixes of a third of them, and what does not reason."""
    for scenario in reasoning_scenarios(data, seed=seed):
        if scenario.name.endswith("-r1-lengths"):
            yield "language pools, lengths drawn", scenario  # bursts without any change of lengths
        elif scenario.name in {"r1-day", "r1-day-thin", "r1-small"}:
            yield "R1 day, whole and thinned", scenario
    day, law = catalogue.r1_day(data), catalogue.r1_lengths(data)
    assert day.client is not None
    count = int(day.client.max()) + 1

    def part(clients: Sequence[int], name: str) -> Scenario:
        return Scenario(name, Family.REASONING, catalogue.clients_of(day, clients, name=name), law.max_tokens)

    rng = np.random.default_rng([seed, 2])
    for mix in range(mixes):
        chosen = rng.choice(count, size=count // 3, replace=False)
        yield "R1 day, a third of the clients", part(chosen.tolist(), f"mix-{mix}")
    largest = np.argsort(-np.bincount(day.client), kind="stable")[:LARGEST_CLIENTS]
    for client in largest.tolist():
        yield "R1 day, one client", part([client], f"client-{client}")
    for scenario in control_scenarios(data, seed=seed):
        yield "Azure and Mooncake", scenario


# --- the product


def alarms_of(said: Forecasts, index: int) -> list[Alarm]:
    """The changes that one service was told of."""
    since, factor = said.change_since_seconds[:, index], said.change_factor[:, index]
    told = np.concatenate([[np.nan], since[:-1]])
    new = np.flatnonzero(~np.isnan(since) & (since != told))
    return [Alarm(at_seconds=tick * TICK_SECONDS, longer=bool(factor[tick] > 1)) for tick in new.tolist()]


def _times(said: Forecasts) -> Floats:
    return TICK_SECONDS * np.arange(len(said.change_factor), dtype=np.float64)


def _say(scenarios: Sequence[Scenario], progress: Progress) -> Forecasts:
    series = [scenario.series() for scenario in scenarios]
    return forecast(
        scenarios,
        series,
        estimator=estimate,
        memory=DemandMemory.empty(),
        attainment=ATTAINMENT,
        progress=progress,
    )


def mean_lengths(trace: Trace, at_seconds: Floats, *, window_seconds: float) -> Floats:
    """Mean length of the requests that arrived in the window around each moment, NaN where none did."""
    total = np.concatenate([[0.0], np.cumsum(trace.output_tokens, dtype=np.float64)])
    low = np.searchsorted(trace.arrival_seconds, at_seconds - window_seconds / 2)
    high = np.searchsorted(trace.arrival_seconds, at_seconds + window_seconds / 2)
    result: Floats = np.divide(
        total[high] - total[low], high - low, out=np.full(len(at_seconds), np.nan), where=high > low
    )
    return result


def _quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """Median and the value that nine of ten do not exceed; None of nothing."""
    if not values:
        return None
    return {"p50": float(np.median(values)), "p90": float(np.quantile(values, 0.9))}


def _mean(values: Floats) -> float | None:
    """Mean of those that are known; None where none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
