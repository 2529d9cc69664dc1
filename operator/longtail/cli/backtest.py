"""``longtail backtest``: what other fields, or another autoscaler, would have done with the load of the last days."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from longtail.api.resource import read_spec
from longtail.cli import past_options, resource_options
from longtail.cli.backtest_fields import apply_fields, parse_field, small_grid
from longtail.cli.backtest_report import report
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
from longtail.errors import SettingsError, SpecError
from longtail.policy.fleet import Service
from longtail.signals.past import Past
from longtail.workbench.backtest import Candidate, Learned, learn
from longtail.workbench.backtest import backtest as run_backtest
from longtail.workbench.peers import catalogue
from longtail.workbench.peers.view import Policy


@click.command()
@click.argument("resource", metavar="NAMESPACE/NAME")
@past_options.since("7d")
@past_options.step(", 60 for a week")
@past_options.prometheus()
@past_options.manifest("the resource")
@click.option("--against", default="", help="Peers by name, or by the beginning of their names: hpa,keda.")
@click.option("--set", "fields", multiple=True, metavar="spec.FIELD=VALUE", help="Change a field of the resource.")
@click.option("--grid/--no-grid", default=True, show_default=True, help="Try other values of a few fields.")
@click.option("--gpus-per-replica", type=float, default=1.0, show_default=True, help="To count GPU-hours.")
@click.option(
    "--json", "output", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Figures as JSON."
)
@past_options.cache("backtest")
@resource_options.cluster
def backtest(
    *,
    resource: str,
    since: str,
    step: str | None,
    url: str | None,
    scrape_interval_seconds: float,
    manifest: Path | None,
    against: str,
    fields: tuple[str, ...],
    grid: bool,
    gpus_per_replica: float,
    output: Path | None,
    cache: Path,
    kubeconfig: str | None,
    context: str | None,
) -> None:
    """Replay the recorded load of a ReasoningServing: what it would cost with these fields, others, or peers."""
    namespace, name = resource_options.named(resource, option="NAMESPACE/NAME")
    seconds = duration(since)
    span = Span(seconds, step_of(step, seconds), cache.expanduser())
    body = resource_of(namespace, name, manifest=manifest, kubeconfig=kubeconfig, context=context)
    candidates, past = candidates_of(body, [parse_field(field) for field in fields], grid=grid)
    source = source_of(url, scrape_interval_seconds, past.signals.source)
    with bars() as bar:
        looks = asyncio.run(read_span(source, past, span, clock=SystemClock(), bar=bar))
        if not looks:
            raise SettingsError(
                f"metrics source {source.url}: no sample of {past.kind} {namespace}/{past.name} in the last {since}"
            )
        learning = bar.add_task("learning what a replica can do", total=1.0)
        learned = learn(looks, candidates[0].service, progress=lambda share: bar.update(learning, completed=share))
        peers = peers_of(against, candidates[0].service, learned)
        replaying = bar.add_task(f"replaying {len(candidates)} settings and {len(peers)} peers", total=1.0)
        result = run_backtest(
            looks,
            candidates,
            peers,
            learned,
            gpus_per_replica=gpus_per_replica,
            progress=lambda share: bar.update(replaying, completed=share),
        )
    if output is not None:
        output.write_text(json.dumps(asdict(result), indent=2), encoding="utf-8")
    Console(highlight=False).print(report(result, resource=resource, since=since, step_seconds=span.step_seconds))


def candidates_of(
    body: Mapping[str, Any], fields: Sequence[tuple[str, Any]], *, grid: bool
) -> tuple[list[Candidate], Past]:
    """The resource with the fields that were given, the same with others of a small grid, and what is to be read.

    Raises:
        SpecError: the resource, or one of the fields given, cannot be used; names field and value.
    """
    base = apply_fields(body, fields)
    spec = read_spec(base)
    name = "longtail" if not fields else "longtail, " + ", ".join(f"{path}={value}" for path, value in fields)
    candidates = [Candidate(name, service_of(base), dict(fields))]
    if fields:
        candidates.append(Candidate("longtail as it is", service_of(apply_fields(body, [])), {}))
    for path, value in small_grid(spec) if grid else ():
        try:
            changed = apply_fields(base, [(path, value)])
            read_spec(changed)
        except SpecError:
            continue  # not with the rest of this resource, minReplicas above maxReplicas for example
        candidates.append(Candidate(f"{path}={value}", service_of(changed), {path: value}))
    return candidates, past_of(base, spec)


def peers_of(names: str, service: Service, learned: Learned) -> list[Policy[Any]]:
    """Peers at their defaults, set up for this service.

    Raises:
        SettingsError: no peer's name begins so.
    """
    known = catalogue.catalogue(
        catalogue.Service(
            slots_per_replica=learned.slots_per_replica,
            min_replicas=service.limits.min_replicas,
            max_replicas=service.limits.max_replicas,
            startup_seconds=learned.cold_start_seconds,
            time_per_output_token_seconds=service.parameters.objective.time_per_output_token_seconds,
        )
    )
    found: dict[str, Policy[Any]] = {}
    for wanted in [part.strip() for part in names.split(",") if part.strip()]:
        matching = {
            name: peer.policy for name, peer in known.items() if name == wanted or name.startswith(f"{wanted}-")
        }
        if not matching:
            raise SettingsError(f"--against: {wanted!r} is none of {', '.join(sorted(known))}")
        found |= matching
    return list(found.values())
