"""The figures of the effort benchmark as tables, and its picture (which needs matplotlib)."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from longtail.workbench import bench_effort as bench
from longtail.workbench.bench_effort import Effects, Outcome
from longtail.workbench.fleet.accounts import NO_LIMIT
from longtail.workbench.fleet.run import Timeline
from longtail.workbench.picture import plotting, png

Column = tuple[str, Callable[[Outcome], float], Callable[[float], str]]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _minutes(value: float) -> str:
    return "not back" if value == math.inf else f"{value:.0f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


COLUMNS: Sequence[Column] = (
    ("answered in time, asked during the step, %", lambda o: o.answered, _percent),
    ("… at the first attempt, %", lambda o: o.answered_first, _percent),
    ("answered in time, all, %", lambda o: o.answered_all, _percent),
    ("goodput, answers per GPU-hour", lambda o: o.goodput, _count),
    ("GPU-hours", lambda o: o.gpu_hours, lambda value: f"{value:.1f}"),
    ("recovery after the step, min", lambda o: o.recovery_minutes, _minutes),
    ("cascade seen, min", lambda o: o.cascade_minutes, _minutes),
    ("attempts after the first", lambda o: o.retries, _count),
    ("tokens written for nobody, millions", lambda o: o.aborted_tokens / 1e6, lambda value: f"{value:.1f}"),
    ("changes of the level", lambda o: o.level_changes, lambda value: f"{value:.1f}"),
    ("… of these in the other direction", lambda o: o.level_turns, lambda value: f"{value:.1f}"),
    ("answers that were made shorter, %", lambda o: o.capped, _percent),
    ("… by so many tokens, mean", lambda o: o.cut_tokens, _count),
    ("most replicas asked for afterwards", lambda o: o.largest_after, lambda value: f"{value:.1f}"),
)
"""What is told of each way: title, figure, words."""


def table(effects: Effects) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Titles and rows: a row a figure, a column a way; the mean over the seeds, and its range where they differ."""
    by_way: dict[str, list[Outcome]] = {}
    for outcome in effects.outcomes:
        by_way.setdefault(outcome.way, []).append(outcome)
    rows = [
        [title, *(_cell([of(each) for each in outcomes], words) for outcomes in by_way.values())]
        for title, of, words in COLUMNS
    ]
    return ("", *by_way), rows


def render(effects: Effects) -> str:
    """All figures as Markdown."""
    setting = effects.setting
    levels = ", ".join("none" if level is None else f"{level:,}" for level in setting["levels"])
    titles, rows = table(effects)
    measured_on = (
        f"{setting['machine']}; {setting['seeds']} seeds, mean (least to most); {setting['gpus']} GPUs, "
        f"{setting['slots']} slots, {1e3 * setting['seconds_per_token']:.0f} ms a token, "
        f"{100 * setting['in_time_unloaded']:.1f} % in time in an empty pool; default levels: {levels}; "
        f"model `{setting['model']}`."
    )
    lines = [
        measured_on,
        "",
        f"| {' | '.join(titles)} |",
        f"|{'---|' + '---:|' * (len(titles) - 1)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]
    return "\n".join(lines)


def _cell(values: Sequence[float], words: Callable[[float], str]) -> str:
    mean, least, most = words(float(np.mean(values))), words(min(values)), words(max(values))
    return mean if least == most else f"{mean} ({least} to {most})"


def draw(effects: Effects, ways: Sequence[str]) -> bytes:
    """A PNG: demand and capacity, level, attainment and goodput of some ways over time, with the first seed.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    plot = plotting()
    figure, axes = plot.subplots(4, 1, figsize=(10, 10.5), sharex=True, layout="constrained")
    chosen = {way: effects.timelines[way] for way in ways}
    for axis, paint in zip(axes, (_demand, _levels, _attainment, _goodput), strict=True):
        for colour, (way, timeline) in zip(("tab:red", "tab:blue", "tab:green"), chosen.items(), strict=False):
            paint(axis, _minutes_of(timeline), timeline, way, colour)
        axis.axvspan(0.0, (bench.BACK_SECONDS - bench.STEP_SECONDS) / 60.0, color="0.93", zorder=0)
        axis.margins(x=0)
    _offered(axes[0], next(iter(chosen.values())), effects.setting)
    axes[0].legend(loc="upper right", fontsize=8)
    axes[3].set_ylim(bottom=0)
    axes[2].legend(loc="lower right", fontsize=8)
    axes[-1].set_xlabel("minutes since demand stepped to twice the GPUs")
    figure.suptitle("Demand of twice the GPUs for 15 minutes; clients give up after 120 s and ask again twice")
    return png(plot, figure)


def _minutes_of(timeline: Timeline) -> Any:
    return (timeline.at_seconds - bench.STEP_SECONDS) / 60.0


def _offered(axis: Any, timeline: Timeline, setting: Mapping[str, Any]) -> None:
    """Demand as it is without a queue: requests that are asked for, by the slots that they keep busy."""
    inside = (timeline.at_seconds >= bench.STEP_SECONDS) & (timeline.at_seconds < bench.BACK_SECONDS)
    slots_per_request = bench.SURGE * setting["slots"] / timeline.asked[inside].mean()
    axis.plot(_minutes_of(timeline), timeline.asked * slots_per_request, color="black", label="distinct demand")
    axis.set_yscale("log")
    axis.set_ylabel("requests, slots")


def _demand(axis: Any, minutes: Any, timeline: Timeline, way: str, colour: str) -> None:
    axis.plot(minutes, np.maximum(timeline.demand, 1.0), color=colour, label=f"running and waiting: {way}")
    axis.plot(minutes, timeline.serving * bench.SLOTS, color=colour, linestyle=":", label=f"slots that serve: {way}")


def _levels(axis: Any, minutes: Any, timeline: Timeline, way: str, colour: str) -> None:
    limit = np.where(timeline.thinking_tokens == NO_LIMIT, np.inf, timeline.thinking_tokens)
    known = sorted({*limit[np.isfinite(limit)].tolist()})
    place = np.array([len(known) if level == np.inf else known.index(level) for level in limit.tolist()], np.float64)
    if known:
        axis.step(minutes, place, where="post", color=colour, label=way)
        axis.set_yticks(range(len(known) + 1), [*(f"{level:,.0f}" for level in known), "no limit"])
    axis.set_ylabel("thinking tokens")


def _attainment(axis: Any, minutes: Any, timeline: Timeline, way: str, colour: str) -> None:
    share = 100 * timeline.answered_first / np.maximum(timeline.asked, 1.0)
    axis.plot(minutes[:-2], share[:-2], color=colour, label=way)  # the last minutes have not been answered yet
    axis.set_ylabel("answered in time at\nthe first attempt, %")
    axis.set_ylim(0, 101)


def _goodput(axis: Any, minutes: Any, timeline: Timeline, way: str, colour: str) -> None:
    replicas = np.maximum(timeline.serving + timeline.starting + timeline.draining, 1.0)
    paid = np.minimum(replicas, bench.GPUS)  # those that wait for a GPU are among the starting
    axis.plot(minutes[:-2], 60 * timeline.answered[:-2] / paid[:-2], color=colour, label=way)
    axis.set_ylabel("answers in time per GPU-hour,\nby when they were asked for")
