"""``longtail frontier``: what every policy costs for the same promise kept."""

import json
import os
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from longtail.cli.pool_options import cold_start, is_trace_file
from longtail.cli.progress import progress_bar
from longtail.cli.triangle import HISTORY, History, history_options, service_frontier
from longtail.errors import SettingsError
from longtail.workbench.bench_report import replace_figures
from longtail.workbench.evaluation.case import CaseName, Pool
from longtail.workbench.evaluation.frontier import Plan, run_frontier
from longtail.workbench.evaluation.journal import Journal
from longtail.workbench.evaluation.page import write_page
from longtail.workbench.evaluation.pictures import draw_pictures
from longtail.workbench.evaluation.summary import as_json, markdown, summarise
from longtail.workbench.fleet.setting import Drain, Routing
from longtail.workbench.scenarios import FRONTIER_CONTROLS, FRONTIER_REASONING
from longtail.workbench.traces.catalogue import ENVIRONMENT_VARIABLE, data_directory

HOUR = 3600.0
QUICK_POLICIES = ("longtail", "keda-running", "hpa-running", "persistence-conformal", "oracle-rate", "oracle-arrivals")


class _Percents(click.ParamType[tuple[float, ...]]):
    name = "percents"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """A comma-separated list of shares that can be kept."""
        if isinstance(value, tuple):
            return value
        try:
            percents = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 95,99,99.5", param, ctx)
        for percent in percents:
            if not 50 <= percent < 100:
                self.fail(f"{percent:g} is not within 50..100", param, ctx)
        return percents


@click.command()
@click.argument("traces", metavar="TRACE...", nargs=-1)
@click.option("--policies", default="all", show_default=True, help="Comma-separated names, or all.")
@cold_start
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--attainment", type=_Percents(), default="95,99,99.5", show_default=True, help="Percents to compare at.")
@click.option(
    "--wait",
    "objective_seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Longest wait for a slot that keeps the promise, in seconds.",
)
@click.option(
    "--drain",
    type=click.Choice([drain.value for drain in Drain]),
    default=Drain.GRACEFUL.value,
    show_default=True,
    help="What peers do with requests on a pod they delete: finish them, or kill them.",
)
@click.option(
    "--routing",
    type=click.Choice([routing.value for routing in Routing]),
    default=Routing.LEAST_LOADED.value,
    show_default=True,
)
@click.option(
    "--slots", type=click.IntRange(min=1), default=24, show_default=True, help="Of a replica, for trace files."
)
@click.option(
    "--seconds-per-token",
    type=click.FloatRange(min=0, min_open=True),
    default=0.05,
    show_default=True,
    help="Pace of every sequence, for trace files.",
)
@click.option("--warm-up-hours", type=click.FloatRange(min=0), default=4.0, show_default=True)
@click.option(
    "--hours",
    type=click.FloatRange(min=0, min_open=True),
    default=8.0,
    show_default=True,
    help="Measured after the warm-up.",
)
@click.option(
    "--max-runs", type=click.IntRange(min=2), default=9, show_default=True, help="Of a policy, trace and seed."
)
@click.option("--workers", type=click.IntRange(min=1), default=None, help="Processes. Default: one a core.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=None,
    help=f"Directory of the real traces. Default: ${ENVIRONMENT_VARIABLE}, else ../shared/data.",
)
@click.option(
    "--journal",
    "journal_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="File that runs are kept in, to go on from. Default: beside the JSON.",
)
@click.option(
    "--json", "out", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Write the rows here."
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Write one self-contained HTML page here.",
)
@click.option(
    "--pictures",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Write frontier.png and timeline.png into this directory.",
)
@click.option(
    "--markdown",
    "document",
    type=click.Path(exists=True, dir_okay=False, writable=True, path_type=Path),
    default=None,
    help="Markdown file with a pair of marks, between which the figures are written.",
)
@click.option("--quick", is_flag=True, help="One seed, one and a half hours, six policies unless named.")
@history_options
def frontier(
    *,
    traces: tuple[str, ...],
    policies: str,
    attainment: tuple[float, ...],
    seeds: int,
    warm_up_hours: float,
    hours: float,
    max_runs: int,
    workers: int | None,
    data: Path | None,
    journal_path: Path | None,
    out: Path | None,
    report: Path | None,
    pictures: Path | None,
    document: Path | None,
    quick: bool,
    service: str | None,
    **pool: Any,
) -> None:
    """Sweep the one knob of every policy on every TRACE, and compare costs at equal attainment.

    TRACE is a file (.csv, .csv.gz or .npz with arrival_seconds, input_tokens and output_tokens) or one of the
    published scenarios: r1-day, r1-evening, r1-x3-lengths, r1-heavy-tail, r1-thin, m-large-r1-lengths,
    azure-conversation, mooncake. Without any, all of these.

    With --service it is the service's own past instead: cost against waiting for each level of effort.
    """
    history = History(**{name: pool.pop(name) for name in HISTORY})
    if service is not None:
        service_frontier(service, history, out=out, pictures=pictures)
        return
    directory = data or data_directory()
    if not traces and directory is None:
        click.echo(f"skipped: no real traces here; set {ENVIRONMENT_VARIABLE} to their directory")
        return
    chosen = None if policies == "all" else tuple(name.strip() for name in policies.split(","))
    if quick:
        seeds, warm_up_hours, hours = 1, min(warm_up_hours, 1.0), min(hours, 1.5)
        max_runs, chosen = min(max_runs, 5), chosen or QUICK_POLICIES
    shape = Pool(
        slots_per_replica=pool["slots"],
        seconds_per_token=pool["seconds_per_token"],
        cold_start_seconds=pool["cold_start_seconds"],
        objective_seconds=pool["objective_seconds"],
        drain=Drain(pool["drain"]),
        routing=Routing(pool["routing"]),
    )
    plan = Plan(
        cases=[
            CaseName(trace, shape, _data_of(trace, directory), warm_up_hours * HOUR, hours * HOUR)
            for trace in traces or (*FRONTIER_REASONING, *FRONTIER_CONTROLS)
        ],
        policies=chosen,
        seeds=seeds,
        attainments_percent=attainment,
        most_runs=max_runs,
        workers=workers or os.cpu_count() or 1,
    )
    kept = journal_path or (out.with_suffix(".journal.jsonl") if out else None)
    with progress_bar("reading traces") as progress:
        results = run_frontier(plan, journal=Journal(kept), progress=progress)
    summary = summarise(results, plan)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(as_json(results, summary), indent=1) + "\n", encoding="utf-8")
    if document is not None:
        document.write_text(replace_figures(document.read_text(encoding="utf-8"), markdown(summary)), encoding="utf-8")
    if pictures is not None or report is not None:
        drawn = draw_pictures(results)
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            for name, png in drawn.items():
                (pictures / f"frontier-{name}.png").write_bytes(png)
        if report is not None:
            write_page(report, results, summary, drawn)
    _print(summary)


def _data_of(trace: str, directory: Path | None) -> Path | None:
    """Where a scenario reads its data; None for a file.

    Raises:
        SettingsError: the scenario's data are not here.
    """
    if is_trace_file(trace):
        return None
    if directory is None:
        raise SettingsError(f"{trace}: real traces are not here: {ENVIRONMENT_VARIABLE} names their directory")
    return directory


def _print(summary: Any) -> None:
    console = Console()
    for title, titles, left, rows in summary.tables:
        table = Table(title=title)
        for place, column in enumerate(titles):
            table.add_column(column, justify="left" if place < left else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
