"""``longtail bench effort``: what thinking less buys in an overload, with clients that give up and ask again."""

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from longtail.api.spec import ReasoningServingSpec
from longtail.api.to_policy import effort
from longtail.cli import bench_options
from longtail.cli.progress import progress_bar
from longtail.workbench.bench_effort import run_effort_benchmark, ways
from longtail.workbench.bench_effort_report import draw, render, table
from longtail.workbench.bench_report import replace_figures


@click.command("effort")
@bench_options.as_json
@bench_options.data()
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Runs of each way.")
@bench_options.report()
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    default=None,
    help="PNG of the timelines; needs the extra longtail[picture].",
)
def bench_effort(*, as_json: bool, data: Path | None, seeds: int, report: Path | None, picture: Path | None) -> None:
    """Twice as much demand as there are GPUs, with and without less thinking, and what is answered in time."""
    directory = bench_options.traces_or_skip(data, as_json=as_json)
    if directory is None:
        return
    written = {
        "scaleTargetRef": {"kind": "Deployment", "name": "r1"},
        "maxReplicas": 8,
        "effort": {"policy": "Publish"},
    }
    defaults = effort(ReasoningServingSpec.model_validate_json(json.dumps(written)))
    assert defaults is not None
    with progress_bar("overloading pools") as progress:
        effects = run_effort_benchmark(directory, defaults=defaults, seeds=seeds, progress=progress)
    if report is not None:
        report.write_text(replace_figures(report.read_text(encoding="utf-8"), render(effects)), encoding="utf-8")
    if picture is not None:
        compared = ways(defaults)
        picture.write_bytes(draw(effects, [compared[0].name, compared[2].name]))
    if as_json:
        click.echo(json.dumps(effects.as_dict(), indent=2))
        return
    titles, rows = table(effects)
    shown = Table(title="Demand of twice the GPUs for 15 minutes")
    for title in titles:
        shown.add_column(title, justify="left" if title == "" else "right")
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)
