"""``longtail cost``: what services cost over the last days, what for, and per answer."""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress as Bar

from longtail.api import to_policy
from longtail.api.resource import KIND, read_spec
from longtail.api.spec import ReasoningServingSpec
from longtail.cli import past_options, resource_options
from longtail.cli.backtest_fields import apply_fields, parse_field
from longtail.cli.cost_report import CostReport, report_of, table
from longtail.cli.recording import (
    SETTLED_SECONDS,
    bars,
    documents,
    duration,
    past_of,
    patient_client,
    read_looks,
    service_of,
    source_of,
)
from longtail.cluster.client import KubernetesApi, connect
from longtail.cluster.gpus import workload_gpus
from longtail.cluster.kinds import SERVINGS, WORKLOADS
from longtail.control.clock import Clock, SystemClock
from longtail.control.prices import Prices, read_prices
from longtail.control.settings import load_settings
from longtail.errors import NotFound, SettingsError, SpecError
from longtail.policy.fleet import GpuShape
from longtail.policy.trust import GAP_SECONDS
from longtail.signals.archive import Archive
from longtail.signals.sources import MetricsSource
from longtail.workbench.cost_history import ByClass, ByWindow, OperatorHistory, Windows, from_looks, summed

_STEP_SECONDS = int(GAP_SECONDS)
_WINDOW_SECONDS = ((3600, 60), (86_400, 300), (7 * 86_400, 900))
"""Length of a window by the longest time that is cut so; an hour beyond."""


@dataclass(frozen=True, slots=True)
class _Resource:
    """One service, and the GPUs of its replicas as far as they are known without Prometheus."""

    body: dict[str, Any]
    spec: ReasoningServingSpec
    gpus: GpuShape | None

    @property
    def name(self) -> str:
        name: str = self.body["metadata"]["name"]
        return name


@dataclass(frozen=True, slots=True)
class _Reading:
    """What Prometheus tells of one service."""

    name: str
    classes: ByClass
    operator_share: float
    """Of the windows: those that the operator counted."""
    whole: bool
    """False where nobody counted in some windows, and the engines cannot help because its GPUs are not known."""


@dataclass(frozen=True, slots=True)
class _Options:
    windows: Windows
    url: str | None
    scrape_interval_seconds: float
    cache: Path
    prices: Prices | None


