"""``longtail frontier --service``: cost against waiting for each level of effort, from a service's own past."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from longtail.api.effort import Effort
from longtail.api.resource import read_spec
from longtail.api.to_policy import effort
from longtail.cli import past_options, resource_options
from longtail.cli.backtest_fields import apply_fields
from longtail.cli.recording import (
    Span,
    bars,
    duration,
    past_of,
    read_span,
    resource_of,
    service_of,
    source_of,
    step_of,
)
from longtail.control.clock import SystemClock
from longtail.errors import SettingsError
from longtail.policy.fleet import EffortLevel, EffortRules
from longtail.workbench.backtest import Learned, learn
from longtail.workbench.triangle import Point, best, triangle
from longtail.workbench.triangle_picture import draw

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class History:
    """Where a service and its past are, and what is wanted of them."""

    since: str
    step: str | None
    url: str | None
    scrape_interval_seconds: float
    manifest: Path | None
    gpus_per_replica: float
    cache: Path
    point: str | None
    kubeconfig: str | None
    context: str | None


HISTORY = tuple(field.name for field in fields(History))


def history_options(command: _F) -> _F:
    """Add the options of `History`, and ``--service``."""
    options: Sequence[Callable[[_F], _F]] = (
        click.option("--service", metavar="NAMESPACE/NAME", default=None, help="A service, for its own past."),
        past_options.since("1d"),
        past_options.step(),
        past_options.prometheus(brief=True),
        past_options.manifest("the service"),
        click.option("--gpus-per-replica", type=float, default=1.0, show_default=True),
        click.option("--point", metavar="LEVEL@PERCENT", default=None, help="Print the fields of a point, as low@95."),
        past_options.cache("backtest", brief=True),
        resource_options.cluster,
    )
    for option in reversed(options):
        command = option(command)
    return command


def service_frontier(resource: str, history: History, *, out: Path | None, pictures: Path | None) -> None:
    """Draw and print cost against waiting for a service.

    Raises:
        SettingsError: there is no such past, or no such point.
    """
    namespace, name = resource_options.named(resource, option="--service")
    body = resource_of(
        namespace,
        name,
        manifest=history.manifest,
        kubeconfig=history.kubeconfig,
        context=history.context,
    )
    base = apply_fields(body, [])
    spec = read_spec(base)
    rules = _rules(body)
    past = past_of(base, spec)
    source = source_of(history.url, history.scrape_interval_seconds, past.signals.source)
    seconds = duration(history.since)
    span = Span(seconds, step_of(history.step, seconds), history.cache.expanduser())
    with bars() as bar:
        looks = asyncio.run(read_span(source, past, span, clock=SystemClock(), bar=bar))
        if not looks:
            what = f"{past.kind} {namespace}/{past.name} in the last {history.since}"
            raise SettingsError(f"metrics source {source.url}: no sample of {what}")
        learning = bar.add_task("learning what a replica can do", total=1.0)
        learned = learn(looks, service_of(base), progress=lambda share: bar.update(learning, completed=share))
        replaying = bar.add_task(f"replaying {len(rules.levels)} levels of effort", total=1.0)
        points = triangle(
            looks,
            service_of(base),
            rules,
            learned,
            gpus_per_replica=history.gpus_per_replica,
            progress=lambda share: bar.update(replaying, completed=share),
        )
    chosen = _chosen(points, history.point)
    if out is not None:
        out.write_text(json.dumps([asdict(point) for point in points], indent=2), encoding="utf-8")
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        (pictures / "triangle.png").write_bytes(draw(points, title=f"{resource}, last {history.since}", chosen=chosen))
    _print(points, learned, resource=resource, since=history.since)
    if chosen is not None:
        click.echo(f"# {chosen.name}: {_figures(chosen)}")
        click.echo(yaml.safe_dump(fields_of(chosen, rules), sort_keys=False), nl=False)


def fields_of(point: Point, rules: EffortRules) -> dict[str, Any]:
    """The fields of a spec that make a point the usual state of a service."""
    kept = list(rules.levels[rules.levels.index(point.level) :])
    if len(kept) == 1:
        # Two levels are the least; the one below is for shortages.
        tokens = (point.level.thinking_tokens or 2) // 2
        kept.append(EffortLevel(f"below-{point.level.name}", tokens))
    levels = [
        {"name": level.name}
        | ({} if level.thinking_tokens is None else {"thinkingTokens": level.thinking_tokens})
        | ({} if level.reasoning_effort is None else {"reasoningEffort": level.reasoning_effort})
        for level in kept
    ]
    return {
        "spec": {
            "objective": {"attainmentPercent": point.attainment_percent},
            "effort": {"policy": "Publish", "levels": levels},
        }
    }


def _rules(body: dict[str, Any]) -> EffortRules:
    """The levels of the resource, or the default ones where it has none."""
    spec = read_spec(body)
    found = effort(spec) or effort(spec.model_copy(update={"effort": Effort()}))
    assert found is not None
    return found


def _chosen(points: Sequence[Point], name: str | None) -> Point | None:
    if name is None:
        return None
    found = next((point for point in points if point.name == name), None)
    if found is None:
        raise SettingsError(f"--point: {name!r} is none of {', '.join(point.name for point in points)}")
    return found


def _print(points: Sequence[Point], learned: Learned, *, resource: str, since: str) -> None:
    table = Table(title=f"{resource}, last {since}", title_justify="left", title_style="bold")
    table.add_column("point")
    for column in ("GPU-hours", "in time", "mean wait", "p99 wait", "answers cut", "tokens saved"):
        table.add_column(column, justify="right")
    shown = best(points)
    for point in shown:
        row, saved = point.row, point.saving
        table.add_row(
            point.name,
            f"{row.gpu_hours:,.1f}",
            f"{row.attainment_percent:.2f} %",
            f"{row.mean_wait_seconds:.1f} s",
            f"{row.p99_wait_seconds:.0f} s",
            f"{100 * saved.cut_share:.1f} %",
            f"{100 * (1 - saved.length_ratio):.1f} %",
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        Text(
            f"As in `longtail backtest`: arrivals as recorded, {learned.slots_per_replica:.0f} slots a replica, a cold "
            f"start of {learned.cold_start_seconds:.0f} s. Every request obeys its level. Points that cost no "
            "less and wait no less than another of their level are left out. --point LEVEL@PERCENT prints the fields.",
            style="dim",
        )
    )


def _figures(point: Point) -> str:
    row = point.row
    wait = f"{row.mean_wait_seconds:.1f} s of wait on average"
    cut = f"{100 * point.saving.cut_share:.1f} % of the answers cut"
    return f"{row.gpu_hours:,.1f} GPU-hours, {row.attainment_percent:.2f} % in time, {wait}, {cut}"
