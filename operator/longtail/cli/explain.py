"""``longtail explain`` and ``kubectl longtail explain``: how a number came about, for somebody on call.

Reads ``status`` and nothing else: what is shown is what the operator wrote down when it decided.
"""

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any

import click
from pydantic import ValidationError
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from longtail.api.resource import read_spec
from longtail.api.spec import ReasoningServingSpec
from longtail.api.status import Condition, ConditionStatus, CostStatus, ReasoningServingStatus
from longtail.cli import resource_options
from longtail.cluster.client import connect
from longtail.cluster.kinds import SERVINGS
from longtail.errors import ClusterError, NotFound, SpecError
from longtail.policy.decision import Rung
from longtail.policy.fleet import Mode

_RUNGS: dict[Rung, str] = {
    Rung.REACTIVE: "for the requests at hand",
    Rung.FORECAST: "for the requests to come",
    Rung.EFFORT: "for as much thinking as usual",
    Rung.FALLBACK: "unseen for too long",
    Rung.FLOOR: "at least",
    Rung.CEILING: "at most",
    Rung.BEHAVIOR: "how fast it may change",
    Rung.VARIANTS: "which variant of the model serves it",
    Rung.SUPPLY: "what the cluster gives",
    Rung.SAFETY: "whether the data can be trusted",
    Rung.ZERO: "whether it may sleep",
    Rung.BUDGET: "whose GPUs they would be",
    Rung.PLACEMENT: "which pods come, leave and return",
}
_MODES: dict[Mode, str] = {
    Mode.OFF: "Off: nothing is read and nothing is done",
    Mode.ADVISE: "Advise: the number is published, not written",
    Mode.ACTIVE: "Active: the number is written to the target",
}
_GOOD_WHEN_FALSE = frozenset({"Conflict", "ScalingLimited", "CapacityPending", "EffortReduced", "LengthsChanged"})


@click.command()
@click.argument("resource", metavar="NAMESPACE/NAME")
@resource_options.cluster
def explain(*, resource: str, kubeconfig: str | None, context: str | None) -> None:
    """Explain the number of replicas of a ReasoningServing, step by step."""
    namespace, name = resource_options.named(resource, option="NAMESPACE/NAME")
    body = asyncio.run(_read(namespace, name, kubeconfig=kubeconfig, context=context))
    Console(highlight=False, soft_wrap=False).print(explanation(body))


async def _read(namespace: str, name: str, *, kubeconfig: str | None, context: str | None) -> dict[str, Any]:
    async with await connect(kubeconfig=kubeconfig, context=context) as api:
        try:
            return await api.get(SERVINGS.path(namespace=namespace, name=name))
        except NotFound as missing:
            raise NotFound(f"there is no ReasoningServing {namespace}/{name} in this cluster") from missing
        except ClusterError as failed:
            raise type(failed)(f"ReasoningServing {namespace}/{name} cannot be read: {failed}") from failed


def explanation(body: dict[str, Any]) -> RenderableType:
    """Return what there is to say about a resource as the API server shows it."""
    metadata = body["metadata"]
    title = Text(f"{metadata['namespace']}/{metadata['name']}", style="bold")
    try:
        spec = read_spec(body)
    except SpecError as unusable:
        return Group(title, Text(f"The spec cannot be used: {unusable}", style="red"))
    try:
        # Through JSON, as it came: the strict models take a list for a tuple from nothing else.
        status = ReasoningServingStatus.model_validate_json(json.dumps(body.get("status") or {}))
    except ValidationError as foreign:
        return Group(title, Text(f"The status was not written by this version: {foreign}", style="red"))
    if status.observed_generation is None:
        return Group(title, *_target(spec), Text("No operator has looked at this resource yet.", style="yellow"))
    return Group(
        title,
        *_target(spec),
        *_staleness(status, generation=metadata.get("generation", 0)),
        *_number(status),
        *_ladder(status),
        *_load(status),
        *_classes(status),
        *_conditions(status.conditions),
    )


def _target(spec: ReasoningServingSpec) -> Iterable[RenderableType]:
    reference = spec.scale_target_ref
    limits = f"between {spec.min_replicas} and {spec.max_replicas} replicas"
    yield Text(f"scales {reference.kind} {reference.name} {limits}")
    yield Text(f"mode {_MODES[spec.mode]}")


def _staleness(status: ReasoningServingStatus, *, generation: int) -> Iterable[RenderableType]:
    if status.observed_generation != generation:
        yield Text("The spec was changed since; what follows is about the one before.", style="yellow")


def _number(status: ReasoningServingStatus) -> Iterable[RenderableType]:
    replicas, decision = status.replicas, status.decision
    if replicas is None or decision is None:
        return
    verb = "stay at" if replicas.desired == replicas.current else f"go from {replicas.current} to"
    yield Text("")
    yield Text(f"{verb} {replicas.desired} replicas: {decision.reason}", style="bold cyan")
    yield Text(decision.message)
    yield Text(
        f"{replicas.ready} ready, {replicas.pending} on their way, {replicas.draining} draining; "
        f"decided so since {decision.time}, last scaled {status.last_scale_time or 'never'}"
    )