@click.command()
@click.argument("resource", metavar="NAMESPACE[/NAME]")
@click.option(
    "--since", default="7d", show_default=True, help="From when: so long ago (7d, 12h), or a time (RFC 3339)."
)
@click.option("--until", default=None, help="To when, in the same words. Default: now.")
@click.option(
    "--prices",
    "prices_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="File of prices. Default: LONGTAIL_PRICES_FILE, else what the operator published last.",
)
@past_options.prometheus()
@past_options.manifest("resources and their targets", is_read="they are read")
@click.option("--set", "fields", multiple=True, metavar="spec.FIELD=VALUE", help="Such as spec.gpus.perReplica=8.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="For whom.")
@past_options.cache("cost")
@resource_options.cluster
def cost(
    *,
    resource: str,
    since: str,
    until: str | None,
    prices_file: Path | None,
    url: str | None,
    scrape_interval_seconds: float,
    manifest: Path | None,
    fields: tuple[str, ...],
    output: str,
    cache: Path,
    kubeconfig: str | None,
    context: str | None,
) -> None:
    """Add up GPU-hours and money of one ReasoningServing, or of all in a namespace."""
    namespace, slash, name = resource.partition("/")
    if not namespace or "/" in name or (slash and not name):
        raise click.BadParameter(f"{resource!r} is not NAMESPACE or NAMESPACE/NAME", param_hint="NAMESPACE[/NAME]")
    options = _Options(
        windows=windows_of(since, until, clock=SystemClock()),
        url=url,
        scrape_interval_seconds=scrape_interval_seconds,
        cache=cache.expanduser(),
        prices=_prices(prices_file),
    )
    if manifest is not None:
        bodies = _in_file(manifest, namespace)
        workloads = {(body["kind"], body["metadata"]["name"]): body for body in documents(manifest) if "kind" in body}
    else:
        bodies, workloads = asyncio.run(_in_cluster(namespace, name, kubeconfig, context))
    resources = resources_of(
        [body for body in bodies if not name or body["metadata"]["name"] == name], workloads, fields
    )
    if not resources:
        raise NotFound(f"there is no {KIND} {resource if name else 'in ' + namespace}")
    with bars() as bar:
        report = asyncio.run(_report(namespace, resources, options, bar))
    if output == "json":
        click.echo(json.dumps(asdict(report), indent=2))
    else:
        Console(highlight=False).print(table(report))


def windows_of(since: str, until: str | None, *, clock: Clock) -> Windows:
    """The windows of a time, whole ones only.

    Raises:
        SettingsError: the times cannot be read, or there is nothing between them.
    """
    now = clock.unix_seconds()
    start, end = _time("--since", since, now), now if until is None else min(_time("--until", until, now), now)
    span = end - start
    length = next((seconds for longest, seconds in _WINDOW_SECONDS if span <= longest), 3600)
    first, last = int(start) // length * length, int(end) // length * length
    if last <= first:
        raise SettingsError(
            f"--since: there is not a whole window of {length} s between {since!r} and {until or 'now'!r}"
        )
    return Windows(first, last, length)


def resources_of(
    bodies: Sequence[Mapping[str, Any]], workloads: Mapping[tuple[str, str], Mapping[str, Any]], fields: Sequence[str]
) -> list[_Resource]:
    """The resources with the fields that were given, and the GPUs of their replicas.

    Raises:
        SpecError: a resource, or one of the fields given, cannot be used; names field and value.
    """
    found = []
    for body in bodies:
        # In mode Advise, for what is Off is not looked at, and has cost money all the same.
        changed = apply_fields(body, [parse_field(field) for field in fields])
        spec = read_spec(changed)
        reference = spec.scale_target_ref
        workload = workloads.get((reference.kind, reference.name))
        read = None if workload is None else workload_gpus(workload.get("spec") or {}, kind=reference.kind)
        found.append(_Resource(changed, spec, to_policy.gpus(spec, read)))
    return sorted(found, key=lambda each: each.name)


async def _report(namespace: str, resources: Sequence[_Resource], options: _Options, bar: Bar) -> CostReport:
    by_source: dict[str, list[_Resource]] = {}
    for each in resources:
        by_source.setdefault(each.spec.metrics_source, []).append(each)
    readings: list[_Reading] = []
    prices = options.prices
    for name, some in by_source.items():
        source = source_of(options.url, options.scrape_interval_seconds, name)
        client = patient_client(source)
        settled = options.windows.end_seconds - SETTLED_SECONDS
        archive = Archive(client, options.cache, source=source.url, settled_before_seconds=settled)
        try:
            history = OperatorHistory(archive, namespace=namespace, windows=options.windows)
            task = bar.add_task("reading the operator's counters", total=len(options.windows.ends))
            known = await history.read(advance=partial(bar.advance, task))
            if options.prices is None:
                prices = _published(await history.prices(), prices)
            readings += [
                await _reading(each, known.get(each.name, {}), options.windows, source, archive, bar) for each in some
            ]
        finally:
            client.close()
    return report_of(
        namespace,
        [(one.name, one.classes, one.operator_share) for one in readings],
        prices,
        since=options.windows.start_seconds,
        until=options.windows.end_seconds,
        not_counted=[one.name for one in readings if not one.whole],
    )


async def _reading(
    resource: _Resource, known: ByWindow, windows: Windows, source: MetricsSource, archive: Archive, bar: Bar
) -> _Reading:
    """What the operator counted, and of the windows that it did not, what the engines tell."""
    share = len(known) / len(windows.ends)
    segments = windows.without(known, step_seconds=_STEP_SECONDS)
    if not segments or resource.gpus is None:
        return _Reading(resource.name, summed(known, {}), share, whole=not segments)
    task = bar.add_task(f"reading the engines of {resource.name}", total=sum(len(each.times) for each in segments))
    past = past_of(resource.body, resource.spec)
    looks = await read_looks(source, archive, past, segments, advance=partial(bar.advance, task))
    learning = bar.add_task(f"learning what a replica of {resource.name} can do", total=1.0)
    rest = from_looks(
        looks,
        segments,
        service_of(resource.body),
        resource.gpus,
        progress=lambda share: bar.update(learning, completed=share),
    )
    return _Reading(resource.name, summed(known, {resource.gpus.gpu_class: rest}), share, whole=True)


def _published(found: Mapping[str, tuple[str, float]], known: Prices | None) -> Prices | None:
    """The operator's prices, beside those of another source.

    Raises:
        SettingsError: they are of two currencies.
    """
    if not found:
        return known
    currencies = {currency for currency, _ in found.values()} | ({known.currency} if known is not None else set())
    if len(currencies) > 1:
        raise SettingsError(f"prices in {' and '.join(sorted(currencies))} were published: give one file with --prices")
    by_class = {gpu_class: Decimal(str(amount)) for gpu_class, (_, amount) in found.items()}
    return Prices(currencies.pop(), {**(known.by_class if known is not None else {}), **by_class})


def _prices(path: Path | None) -> Prices | None:
    return read_prices(path) if path is not None else load_settings(environment=os.environ, flags={}).prices()


def _time(option: str, text: str, now: float) -> float:
    try:
        return now - duration(text)
    except SettingsError:
        pass
    try:
        time = datetime.fromisoformat(text)
    except ValueError as unreadable:
        raise SettingsError(
            f"{option}: {text!r} is neither a time like 7d nor one like 2026-11-01T00:00:00Z"
        ) from unreadable
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()


def _in_file(path: Path, namespace: str) -> list[dict[str, Any]]:
    found = [document for document in documents(path) if document.get("kind") == KIND]
    if not found:
        raise SpecError(f"{path}: there is no {KIND} in it")
    return [body | {"metadata": {"uid": "", **body["metadata"], "namespace": namespace}} for body in found]


async def _in_cluster(
    namespace: str, name: str, kubeconfig: str | None, context: str | None
) -> tuple[list[dict[str, Any]], dict[tuple[str, str], dict[str, Any]]]:
    async with await connect(kubeconfig=kubeconfig, context=context) as api:
        if name:
            bodies = [await api.get(SERVINGS.path(namespace=namespace, name=name))]
        else:
            bodies = (await api.get(SERVINGS.path(namespace=namespace)))["items"]
        return bodies, {
            (reference["kind"], reference["name"]): workload
            for body in bodies
            if (reference := {"kind": "Deployment", **body["spec"]["scaleTargetRef"]})
            and (workload := await _workload(api, namespace, reference)) is not None
        }


async def _workload(api: KubernetesApi, namespace: str, reference: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = next((kind for kind in WORKLOADS if kind.kind == reference["kind"]), None)
    if kind is None:
        return None
    try:
        body: dict[str, Any] = await api.get(kind.path(namespace=namespace, name=reference["name"]))
    except NotFound:
        return None
    return body
