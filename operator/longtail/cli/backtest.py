"""``longtail backtest``: what other fields, or another autoscaler, would have done with the load of the last days."""

import asyncio
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import yaml
from rich.console import Console
from rich.progress import Progress as Bar

from longtail.api.resource import KIND, read_spec
from longtail.api.spec import ReasoningServingSpec
from longtail.cli.backtest_fields import apply_fields, parse_field, small_grid
from longtail.cli.backtest_report import report
from longtail.cluster.client import connect
from longtail.cluster.kinds import SERVINGS
from longtail.cluster.records import ScaleRecord, serving_record
from longtail.cluster.snapshot import ServingView
from longtail.control.clock import Clock, SystemClock
from longtail.control.fleet import build_fleet, build_signals
from longtail.control.settings import load_settings
from longtail.errors import NotFound, SettingsError, SpecError
from longtail.policy.fleet import Service
from longtail.policy.trust import GAP_SECONDS
from longtail.signals.archive import Archive
from longtail.signals.client import PrometheusClient
from longtail.signals.history import HistoryReader, Segment
from longtail.signals.past import Past, pod_pattern
from longtail.signals.promql import narrowed, quoted
from longtail.signals.sources import MetricsSource
from longtail.signals.vocabulary import Query, joined
from longtail.workbench.backtest import Candidate, Learned, Look, learn
from longtail.workbench.backtest import backtest as run_backtest
from longtail.workbench.peers import catalogue
from longtail.workbench.peers.view import Policy

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_TIMEOUT_SECONDS = 60.0
_SETTLED_SECONDS = 600
"""Samples may arrive late, but not later than this."""
_NOT_PODS = frozenset({"dcgm", "gateway", "litellm"})
"""Vocabularies that name no pod of the engine in a label that can be matched."""


@dataclass(frozen=True, slots=True)
class _Options:
    since_seconds: int
    step_seconds: int
    cache: Path


@click.command()
@click.argument("resource", metavar="NAMESPACE/NAME")
@click.option("--since", default="7d", show_default=True, help="How far back: a number and s, m, h, d or w.")
@click.option("--step", default=None, help="Seconds between two decisions. Default: 15 for a day, 60 for a week.")
@click.option("--source", "url", default=None, help="URL of the Prometheus. Default: as `longtail run` is configured.")
@click.option("--scrape-interval-seconds", type=float, default=15.0, show_default=True, help="Of that Prometheus.")
@click.option(
    "--file",
    "manifest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="Manifest with the resource. Default: it is read from the cluster.",
)
@click.option("--against", default="", help="Peers by name, or by the beginning of their names: hpa,keda.")
@click.option("--set", "fields", multiple=True, metavar="spec.FIELD=VALUE", help="Change a field of the resource.")
@click.option("--grid/--no-grid", default=True, show_default=True, help="Try other values of a few fields.")
@click.option("--gpus-per-replica", type=float, default=1.0, show_default=True, help="To count GPU-hours.")
@click.option(
    "--json", "output", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Figures as JSON."
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("~/.cache/longtail/backtest"),
    show_default=True,
    help="Keeps what was read, so that a second run, or one that broke off, need not read it again.",
)
@click.option("--kubeconfig", default=None, help="Path of a kubeconfig. Default: kubectl's.")
@click.option("--context", default=None, help="Context of the kubeconfig. Default: its current one.")
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
    namespace, slash, name = resource.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise click.BadParameter(f"{resource!r} is not NAMESPACE/NAME", param_hint="NAMESPACE/NAME")
    seconds = duration(since)
    options = _Options(seconds, step_of(step, seconds), cache.expanduser())
    body = (
        _from_file(manifest, namespace, name) if manifest else asyncio.run(_read(namespace, name, kubeconfig, context))
    )
    candidates, past = candidates_of(body, [parse_field(field) for field in fields], grid=grid)
    source = _source(url, scrape_interval_seconds, past.signals.source)
    with _progress() as bar:
        looks = asyncio.run(read_looks(source, past, options, clock=SystemClock(), bar=bar))
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
    Console(highlight=False).print(report(result, resource=resource, since=since, step_seconds=options.step_seconds))


def duration(text: str) -> int:
    """Seconds of ``7d`` and the like.

    Raises:
        SettingsError: it is none.

    >>> duration("36h")
    129600
    """
    found = re.fullmatch(r"([0-9]+)([smhdw])", text.strip())
    if found is None or int(found[1]) == 0:
        raise SettingsError(f"--since: {text!r} is not a number followed by s, m, h, d or w")
    return int(found[1]) * _UNITS[found[2]]


