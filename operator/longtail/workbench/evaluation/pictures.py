"""The two pictures: what attainment costs, and how a pool lived through its day. Needs matplotlib."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from longtail.errors import SettingsError
from longtail.workbench.evaluation.case import open_case
from longtail.workbench.evaluation.frontier import Results
from longtail.workbench.evaluation.rows import HINDSIGHT, Row, frontier_of, misses
from longtail.workbench.evaluation.trial import ORACLES, fly, fly_longtail
from longtail.workbench.fleet.pilots import LONGTAIL
from longtail.workbench.fleet.run import Run

TICKS_PERCENT = (80.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 99.99)
"""What is better than the last is drawn at the last."""
NAMED_PEERS = 6
"""As many peers are drawn in colour and named; the others are grey."""


def draw_pictures(results: Results) -> dict[str, bytes]:
    """PNGs by name: ``frontier``, and ``timeline`` of the first trace with longtail and its best peer.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    plot = matplotlib_pyplot()
    return {"attainment": _frontiers(plot, results), "timeline": _timelines(plot, results)}


def matplotlib_pyplot() -> Any:
    """Pyplot without a display.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra, and a second to import
        import matplotlib.pyplot as plt  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError("pictures need matplotlib: install longtail[picture]") from error
    mpl.use("Agg")
    return plt


def png(plot: Any, figure: Any) -> bytes:
    """The figure as a file, and its end."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plot.close(figure)
    return buffer.getvalue()


# --- what attainment costs