def _ladder(status: ReasoningServingStatus) -> Iterable[RenderableType]:
    if status.decision is None or not status.decision.ladder:
        return
    table = Table("step", "question", "replicas", "because", box=None, pad_edge=False)
    table.columns[2].justify = "right"
    for step in status.decision.ladder:
        table.add_row(step.rung, _RUNGS.get(step.rung, ""), str(step.replicas), Text(step.because))
    yield Text("")
    yield table


def _load(status: ReasoningServingStatus) -> Iterable[RenderableType]:
    lines = (*_demand_lines(status), *_model_lines(status), *_cost_lines(status.cost))
    if lines:
        yield Text("")
        yield from map(Text, lines)


def _demand_lines(status: ReasoningServingStatus) -> Iterable[str]:
    demand = status.demand
    if demand is None:
        return
    yield (
        f"requests running: {_figure(demand.running_requests)}, waiting: {_figure(demand.waiting_requests)}; "
        f"tokens still owed: {_figure(demand.owed_tokens)}, "
        f"of them reasoning: {_figure(demand.queued_reasoning_tokens)}"
    )
    if demand.slots_forecast is not None:
        yield (
            f"one cold start ahead: {_figure(demand.slots_forecast)} slots expected, "
            f"{_figure(demand.slots_upper)} to be on the safe side"
        )
    if demand.coverage_percent is not None:
        yield f"the safe side has held {demand.coverage_percent} % of the time"
    if demand.attainment_percent is not None:
        yield f"promise: {demand.attainment_percent} % of the requests waited no longer than promised"


def _model_lines(status: ReasoningServingStatus) -> Iterable[str]:
    if status.capacity is not None:
        capacity = status.capacity
        kv_tokens = capacity.kv_tokens_per_replica
        kv = "" if kv_tokens is None else f", {kv_tokens:,} KV tokens"
        yield f"a replica holds {capacity.slots_per_replica:,} requests{kv} (bound by {capacity.bound_by})"
    if status.lengths is not None:
        lengths = status.lengths
        yield (
            f"an answer has {lengths.mean_tokens:,} tokens on average, "
            f"half less than {lengths.p50_tokens:,}, 1 of 100 more than {lengths.p99_tokens:,}"
        )
        if lengths.change is not None:
            change = lengths.change
            verb = "costs" if change.replica_hours_per_day > 0 else "saves"
            yield (
                f"since {change.since} it has {change.percent} % of the {change.before_tokens:,} tokens before, "
                f"which {verb} {abs(change.replica_hours_per_day):,} replica-hours a day"
            )
    if status.startup is not None:
        p50, p90 = status.startup.p50_seconds, status.startup.p90_seconds
        yield f"a replica starts in {p50} s, 1 of 10 needs more than {p90} s"


def _cost_lines(cost: CostStatus | None) -> Iterable[str]:
    if cost is None:
        return
    money = f", {cost.hourly_amount} {cost.currency} an hour" if cost.hourly_amount is not None else ""
    yield f"it holds {cost.gpus:,} GPUs{f' ({cost.gpu_class})' if cost.gpu_class else ''}{money}"
    day = cost.last_day
    if day is not None:
        spent = f", {day.amount} {cost.currency}" if day.amount is not None else ""
        yield (
            f"the last 24 hours ({day.known_hours} of them seen): {day.gpu_hours} GPU-hours{spent}; "
            f"headroom {day.headroom_percent} %, cold starts {day.starting_percent} %, drains {day.draining_percent} %"
        )
        if day.amount_per_thousand_answers is not None:
            yield f"1,000 answers cost {day.amount_per_thousand_answers} {cost.currency}"


def _classes(status: ReasoningServingStatus) -> Iterable[RenderableType]:
    if not status.classes:
        return
    columns = ("class", "requests/s", "mean tokens", "reasoning", "of the work")
    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for each in status.classes:
        reasoning = "unknown" if each.reasoning_percent is None else f"{each.reasoning_percent} %"
        table.add_row(
            Text(each.name), each.requests_per_second, f"{each.mean_tokens:,}", reasoning, f"{each.work_percent} %"
        )
    yield Text("")
    yield table


def _conditions(conditions: Sequence[Condition]) -> Iterable[RenderableType]:
    table = Table("condition", "", "since", "reason", "message", box=None, pad_edge=False)
    for condition in conditions:
        style = _style(condition)
        table.add_row(
            Text(condition.type, style=style),
            Text(condition.status, style=style),
            condition.last_transition_time,
            condition.reason,
            Text(condition.message),
        )
    yield Text("")
    yield table


def _style(condition: Condition) -> str:
    if condition.status is ConditionStatus.UNKNOWN:
        return "yellow"
    is_good = (condition.status is ConditionStatus.TRUE) is not (condition.type in _GOOD_WHEN_FALSE)
    return "green" if is_good else "red"


def _figure(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"
