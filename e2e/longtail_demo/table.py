"""The live table: the last looks, newest at the bottom. Plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from longtail_demo.sample import Sample

_ROWS = 14
_BAR = 40


def render(samples: Sequence[Sample], *, phase: str) -> Group:
    """Return the table of the last looks."""
    table = Table(title=f"longtail demo: {phase}", expand=False)
    for column in ("t s", "offered/s", "running", "waiting", "owed tokens", "asked", "ready", "draining", "desired"):
        table.add_column(column, justify="right")
    table.add_column("reason")
    for sample in samples[-_ROWS:]:
        table.add_row(*_cells(sample))
    message = samples[-1].message if samples else ""
    return Group(table, Text(message, style="dim"))


def plain(sample: Sample) -> str:
    """Return one look as a line."""
    names = ("t", "offered/s", "running", "waiting", "owed", "asked", "ready", "draining", "desired", "reason")
    return "  ".join(f"{name} {cell}" for name, cell in zip(names, _cells(sample), strict=True))


def bars(samples: Sequence[Sample], console: Console) -> None:
    """Print the replicas as a small bar chart, for those who do not open the picture."""
    step = max(1, len(samples) // 20)
    most = max((sample.current for sample in samples), default=1)
    for sample in samples[::step]:
        serving = round(_BAR * max(sample.ready - sample.draining, 0) / most)
        draining = max(round(_BAR * sample.ready / most) - serving, 0)
        starting = max(round(_BAR * sample.current / most) - serving - draining, 0)
        bar = f"{'█' * serving}{'▒' * draining}{'░' * starting}"
        console.print(f"{sample.seconds:4.0f} s  {bar}  {sample.current}", highlight=False)
    console.print("         █ serving  ▒ draining  ░ starting", highlight=False)


def _cells(sample: Sample) -> tuple[str, ...]:
    return (
        f"{sample.seconds:.0f}",
        f"{sample.offered_requests_per_second:.0f}",
        str(sample.running_requests),
        str(sample.waiting_requests),
        "–" if sample.owed_tokens is None else f"{sample.owed_tokens:,.0f}",
        str(sample.current),
        str(sample.ready),
        str(sample.draining),
        "–" if sample.desired is None else f"{sample.desired:.0f}",
        sample.reason,
    )