def step_of(text: str | None, span_seconds: int) -> int:
    """Seconds between two decisions: the operator's own for a day, coarser for longer, for the time it takes.

    Raises:
        SettingsError: it is no number of seconds.
    """
    if text is None:
        return 15 if span_seconds <= 86_400 else 30 if span_seconds <= 3 * 86_400 else 60
    if not text.isdecimal() or not 1 <= int(text) <= GAP_SECONDS:
        # Looking away for longer is a gap to the policy, and after a gap nothing shrinks for a while.
        raise SettingsError(f"--step: {text!r} is not a number of seconds from 1 to {GAP_SECONDS:.0f}")
    return int(text)


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
    candidates = [Candidate(name, _service(base), dict(fields))]
    if fields:
        candidates.append(Candidate("longtail as it is", _service(apply_fields(body, [])), {}))
    for path, value in small_grid(spec) if grid else ():
        try:
            changed = apply_fields(base, [(path, value)])
            read_spec(changed)
        except SpecError:
            continue  # not with the rest of this resource, minReplicas above maxReplicas for example
        candidates.append(Candidate(f"{path}={value}", _service(changed), {path: value}))
    return candidates, _past(base, spec)


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


async def read_looks(source: MetricsSource, past: Past, options: _Options, *, clock: Clock, bar: Bar) -> list[Look]:
    """The recording of one service, in pieces that are kept on disk.

    Raises:
        MetricsUnavailable: the source answers nothing.
    """
    step = options.step_seconds
    end = int(clock.unix_seconds()) // step * step
    segment = Segment(end - options.since_seconds // step * step, end, step)
    task = bar.add_task(
        f"reading {timedelta(seconds=options.since_seconds)} from {source.url}", total=len(segment.times)
    )
    client = PrometheusClient(replace(source, timeout_seconds=_TIMEOUT_SECONDS))
    archive = Archive(client, options.cache, source=source.url, settled_before_seconds=end - _SETTLED_SECONDS)
    history = HistoryReader(source, archive, narrowed=lambda queries: _narrow(queries, past, source))
    looks: list[Look] = []
    try:
        async for moment in history.moments([past], [segment]):
            bar.advance(task)
            observation = moment.observations.get(past.signals.key)
            if observation is not None:
                partial = bool(moment.unanswered or moment.partial)
                looks.append(Look(observation, moment.pods[past.signals.key], partial))
    finally:
        client.close()
    return looks


def _narrow(queries: Sequence[Query], past: Past, source: MetricsSource) -> list[Query]:
    """Only the pods of one workload: a week of the whole cluster is nobody's to read for one service."""
    labels = source.labels
    pattern = quoted(pod_pattern(past.kind, past.name))
    matchers = f"{labels.namespace}={quoted(past.signals.key.namespace)},{labels.pod}=~{pattern}"
    found = []
    for query in queries:
        own = [part for part in query.parts if part.engine not in _NOT_PODS]
        parts = [replace(part, expression=narrowed(part.expression, matchers)) for part in own]
        # GPU activity has its pod in one of two labels, and says nothing of a pool of another size.
        parts += [part for part in query.parts if part.engine in _NOT_PODS and part.engine != "dcgm"]
        if parts:
            found.append(joined(query.name, parts))
    return found


def _service(body: Mapping[str, Any]) -> Service:
    (service,) = build_fleet([_view(body)]).services
    return service


def _past(body: Mapping[str, Any], spec: ReasoningServingSpec) -> Past:
    view = _view(body)
    reference = view.record.target
    assert reference is not None
    target = ScaleRecord(key=reference.key, uid="", replicas=0, selector=None)
    (signals,) = build_signals([replace(view, target=target)])
    return Past(signals, kind=spec.scale_target_ref.kind, name=spec.scale_target_ref.name)


def _view(body: Mapping[str, Any]) -> ServingView:
    return ServingView(record=serving_record(body, previous=None), target=None, problem=None, conflict=None)


def _source(url: str | None, scrape_interval_seconds: float, name: str) -> MetricsSource:
    if url is not None:
        return MetricsSource(name=name, url=url, scrape_interval_seconds=scrape_interval_seconds)
    configured = {source.name: source for source in load_settings(environment=os.environ, flags={}).metrics_sources()}
    if name not in configured:
        raise SettingsError(f"metricsSource {name!r} is not configured here: give its URL with --source")
    return configured[name]


def _from_file(path: Path, namespace: str, name: str) -> dict[str, Any]:
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as unreadable:
        raise SpecError(f"{path}: {unreadable}") from unreadable
    for document in documents:
        metadata = document.get("metadata", {}) if isinstance(document, dict) else {}
        if metadata.get("name") == name and document.get("kind") == KIND:
            body: dict[str, Any] = deepcopy(document)
            body["metadata"] = {"uid": "", **metadata, "namespace": namespace}
            return body
    raise SpecError(f"{path}: there is no {KIND} {name!r} in it")


async def _read(namespace: str, name: str, kubeconfig: str | None, context: str | None) -> dict[str, Any]:
    async with await connect(kubeconfig=kubeconfig, context=context) as api:
        try:
            body: dict[str, Any] = await api.get(SERVINGS.path(namespace=namespace, name=name))
        except NotFound as missing:
            raise NotFound(f"there is no ReasoningServing {namespace}/{name} in this cluster") from missing
    return body


@contextmanager
def _progress() -> Iterator[Bar]:
    """Bars on the error stream, so that they never mix with the figures."""
    with Bar(console=Console(stderr=True), transient=True) as bar:
        yield bar
