"""The costs of services over a time, as figures and as a table."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from longtail.control.costs import priced, significant
from longtail.control.prices import Prices
from longtail.policy.accounting import PHASES, Account, Phase
from longtail.workbench.cost_history import altogether, summed

_OTHERS = (Phase.UNAVAILABLE, Phase.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Row:
    """One service, or all of them. None: not known."""

    name: str
    gpu_hours: float
    gpu_hours_by_phase: Mapping[str, float]
    gpu_hours_by_class: Mapping[str, float]
    amount: float | None
    """Money; None where a class of its GPUs has no price."""
    amount_by_phase: Mapping[str, float] | None
    answered_requests: float
    output_tokens: float
    amount_per_thousand_answers: float | None
    amount_per_million_output_tokens: float | None
    amount_per_million_reasoning_tokens: float | None
    gpu_hours_per_thousand_answers: float | None
    idle_percent: float | None
    """Of the time of ready replicas: their GPUs did nothing."""
    operator_percent: float
    """Share of the time that the operator's own counters tell; the rest is from the engines' series."""


@dataclass(frozen=True, slots=True)
class CostReport:
    """Of one namespace."""

    namespace: str
    since: str
    until: str
    currency: str | None
    services: Sequence[Row]
    total: Row
    not_counted: Sequence[str] = ()
    """Services of which nobody says how many GPUs a replica takes."""
    unpriced: Sequence[str] = ()
    """Classes of GPU without a price."""


def row(name: str, classes: Mapping[str, Account], prices: Prices | None, *, operator_share: float) -> Row:
    """The figures of some accounts by class of GPU."""
    one = altogether(classes)
    by_class = {gpu_class: account.gpu_seconds / 3600 for gpu_class, account in classes.items() if account.gpu_seconds}
    amounts = {
        gpu_class: None if prices is None else priced(hours, prices.of(gpu_class))
        for gpu_class, hours in by_class.items()
    }
    known = [amount for amount in amounts.values() if amount is not None]
    amount = sum(known) if prices is not None and len(known) == len(amounts) else None
    hours = one.gpu_seconds / 3600
    mean_price = amount / hours if amount is not None and hours else None
    by_phase = {str(phase): seconds / 3600 for phase, seconds in zip(PHASES, one.by_phase, strict=True)}
    return Row(
        name=name,
        gpu_hours=hours,
        gpu_hours_by_phase=by_phase,
        gpu_hours_by_class=by_class,
        amount=amount,
        amount_by_phase=None if amount is None else _amounts(classes, prices),
        answered_requests=one.answered_requests,
        output_tokens=one.output_tokens,
        amount_per_thousand_answers=_times(one.gpu_hours_per_answer, mean_price, 1e3),
        amount_per_million_output_tokens=_times(one.gpu_hours_per_output_token, mean_price, 1e6),
        amount_per_million_reasoning_tokens=_times(one.gpu_hours_per_reasoning_token, mean_price, 1e6),
        gpu_hours_per_thousand_answers=_times(one.gpu_hours_per_answer, 1.0, 1e3),
        idle_percent=None if one.idle_share is None else 100 * one.idle_share,
        operator_percent=100 * operator_share,
    )


def report_of(
    namespace: str,
    readings: Sequence[tuple[str, Mapping[str, Account], float]],
    prices: Prices | None,
    *,
    since: float,
    until: float,
    not_counted: Sequence[str] = (),
) -> CostReport:
    """The figures of all services.

    Args:
        namespace: of all of them.
        readings: name, accounts by class of GPU, and share of the time that the operator counted.
        prices: None where there are none.
        since: Unix seconds.
        until: Unix seconds.
        not_counted: names of services that are not whole.
    """
    rows = [row(name, classes, prices, operator_share=share) for name, classes, share in sorted(readings)]
    rows = [replace(each, amount=None, amount_by_phase=None) if each.name in not_counted else each for each in rows]
    everything: dict[str, Account] = {}
    for _, classes, _ in readings:
        everything = summed({0: everything}, classes)
    total = row("all", everything, prices, operator_share=sum(share for _, _, share in readings) / len(readings))
    if any(each.output_tokens and each.amount_per_million_reasoning_tokens is None for each in rows):
        # What a gateway tells of one service says nothing of another.
        total = replace(total, amount_per_million_reasoning_tokens=None)
    unpriced = {gpu_class for gpu_class in total.gpu_hours_by_class if prices is None or prices.of(gpu_class) is None}
    return CostReport(
        namespace=namespace,
        since=time_text(since),
        until=time_text(until),
        currency=None if prices is None else prices.currency,
        services=rows,
        total=total,
        not_counted=not_counted,
        unpriced=sorted(unpriced),
    )


def time_text(unix_seconds: float) -> str:
    """A time as RFC 3339 writes it.

    >>> time_text(1795507200)
    '2026-11-24T08:00:00Z'
    """
    return datetime.fromtimestamp(unix_seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def table(report: CostReport) -> RenderableType:
    """All there is to say, for people."""
    return Group(_table(report), *_notes(report))


def _amounts(classes: Mapping[str, Account], prices: Prices | None) -> dict[str, float]:
    found = dict.fromkeys(map(str, PHASES), 0.0)
    for gpu_class, account in classes.items():
        price = prices.of(gpu_class) if prices is not None else None
        for phase, seconds in zip(PHASES, account.by_phase, strict=True):
            found[phase] += priced(seconds / 3600, price) or 0.0
    return found


def _times(gpu_hours: float | None, price: float | None, times: float) -> float | None:
    return None if gpu_hours is None or price is None else gpu_hours * price * times


def _table(report: CostReport) -> Table:
    table = Table(
        title=f"{report.namespace}, {report.since} to {report.until}", title_justify="left", title_style="bold"
    )
    table.add_column("", overflow="fold")
    money = f", {report.currency}" if report.currency else ""
    for column in ("GPUs", "GPU-hours", *([f"cost{money}"] if money else [])):
        table.add_column(column, justify="right")
    for column in (Phase.SERVING, Phase.HEADROOM, "cold starts", "drains", "other"):
        table.add_column(column, justify="right")
    per = report.currency or "GPU-hours"
    for column in (f"1,000 answers, {per}", *([f"1M reasoning tokens{money}"] if money else [])):
        table.add_column(column, justify="right")
    rows = report.services if len(report.services) == 1 else [*report.services, report.total]
    for each in rows:
        table.add_row(*_cells(each, priced_too=bool(money)), end_section=each is rows[-2] if len(rows) > 1 else False)
    return table


def _cells(each: Row, *, priced_too: bool) -> Iterator[str]:
    yield each.name
    yield ", ".join(sorted(each.gpu_hours_by_class)) or "-"
    yield f"{each.gpu_hours:,.1f}"
    if priced_too:
        yield "?" if each.amount is None else f"{each.amount:,.2f}"
    others = sum(each.gpu_hours_by_phase[phase] for phase in _OTHERS)
    for hours in (
        *(each.gpu_hours_by_phase[phase] for phase in (Phase.SERVING, Phase.HEADROOM, Phase.STARTING, Phase.DRAINING)),
        others,
    ):
        yield f"{100 * hours / each.gpu_hours:.1f} %" if each.gpu_hours else "-"
    yield _figure(each.amount_per_thousand_answers if priced_too else each.gpu_hours_per_thousand_answers)
    if priced_too:
        yield _figure(each.amount_per_million_reasoning_tokens)


def _figure(value: float | None) -> str:
    return "?" if value is None else significant(value, 3)


def _notes(report: CostReport) -> Iterator[Text]:
    for name in report.not_counted:
        yield Text(f"{name} is not counted: nobody says how many GPUs a replica takes (spec.gpus).", style="yellow")
    seen = [each for each in report.services if each.gpu_hours]
    partly = [each for each in seen if each.operator_percent < 99.5]
    if partly:
        worst = min(each.operator_percent for each in partly)
        yield Text(
            f"{_listed(each.name for each in partly)}: the operator's own counters tell {worst:.0f} % of the time or "
            "more; the rest is from the engines' series, where cold starts and drains are not seen.",
            style="dim",
        )
    if report.unpriced:
        yield Text(f"There is no price of {_listed(report.unpriced)}: give it with --prices.", style="dim")
    if any(each.amount_per_million_reasoning_tokens is None and each.amount for each in seen):
        yield Text("Reasoning tokens are told by a gateway alone: spec.gateway.model.", style="dim")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
