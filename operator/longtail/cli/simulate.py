"""``longtail simulate``: one policy on one trace, request by request."""

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from longtail.cli.pool_options import cold_start, is_trace_file
from longtail.cli.progress import progress_bar
from longtail.errors import TraceError
from longtail.workbench import scenarios
from longtail.workbench.fleet.policies import pilot, truth_of
from longtail.workbench.fleet.run import Run
from longtail.workbench.fleet.setting import Drain, ReplicaSize, Requests, Routing, Scraping, Setting
from longtail.workbench.fleet.simulation import simulate as fly
from longtail.workbench.fleet.sizing import need_of
from longtail.workbench.traces.catalogue import data_directory
from longtail.workbench.traces.reading import read_trace

_ORACLE = "oracle-"


@click.command()
@click.argument("trace")
@click.option("--policy", default="longtail", show_default=True, help="longtail, a peer by its name, or fixed-N.")
@click.option(
    "--knob", type=float, default=None, help="Value of the policy's one knob. Default: its published default."
)
@click.option("--slots", type=click.IntRange(min=1), default=24, show_default=True, help="Sequences a replica decodes.")
@click.option(
    "--seconds-per-token",
    type=click.FloatRange(min=0, min_open=True),
    default=0.05,
    show_default=True,
    help="Pace of every sequence.",
)
@cold_start
@click.option("--min-replicas", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--max-replicas", type=click.IntRange(min=1), default=None, help="Default: twice the trace's peak need.")
@click.option(
    "--drain",
    type=click.Choice([drain.value for drain in Drain]),
    default=Drain.PLAIN.value,
    show_default=True,
    help="What becomes of requests on a pod that a lowering of replicas deletes: killed, or finished first.",
)
@click.option(
    "--routing", type=click.Choice([routing.value for routing in Routing]), default=Routing.LEAST_LOADED.value
)
@click.option("--gateway", is_flag=True, help="The queue is held and counted at a gateway, not in the engines.")
@click.option("--lost-scrapes", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Share that fails.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of cold starts and scrapes.")
@click.option(
    "--json",
    "out",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    default=None,
    help="Write the result with its timeline as JSON; - is the standard output.",
)
def simulate(
    *,
    trace: str,
    policy: str,
    knob: float | None,
    slots: int,
    seconds_per_token: float,
    max_replicas: int | None,
    drain: str,
    routing: str,
    lost_scrapes: float,
    out: Path | None,
    **given: Any,
) -> None:
    """Run TRACE through a pool under one policy: what it costs, and who waits.

    TRACE is a file (.csv, .csv.gz or .npz with arrival_seconds, input_tokens and output_tokens) or the name of a
    scenario, such as r1-day, steps or bursts.
    """
    scenario = _scenario(trace)
    replica = ReplicaSize(slots=slots, seconds_per_token=seconds_per_token)
    need = need_of(scenario.trace, replica, duration_seconds=scenario.duration_seconds)
    highest = max_replicas or max(2 * need.peak, given["min_replicas"])
    try:
        setting = Setting(
            replica=replica,
            max_replicas=highest,
            initial_replicas=min(max(need.at_start, given["min_replicas"]), highest),
            drain=Drain(drain),
            routing=Routing(routing),
            scraping=Scraping(lost_share=lost_scrapes),
            **given,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    truth = truth_of(scenario.trace, setting) if policy.startswith(_ORACLE) else None
    flown = pilot(policy, setting, knob=knob, truth=truth, max_output_tokens=scenario.max_output_tokens)
    requests = Requests.of(scenario.trace, duration_seconds=scenario.duration_seconds)
    doing = f"{policy} on {scenario.name}"
    with progress_bar(doing) as report:
        run = fly(requests, setting, flown, progress=lambda share: report(doing, share))
    bound = need.bound_gpu_hours(setting)
    if out is None:
        _print(run, bound)
    else:
        _write(out, {**run.as_dict(), "knob": knob, "bound_gpu_hours": bound})


def _scenario(trace: str) -> scenarios.Scenario:
    """The trace in a file, or a scenario by its name.

    Raises:
        TraceError: there is neither.
    """
    if is_trace_file(trace):
        read = read_trace(trace)
        longest = float(read.output_tokens.max(initial=1))
        return scenarios.Scenario(read.name, scenarios.Family.REASONING, read, longest, max(read.span_seconds, 15.0))
    data = data_directory()
    real = () if data is None else (scenarios.reasoning_scenarios(data), scenarios.control_scenarios(data))
    known: list[str] = []
    every: Iterator[scenarios.Scenario] = itertools.chain(scenarios.stress_scenarios(), *real)
    for scenario in every:
        if scenario.name == trace:
            return scenario
        known.append(scenario.name)
    without = "" if data is not None else " (real traces are not here: see LONGTAIL_DATA)"
    raise TraceError(f"{trace}: no such file, and no such scenario among {', '.join(known)}{without}")


def _write(out: Path, result: dict[str, Any]) -> None:
    text = json.dumps(result, indent=2) + "\n"
    if str(out) == "-":
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{out}: cannot be written: {error.strerror}") from error


def _print(run: Run, bound_gpu_hours: float) -> None:
    hours = run.gpu_hours
    ratio = f", {hours.total / bound_gpu_hours:.3f} × the bound of {bound_gpu_hours:,.1f}" if bound_gpu_hours else ""
    waits = (run.waits.p50_seconds, run.waits.p95_seconds, run.waits.p99_seconds)
    rows = {
        "requests": f"{run.arrived_requests:,} arrived, {run.finished_requests:,} finished",
        f"waited at most {run.objective_seconds:g} s": f"{run.attainment:.2%}",
        "wait p50, p95, p99": ", ".join(f"{wait:.1f}" for wait in waits) + " s",
        "GPU-hours": f"{hours.total:,.1f}{ratio}",
        "of these": f"{hours.serving:,.1f} serving, {hours.starting:,.1f} starting, {hours.draining:,.1f} draining",
        "killed requests": f"{run.killed_requests:,} with {run.wasted_tokens:,.0f} tokens",
        "scaling actions": f"{run.scaling_actions}, {run.direction_changes} changes of direction",
    }
    table = Table(title=f"{run.policy} on {run.requests}", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