def _frontiers(plot: Any, results: Results) -> bytes:
    traces = list(results.cases)
    columns = min(len(traces), 3)
    lines = -(-len(traces) // columns)
    figure, axes = plot.subplots(
        lines, columns, figsize=(max(5.2 * columns, 9.0), 3.9 * lines + 1.0), squeeze=False, layout="constrained"
    )
    named = _named(results.rows)
    colours = dict(zip(named, plot.get_cmap("tab10").colors[1:], strict=False))
    for place, axis in enumerate(axes.flat):
        if place < len(traces):
            _one_frontier(axis, traces[place], results.runs, colours)
        else:
            axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("GPU-hours over the bound")
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.suptitle("What it costs to serve a share of the requests in time (lower is better)")
    return png(plot, figure)


def _one_frontier(axis: Any, trace: str, runs: Sequence[Row], colours: Mapping[str, Any]) -> None:
    mine = [row for row in runs if row.trace == trace and row.attainment_percent >= TICKS_PERCENT[0]]
    for policy in sorted({row.policy for row in mine}, key=lambda name: (name == LONGTAIL, name in colours)):
        frontier = frontier_of([row for row in mine if row.policy == policy and row.seed == 0])
        x = [_place(row) for row in frontier]
        y = [row.cost_over_bound for row in frontier]
        axis.plot(x, y, **_style(policy, colours))
    for row in mine:
        if row.policy == LONGTAIL and row.knob is None:
            axis.plot(_place(row), row.cost_over_bound, "*", color="black", markersize=12,
                      label="longtail at its defaults", zorder=6)  # fmt: skip
    axis.axvline(misses(99.0), color="0.85", zorder=0)
    axis.set_title(trace, fontsize=11)
    axis.set_xticks([misses(percent) for percent in TICKS_PERCENT], [f"{percent:g}" for percent in TICKS_PERCENT])
    axis.set_xlim(misses(TICKS_PERCENT[0]), misses(TICKS_PERCENT[-1]) + 0.05)
    axis.set_ylim(0.7, 2.2)
    axis.set_xlabel("requests that waited at most the objective, %")


def _place(row: Row) -> float:
    return misses(min(row.attainment_percent, TICKS_PERCENT[-1]))


def _style(policy: str, colours: Mapping[str, Any]) -> dict[str, Any]:
    if policy == LONGTAIL:
        return {"color": "black", "linewidth": 2.5, "marker": "o", "markersize": 4, "label": LONGTAIL, "zorder": 5}
    if policy in ORACLES:
        dashes = ":" if policy == "oracle-arrivals" else "--"
        return {"color": "0.45", "linewidth": 1.5, "linestyle": dashes, "label": policy, "zorder": 3}
    if policy in colours:
        return {"color": colours[policy], "linewidth": 1.6, "marker": ".", "label": policy, "zorder": 4}
    return {"color": "0.8", "linewidth": 0.8, "label": "other peers", "zorder": 1}


def _named(rows: Sequence[Row]) -> list[str]:
    """The peers with the lowest cost over all traces at 99 %."""
    costs: dict[str, list[float]] = {}
    for row in rows:
        if row.tuned == HINDSIGHT and row.attainment_target_percent == 99.0 and row.policy not in {LONGTAIL, *ORACLES}:
            costs.setdefault(row.policy, []).append(row.cost_over_bound)
    most = max(map(len, costs.values()), default=0)
    ranked = sorted(costs, key=lambda policy: (len(costs[policy]) < most, np.mean(costs[policy])))
    return ranked[:NAMED_PEERS]


# --- how a pool lived


def _timelines(plot: Any, results: Results) -> bytes:
    trace, name = next(iter(results.cases.items()))
    flights: list[tuple[str, Run]] = []
    if any(row.policy == LONGTAIL for row in results.runs):
        flights.append(("longtail at its defaults", fly_longtail([(name, 0, None)])[0]))
    best = _best_peer(results, trace)
    if best is not None:
        knob = "its default" if best.knob is None else f"{best.knob:g}"
        flights.append((f"{best.policy}, knob {knob} by hindsight", fly(name, 0, best.policy, best.knob)))
    count = max(len(flights), 1)
    shape = {"figsize": (12, 3.9 * count), "height_ratios": [3, 1] * count}
    figure, axes = plot.subplots(2 * count, 1, sharex=True, squeeze=False, layout="constrained", **shape)
    slots = _slots_of(results, trace)
    for place, (title, run) in enumerate(flights):
        _one_timeline(axes[2 * place, 0], axes[2 * place + 1, 0], title, run, slots)
    axes[-1, 0].set_xlabel("hours since the start of the trace")
    figure.suptitle(f"{trace}: replicas and queue")
    return png(plot, figure)


def _slots_of(results: Results, trace: str) -> int:
    """Slots of a replica of a trace's pool."""
    return open_case(results.cases[trace], 0).pool.slots_per_replica


def _best_peer(results: Results, trace: str) -> Row | None:
    """The cheapest run of any peer that served 99 % in time."""
    rows = [
        row
        for row in results.runs
        if (row.trace, row.seed) == (trace, 0)
        and row.attainment_percent >= 99.0
        and row.policy not in {LONGTAIL, *ORACLES}
    ]
    return min(rows, key=lambda row: row.gpu_hours, default=None)


def _one_timeline(upper: Any, lower: Any, title: str, run: Run, slots: int) -> None:
    line = run.timeline
    hours = line.at_seconds / 3600.0
    kinds = (line.serving, line.draining, line.starting)
    upper.stackplot(hours, *kinds, labels=("serving", "draining", "starting"), colors=("#9ecae1", "#fdd0a2", "#c7e9c0"))
    upper.plot(hours, line.demand / slots, color="black", linewidth=1.0, label="demand: running and waiting")
    upper.set_ylabel("replicas")
    upper.set_ylim(0)
    figures = f"{100 * run.attainment:.2f} % in time, {run.gpu_hours.total:.1f} GPU-hours, {run.killed_requests} killed"
    upper.set_title(f"{title}: {figures}", fontsize=10, loc="left")
    upper.legend(loc="upper right", ncols=4, fontsize=8, frameon=False)
    lower.fill_between(hours, line.waiting, color="#de2d26", linewidth=0)
    lower.set_ylabel("waiting")
    lower.set_ylim(0, max(1.0, float(line.waiting.max(initial=0.0)) * 1.05))
