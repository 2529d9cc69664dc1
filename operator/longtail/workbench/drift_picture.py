"""One real day: how long answers were, what the model took them for, and when it said that they had changed."""

from pathlib import Path

import numpy as np

from longtail.demand.model import DemandMemory, estimate
from longtail.workbench.bench_drift import ATTAINMENT, FOUND_FACTOR, alarms_of, mean_lengths
from longtail.workbench.drift_truth import changes
from longtail.workbench.forecasting import Progress, forecast
from longtail.workbench.picture import plotting, png
from longtail.workbench.replay import TICK_SECONDS
from longtail.workbench.scenarios import SEED, reasoning_scenarios

TRACE = "r1-day-thin"
_WINDOW_SECONDS = 600.0


def draw_day(data: Path, *, progress: Progress, seed: int = SEED) -> bytes:
    """A PNG.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    plot = plotting()
    scenario = next(one for one in reasoning_scenarios(data, seed=seed) if one.name == TRACE)
    said = forecast(
        [scenario],
        [scenario.series()],
        estimator=estimate,
        memory=DemandMemory.empty(),
        attainment=ATTAINMENT,
        progress=progress,
    )
    at = TICK_SECONDS * np.arange(len(said.mean_tokens), dtype=np.float64)
    hours = at / 3600
    figure, axes = plot.subplots(figsize=(10.5, 4.2), layout="constrained")
    truth = mean_lengths(scenario.trace, at, window_seconds=_WINDOW_SECONDS)
    axes.plot(hours, truth, color="0.7", linewidth=0.8, label="mean of those that arrive within ten minutes")
    axes.plot(hours, said.mean_tokens[:, 0], color="tab:blue", linewidth=1.4, label="mean that the model goes by")
    top = float(np.nanmax(truth))
    alarms = alarms_of(said, 0)
    for number, alarm in enumerate(alarms):
        factor = said.change_factor[round(alarm.at_seconds / TICK_SECONDS), 0]
        axes.axvline(
            alarm.at_seconds / 3600, color="tab:red", linewidth=1.0, label="_" if number else "said to have changed"
        )
        axes.annotate(
            f"× {factor:.2g}", (alarm.at_seconds / 3600, top * (0.97 - 0.06 * (number % 2))), xytext=(3, 0),
            textcoords="offset points", color="tab:red", fontsize=8,
        )  # fmt: skip
    ought = changes(scenario.trace, duration_seconds=scenario.duration_seconds, least_factor=FOUND_FACTOR)
    moments = [change.at_seconds / 3600 for change in ought]
    axes.plot(
        moments, [0.0] * len(moments), "k^", clip_on=False, label=f"changed by {FOUND_FACTOR:g} or more, with hindsight"
    )
    axes.set(xlabel="hours", ylabel="tokens", xlim=(0, hours[-1]), ylim=(0, top * 1.03))
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0.02, 0.9))
    return png(plot, figure)
