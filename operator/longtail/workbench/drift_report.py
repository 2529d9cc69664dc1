"""Writes the figures of the drift benchmark into a document, between two marks; the words around them stay."""

from collections.abc import Iterable, Sequence
from typing import Any

from longtail.workbench.bench_report import replace_figures, table


def with_drift_figures(document: str, figures: dict[str, Any]) -> str:
    """The document with the figures of the drift benchmark between the marks.

    Raises:
        ValueError: a mark is missing.
    """
    return replace_figures(document, render(figures))


def render(figures: dict[str, Any]) -> str:
    """All figures as Markdown."""
    setting = figures["setting"]
    lines = [
        f"{setting['machine']}; {setting['seeds']} seeds from {setting['seed']}; model `{setting['model']}`.",
        "",
        "### One change",
        "",
        *table(_CHANGE_TITLES, 0, map(_change_row, figures["changes"])),
        "",
        "### No change",
        "",
        *table(
            ("requests/s", "service-days", "false alarms", "of the ratio of means"),
            0,
            (
                (f"{row['per_second']:g}", str(row["days"]), str(row["alarms"]), str(row["baseline_alarms"]))
                for row in figures["steady"]
            ),
        ),
    ]
    if "real" in figures:
        lines += ["", "### Real traces", "", *table(_REAL_TITLES, 2, _real_rows(figures["real"]))]
    return "\n".join(lines) + "\n"


_CHANGE_TITLES = (
    "requests/s",
    "factor",
    "found",
    "too early",
    "delay, min",
    "9 of 10",
    "onset off by, min",
    "factor off after 30 min",
    "after 2 h",
    "ratio of means: found",
    "delay, min",
)


def _change_row(row: dict[str, Any]) -> Sequence[str]:
    services = row["services"]
    return (
        f"{row['per_second']:g}",
        f"{row['factor']:g}",
        f"{row['found']}/{services}",
        str(row["before"]),
        _minutes(row["delay_seconds"], "p50"),
        _minutes(row["delay_seconds"], "p90"),
        _minutes(row["onset_error_seconds"], "p50"),
        *("–" if error is None else f"{error:.0%}" for error in row["factor_errors"]),
        f"{row['baseline_found']}/{services}",
        _minutes(row["baseline_delay_seconds"], "p50"),
    )


_REAL_TITLES = ("traces", "detector", "days", "alarms", "false", "false a day", "changes ≥ 1.5", "found", "delay, min")


def _real_rows(rows: Sequence[dict[str, Any]]) -> Iterable[Sequence[str]]:
    totals: dict[str, dict[str, Any]] = {}
    for row in rows:
        total = totals.setdefault(row["detector"], {"traces": "**all**", "detector": row["detector"]})
        for name in ("days", "alarms", "false", "changes", "found"):
            total[name] = total.get(name, 0) + row[name]
    for row in (*rows, *totals.values()):
        yield (
            row["traces"],
            row["detector"],
            str(row["days"]),
            str(row["alarms"]),
            str(row["false"]),
            f"{row['false'] / row['days']:.2f}",
            str(row["changes"]),
            str(row["found"]),
            _minutes(row.get("delay_seconds"), "p50"),
        )


def _minutes(seconds: dict[str, float] | None, which: str) -> str:
    return "–" if seconds is None else f"{seconds[which] / 60:.1f}"
