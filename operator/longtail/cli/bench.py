"""``longtail bench``: the figures that longtail is held to, measured on this machine."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from longtail.cli import bench_options
from longtail.cli.bench_effort import bench_effort
from longtail.cli.progress import progress_bar
from longtail.workbench.bench_budget import run_budget_benchmark
from longtail.workbench.bench_budget_report import draw_use
from longtail.workbench.bench_budget_report import render as render_budget
from longtail.workbench.bench_demand import run_demand_benchmark
from longtail.workbench.bench_drift import run_drift_benchmark
from longtail.workbench.bench_report import replace_figures, with_figures
from longtail.workbench.bench_variants import real_plan, run_variants_benchmark
from longtail.workbench.bench_variants import render as render_variants
from longtail.workbench.drift_picture import draw_day
from longtail.workbench.drift_report import render as render_drift
from longtail.workbench.drift_report import with_drift_figures
from longtail.workbench.scenarios import SEED
from longtail.workbench.traces.catalogue import data_directory


@click.group()
def bench() -> None:
    """Measure longtail."""


bench.add_command(bench_effort)


@bench.command("demand")
@bench_options.as_json
@click.option("--quick", is_flag=True, help="Ten hours instead of a day, and smaller fleets: a few minutes.")
@bench_options.data()
@click.option("--seed", type=int, default=SEED, show_default=True, help="Seed of every draw.")
@bench_options.report()
def bench_demand(*, as_json: bool, quick: bool, data: Path | None, seed: int, report: Path | None) -> None:
    """Forecasts of demand against what then happened, and what a tick costs."""
    directory = bench_options.traces_or_skip(data, as_json=as_json)
    if directory is None:
        return
    with progress_bar("reading traces") as progress:
        figures = run_demand_benchmark(directory, quick=quick, progress=progress, seed=seed)
    if report is not None:
        report.write_text(with_figures(report.read_text(encoding="utf-8"), figures), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(figures, indent=2))
    else:
        _print(figures)


@bench.command("drift")
@bench_options.as_json
@click.option("--quick", is_flag=True, help="Fewer seeds, days and mixes: a few minutes.")
@bench_options.data("; none: without them")
@click.option("--seed", type=int, default=SEED, show_default=True, help="Seed of every draw.")
@bench_options.report()
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    default=None,
    help="Draw a real day with its alarms into this PNG file (extra `picture`; needs the real traces).",
)
def bench_drift(
    *, as_json: bool, quick: bool, data: Path | None, seed: int, report: Path | None, picture: Path | None
) -> None:
    """Changes of output lengths: delay until they are found, error of their factor, false alarms."""
    directory = data or data_directory()
    with progress_bar("drawing requests") as progress:
        figures = run_drift_benchmark(directory, quick=quick, progress=progress, seed=seed)
        if picture is not None and directory is not None:
            picture.write_bytes(draw_day(directory, progress=progress, seed=seed))
    if report is not None:
        report.write_text(with_drift_figures(report.read_text(encoding="utf-8"), figures), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(figures, indent=2))
        return
    Console().print(Markdown(render_drift(figures)))
    if "real" not in figures:
        click.echo(bench_options.SKIPPED)


@bench.command("budget")
@bench_options.as_json
@click.option("--quick", is_flag=True, help="Fewer quotas.")
@bench_options.data()
@click.option("--seed", type=int, default=SEED, show_default=True, help="Seed of the draws from the real day.")
@bench_options.report("; its picture is written beside it")
def bench_budget(*, as_json: bool, quick: bool, data: Path | None, seed: int, report: Path | None) -> None:
    """Two services with opposite peaks: one shared quota of GPUs against fixed halves."""
    directory = bench_options.traces_or_skip(data, as_json=as_json)
    if directory is None:
        return
    with progress_bar("reading traces") as progress:
        outcome = run_budget_benchmark(directory, quick=quick, seed=seed, progress=progress)
    text = render_budget(outcome)
    if report is not None:
        report.write_text(replace_figures(report.read_text(encoding="utf-8"), text), encoding="utf-8")
        report.with_name(f"{report.stem}-use.png").write_bytes(draw_use(outcome))
    click.echo(json.dumps(outcome.as_dict(), indent=2) if as_json else text)


@bench.command("variants")
@bench_options.as_json
@click.option("--hours", type=click.FloatRange(0.1, 24.0), default=24.0, show_default=True, help="Hours to measure.")
@bench_options.data()
@click.option("--seed", type=int, default=SEED, show_default=True, help="Seed of the draw from the real day.")
@bench_options.report()
def bench_variants(*, as_json: bool, hours: float, data: Path | None, seed: int, report: Path | None) -> None:
    """Two pools of one model behind one gateway: as variants, each alone, and with a fixed split."""
    directory = bench_options.traces_or_skip(data, as_json=as_json)
    if directory is None:
        return
    with progress_bar("reading traces") as progress:
        outcome = run_variants_benchmark(directory, plan=real_plan(hours=hours, seed=seed), progress=progress)
    text = render_variants(outcome)
    if report is not None:
        report.write_text(replace_figures(report.read_text(encoding="utf-8"), text), encoding="utf-8")
    click.echo(json.dumps(outcome.as_dict(), indent=2) if as_json else text)


def _print(figures: dict[str, Any]) -> None:
    console = Console()
    console.print(_scenario_table(figures["scenarios"]))
    ratios = figures["sqrt_rmse_ratio"]
    console.print(
        f"√-RMSE over persistence: geometric mean {ratios['geometric_mean']:.3f}, "
        f"reasoning only {ratios['geometric_mean_reasoning']:.3f}; "
        f"coverage: mean {figures['coverage']['mean']:.3f}"
    )
    for change, error in figures["mean_length_error"].items():
        console.print(
            f"mean length, {change}: error {error['error']:.1%}, bias {error['bias']:+.1%} "
            f"(finished requests only: {error['finished_only']:+.1%})"
        )
    console.print(
        f"one tick: 1,000 services {figures['tick_ms_1000']:.0f} ms, 10,000 services "
        f"{figures['tick_ms_10000']:.0f} ms and {_megabytes(figures['rss_mb_10000'])} MB"
    )
    for what, costs in figures["growth"].items():
        console.print(_growth_table(what, costs))
    console.print(figures["setting"]["machine"], style="dim")


_COLUMNS = (
    ("family", "family", "{}"),
    ("scenario", "scenario", "{}"),
    ("mean_demand", "N", "{:.0f}"),
    ("known_fraction", "known", "{:.2f}"),
    ("sqrt_rmse_ratio", "√-RMSE ratio", "{:.3f}"),
    ("sqrt_bias", "√-bias", "{:+.3f}"),
    ("coverage", "coverage", "{:.3f}"),
    ("worst_4h_coverage", "worst 4 h", "{:.3f}"),
    ("pinball_ratio", "pinball ratio", "{:.3f}"),
)


def _scenario_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Demand one cold start ahead")
    for _, title, _ in _COLUMNS:
        table.add_column(
            title, justify="left" if title in {"family", "scenario"} else "right", no_wrap=title == "scenario"
        )
    for row in rows:
        table.add_row(*(form.format(row[key]) for key, _, form in _COLUMNS))
    return table


def _growth_table(what: str, costs: Sequence[dict[str, Any]]) -> Table:
    table = Table(title=f"Cost by {what.replace('_', ' ')}")
    for title in ("services", "cold start s", "age bins", "ticks", "ms a tick", "MB"):
        table.add_column(title, justify="right")
    for cost in costs:
        given = (cost["services"], cost["cold_start_seconds"], cost["age_bins"], cost["ticks"])
        shown = ["own" if figure is None else f"{figure:,.0f}" for figure in given]
        table.add_row(*shown, f"{cost['tick_ms']:,.1f}", _megabytes(cost["rss_mb"]))
    return table


def _megabytes(figure: float | None) -> str:
    return "?" if figure is None else f"{figure:,.0f}"
