"""A backtest for people: one table, what would have done better, and what all of it rests on."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from longtail.workbench.backtest import Backtest
from longtail.workbench.backtest_scores import Row

_MOST_BETTER = 5


def report(result: Backtest, *, resource: str, since: str, step_seconds: int) -> RenderableType:
    """All there is to say about a backtest."""
    scored = f"{result.scored_hours:.1f} h scored"
    unknown = f", {result.unknown_percent:.1f} % unknown and left out" if result.unknown_percent >= 0.05 else ""
    title = f"{resource}, last {since} ({scored}{unknown}), one decision every {step_seconds} s"
    return Group(_table(result, title), *_advice(result), Text(""), *_assumptions(result))


def _table(result: Backtest, title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("", overflow="fold")
    within = f"≤ {result.objective_seconds:.0f} s"
    for column in ("GPU-hours", "short of slots", within, "mean wait", "p99 wait", "turns", "cut short"):
        table.add_column(column, justify="right")
    for row in result.rows:
        table.add_row(
            row.name,
            f"{row.gpu_hours:,.1f}",
            f"{row.under_capacity_percent:.2f} %",
            f"{row.attainment_percent:.2f} %",
            f"{row.mean_wait_seconds:.1f} s",
            f"{row.p99_wait_seconds:.0f} s",
            f"{row.direction_changes}",
            f"{row.cut_requests:,.0f}",
        )
    return table


def _advice(result: Backtest) -> Iterator[Text]:
    base = next((row for row in result.rows if row.name.startswith("longtail")), result.rows[0])
    if not result.better:
        yield Text(f"None of the other fields tried would have done better at {result.objective_percent:.0f} %.")
        return
    yield Text(f"Would have done better than {base.name}:", style="bold")
    for row in result.better[:_MOST_BETTER]:
        yield Text(f"  {_fields(row)}: {_gain(row, base)}")


def _fields(row: Row) -> str:
    return ", ".join(f"{path}: {value}" for path, value in row.changes.items()) or row.name


def _gain(row: Row, base: Row) -> str:
    hours = 100 * (row.gpu_hours / base.gpu_hours - 1) if base.gpu_hours else 0.0
    return (
        f"{hours:+.1f} % GPU-hours, {row.attainment_percent:.2f} % instead of {base.attainment_percent:.2f} % in time"
    )


def _assumptions(result: Backtest) -> Iterator[Text]:
    learned = result.learned
    yield Text(
        f"Taken as given: the recorded arrivals and lengths (at most {result.peak_requests:.0f} requests at a time), "
        f"{learned.slots_per_replica:.0f} slots a replica ({learned.bound_by}), a cold start of "
        f"{learned.cold_start_seconds:.0f} s, GPUs whenever they are asked for. Waits are averages over a step: bursts "
        "within one are not seen. longtail's replicas finish what they have before they go, and that is paid for; what "
        "peers remove goes at once, and what that cuts short is counted, not replayed.",
        style="dim",
    )
